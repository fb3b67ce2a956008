"""Showing the cycle while it runs: a live panel on a terminal, plain lines elsewhere.

Owns: how often something is shown, and what is worth a line. Does not know: the words (`progress`).
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from jupiter.cli.forecast import Forecast
from jupiter.cli.progress import Processes, Status, headline, milestones, panel, stage_line
from jupiter.cli.stopwatch import Stopwatch

__all__ = ["LineView", "LiveView", "View", "choose_view"]

NOTICES_SHOWN = 6
# On a log, a stage that only counts on is shown this often; a change of what it does at once.
LINE_INTERVAL_S = 15.0


class View(Protocol):
    """Where progress goes."""

    def __enter__(self) -> View: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def notice(self, text: str) -> None:
        """Something happened that the user should know."""
        ...

    def update(self, status: Status | None, processes: Processes | None = None) -> None:
        """The newest state."""
        ...


class LiveView:
    """A panel that is redrawn in place."""

    def __init__(self, title: str) -> None:
        from rich.live import Live

        self._title = title
        self._began = time.monotonic()
        self._notices: deque[str] = deque(maxlen=NOTICES_SHOWN)
        self._status: Status | None = None
        self._stopwatch, self._forecast = Stopwatch(), Forecast()
        self._coming: str | None = None
        self._processes: Processes | None = None
        self._live = Live(auto_refresh=False)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def notice(self, text: str) -> None:
        self._notices.append(f"{time.strftime('%H:%M:%S')} {text}")
        self._draw()

    def update(self, status: Status | None, processes: Processes | None = None) -> None:
        # While the controller restarts, what was last known stays on the screen.
        if status is not None:
            now_s = time.monotonic()
            self._status = self._stopwatch.timed(status, now_s=now_s)
            self._coming = self._forecast.line(self._status, now_s=now_s)
        self._processes = processes
        self._draw()

    def _draw(self) -> None:
        title = f"{self._title} · {time.monotonic() - self._began:.0f} s"
        notices = (*((self._coming,) if self._coming else ()), *self._notices)
        drawn = panel(self._status, processes=self._processes, notices=notices, title=title)
        self._live.update(drawn, refresh=True)


class LineView:
    """One line whenever something changed, for logs and pipes."""

    def __init__(self, *, write: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write or (lambda text: print(text, flush=True))
        self._clock = clock
        self._began = clock()
        self._states: dict[str, tuple[str, str]] = {}
        self._shown_at: dict[str, float] = {}
        self._lines: dict[str, str] = {}
        self._stopwatch, self._forecast = Stopwatch(), Forecast()

    def __enter__(self) -> LineView:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def notice(self, text: str) -> None:
        self._write(f"[{self._clock() - self._began:6.0f} s] {text}")

    def update(self, status: Status | None, processes: Processes | None = None) -> None:  # noqa: ARG002 - notices say it
        if status is None:
            return
        now_s = self._clock()
        status = self._stopwatch.timed(status, now_s=now_s)
        for stage in status["stages"]:
            if stage["state"] != "absent":
                self._show(stage["name"], stage_line(stage), state=(stage["state"], ""))
        coming = self._forecast.line(status, now_s=now_s)
        if coming is not None:
            self._show("forecast", coming, state=("", ""))
        for number, line in enumerate(milestones(status)):
            if not line.startswith("next evaluation"):  # the forecast says it, and how long it takes
                self._show(f"milestone {number}", line, state=(line, ""))
        self._show("headline", headline(status), state=("", ""))

    def _show(self, name: str, line: str, *, state: tuple[str, str]) -> None:
        """Write the line if the state changed, or if it differs and the last one was some time ago."""
        now = self._clock()
        due = line != self._lines.get(name) and now - self._shown_at.get(name, -LINE_INTERVAL_S) >= LINE_INTERVAL_S
        if self._states.get(name) != state or due:
            self._states[name], self._shown_at[name], self._lines[name] = state, now, line
            self.notice(line)


def choose_view(title: str) -> View:
    """Return the live view on a terminal, else the lines."""
    return LiveView(title) if sys.stdout.isatty() else LineView()
