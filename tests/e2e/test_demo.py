"""`jupiter demo` as a user runs it, with the tiny model: a control that the gate refuses, its report and its figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jupiter.config import ClusterConfig
from jupiter.local.report import READ_FROM
from tests.e2e.cycle import RATIO_MAX, RATIO_MIN, prepare, until
from tests.e2e.test_cycle import ended, jupiter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterConfig:
    monkeypatch.chdir(tmp_path)
    config = prepare(tmp_path)
    # The settings for a model that learns in seconds come from the environment, which wins.
    (tmp_path / "config" / "demo.yaml").write_text("data_dir: nowhere\n")
    return config


async def test_a_control_ends_well_with_a_report_that_says_the_gate_refused(
    config: ClusterConfig, tmp_path: Path
) -> None:
    report_path, figure_path, log = (tmp_path / name for name in ("demo-report.json", "demo-report.png", "demo.log"))
    for path in (report_path, figure_path):
        path.write_text("of an earlier run")
    with jupiter(config, log, "demo", "--control", "shuffled") as demo:
        await until(lambda: "controller is ready" in log.read_text() or demo.poll() is not None, what="the API")
        assert not report_path.exists()
        assert not figure_path.exists()
        with jupiter(config, log, "publish", "documents.jsonl") as publishing:
            await ended(publishing, log)
        await ended(demo, log)
    said = log.read_text()
    report = json.loads(report_path.read_text())
    assert (report["control"], report["promoted"], report["as_expected"]) == ("shuffled", False, True)
    decided = [one for one in report["evaluations"] if one["verdict"]]
    assert decided
    assert all(one["verdict"] in {"HOLD", "REJECT"} and one["reasons"] for one in decided)
    assert report["lost"] == 0, report["lost_by_kind"]
    assert RATIO_MIN <= report["real_ratio_by_tokens"] <= RATIO_MAX
    assert report["objects"]["shards"]
    assert set(READ_FROM) <= set(report)
    assert figure_path.read_bytes().startswith(b"\x89PNG")
    assert "the gate refused a student trained on shuffled answers" in said
    assert "next evaluation at step" in said
    assert not (tmp_path / "nowhere").exists()
