"""The report's two figures: differences by patient, and the validation's curve. Drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medgan.comparison.results import Array, RunRecord

# Okabe and Ito, fit for colour-blind eyes; the baseline is grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASELINE_COLOUR = "#555555"
# Narrow, so that on a telephone the letters stay legible.
INCHES_WIDE = 4.8
DPI = 180


def difference_figure(differences: Mapping[str, Array], intervals: Mapping[str, Sequence[float]], label: str) -> Any:
    """Draw each arm's difference to the baseline: a dot a patient, the mean with its interval over them.

    Args:
        differences: by arm ``(patients,)``, averaged over the seeds.
        intervals: by arm (mean, low, high); empty where the dots are of another metric than the interval.
        label: of the axis.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES_WIDE, 1.0 + 0.75 * len(differences)), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for row, (arm, values) in enumerate(differences.items()):
        colour = COLOURS[row % len(COLOURS)]
        # Spread by rank, not at random: the same results draw the same picture.
        offsets = (np.argsort(np.argsort(values)) * 0.618 % 1 - 0.5) * 0.5
        axes.scatter(values, row + offsets, s=14, color=colour, alpha=0.55, linewidths=0)
        if arm in intervals:
            mean, low, high = intervals[arm]
            axes.plot([low, high], [row, row], color="black", linewidth=2.2, solid_capstyle="butt")
            axes.plot([mean], [row], marker="D", color="black", markersize=6)
        else:
            axes.plot([values.mean()], [row], marker="D", color="black", markersize=6)
    axes.axvline(0, color="#888888", linewidth=1)
    axes.set_yticks(range(len(differences)), list(differences))
    axes.set_ylim(len(differences) - 0.4, -0.6)
    axes.set_xlabel(label)
    _plain(axes)
    return figure


def curve_figure(runs: Mapping[str, Sequence[RunRecord]], baseline: str, label: str) -> Any:
    """Draw the validation's metric along the steps: thin lines for seeds, a thick one for their mean."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(INCHES_WIDE, 3.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    others = [arm for arm in runs if arm != baseline]
    for arm, records in runs.items():
        colour = BASELINE_COLOUR if arm == baseline else COLOURS[others.index(arm) % len(COLOURS)]
        steps = [point.step for point in records[0].curve]
        curves = np.array([[point.value for point in record.curve] for record in records])
        for curve in curves:
            axes.plot(steps, curve, color=colour, linewidth=0.8, alpha=0.45)
        axes.plot(steps, curves.mean(axis=0), color=colour, linewidth=2.2, marker="o", markersize=4, label=arm)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("training steps of the downstream model")
    axes.set_ylabel(label)
    axes.legend(frameon=False)
    _plain(axes)
    return figure


def save_figure(figure: Any, path: Path) -> Path:
    """Write a figure as PNG (without the date, so that the same figure gives the same bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", facecolor="white", metadata={"Software": None})
    return path


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=10)
