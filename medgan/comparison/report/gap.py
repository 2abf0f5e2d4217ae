"""The gap closed, in words: how far an arm goes from the best control to all labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from medgan.comparison.gap_table import GapRow
from medgan.comparison.report.words import CI, MINUS, UNKNOWN, interval, metric_name, signed
from medgan.comparison.statistics import SEEDS_FOR_A_VERDICT

LEAD = (
    "What share of the way from the best control to the reference an arm goes without the "
    "reference\u2019s labels: (arm \u2212 best control) / (reference \u2212 best control), 0 at the best control and 1 "
    "at the reference."
)
EXPLANATION = (
    "Controls are all arms without a generator. One with scans fitted to scans (atlas) is a control for those with a "
    "generator, and is itself held against the others. Paired over replicates and patients; the interval comes from "
    "the same resamples of patients and seeds as every other one, and in each of them the best control is chosen anew. "
    "That is the stricter reading: an arm has to beat whichever control happens to lie ahead. It describes; no verdict "
    "rests on it, and it is not adjusted for several arms."
)


def share(value: float) -> str:
    """A share of the gap as text; words where it is beyond every number."""
    if math.isinf(value):
        return "no bound"
    return UNKNOWN if math.isnan(value) else f"{value:.2f}".replace("-", MINUS)


def share_interval(row: GapRow) -> str:
    """The interval of the share as text."""
    return UNKNOWN if math.isnan(row.closed) else f"{share(row.closed_low)} to {share(row.closed_high)}"


def gap_words(row: GapRow, plan: Mapping[str, Any]) -> str:
    """What one arm closes of the gap, or why there is no share to give."""
    metric = row.metric
    name = metric_name(plan, metric)
    room = f"{signed(row.room, metric)}, {CI} {interval(row.room_low, row.room_high, metric)}"
    if math.isnan(row.closed):
        words = (
            f"“{row.arm}”: no share is given. The reference “{row.ceiling}” is not reliably above the best control, "
            f"“{row.best}” (difference in {name} {room}), so no gap is shown that it could close."
        )
    else:
        difference = (
            f"{signed(row.difference, metric)}, {CI} {interval(row.difference_low, row.difference_high, metric)}"
        )
        words = (
            f"“{row.arm}”: {share(row.closed)} of the gap closed ({CI} {share_interval(row)}). In {name} it differs "
            f"from the best control, “{row.best}”, by {difference}; the reference “{row.ceiling}” by {room}."
        )
    if row.replicates < SEEDS_FOR_A_VERDICT:
        words += f" Exploratory: with fewer than {SEEDS_FOR_A_VERDICT} replicates the intervals are too narrow."
    elif row.exploratory:
        words += " Exploratory: an arm of this comparison was added after the plan had been frozen."
    return words


def gap_methods(rows: Sequence[GapRow], plan: Mapping[str, Any]) -> str:
    """How the gap was measured, for the methods; empty where it was not."""
    if not rows:
        return ""
    return (
        f"Gap closed: the difference in {metric_name(plan, plan['metric'])} of an arm to the best "
        "control (the highest mean of the arms without a generator; an arm with fitted scans is held against those "
        "without), divided by that of "
        f"{rows[0].ceiling} to the same control, with a 95 % interval from the same bootstrap, the best control chosen "
        "anew in every resample; given only where the 95 % interval of the divisor lies above 0."
    )
