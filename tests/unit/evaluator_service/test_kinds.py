"""A domain may name the kinds of items of its benchmark; a name that is none is one clear line."""

from __future__ import annotations

import pytest

from jupiter.config import DomainConfig, TaskMix
from jupiter.errors import ConfigError
from jupiter.evaluator.wiring import chosen_kinds


def domain(*kinds: str) -> DomainConfig:
    return DomainConfig(name="domain_a", description="A test.", tasks=(TaskMix(task="t"),), benchmark_kinds=kinds)


def test_known_kinds_are_taken_and_none_means_all() -> None:
    assert chosen_kinds(domain("next_passage", "term_cloze")) == ("next_passage", "term_cloze")
    assert chosen_kinds(domain()) == ()


def test_an_unknown_kind_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(ConfigError, match=r"benchmark_kinds names next_page; there are .*next_passage"):
        chosen_kinds(domain("next_page"))
