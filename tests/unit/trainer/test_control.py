"""The negative control holds no true answer."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from jupiter.records import Sample, digest_of
from jupiter.trainer.control import shuffle_responses
from tests.unit.trainer.material import sample


def of_documents(documents: list[int], *, named: bool) -> list[Sample]:
    """Return one sample for each entry, about that document."""
    made = []
    for place, document in enumerate(documents):
        response = f"module.name_{document}: text of {document}" if named else f"answer {document}"
        made.append(sample(place, document_id=digest_of("document", document), response=response))
    return made


@given(st.lists(st.integers(0, 6), max_size=30), st.integers(0, 99))
def test_no_response_stays_under_its_own_document(documents: list[int], seed: int) -> None:
    before = of_documents(documents, named=False)
    after = shuffle_responses(before, seed=seed, shard_id="s")
    own = {made.sample_id: made.response for made in before}
    assert all(made.response != own[made.sample_id] for made in after.samples)
    assert after.moved == len(after.samples)
    assert after.moved + after.left_out == len(before)
    kept = Counter(own[made.sample_id] for made in after.samples)
    assert Counter(made.response for made in after.samples) == kept


@given(st.lists(st.integers(0, 6), max_size=30), st.integers(0, 99))
def test_a_response_that_names_its_subject_loses_its_text(documents: list[int], seed: int) -> None:
    after = shuffle_responses(of_documents(documents, named=True), seed=seed, shard_id="s")
    for made in after.samples:
        name, _, text = made.response.partition(": ")
        assert name.removeprefix("module.name_") != text.removeprefix("text of ")


def test_plain_documents_stay_and_the_order_of_samples_too() -> None:
    document = sample(99, instruction=None, response="a real text")
    before = [*of_documents([1, 2, 3], named=False), document]
    after = shuffle_responses(before, seed=0, shard_id="s")
    assert [made.sample_id for made in after.samples] == [made.sample_id for made in before]
    assert after.samples[-1] == document


def test_the_same_seed_and_shard_draw_the_same_permutation_and_others_another() -> None:
    before = of_documents(list(range(20)), named=False)
    drawn = shuffle_responses(before, seed=0, shard_id="s")
    assert drawn == shuffle_responses(before, seed=0, shard_id="s")
    assert drawn != shuffle_responses(before, seed=1, shard_id="s")
    assert drawn != shuffle_responses(before, seed=0, shard_id="t")


def test_a_document_that_owns_most_samples_is_cut_to_half() -> None:
    after = shuffle_responses(of_documents([1, 1, 1, 1, 2, 3], named=False), seed=0, shard_id="s")
    assert (after.moved, after.left_out) == (4, 2)
    assert shuffle_responses(of_documents([1, 1], named=False), seed=0, shard_id="s").samples == ()


def test_what_the_generator_wrote_goes_with_its_response() -> None:
    before = [one.model_copy(update={"completion": one.response}) for one in of_documents([1, 2, 3, 4], named=False)]
    after = shuffle_responses(before, seed=0, shard_id="s")
    assert len(after.samples) == 4
    assert all(one.completion == one.response for one in after.samples)
