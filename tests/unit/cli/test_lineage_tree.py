"""Lineage, recall and rollback as the command line prints them, against an API that answers with what is put there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from jupiter.cli import run
from jupiter.cli.lineage_tree import SHOWN_MAX, lineage_lines, withdrawal_lines

CHECKPOINT = {"checkpoint_id": "c" * 64, "run": "run1", "step": 20, "version": 3, "shards": 4}
CLEAN = {"checkpoint_id": "d" * 64, "run": "run1", "step": 10, "version": None, "shards": 0}
WITHDRAWAL: dict[str, Any] = {
    "ledger_sequence": 7,
    "version": 3,
    "batches": [{"shard": True}, {"shard": False}],
    "shards": [{"accepted": 12}],
    "checkpoints": [CHECKPOINT],
    "clean": CLEAN,
    "rewind": True,
    "run": "run1",
}
RECALL: dict[str, Any] = {
    "document_id": "e" * 64,
    "title": "json.dumps",
    "source": "docs/json.txt",
    "split": "training",
    "forgotten": True,
    "lines": ["already in weights of v2"],
    "batches": [{"sequence": 4, "generator_version": 1, "asked": 2}],
    "shards": [{"shard_id": "f" * 64, "synthetic": ["a", "b"], "real": ["c"]}],
    "checkpoints": [CHECKPOINT],
}


def lineage(documents: int) -> dict[str, Any]:
    part = {"title": None, "source": "docs/json.txt", "synthetic": 3, "real": 1, "forgotten": False}
    shard = {
        "shard_id": "a" * 64,
        "batch_sequence": 5,
        "generator_version": 1,
        "synthetic": 3,
        "real": 1,
        "withdrawn": True,
        "samples": None,
    }
    return {
        "version": 3,
        "checkpoint_id": "c" * 64,
        "run": "run1",
        "step": 20,
        "tokens_seen": 4000,
        "shards": [shard],
        "versions": [{"generator_version": 1, "batches": 1, "synthetic": 3}],
        "templates": {"explain/1": 3},
        "documents": [{**part, "document_id": f"{number:064d}"} for number in range(documents)],
    }


@contextmanager
def answering(answers: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """An API that answers by path; yields its address and what it was asked."""
    asked: list[tuple[str, Any]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            asked.append((self.path, json.loads(self.rfile.read(length)) if length else None))
            found = answers.get(self.path)
            data = json.dumps(found if found is not None else {"error": {"message": "no such thing"}}).encode()
            self.send_response(200 if found is not None else 404)
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_tree_shows_the_largest_and_counts_the_rest() -> None:
    short = lineage_lines(lineage(SHOWN_MAX + 5))
    assert short[:2] == ["v3", f"└─ checkpoint {'c' * 12}  run run1, step 20, 4000 tokens"]
    assert "   ├─ 1 shards: 3 synthetic samples, 1 real passages" in short
    assert any(line.endswith("withdrawn") for line in short)
    assert short[-1] == "      └─ … 5 more (--all, --json)"
    assert len(lineage_lines(lineage(SHOWN_MAX + 5), everything=True)) == len(short) + 4


def test_samples_are_named_below_their_shard() -> None:
    named = lineage(1)
    made: dict[str, Any] = {"origin": "synthetic", "document_id": "e" * 64, "template": "explain/1"}
    samples = [{**made, "sample_id": f"{number:064x}"} for number in range(SHOWN_MAX + 2)]
    samples[1] = {**samples[1], "origin": "real", "template": None}
    named["shards"] = [{**named["shards"][0], "samples": samples}]
    lines = [line.strip("│├└─ ") for line in lineage_lines(named)]
    place = next(number for number, line in enumerate(lines) if line.startswith("a" * 12))
    assert lines[place + 1] == f"{0:064x}  synthetic, of document {'e' * 12} by explain/1"
    assert lines[place + 2] == f"{1:064x}  real, of document {'e' * 12}"
    assert lines[place + 1 + SHOWN_MAX] == "… 2 more (--all, --json)"


def test_a_withdrawal_names_what_ate_it_and_the_last_that_did_not() -> None:
    assert withdrawal_lines({**WITHDRAWAL, "rewind": False}) == [
        (
            "withdrawn: 2 batches of version 3, 1 of them in shards with 12 synthetic samples; "
            "no later shard or round of training holds them"
        ),
        "already in the weights of:",
        f"  run1 step 20 ({'c' * 12}, v3): 4 shards",
        f"the last clean checkpoint: run1 step 10 ({'d' * 12}); `--rewind` sends the trainer back to it",
    ]
    alone = withdrawal_lines({**WITHDRAWAL, "checkpoints": [], "clean": None})
    assert alone[1:] == [
        "in no stored weights",
        "the trainer goes back to the starting model and trains on as run1-rewound-7",
    ]


def test_rollback_asks_for_quarantine_and_rewind_and_says_where_the_trainer_goes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = {
        "/v1/rollback": {"version": 2, "previous_version": 3, "sequence": 7},
        "/v1/withdrawals/7": WITHDRAWAL,
    }
    with answering(answers) as (url, asked):
        code = run(["rollback", "--quarantine", "--rewind", "--expected-version", "3", "--api", url])
    assert code == 0
    assert {"quarantine": True, "rewind": True}.items() <= asked[0][1].items()
    printed = capsys.readouterr().out
    assert "version 2 is the generator again" in printed
    assert f"goes back to run1 step 10 ({'d' * 12}) and trains on as run1-rewound-7" in printed


def test_rewind_alone_is_a_mistake_that_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rollback", "--rewind"]) == 2
    assert "give --quarantine too" in capsys.readouterr().err


def test_forget_and_lineage_name_a_document_with_slashes(capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"/v1/documents/docs%2Fjson.txt/forget": RECALL, "/v1/lineage/docs%2Fjson.txt": RECALL}
    with answering(answers) as (url, asked):
        assert run(["forget", "docs/json.txt", "--reason", "asked", "--api", url]) == 0
        assert run(["lineage", "docs/json.txt", "--api", url]) == 0
        assert run(["lineage", "v9", "--api", url]) == 1
    assert asked[0][1]["reason"] == "asked"
    captured = capsys.readouterr()
    assert captured.out.count("already in weights of v2") == 2
    assert "no such thing" in captured.err


def test_lineage_prints_a_tree_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    with answering({"/v1/lineage/v3": lineage(2), "/v1/lineage/v3?samples=true": lineage(1)}) as (url, _):
        assert run(["lineage", "v3", "--api", url]) == 0
        assert capsys.readouterr().out.startswith("v3\n└─ checkpoint")
        assert run(["lineage", "v3", "--json", "--api", url]) == 0
        assert json.loads(capsys.readouterr().out) == lineage(2)
        assert run(["lineage", "v3", "--samples", "--json", "--api", url]) == 0
        assert json.loads(capsys.readouterr().out) == lineage(1)


def test_the_samples_of_a_document_are_named_where_they_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with answering({"/v1/lineage/json.dumps?samples=true": RECALL}) as (url, _):
        assert run(["lineage", "json.dumps", "--samples", "--api", url]) == 0
    named = [line.strip("│├└─ ") for line in capsys.readouterr().out.splitlines()]
    assert {"a  synthetic", "b  synthetic", "c  real"} <= set(named)
