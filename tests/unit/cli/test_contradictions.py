"""`jupiter check`: a name that nothing installed answers to is a line with the right one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jupiter.cli.contradictions import contradictions
from jupiter.cli.registries import ENGINES, ITEM_KINDS, JUDGE_KINDS, TASKS
from jupiter.config import ClusterConfig, DomainConfig
from jupiter.evaluator.items import item_kinds
from jupiter.evaluator.judge import judge_kinds
from jupiter.generator.engines import engine_names
from jupiter.generator.tasks import task_names

SOUND = {"name": "birds", "description": "Birds.", "tasks": [{"task": "rewrite"}]}


def problems(config: dict[str, object] | None = None, **domain: object) -> list[str]:
    return contradictions(ClusterConfig.model_validate(config or {}), DomainConfig.model_validate(SOUND | domain))


def test_the_registries_read_from_the_files_are_those_of_the_services() -> None:
    assert TASKS.names() == tuple(task_names())
    assert ENGINES.names() == tuple(engine_names())
    assert ITEM_KINDS.names() == tuple(sorted(item_kinds()))
    assert JUDGE_KINDS.names() == tuple(judge_kinds())


def test_they_are_read_without_importing_a_service() -> None:
    code = (
        "import sys; from jupiter.cli.registries import ENGINES, ITEM_KINDS; ENGINES.names(), ITEM_KINDS.names()\n"
        "print([name for name in sys.modules if name.startswith(('jupiter.generator', 'jupiter.evaluator', 'torch'))])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_what_is_sound_has_no_problem(tmp_path: Path) -> None:
    assert problems() == []
    own: dict[str, object] = {
        "generator": {"engine": "json.decoder", "base_model": str(tmp_path)},
        "judge": {"kind": "json.decoder"},
        "controller": {"host": "0.0.0.0", "api_keys": f"me admin {'0' * 64}"},  # noqa: S104
    }
    assert problems(own, benchmark_kinds=["prose_fact"], source="python_stdlib") == []
    assert problems({"judge": {"kind": "openai", "url": "http://here/v1", "model": "m"}}) == []
    assert problems({"judge": {"kind": "local", "directory": str(tmp_path)}}) == []


@pytest.mark.parametrize(
    ("config", "domain", "expected"),
    [
        ({}, {"tasks": [{"task": "rewrte"}]}, "birds.yaml: tasks: there is no 'rewrte'; did you mean 'rewrite'?"),
        ({}, {"tasks": [{"task": "sing"}]}, "birds.yaml: tasks: there is no 'sing'; there is: explain, locate"),
        (
            {},
            {"benchmark_kinds": ["next_pasage"]},
            "benchmark_kinds: there is no 'next_pasage'; did you mean 'next_pas",
        ),
        ({}, {"benchmark_kinds": ["passages"]}, "benchmark_kinds: there is no 'passages'"),
        (
            {},
            {"source": "python_stdlb"},
            "birds.yaml: source: there is no 'python_stdlb'; did you mean 'python_stdlib'",
        ),
        (
            {"generator": {"engine": "transfomers"}},
            {},
            "generator.engine: there is no 'transfomers'; did you mean 'trans",
        ),
        ({"generator": {"engine": "nowhere.engine"}}, {}, "generator.engine is 'nowhere.engine', a module of your own"),
        ({"generator": {"engine": ".engine"}}, {}, "no package '' is installed"),
        ({"judge": {"kind": "opnai"}}, {}, "judge.kind: there is no 'opnai'; did you mean 'openai'?"),
        (
            {"judge": {"kind": "openai", "url": "http://here/v1"}},
            {},
            "judge.kind is 'openai', but judge.model is empty",
        ),
        ({"judge": {"kind": "openai", "model": "m"}}, {}, "judge.kind is 'openai', but judge.url is empty"),
        ({"judge": {"kind": "local"}}, {}, "judge.kind is 'local', but judge.directory is '', which is no directory"),
        (
            {"judge": {"kind": "local", "directory": "/nowhere"}},
            {},
            "judge.directory is '/nowhere', which is no direct",
        ),
        ({"controller": {"host": "0.0.0.0"}}, {}, "0.0.0.0 is reachable from other machines"),  # noqa: S104
        ({"controller": {"api_keys": "nonsense"}}, {}, "controller.api_keys, line 1: expected `name scope sha256`"),
        ({"generator": {"base_model": "llm-smolm2"}}, {}, "which is no directory; nothing is downloaded; did you mean"),
        ({"generator": {"base_model": "org/model"}}, {}, "generator.base_model is 'org/model', which is no directory"),
    ],
)
def test_a_name_that_does_not_exist_is_named(
    config: dict[str, object], domain: dict[str, object], expected: str
) -> None:
    (problem,) = problems(config, **domain)
    assert expected in problem
