"""Each filter with what it keeps and what it drops."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupiter.curator.candidate import Candidate
from jupiter.curator.filters import Filter, filter_types
from jupiter.curator.filters.ambiguity import Ambiguity
from jupiter.curator.filters.answer_leakage import AnswerLeakage
from jupiter.curator.filters.caps import Caps
from jupiter.curator.filters.code import Code
from jupiter.curator.filters.decontamination import Decontamination
from jupiter.curator.filters.exact_duplicate import ExactDuplicate
from jupiter.curator.filters.grounding import Grounding
from jupiter.curator.filters.length import Length
from jupiter.curator.filters.near_duplicate import NearDuplicate
from jupiter.curator.filters.novelty import Novelty, rouge_l
from jupiter.curator.filters.prompt_leakage import PromptLeakage
from jupiter.curator.filters.provenance import Provenance
from jupiter.curator.filters.quality import Quality
from jupiter.curator.filters.refusal import Refusal
from jupiter.curator.filters.repetition import Repetition
from jupiter.curator.filters.schema import Schema
from jupiter.curator.filters.symbols import Symbols
from jupiter.curator.filters.truncation import Truncation
from jupiter.curator.history import History
from jupiter.curator.pipeline import candidates_of, judge
from jupiter.overlap.wording import words
from jupiter.records import Sample
from tests.unit.curator.material import (
    BENCHMARK_TEXT,
    GOOD,
    PASSAGE,
    SETTINGS,
    context,
    corpus,
    document,
    sample,
)


def verdict_on(filter_type: type[Filter], one: Sample, **changes: Any) -> str:
    """Return the reason a filter gives for one sample; empty when it keeps it."""
    made = context(one, **changes)
    verdict = filter_type(made).judge(made.batch[0])
    assert verdict.kept == (verdict.reason == "")
    return verdict.reason


def second_verdict(filter_type: type[Filter], first: Sample, second: Sample) -> str:
    """Return the reason given for `second` after `first` was kept."""
    made = context(first, second)
    filter_ = filter_type(made)
    assert filter_.judge(made.batch[0]).kept
    filter_.remember(made.batch[0])
    return filter_.judge(made.batch[1]).reason


def test_all_files_are_found_in_a_fixed_order() -> None:
    names = [filter_type.name for filter_type in filter_types()]
    assert names == [
        "schema",
        "forgotten",
        "provenance",
        "exact_duplicate",
        "length",
        "symbols",
        "repetition",
        "truncation",
        "refusal",
        "prompt_leakage",
        "answer_leakage",
        "code",
        "grounding",
        "ambiguity",
        "novelty",
        "near_duplicate",
        "decontamination",
        "quality",
        "caps",
    ]
    for filter_type in filter_types():
        assert filter_type.__module__.rpartition(".")[2] == filter_type.name


def test_a_good_sample_passes_all() -> None:
    judged = judge(context(sample(GOOD)))
    assert judged.dropped == {}
    assert 0.8 < judged.accepted[0].score <= 1


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (sample(GOOD), ""),
        (sample("  "), "empty"),
        (sample(GOOD, instruction=" "), "empty"),
        (sample("word " * 5_000), "too_large"),
        (sample("Broken \ufffd bytes were kept in this answer."), "broken_characters"),
        (sample("A bell \x07 rings in this answer."), "broken_characters"),
        (sample(GOOD, origin="real"), "not_synthetic"),
    ],
)
def test_schema(one: Sample, reason: str) -> None:
    assert verdict_on(Schema, one) == reason


def test_provenance_lets_nothing_of_a_held_out_document_through() -> None:
    held_out, unknown = "a" * 64, "b" * 64
    known = corpus(held_out=[held_out])
    assert verdict_on(Provenance, sample(GOOD), corpus=known) == ""
    assert verdict_on(Provenance, sample(GOOD, document_id=held_out), corpus=known) == "held_out_document"
    assert verdict_on(Provenance, sample(GOOD, document_id=unknown), corpus=known) == "unknown_document"
    assert verdict_on(Provenance, sample(GOOD, chunk_index=7), corpus=known) == "unknown_chunk"


def test_exact_duplicates_are_found_whatever_their_case_and_spacing() -> None:
    assert second_verdict(ExactDuplicate, sample(GOOD), sample(GOOD.upper().replace(" ", "  "))) == "exact_duplicate"
    assert second_verdict(ExactDuplicate, sample(GOOD), sample(GOOD, instruction="What else is there?")) == ""


def test_the_real_text_wins_over_its_copy() -> None:
    known = corpus()
    real = next(iter(known.real.values())).sample
    copy = sample(real.response, instruction=real.instruction)
    assert verdict_on(ExactDuplicate, copy, corpus=known) == "exact_duplicate_real"
    changed = sample(real.response.replace("compact", "shortest"), instruction=real.instruction)
    assert verdict_on(NearDuplicate, changed, corpus=known) == "near_duplicate_real"


def test_length_allows_an_answer_of_one_name() -> None:
    assert verdict_on(Length, sample("json.dumps", instruction="Which function serializes obj to JSON?")) == ""
    assert verdict_on(Length, sample("Yes it is so indeed.", instruction="Why?")) == "short_instruction"
    assert verdict_on(Length, sample("json.dumps", instruction="Oh dear")) == "short_response"
    assert verdict_on(Length, sample("!", instruction="Is it any good?")) == "short_response"
    assert verdict_on(Length, sample("a b c d e f g h i j", instruction="a b c")) == "word_length"
    assert verdict_on(Length, sample("word " * 2_001)) == "long_text"


def test_symbols() -> None:
    assert verdict_on(Symbols, sample(GOOD)) == ""
    assert verdict_on(Symbols, sample("Well ... it is ... so ... to speak.")) == "symbols"
    assert verdict_on(Symbols, sample("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16")) == "few_letters"
    assert verdict_on(Symbols, sample("Lorem ipsum dolor sit amet.")) == "page_boilerplate"
    names = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi"
    assert verdict_on(Symbols, sample(names)) == "few_stop_words"
    assert verdict_on(Symbols, sample("Use a dict such as {'key': 1} to pass the values.")) == ""


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (GOOD, ""),
        ("It returns a list, a list, and the tuple.", ""),
        ("same line\nsame line\nsame line\nother", "repeated_lines"),
        ("it is very very very very good for you", "repeated_word"),
        ("the key is the key and the key of the key to be", "repeated_2gram"),
        ("to be or not be to or be, to not or be", "few_distinct_words"),
        (
            "one of the best ways to go is this and that one of the best ways to go is this and that is it",
            "repeated_runs",
        ),
    ],
)
def test_repetition(response: str, reason: str) -> None:
    assert verdict_on(Repetition, sample(response)) == reason


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (sample("json.dumps"), ""),
        (sample("It returns a string", finish_reason="length"), "truncated"),
        (sample("It returns a string.", finish_reason="length"), ""),
        (sample("It returns a string of the"), "dangling_end"),
        (sample("It returns a string (see"), ""),
        (sample("It returns a string, a list,"), "dangling_end"),
        (sample("Call it so:\n```python\njson.dumps(1)"), "open_code_block"),
    ],
)
def test_truncation(one: Sample, reason: str) -> None:
    assert verdict_on(Truncation, one) == reason


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (GOOD, ""),
        ("As an AI language model I cannot say.", "refusal"),
        ("I'm sorry, but there is no such thing.", "refusal"),
        ("The passage does not mention it.", "refusal"),
        ("Sure! It serializes an object.", "chatter"),
        ("Here is the rewritten answer: it serializes.", "chatter"),
        ("Here is a question about json.", "chatter"),
        ("Raise an exception when the connection cannot provide access.", ""),
    ],
)
def test_refusal(response: str, reason: str) -> None:
    assert verdict_on(Refusal, sample(response)) == reason


def test_prompt_leakage() -> None:
    prompt = f"You are a careful teacher who writes one question for the reader.\n\n{PASSAGE}\n\nQuestion:"
    assert verdict_on(PromptLeakage, sample(GOOD, prompt=prompt)) == ""
    assert verdict_on(PromptLeakage, sample("<|im_start|>It serializes obj.")) == "chat_markup"
    assert verdict_on(PromptLeakage, sample("Answer: it serializes obj.")) == "prompt_label"
    assert verdict_on(PromptLeakage, sample(GOOD, instruction="What does the passage say?")) == "refers_to_passage"
    assert verdict_on(PromptLeakage, sample("It returns the current decimal context.")) == ""
    copied = sample("Write as a careful teacher who writes one question for the reader.", prompt=prompt)
    assert verdict_on(PromptLeakage, copied) == "copies_prompt"
    # Words of the passage are meant to be used, however many in a row.
    assert verdict_on(PromptLeakage, sample(PASSAGE, prompt=prompt)) == ""


def test_a_question_for_the_name_must_not_hold_it() -> None:
    title = "json.skip_keys"
    known = corpus(document(title=title))
    good = sample(title, instruction="Writes an obj as a string of JSON. What is it called?")
    telling = sample(title, instruction="It will skip_keys of the dict. What is it called?")
    assert verdict_on(AnswerLeakage, good, corpus=known) == ""
    assert verdict_on(AnswerLeakage, telling, corpus=known) == "names_the_answer"
    assert verdict_on(AnswerLeakage, sample(GOOD), corpus=known) == ""
    # `keys` and `json` stand in the passage.
    passage_words = sample(title, instruction="Writes keys as JSON. What is it called?")
    assert verdict_on(AnswerLeakage, passage_words, corpus=known) == ""


def test_where_the_answer_is_the_name_the_question_is_judged() -> None:
    grounded = sample("json.dumps", instruction="Writes an obj as a JSON formatted string. What is it called?")
    invented = sample("json.dumps", instruction="Draws green boxes around JSON windows on screens. What is it called?")
    assert verdict_on(Grounding, grounded) == ""
    assert verdict_on(Grounding, invented) in {"ungrounded_words", "ungrounded_question"}
    assert verdict_on(Length, sample("json.dumps", instruction="Called so")) == "short_response"
    assert (
        verdict_on(
            Length,
            sample("xml.dom.minidom.x", instruction="Called so"),
            corpus=corpus(document(title="xml.dom.minidom.x")),
        )
        == "short_claim"
    )


def test_a_title_is_no_evidence_and_one_word_is_chance() -> None:
    known = corpus(document("Generate all the opcodes in a pickle.", title="pickletools.genops"))
    about_its_name = sample("pickletools is a library that lets you write genops.", instruction="Explain genops.")
    document_id = next(iter(known.real.values())).sample.document_id
    about_its_name = about_its_name.model_copy(update={"document_id": document_id})
    assert verdict_on(Grounding, about_its_name, corpus=known) == "ungrounded_words"
    thin = sample("A pickle.", instruction="Explain genops.", document_id=document_id)
    assert verdict_on(Grounding, thin, corpus=known) == "thin_claim"
    good = sample("It generates the opcodes of a pickle.", instruction="Explain genops.", document_id=document_id)
    assert verdict_on(Grounding, good, corpus=known) == ""


def test_one_question_has_one_answer() -> None:
    other = document("Write bytes to a file descriptor.", title="os.write")
    known = corpus(document(), other)
    question = "Which one writes it? What is it called?"
    first = sample("json.dumps", instruction=question)
    second = sample("os.write", instruction=question, document_id=other.document_id)
    made = context(first, second, corpus=known)
    ambiguity = Ambiguity(made)
    ambiguity.remember(made.batch[0])
    assert [ambiguity.judge(candidate).reason for candidate in made.batch] == ["", "ambiguous_question"]
    history = History(near_duplicate_threshold=SETTINGS.near_duplicate_threshold)
    history.apply("f" * 64, [first], {first.sample_id: made.batch[0].signature})
    assert verdict_on(Ambiguity, second, corpus=known, history=history) == "ambiguous_question"
    real = sample("os.write", instruction=f"{PASSAGE} What is it called?", document_id=other.document_id)
    assert verdict_on(Ambiguity, real, corpus=known) == "ambiguous_question"


def test_the_passage_over_again_is_no_new_sample() -> None:
    assert verdict_on(Novelty, sample(f"json.dumps: {PASSAGE}", instruction="Explain dumps.")) == "copies_passage"
    assert verdict_on(Novelty, sample(GOOD)) == ""


def test_code_must_parse_and_pass_its_test() -> None:
    def passes(code: str, test: str) -> str | None:
        return None if "dumps" in code else "code_fails_test"

    good = sample("```python\nimport json\nx = json.dumps({})\n```", test="assert x == '{}'", task="code")
    bad = sample("x = 1", test="assert x == '{}'", task="code")
    assert verdict_on(Code, sample(GOOD)) == ""
    assert verdict_on(Code, good, run_code=passes) == ""
    assert verdict_on(Code, bad, run_code=passes) == "code_fails_test"
    assert verdict_on(Code, sample("def broken(:", task="code")) == "code_does_not_parse"
    assert verdict_on(Code, sample("See:\n```python\nx = (\n```")) == "code_does_not_parse"
    assert verdict_on(Code, sample("See:\n```python\n>>> json.dumps(1)\n'1'\n```")) == ""


def test_without_a_sandbox_code_with_a_test_is_dropped() -> None:
    one = sample("import json\nx = json.dumps({})", test="assert x == '{}'", task="code")
    assert verdict_on(Code, one) == "sandbox_unavailable"


def test_grounding() -> None:
    assert verdict_on(Grounding, sample(GOOD)) == ""
    assert verdict_on(Grounding, sample("It gives the compact form with indent 4.")) == ""
    assert verdict_on(Grounding, sample("It gives the compact form with indent 2.")) == "ungrounded_figure"
    assert verdict_on(Grounding, sample("It downloads web pages over an encrypted socket.")) == "ungrounded_words"
    asked = sample("It will serialize obj.", instruction="Where do penguins build their nests?")
    assert verdict_on(Grounding, asked) == "ungrounded_question"
    code = sample("import json\nprint(json.dumps([1, 2, 77]))", task="code", test="assert True")
    assert verdict_on(Grounding, code) == ""
    assert verdict_on(Grounding, sample("print(77)", task="code")) == "code_off_topic"


def test_novelty_compares_within_a_document_only() -> None:
    one = sample("It turns obj into a JSON formatted string.", instruction="What does json.dumps do with obj?")
    same = sample("It turns obj into one JSON formatted string.", instruction="What does json.dumps do to obj?")
    other_words = sample("Basic types are written as JSON text.", instruction="What does json.dumps do with obj?")
    elsewhere = same.model_copy(update={"document_id": "c" * 64})
    assert second_verdict(Novelty, one, same) == "not_novel"
    assert second_verdict(Novelty, one, other_words) == ""
    assert second_verdict(Novelty, one, elsewhere) == ""


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence() -> None:
    assert rouge_l(words("the cat sat on the mat"), words("the cat lay on a mat")) == pytest.approx(8 / 12)
    assert rouge_l([], []) == 1
    assert rouge_l(["a"], []) == 0


def test_near_duplicates_in_the_batch_and_in_earlier_shards() -> None:
    one, close = sample(GOOD), sample(GOOD.replace("on request", "when asked"))
    assert second_verdict(NearDuplicate, one, close) == "near_duplicate_batch"
    history = History(near_duplicate_threshold=SETTINGS.near_duplicate_threshold)
    made = candidates_of([one], corpus())[0]
    history.apply("f" * 64, [one], {one.sample_id: made.signature})
    assert verdict_on(NearDuplicate, close, history=history) == "near_duplicate_earlier"
    assert verdict_on(ExactDuplicate, one, history=history) == "exact_duplicate"
    far = sample("If skipkeys is true then dict keys of other types raise no TypeError.")
    assert verdict_on(NearDuplicate, far, history=history) == ""


def test_decontamination() -> None:
    assert verdict_on(Decontamination, sample(GOOD)) == ""
    assert verdict_on(Decontamination, sample(f"Note: {BENCHMARK_TEXT}")) == "contaminated_run"
    part = " ".join(BENCHMARK_TEXT.split()[:14])
    assert verdict_on(Decontamination, sample(f"They say: {part.upper()}!")) == "contaminated_run"
    assert verdict_on(Decontamination, sample(" ".join(BENCHMARK_TEXT.split()[:10]))) == ""


def test_quality_drops_only_the_bottom() -> None:
    assert verdict_on(Quality, sample(GOOD)) == ""
    assert verdict_on(Quality, sample("json.dumps", instruction="Which function can serialize obj?")) == ""
    poor = sample("zz zz zz zz zz zz zz zz zz,", instruction="Where do penguins build nests?")
    assert verdict_on(Quality, poor) == "low_quality"


def test_caps_per_document_topic_and_template() -> None:
    many = [sample(f"{GOOD} {n}", seed=n) for n in range(30)]
    made = context(*many)
    caps = Caps(made)
    reasons = []
    for candidate in made.batch:
        verdict = caps.judge(candidate)
        reasons.append(verdict.reason)
        if verdict.kept:
            caps.remember(candidate)
    assert reasons.count("") == SETTINGS.document_samples_max
    assert set(reasons) == {"", "document_cap"}


def test_one_template_of_two_gets_at_most_its_share() -> None:
    other = document("Something else that is to be known about the csv module.", group="csv", title="csv.reader")
    known = corpus(document(), other)
    many = [sample(f"{GOOD} {n}", seed=n, template="a") for n in range(9)] + [
        sample(f"{GOOD} {n}", seed=n, template="b", document_id=other.document_id) for n in range(1)
    ]
    made = context(*many, corpus=known)
    caps = Caps(made)
    kept: list[Candidate] = []
    for candidate in made.batch:
        if caps.judge(candidate).kept:
            caps.remember(candidate)
            kept.append(candidate)
    # Half of ten for the topic, before the template's .6 is reached.
    assert [candidate.sample.template for candidate in kept] == ["a"] * 5 + ["b"]


def test_what_a_later_filter_dropped_does_not_shadow_its_duplicates() -> None:
    """A contaminated sample must not make a clean near-copy of itself a duplicate."""
    contaminated = sample(f"{GOOD} {BENCHMARK_TEXT}")
    judged = judge(context(contaminated, sample(GOOD)))
    assert [accepted.candidate.sample.response for accepted in judged.accepted] == [GOOD]


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.text(max_size=60)),
            st.one_of(st.text(max_size=80), st.sampled_from([GOOD, PASSAGE, "json.dumps", "```python\nx = (\n```"])),
            st.sampled_from(["stop", "length"]),
            st.sampled_from(["question_answer", "code"]),
            st.one_of(st.none(), st.just("assert True")),
        ),
        max_size=4,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_a_generator_writes_gets_a_verdict(
    written: list[tuple[str | None, str, str, str, str | None]],
) -> None:
    samples = [
        sample(response, instruction, finish_reason=finish, task=task, test=test, seed=seed)
        for seed, (instruction, response, finish, task, test) in enumerate(written)
    ]
    judged = judge(context(*samples))
    assert len(judged.accepted) + len(judged.rejected) == len(samples)
    assert all(rejection.reason for rejection in judged.rejected)


def test_every_rejection_is_counted_once_with_its_filter() -> None:
    judged = judge(context(sample(GOOD), sample(GOOD), sample(""), sample("I'm sorry, I can't help with that obj.")))
    assert judged.dropped == {"empty": 1, "exact_duplicate": 1, "refusal": 1}
    assert [rejection.filter for rejection in judged.rejected] == ["exact_duplicate", "schema", "refusal"]
    assert judged.rejected[0].record()["reason"] == "exact_duplicate"
