"""The switch: work in hand keeps its version alive, nothing is released twice or too early."""

from __future__ import annotations

from contextlib import ExitStack, suppress

from hypothesis import given
from hypothesis import strategies as st

from jupiter.generator.serving import Served, Serving


def served(version: int) -> Served:
    return Served(version=version, manifest_sha256=f"{version}", handle=object())


@given(
    keep_previous=st.booleans(),
    steps=st.lists(st.one_of(st.integers(1, 4), st.sampled_from(["begin", "end", "fail"])), max_size=30),
)
def test_a_version_is_released_once_when_it_is_used_no_more(keep_previous: bool, steps: list[int | str]) -> None:
    serving = Serving(keep_previous=keep_previous)
    in_hand: list[tuple[Served, ExitStack, list[Served]]] = []
    known: list[Served] = []
    released: list[Served] = []
    for step in steps:
        if isinstance(step, int):
            released += serving.switch(serving.find(step, f"{step}") or served(step))
            assert serving.current is not None
            known.append(serving.current)
        elif step == "begin" and serving.current is not None:
            stack = ExitStack()
            in_hand.append((serving.current, stack, stack.enter_context(serving.hold(serving.current))))
        elif step in ("end", "fail") and in_hand:
            _, stack, freed = in_hand.pop(0)
            with suppress(ValueError), stack:
                if step == "fail":
                    raise ValueError
            released += freed
        alive = [serving.current, serving.previous, *(held for held, _, _ in in_hand)]
        assert not [each for each in released if each in alive]
        assert not [each for each in known if each not in alive and each not in released]
        assert len({id(each) for each in released}) == len(released)
        assert keep_previous or serving.previous is None


def test_a_version_that_is_withdrawn_takes_no_work_and_is_released_when_another_serves() -> None:
    serving = Serving()
    before, bad, again = served(1), served(2), served(2)
    serving.switch(before)
    serving.switch(bad)
    with serving.hold(bad) as to_release:
        serving.withdraw()
        assert serving.current is None
        assert serving.find(2, "2") is None
        assert serving.versions() == {1, 2}
        assert serving.switch(again) == []
    assert to_release == [bad]
    assert serving.previous is before


def test_the_same_number_of_other_content_is_another_version() -> None:
    serving = Serving()
    serving.switch(served(1))
    assert serving.find(1, "1") is serving.current
    assert serving.find(1, "other") is None
