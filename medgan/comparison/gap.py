"""Gap closed: what share of the way from the best control to all labels an arm with a generator goes without them.

``(arm - best) / (ceiling - best)``, in the primary metric on the test: 0 is the best control, 1 the reference with all
labels. Paired over seeds, folds and patients; the interval is the study's own bootstrap over patients and seeds, with
the same resamples. Which control is the best is chosen anew in every resample: an arm has to beat whichever control
happens to lie ahead, so the interval lies lower than with a control that was named beforehand, and a share is not
credited to a lucky choice of control.

A share says something only where there is a gap. Where the interval of ``ceiling - best`` reaches 0 there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medgan.comparison.statistics import Interval, Resampled

UNDEFINED = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Gap:
    """Where an arm lies: the index of the best control, and its intervals."""

    best: int
    difference: Interval
    room: Interval
    closed: Interval


def gap_closed(arm: Resampled, controls: Sequence[Resampled], ceiling: Resampled) -> Gap:
    """Return where an arm lies between the best control and the ceiling.

    Args:
        arm, controls, ceiling: means of a metric of which more is better, of the same resamples.

    Raises:
        ValueError: there is no control.
    """
    if not controls:
        raise ValueError("there is no control that an arm could be better than")
    best = int(np.argmax([control.mean for control in controls]))
    ahead = Resampled(controls[best].mean, np.max([control.values for control in controls], axis=0))
    difference, room = _minus(arm, ahead), _minus(ceiling, ahead)
    of_room = room.interval()
    closed = _ratio(difference, room) if of_room.low > 0 else UNDEFINED
    return Gap(best, difference.interval(), of_room, closed)


def _minus(a: Resampled, b: Resampled) -> Resampled:
    return Resampled(a.mean - b.mean, a.values - b.values)


def _ratio(part: Resampled, whole: Resampled, level: float = 0.95) -> Interval:
    """Return the ratio with its percentiles; the whole is above 0 in nearly every resample.

    A resample without a gap has no share: it counts as beyond every number, on the side on which the arm lies, so that
    it widens the interval instead of being left out of it.
    """
    gap = whole.values > 0
    beyond = np.where(np.isnan(part.values), np.nan, np.copysign(np.inf, part.values))
    values = np.divide(part.values, whole.values, out=beyond, where=gap)
    values = values[~np.isnan(values)]
    # Without interpolation, which infinity does not allow.
    low = float(np.quantile(values, (1 - level) / 2, method="lower"))
    high = float(np.quantile(values, (1 + level) / 2, method="higher"))
    return Interval(part.mean / whole.mean, low, high)
