"""Over real HTTP: each fault of a judge is found by the probe meant for it, and an honest judge passes them all."""

from __future__ import annotations

import pytest

from jupiter.evaluator.judge.probes import PROBES, probe_comparisons
from tests.unit.judge.court import judge_at, judged
from tests.unit.judge.endpoint import (
    Character,
    Reply,
    at_random,
    character,
    decisive,
    endpoint,
    flattery_lover,
    honest,
    length_lover,
    obedient,
    swapped_arguments,
    undecided_by_place,
)

NAMES = ["answers", *(probe.name for probe in PROBES)]


def test_an_honest_judge_passes_and_its_verdicts_count() -> None:
    with endpoint(character(honest)) as served:
        judgement = judged(judge_at(served.url))
    assert judgement.usable, judgement.reason
    assert judgement.reason == ""
    assert [probe.name for probe in judgement.probes] == NAMES
    assert all(probe.passed for probe in judgement.probes)
    assert [(pair.forward, pair.swapped) for pair in judgement.pairs] == [("candidate", "candidate")] * 6
    assert {(pair.candidate, pair.generator) for pair in judgement.pairs} == {(1.0, 0.0)}
    assert [pair.cluster for pair in judgement.pairs] == ["group0", "group0", "group1", "group1", "group2", "group2"]


@pytest.mark.parametrize(
    ("behave", "failed"),
    [
        (
            character(lambda _: "first"),
            ["known_good", "same_answer", "swapped", "flattery", "instruction", "only_longer"],
        ),
        (character(swapped_arguments), ["known_good", "flattery", "instruction", "only_longer"]),
        (character(length_lover), ["only_longer"]),
        (character(flattery_lover), ["flattery"]),
        (character(obedient), ["instruction"]),
        (character(decisive), ["same_answer"]),
        (character(undecided_by_place), ["swapped"]),
        (character(lambda _: "tie"), ["known_good", "flattery", "instruction", "only_longer"]),
    ],
    ids=["first", "swapped", "length", "flattery", "obedient", "decisive", "place", "tie"],
)
def test_each_fault_fails_the_probe_meant_for_it(behave: Character, failed: list[str]) -> None:
    with endpoint(behave) as served:
        judgement = judged(judge_at(served.url))
    assert [probe.name for probe in judgement.probes if not probe.passed] == failed
    assert [probe.name for probe in judgement.probes] == NAMES
    assert not judgement.usable
    assert judgement.pairs == ()
    for name in failed:
        assert f"failed the probe {name}: " in judgement.reason
    # The pairs were never asked: no verdict of an unfit judge exists that somebody could use.
    assert len(served.asked) == probe_comparisons()


def test_verdicts_the_wrong_way_round_are_called_so() -> None:
    with endpoint(character(swapped_arguments)) as served:
        reason = judged(judge_at(served.url)).reason
    assert "0 of 12 verdicts name the good answer, at least 11 must" in reason
    assert "its verdicts are the wrong way round" in reason


@pytest.mark.parametrize("seed", range(5))
def test_a_judge_that_draws_its_verdicts_is_refused(seed: int) -> None:
    with endpoint(character(at_random(seed))) as served:
        judgement = judged(judge_at(served.url))
    assert not judgement.usable
    assert {"known_good", "same_answer"} <= {probe.name for probe in judgement.probes if not probe.passed}


def test_a_judge_that_stops_answering_within_a_probe_is_refused_there() -> None:
    count = 0

    def tires(asked: object) -> Reply:
        nonlocal count
        count += 1
        return character(honest)(asked) if count <= 15 else Reply(status=503)  # type: ignore[arg-type]

    with endpoint(tires) as served:
        judgement = judged(judge_at(served.url, in_flight=1))
    assert [(probe.name, probe.passed) for probe in judgement.probes] == [
        ("answers", True),
        ("known_good", True),
        ("same_answer", False),
    ]
    assert "failed the probe same_answer: 6 of 8 questions were not answered: HTTP 503: broken" in judgement.reason
