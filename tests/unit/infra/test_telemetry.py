"""Log lines, metrics and trace headers."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupiter import trace
from jupiter.config.sections import TelemetrySection
from jupiter.telemetry import Telemetry, configure_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where a test's log lines go; the process's own logging is put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def configure(stream: io.StringIO, section: TelemetrySection) -> None:
    configure_logging(section, service="trainer", instance="trainer-1", domain="birds", stream=stream)


def test_a_json_line_names_who_and_which_trace(stream: io.StringIO) -> None:
    configure(stream, TelemetrySection())
    here = trace.enter(None)
    error = ValueError("no loss")
    logging.getLogger("some.module").error("step %d failed", 7, extra={"step": 7}, exc_info=error)
    line = json.loads(stream.getvalue())
    assert line["message"] == "step 7 failed"
    assert (line["service"], line["instance"], line["domain"]) == ("trainer", "trainer-1", "birds")
    assert (line["trace"], line["step"], line["level"]) == (here.trace_id, 7, "ERROR")
    assert "ValueError: no loss" in line["error"]


def test_text_is_one_readable_line(stream: io.StringIO) -> None:
    configure(stream, TelemetrySection(log_format="text", log_level="WARNING"))
    logging.getLogger("some.module").info("unseen")
    logging.getLogger("some.module").warning("seen", extra={"step": 7})
    assert stream.getvalue().endswith(" WARNING trainer: seen step=7\n")
    assert "unseen" not in stream.getvalue()


def test_registries_are_apart() -> None:
    one, two = Telemetry(), Telemetry()
    one.handled.labels("x").inc()
    assert (one.value("handled", "x"), two.value("handled", "x")) == (1, 0)


def test_a_child_keeps_the_trace() -> None:
    parent = trace.Trace.new()
    child = trace.enter(parent.header())
    assert child.trace_id == parent.trace_id
    assert child.span_id != parent.span_id
    assert trace.current() == child


@given(st.text(max_size=80))
def test_a_foreign_header_never_fails(header: str) -> None:
    parsed = trace.Trace.parse(header)
    assert parsed is None or trace.Trace.parse(parsed.header()) == parsed
