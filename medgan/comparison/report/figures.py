"""The report's charts, drawn without a display. Arms keep their colour and marker from chart to chart."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medgan.checkpoint import write_atomically
from medgan.comparison.report.derived import Array, Reliability

# Okabe and Ito, fit for colour-blind eyes, without the yellow that vanishes on white; the baseline is grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
BASELINE_COLOUR, BASELINE_MARKER = "#555555", "o"
# Narrow, so that on a telephone the letters stay legible.
INCHES_WIDE = 4.8
DPI = 160
MOST_TICKS = 6


class Estimate(NamedTuple):
    """A mean with its 95 % interval; NaN bounds where there is none."""

    mean: float
    low: float
    high: float


class Style(NamedTuple):
    """How an arm is drawn."""

    colour: str
    marker: str


def arm_styles(arms: Sequence[str], baseline: str) -> dict[str, Style]:
    """Colour and marker of each arm; beyond six, colours come again with another marker."""
    styles = {baseline: Style(BASELINE_COLOUR, BASELINE_MARKER)}
    for i, arm in enumerate(arm for arm in arms if arm != baseline):
        styles[arm] = Style(COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)])
    return styles


def difference_figure(
    differences: Mapping[str, Array],
    estimates: Mapping[str, Estimate],
    styles: Mapping[str, Style],
    label: str,
    margin: float = 0.0,
) -> Any:
    """Draw each arm's differences to the baseline: a dot each, the mean with its interval over them.

    Args:
        differences: by arm, ``(n,)``.
        estimates: by arm; an arm without one gets the mean of its dots.
        styles: of the arms.
        label: of the axis.
        margin: drawn as a dashed line unless 0.
    """
    figure, axes = _canvas(1.1 + 0.75 * len(differences))
    for row, (arm, values) in enumerate(differences.items()):
        # Spread by rank, not at random: the same results draw the same picture.
        offsets = (np.argsort(np.argsort(values)) * 0.618 % 1 - 0.5) * 0.4
        style = styles[arm]
        axes.scatter(values, row + offsets, s=15, color=style.colour, marker=style.marker, alpha=0.55, linewidths=0)
        estimate = estimates.get(arm)
        if estimate is not None and np.isfinite(estimate.low):
            axes.plot([estimate.low, estimate.high], [row, row], color="black", linewidth=2.2, solid_capstyle="butt")
        mean = estimate.mean if estimate is not None else float(np.mean(values)) if len(values) else np.nan
        axes.plot([mean], [row], marker="D", color="black", markersize=6)
        # Above its row, not beside it: long names would leave no room. On white, since the line at 0 may run there.
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axes.text(
            0, row - 0.36, _plain(arm), transform=axes.get_yaxis_transform(), fontsize=10, bbox=behind, zorder=0.5
        )
    axes.axvline(0, color="#777777", linewidth=1, zorder=0)
    if margin:
        axes.axvline(margin, color="#777777", linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(differences) - 0.6, -0.7)
    axes.set_xlabel(_plain(label))
    return figure


def curve_figure(curves: Mapping[str, Sequence[tuple[Array, Array]]], styles: Mapping[str, Style], label: str) -> Any:
    """Draw the validation's metric along the steps: thin lines for runs, a thick one for their mean.

    Args:
        curves: by arm, (steps, values) of each run.
        styles: of the arms.
        label: of the vertical axis.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _canvas(3.3)
    for arm, runs in curves.items():
        style = styles[arm]
        for steps, values in runs:
            axes.plot(steps, values, color=style.colour, linewidth=0.7, alpha=0.35)
        steps = np.unique(np.concatenate([steps for steps, _ in runs]))
        means = [np.mean([values[at == step] for at, values in runs if step in at]) for step in steps]
        axes.plot(
            steps, means, color=style.colour, linewidth=2.2, marker=style.marker, markersize=4.5, label=_plain(arm)
        )
    points = sorted({float(step) for runs in curves.values() for steps, _ in runs for step in steps})
    if len(points) <= MOST_TICKS:
        axes.set_xticks(points)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=MOST_TICKS))
    axes.set_xlabel("training steps of the downstream model")
    axes.set_ylabel(_plain(label))
    _legend(figure, len(curves))
    return figure


