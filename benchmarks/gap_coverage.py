"""How far the interval of the gap closed can be trusted: python benchmarks/gap_coverage.py

Simulates studies with a known gap: an arm with a generator, controls, a reference with all labels. The interval should
hold the true share in 95 % of the studies in which one is given; its lower end, on which a claim would rest, should lie
above the truth in at most 2.5 %. With several controls alike the interval lies lower, as the best of them is chosen
anew in every resample. Shares are given with Wilson 95 % intervals.
"""

from __future__ import annotations

import argparse
import math
from functools import partial

import numpy as np

from medgan.comparison.simulation import share, simulate_gaps
from medgan.comparison.statistics import Interval
from medgan.seeding import numpy_generator

# Dice: how far the reference lies above the best control, and standard deviations of an arm's own seeds, patients and
# rest, and of what patients have in common in all arms.
ROOM = 0.02
SEEDS, PATIENTS, REST, COMMON = 0.003, 0.008, 0.01, 0.05


def draw(rng: np.random.Generator, truths: np.ndarray, seeds: int, patients: int) -> np.ndarray:
    """``(arms, seeds, patients)`` figures of one study with these true means."""
    arms = len(truths)
    return (
        truths[:, None, None]
        + rng.normal(0, COMMON, (1, 1, patients))
        + rng.normal(0, SEEDS, (arms, seeds, 1))
        + rng.normal(0, PATIENTS, (arms, 1, patients))
        + rng.normal(0, REST, (arms, seeds, patients))
    )


def percent(count: int, of: int) -> str:
    if not of:
        return "none"
    figure: Interval = share(count, of)
    return f"{100 * figure.mean:.1f} ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--room", type=float, default=ROOM, help="Dice from the best control to the reference")
    given = parser.parse_args()
    print(f"{given.seeds} seeds, {given.patients} patients, {given.studies} studies each, room {given.room}\n")
    print("| controls | true share | given, % | median | holds the truth, % | starts above it, % | ends below it, % |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    # The controls below the best one: none, four far below, four alike.
    for name, lower in (("1", []), ("1 best of 5", [0.01] * 4), ("5 alike", [0.0] * 4)):
        for true in (0.0, 0.3, 0.5, 1.0):
            rng = numpy_generator(0, "gap", name, round(10 * true))
            truths = 0.8 + np.array([true * given.room, 0.0, *(-d for d in lower), given.room])
            study = partial(draw, rng, truths, given.seeds, given.patients)
            gaps = [gap.closed for gap in simulate_gaps(study, given.studies, resamples=given.resamples, rng=rng)]
            if all(math.isnan(closed.mean) for closed in gaps):
                print(f"| {name} | {true} | none | | | | |", flush=True)
                continue
            told = [closed for closed in gaps if not math.isnan(closed.mean)]
            above, below = sum(c.low > true for c in told), sum(c.high < true for c in told)
            row = (
                name, true, percent(len(told), len(gaps)), f"{np.median([c.mean for c in told]):.2f}",
                percent(len(told) - above - below, len(told)), percent(above, len(told)), percent(below, len(told)),
            )  # fmt: skip
            print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
