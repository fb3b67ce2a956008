"""What a service says about itself: structured logs and Prometheus metrics.

Owns: the log format and the metrics of the consume loop. Does not know: how they are served (`health`) or who reads.

A service adds metrics of its own to `telemetry.registry`.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

from jupiter import trace
from jupiter.config.sections import TelemetrySection

__all__ = ["Telemetry", "configure_logging"]

# From a JSON check (milliseconds) to an evaluation on two cores (minutes).
_SECONDS_BUCKETS = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 180, 600, 1800)
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Telemetry:
    """The metrics of one service process, in a registry of their own (tests make many)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.handled = self._counter("handled", "Messages handled and acknowledged.")
        self.retried = self._counter("retried", "Attempts that failed and are made again.")
        self.waited = self._counter("waited", "Waits for a server or another service; no attempt is used up.")
        self.dead = self._counter("dead", "Messages moved to the dead letters.")
        self.published = self._counter("published", "Events published by handlers.")
        self.ready = Gauge("jupiter_ready", "1 if the last answer of /readyz was ok, else 0.", registry=self.registry)
        self.seconds = Histogram(
            "jupiter_handler_seconds",
            "Time of one attempt of a handler, waits excluded.",
            ["event"],
            buckets=_SECONDS_BUCKETS,
            registry=self.registry,
        )

    def _counter(self, name: str, documentation: str) -> Counter:
        return Counter(f"jupiter_{name}", documentation, ["event"], registry=self.registry)

    def value(self, name: str, event: str) -> float:
        """Return a counter's value (`handled`, `retried`, …); 0 when it never counted."""
        return self.registry.get_sample_value(f"jupiter_{name}_total", {"event": event}) or 0.0


class _Formatter(logging.Formatter):
    """Adds service, instance, domain and the current trace to each record; `extra=` fields are kept."""

    def __init__(self, *, as_json: bool, service: str, instance: str, domain: str) -> None:
        super().__init__()
        self._as_json = as_json
        self._about = {"service": service, "instance": instance, "domain": domain}

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}
        error = self.formatException(record.exc_info) if record.exc_info else None
        here = trace.current()
        if not self._as_json:
            fields = "".join(f" {name}={value}" for name, value in extra.items())
            head = f"{time[11:23]} {record.levelname:<7} {self._about['service']}: {record.getMessage()}{fields}"
            return f"{head}\n{error}" if error else head
        line = {
            "time": time,
            "level": record.levelname,
            **self._about,
            **({"trace": here.trace_id, "span": here.span_id} if here else {}),
            "logger": record.name,
            "message": record.getMessage(),
            **extra,
            **({"error": error} if error else {}),
        }
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logging(
    section: TelemetrySection, *, service: str, instance: str, domain: str, stream: TextIO = sys.stderr
) -> None:
    """Send all logs of this process to one stream in one format. Called once, by a service's entry point."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        _Formatter(as_json=section.log_format == "json", service=service, instance=instance, domain=domain)
    )
    logging.basicConfig(level=section.log_level, handlers=[handler], force=True)
    for chatty in ("urllib3", "asyncio", "uvicorn.access", "httpx", "nats"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