def line_figure(
    lines: Mapping[str, Sequence[tuple[float, Estimate]]],
    styles: Mapping[str, Style],
    horizontal: str,
    vertical: str,
    *,
    zero: bool = False,
    rings: Mapping[str, Sequence[float]] | None = None,
) -> Any:
    """Draw estimates with their intervals along a number: a learning curve, a sweep, or what was tried.

    Args:
        lines: by name, (number, estimate) ascending.
        styles: of the names.
        horizontal: label of the axis.
        vertical: label of the axis.
        zero: draw a line at 0.
        rings: by name, numbers whose estimates get a ring.
    """
    figure, axes = _canvas(3.3)
    numbers = sorted({number for points in lines.values() for number, _ in points})
    width = (numbers[-1] - numbers[0]) / 120 if len(numbers) > 1 else 0.0
    for i, (name, points) in enumerate(lines.items()):
        style = styles[name]
        # Side by side, so that intervals of several arms stay apart.
        x = np.array([number for number, _ in points]) + (i - (len(lines) - 1) / 2) * width
        mean = np.array([estimate.mean for _, estimate in points])
        low, high = (np.array([getattr(estimate, end) for _, estimate in points]) for end in ("low", "high"))
        axes.errorbar(x, mean, yerr=[mean - low, high - mean], color=style.colour, linewidth=1.8, elinewidth=1.1,
                      capsize=2.5, marker=style.marker, markersize=5, label=_plain(name))  # fmt: skip
        ringed = [number in (rings or {}).get(name, ()) for number, _ in points]
        axes.plot(x[ringed], mean[ringed], "o", color=style.colour, markersize=13, fillstyle="none", linewidth=0)
    if zero:
        axes.axhline(0, color="#777777", linewidth=1)
    axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
    axes.set_xlabel(_plain(horizontal))
    axes.set_ylabel(_plain(vertical))
    if len(lines) > 1:
        _legend(figure, len(lines))
    return figure


def reliability_figure(curves: Mapping[str, Reliability], styles: Mapping[str, Style], label: str) -> Any:
    """Draw observed shares against predicted probabilities; the diagonal is perfect calibration."""
    figure, axes = _canvas(4.4)
    axes.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle=(0, (4, 3)))
    for arm, curve in curves.items():
        style = styles[arm]
        axes.plot(curve.predicted, curve.observed, color=style.colour, linewidth=1.6, marker=style.marker,
                  markersize=5, label=_plain(arm))  # fmt: skip
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.set_xlabel(_plain(label))
    axes.set_ylabel("observed share")
    _legend(figure, len(curves))
    return figure


def gap_figure(estimates: Mapping[str, Estimate], styles: Mapping[str, Style], label: str) -> Any:
    """Draw each arm between the best control (0) and the reference (1), with its interval.

    The axis ends at -1 and 2: a wider interval, of a gap that is hardly one, goes on beyond it with an arrow.

    Args:
        estimates: by arm, the share of the gap closed.
        styles: of the arms.
        label: of the axis.
    """
    figure, axes = _canvas(1.2 + 0.65 * len(estimates))
    ends = [end for estimate in estimates.values() for end in estimate]
    left, right = max(-1.0, min(-0.1, *ends) - 0.05), min(2.0, max(1.1, *ends) + 0.05)
    axes.axvspan(0, 1, color="#eef2f6", zorder=0)
    for place in (0, 1):
        axes.axvline(place, color="#777777", linewidth=1, zorder=1)
    for row, (arm, estimate) in enumerate(estimates.items()):
        colour, marker = styles[arm]
        low, high = max(estimate.low, left), min(estimate.high, right)
        axes.plot([low, high], [row, row], color=colour, linewidth=2.6, solid_capstyle="butt")
        for end, clipped, arrow in ((estimate.low, low, "<"), (estimate.high, high, ">")):
            if end != clipped:
                axes.plot([clipped], [row], marker=arrow, color=colour, markersize=7, clip_on=False)
        if left <= estimate.mean <= right:
            axes.plot([estimate.mean], [row], marker=marker, color=colour, markersize=8, markeredgecolor="black")
        axes.text(0, row - 0.3, _plain(arm), transform=axes.get_yaxis_transform(), fontsize=10)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(left, right)
    axes.set_ylim(len(estimates) - 0.6, -0.75)
    axes.set_xlabel(_plain(label))
    return figure


def save_figure(figure: Any, path: Path) -> bytes:
    """Write a figure as PNG (without the program's name, so that the same figure gives the same bytes)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
    return buffer.getvalue()


def _canvas(inches_high: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES_WIDE, inches_high), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=10)
    return figure, axes


def _legend(figure: Any, entries: int) -> None:
    """Above the axes: beside a curve there is no place that is free in every study. In two columns where they fit."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    for columns in range(min(entries, 2), 0, -1):
        legend = figure.legend(loc="outside upper center", ncols=columns, frameon=False, fontsize=9)
        if columns == 1 or legend.get_window_extent(renderer).width <= figure.bbox.width:
            return
        legend.remove()


def _plain(text: str) -> str:
    """Names are shown as they are: matplotlib would set what stands between two dollars as a formula."""
    return text.replace("$", r"\$")
