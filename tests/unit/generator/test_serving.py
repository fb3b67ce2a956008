"""The switch: work in hand keeps its version alive, nothing is released twice or too early."""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from jupiter.generator.serving import Served, Serving


def served(version: int) -> Served:
    return Served(version=version, manifest_sha256=f"{version}", handle=object())


@given(
    keep_previous=st.booleans(),
    steps=st.lists(st.one_of(st.integers(1, 4), st.sampled_from(["begin", "end"])), max_size=30),
)
def test_a_version_is_released_once_and_never_while_it_is_used(keep_previous: bool, steps: list[int | str]) -> None:
    serving = Serving(keep_previous=keep_previous)
    in_hand: list[tuple[Served, ExitStack, list[Served]]] = []
    released: list[Served] = []
    for step in steps:
        if isinstance(step, int):
            released += serving.switch(serving.find(step, f"{step}") or served(step))
        elif step == "begin" and serving.current is not None:
            stack = ExitStack()
            in_hand.append((serving.current, stack, stack.enter_context(serving.hold(serving.current))))
        elif step == "end" and in_hand:
            _, stack, freed = in_hand.pop(0)
            stack.close()
            released += freed
        alive = [serving.current, serving.previous, *(held for held, _, _ in in_hand)]
        assert not [each for each in released if each in alive]
        assert len({id(each) for each in released}) == len(released)
        assert keep_previous or serving.previous is None


def test_the_same_number_of_other_content_is_another_version() -> None:
    serving = Serving()
    serving.switch(served(1))
    assert serving.find(1, "1") is serving.current
    assert serving.find(1, "other") is None
