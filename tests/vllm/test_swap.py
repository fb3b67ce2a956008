"""Weights that change in place: exact, one version per sample, and nothing lost, whenever it happens."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from jupiter.generator.engines import Prompt
from jupiter.modeling import record_golden
from jupiter.records import Sampling
from tests.tiny_model import tiny_texts
from tests.vllm.versions import GREEDY, Tenants, Versions, Working, engine_processes, prompts, write_golden

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LONG = Sampling(temperature=0, max_new_tokens=300)
VERY_LONG = Sampling(temperature=0, max_new_tokens=1000)


@pytest.fixture(scope="module")
def engine(versions: Versions) -> Tenants:
    return versions.engine()


@pytest.fixture(scope="module")
def hasty(versions: Versions) -> Tenants:
    """An engine that cuts samples off soon."""
    return versions.engine(drain_s_max=0.2, max_model_len=2048)


def test_after_a_swap_tokens_and_log_probabilities_are_those_of_a_fresh_engine_both_ways(
    versions: Versions, engine: Tenants
) -> None:
    other = versions.engine()
    a, b = engine.serve(versions.a), other.serve(versions.b)
    assert len(engine_processes()) == 2
    b_after_a, a_after_b = engine.serve(versions.b), other.serve(versions.a)
    assert len(engine_processes()) == 2
    for fresh, swapped in ((a, a_after_b), (b, b_after_a)):
        assert fresh.proof is not None
        assert swapped.proof is not None
        assert fresh.proof.own  # greedy tokens with their log-probabilities, alone in the engine
        assert swapped.proof.own == fresh.proof.own
    one_by_one = [[prompt] for prompt in prompts(6)]
    fresh_a = [other.texts(a_after_b, each) for each in one_by_one]
    swapped_a = [engine.texts(a, each) for each in one_by_one]
    assert swapped_a == fresh_a
    fresh_b = [other.texts(b, each) for each in one_by_one]
    assert fresh_b != fresh_a
    for weights in (b, a_after_b):
        other.release(weights)
    assert len(engine_processes(expected=1)) == 1


def test_an_output_head_of_its_own_is_swapped_and_nothing_but_it(versions: Versions) -> None:
    """SmolLM2's head is its embedding; one that is stored apart is loaded and packed on a way of its own."""
    plain = versions.make("untied", seed=7, tied=False)
    other_head = versions.copy(plain, "other_head")
    weights = load_file(plain / "model.safetensors")
    weights["lm_head.weight"] = load_file(versions.make("untied_too", seed=8, tied=False) / "model.safetensors")[
        "lm_head.weight"
    ]
    save_file(weights, other_head / "model.safetensors", metadata={"format": "pt"})
    write_golden(other_head, record_golden(other_head, dtype="float32"))
    first, second = versions.engine(), versions.engine()
    fresh = first.serve(plain), second.serve(other_head)
    running = engine_processes()
    swapped = second.serve(plain), first.serve(other_head)
    assert engine_processes() == running
    own = [weights.proof.own for weights in (*fresh, *swapped) if weights.proof is not None]
    assert own[:2] == own[2:]
    assert own[0] != own[1]
    for tenants, handle in ((first, fresh[0]), (second, fresh[1]), (second, swapped[0]), (first, swapped[1])):
        tenants.release(handle)


def test_work_in_hand_is_finished_by_its_own_weights_and_does_not_hold_up_a_promotion(
    versions: Versions, engine: Tenants
) -> None:
    a = engine.serve(versions.a)
    asked = prompts(48)
    expected = engine.texts(a, asked, LONG)
    b = engine.load(versions.b)
    with Working(engine, a, asked, LONG) as work:
        engine.attest(b)
        assert work.busy
    assert work.texts == expected
    assert work.samples == len(asked)
    assert work.tokens == sum(completion.tokens for completion in work.completions)


def test_two_batches_of_two_versions_at_once_are_each_of_one_version(versions: Versions, engine: Tenants) -> None:
    a, b = engine.serve(versions.a), engine.serve(versions.b)
    asked = prompts(24)
    expected_a, expected_b = engine.texts(a, asked), engine.texts(b, asked)
    with Working(engine, a, asked, GREEDY) as first, Working(engine, b, asked, GREEDY) as second:
        pass
    assert first.texts == expected_a
    assert second.texts == expected_b


def test_a_rollback_brings_the_old_weights_back_without_a_new_engine(versions: Versions, engine: Tenants) -> None:
    a = engine.serve(versions.a)
    expected = engine.texts(a, prompts(4))
    b = engine.serve(versions.b)
    assert engine.texts(b, prompts(4)) != expected
    engine.engine.activate(a)
    assert engine.texts(a, prompts(4)) == expected
    assert len(engine_processes()) == 1


@pytest.mark.parametrize("again", [False, True], ids=["another version", "the same, proved again"])
def test_at_the_deadline_samples_are_cut_off_and_made_again_from_their_beginning(
    again: bool, versions: Versions, hasty: Tenants, caplog: pytest.LogCaptureFixture
) -> None:
    a = hasty.serve(versions.a)
    asked = prompts(6)
    expected = hasty.texts(a, asked, VERY_LONG)
    proved = a if again else hasty.load(versions.b)
    with caplog.at_level(logging.WARNING), Working(hasty, a, asked, VERY_LONG, after=0) as work:
        while hasty.engine._host_of[a]._computing == set():
            time.sleep(0.01)
        hasty.attest(proved)
        assert work.busy
    assert "cut off and made again" in caplog.text
    assert work.texts == expected
    assert work.samples == len(asked)


def test_an_interrupted_batch_ends_at_once_and_the_next_one_is_whole(versions: Versions, engine: Tenants) -> None:
    class Stop(Exception):
        pass

    def stop(samples: int, tokens: int) -> None:
        raise Stop

    a = engine.serve(versions.a)
    with pytest.raises(Stop):
        engine.engine.generate(a, prompts(24), sampling=LONG, progress=stop)
    assert len(engine.texts(a, prompts(3))) == 3


def test_seeds_draw_and_stop_strings_stop(versions: Versions, engine: Tenants) -> None:
    a = engine.serve(versions.a)
    drawn = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=16)
    (prompt,) = prompts(1)
    seeds = [replace(prompt, seed=seed) for seed in range(5)]
    texts = engine.texts(a, seeds, drawn)
    assert len(set(texts)) == 5
    assert engine.texts(a, seeds, drawn) == texts
    (whole,) = engine.complete(a, [prompt])
    assert whole.finish_reason == "length"
    assert whole.tokens == GREEDY.max_new_tokens
    stop = whole.text[5:7]
    (cut,) = engine.complete(a, [replace(prompt, stop=(stop,))])
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]


def test_many_long_prompts_with_seeds_are_all_answered(versions: Versions, engine: Tenants) -> None:
    """More than vLLM reads in one step: a prompt read in parts and a seed killed its CPU engine."""
    a = engine.serve(versions.a)
    drawn = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=16)
    text = " ".join(" ".join(tiny_texts()).split()[:250])
    asked = [Prompt(text=f"{number} {text}", seed=number) for number in range(24)]
    made = engine.complete(a, asked, drawn)
    assert len(made) == len(asked)
    assert sum(len(a.tokenizer(one.prompt)["input_ids"]) for one in made) > 8192
