"""The customer's figure: the score of every round, the generator's line, the threshold, promotions and rollbacks.

Owns: how `pipeline_state.json` is drawn. Does not know: who wrote the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw", "flip_position"]

WIDTH_INCHES, HEIGHT_INCHES, DOTS_PER_INCH = 9.0, 5.0, 130
CANDIDATE, GENERATOR, THRESHOLD, PROMOTION, ROLLBACK = "#1f5fbf", "#444444", "#c0392b", "#1e8449", "#b9770e"


def flip_position(flip: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> float:
    """Return where on the axis of epochs a promotion or rollback happened.

    A promotion stands at the epoch that justified it. A rollback has none: it stands before the first later epoch
    that was measured against the version it went back to, or after the last epoch.
    """
    if flip.get("epoch") is not None:
        return float(flip["epoch"])
    versions = [epoch["generator_version"] for epoch in epochs]
    previous = flip["previous_version"]
    last_of_previous = max((index for index, version in enumerate(versions) if version == previous), default=None)
    if last_of_previous is not None and flip["version"] in versions[last_of_previous + 1 :]:
        return last_of_previous + 1.5
    return len(epochs) + 0.5


def draw(state: Mapping[str, Any], path: Path) -> None:
    """Write the figure as PNG. Works with any number of epochs, none included."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = state["epochs"]
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if epochs:
        _draw_scores(axes, epochs, threshold=state["improvement_threshold"])
        _draw_flips(axes, state["promotions"], epochs)
        axes.legend(loc="best", frameon=False, fontsize="small")
    else:
        axes.text(0.5, 0.5, "no evaluation yet", ha="center", va="center", transform=axes.transAxes)
    version = state["generator_version"]
    live = f"generator: version {version}" if version else "no generator yet"
    axes.set_title(f"Self-improvement of {state['domain']} ({live})")
    axes.set_xlabel("Epoch (evaluation)")
    axes.set_ylabel("Score (0 to 1)")
    axes.set_xlim(0.4, max(1, len(epochs)) + 0.9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(visible=True, alpha=0.25)
    figure.savefig(path, format="png")


def _draw_scores(axes: Any, epochs: Sequence[Mapping[str, Any]], *, threshold: float) -> None:
    numbers = [epoch["epoch"] for epoch in epochs]
    generator = [epoch["generator_score"] for epoch in epochs]
    candidate = [epoch["score"] for epoch in epochs]
    low = [base + epoch["ci_low"] for base, epoch in zip(generator, epochs, strict=True)]
    high = [base + epoch["ci_high"] for base, epoch in zip(generator, epochs, strict=True)]
    axes.vlines(numbers, low, high, color=CANDIDATE, alpha=0.35, linewidth=3, label="95 % interval of the difference")
    axes.plot(numbers, candidate, "o-", color=CANDIDATE, label="trained model")
    axes.plot(numbers, generator, "s-", color=GENERATOR, markersize=4, label="current generator")
    axes.plot(
        numbers,
        [score + threshold for score in generator],
        "--",
        color=THRESHOLD,
        label=f"replacement threshold (generator + {threshold:g})",
        marker="_",
    )


def _draw_flips(axes: Any, flips: Sequence[Mapping[str, Any]], epochs: Sequence[Mapping[str, Any]]) -> None:
    named: set[str] = set()
    for flip in flips:
        promoted = flip["action"] == "promoted"
        label = "promotion" if promoted else "rollback"
        position, color = flip_position(flip, epochs), PROMOTION if promoted else ROLLBACK
        axes.axvline(
            position,
            color=color,
            linestyle="-" if promoted else ":",
            alpha=0.8,
            label=None if label in named else label,
        )
        named.add(label)
        axes.annotate(
            f"{'↑' if promoted else '↩'} v{flip['version']}",
            (position, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -12),
            textcoords="offset points",
            color=color,
            fontsize="small",
        )
