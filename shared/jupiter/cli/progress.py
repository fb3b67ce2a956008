"""The state of the cycle as text: the same figures for the live view and for plain lines.

Owns: wording, durations, bars. Does not know: where the status comes from (the API's `StatusView` as JSON) nor how
often it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Processes", "Status", "duration", "headline", "milestones", "panel", "stage_line"]

Status = Mapping[str, Any]
Stage = Mapping[str, Any]

# What an evaluation without a verdict waits for.
STAGES = {
    "deciding": "the gate decides",
    "queued": "it passed the screen",
    "confirmation": "it passed the screen",
    "shadow": "the sealed half agreed",
    "settled": "settled",
}
RENEWAL = "`jupiter publish --split held_out FILES`, then `jupiter benchmark renew`"
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
BAR_CELLS = 24


@dataclass(frozen=True)
class Processes:
    """Name -> (state, why it is not ready) of every child process of `jupiter up`."""

    states: Mapping[str, tuple[str, str]]


def duration(seconds: float) -> str:
    """Return `42 s`, `3 min`, `2 h 05 min`, `1 d 3 h`."""
    if seconds < MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < HOUR_S:
        minutes, rest = divmod(round(seconds), MINUTE_S)
        return f"{minutes} min {rest:02d} s" if minutes < 10 else f"{minutes} min"
    if seconds < DAY_S:
        hours, rest = divmod(round(seconds), HOUR_S)
        return f"{hours} h {rest // MINUTE_S:02d} min"
    days, rest = divmod(round(seconds), DAY_S)
    return f"{days} d {rest // HOUR_S} h"


def figures(stage: Stage) -> str:
    """Return how far a stage is: `128/256 samples, 12.3/s, 10 s left`."""
    parts = []
    if stage["done"] is not None:
        of = f"/{stage['total']:,.0f}" if stage["total"] is not None else ""
        parts.append(f"{stage['done']:,.0f}{of} {stage['unit']}".strip())
    if stage["rate_per_s"]:
        rate = stage["rate_per_s"]
        parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
    if stage["eta_s"] is not None:
        parts.append(f"{duration(stage['eta_s'])} left")
    return ", ".join(parts)


def stage_line(stage: Stage) -> str:
    """Return one stage in a line."""
    words = [f"{stage['name']}: {stage['state']}"]
    words += [text for text in (figures(stage), stage["detail"]) if text]
    return " · ".join(words)


def headline(status: Status) -> str:
    """Return the whole cycle in a line."""
    generator = status["generator"]
    parts = [f"domain {status['domain']}"]
    if generator is None:
        parts.append("no generator yet")
    else:
        parts.append(f"generator v{generator['version']} ({len(generator['served_by'])} serving)")
    parts.append(f"{status['documents_training'] + status['documents_held_out']:,} documents")
    if status["samples_generated"]:
        parts.append(f"{status['samples_accepted']:,} of {status['samples_generated']:,} samples accepted")
    if status["tokens"]:
        parts.append(f"{status['tokens']:,} tokens ({status['real_tokens'] / status['tokens']:.0%} real)")
    return " · ".join(parts)


def milestones(status: Status) -> list[str]:
    """Return what a user waits for: the next evaluation, the last one, what needs a hand."""
    found = []
    coming = status["next_evaluation"]
    if coming is not None:
        left = f", {duration(coming['eta_s'])} left" if coming["eta_s"] is not None else ""
        found.append(f"next evaluation at step {coming['step']:,} (now {coming['current_step']:,}{left})")
    last = status["last_evaluation"]
    if last is not None:
        found.append(
            f"evaluation {last['epoch']}: {last['candidate_score']:.3f} against {last['generator_score']:.3f}"
            f" ({last['difference']:+.3f}, 95 % {last['ci_low']:+.3f} … {last['ci_high']:+.3f}):"
            f" {last['decision'] or STAGES[last['stage']]}"
            + (f", {last['stage_detail']}" if last["stage_detail"] else "")
        )
        found += confirmed(last)
        found += [f"  {reason}" for reason in last["reasons"]]
    found += unscored(status)
    found += sealed_half(status)
    found += alarming(status)
    if status["waits_for"]:
        found.append("waits for " + "; ".join(status["waits_for"]))
    found += list(status["plateau"])
    if status["pending_approval"]:
        found.append(f"{len(status['pending_approval'])} better checkpoint waits for you: `jupiter promote`")
    found += [f"evaluation {key[:10]} was not promoted: {reason}" for key, reason in status["refused"].items()]
    if status["dead_letters"]:
        found.append(f"{status['dead_letters']} dead letters: `jupiter dead-letters list`")
    if status["accounting"]["lost"]:
        found.append(f"LOST: {status['accounting']['lost']} pieces of work that no event accounts for")
    return found


def confirmed(evaluation: Mapping[str, Any]) -> list[str]:
    """Return what the later stages of an evaluation said, a line each."""
    found = []
    sealed, shadow = evaluation["confirmation"], evaluation["shadow"]
    if sealed is not None:
        found.append(
            f"  sealed half, opening {sealed['opening']}: {sealed['candidate_score']:.3f} against"
            f" {sealed['generator_score']:.3f} ({sealed['difference']:+.3f}) on {sealed['items']} items"
        )
    if shadow is not None:
        found.append(
            f"  as a generator: {shadow['candidate_accepted']} of {shadow['items']} accepted,"
            f" {shadow['incumbent_accepted']} of the generator's"
        )
    return found


def unscored(status: Status) -> list[str]:
    """Return the newest checkpoint that could not be evaluated, and why."""
    if not status["not_evaluated"]:
        return []
    *others, newest = status["not_evaluated"]
    also = f", {len(others)} before it" if others else ""
    lines = (f"  {reason}" for reason in newest["reasons"])
    return [f"step {newest['step']:,} of {newest['run']} could not be evaluated{also}: INVALID", *lines]


def sealed_half(status: Status) -> list[str]:
    """Return how much of the sealed half is spent."""
    half = status["sealed_half"]
    if half is None:
        return []
    line = f"sealed half: {half['openings']} of {half['openings_max']} openings used"
    if half["openings"] < half["openings_max"]:
        return [line]
    return [f"{line}: nothing is promoted on this benchmark any more; {RENEWAL}"]


def alarming(status: Status) -> list[str]:
    """Return the open diversity alarm and what it holds back."""
    alarm = status["diversity_alarm"]
    if alarm is None:
        return []
    head = (
        f"DIVERSITY ALARM since a batch of v{alarm['generator_version']}: promotions pause, more real data is mixed in"
    )
    return [head, *(f"  {line}" for line in alarm["alarms"])]


def panel(status: Status | None, *, processes: Processes | None, notices: tuple[str, ...], title: str) -> Any:
    """Return everything as one rich renderable."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    parts: list[Any] = []
    if processes is not None:
        parts.append(_process_line(processes))
    if status is None:
        parts.append(Text("the controller does not answer yet", style="dim"))
    else:
        parts += [Text(headline(status), style="bold"), _stage_table(status["stages"])]
        parts += [Text(line) for line in milestones(status)]
    parts += [Text(notice, style="dim") for notice in notices]
    return Panel(Group(*parts), title=title, title_align="left")


def _process_line(processes: Processes) -> Any:
    from rich.text import Text

    styles = {
        "ready": ("✓", "green"),
        "starting": ("…", "yellow"),
        "stopping": ("…", "yellow"),
        "stopped": ("–", "dim"),
    }
    line = Text()
    for name, (state, _) in processes.states.items():
        mark, style = styles.get(state, ("✗", "red"))
        line.append(f"{mark} {name}  ", style=style)
    for name, (state, reason) in processes.states.items():
        if state in ("not ready", "restarting") and reason:
            line.append(f"\n  {name}: {reason}", style="red")
    return line


def _stage_table(stages: tuple[Stage, ...]) -> Any:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for stage in stages:
        table.add_row(stage["name"], stage["state"], _bar(stage), figures(stage), stage["detail"])
    return table


def _bar(stage: Stage) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    if not stage["total"] or stage["done"] is None:
        return Text("")
    return ProgressBar(total=stage["total"], completed=stage["done"], width=BAR_CELLS)
