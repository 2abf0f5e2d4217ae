"""How often the study's decision rule errs: python benchmarks/study_errors.py [STUDY_FOLDER]

Simulates whole studies from the recorded figures of a finished study, or without a folder from random effects of stated
spread. Arms alike must "gain" in at most 5 % of the studies; a difference of the detectable size must be found in 80 %.
Shares are given with Wilson 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np

from medgan.comparison.arms import Arm, is_check, is_reference
from medgan.comparison.power import metric_table, simulate_errors
from medgan.comparison.results import RunRecord, patient_table, read_runs, run_scores
from medgan.comparison.simulation import share, simulate_verdicts
from medgan.comparison.statistics import Interval, weighted_auc
from medgan.comparison.summary import decision_level
from medgan.seeding import numpy_generator

# Standard deviations, in Dice, of the differences' seed effects, patient effects and residuals.
SPREADS = {"seeds vary most": (0.02, 0.0, 0.03), "patients vary most": (0.005, 0.03, 0.02), "all": (0.01, 0.01, 0.04)}


def effects(rng: np.random.Generator, shape: tuple[int, int, int], spread: tuple[float, float, float]) -> np.ndarray:
    """``(arms, seeds, patients)`` differences without a gain."""
    arms, seeds, patients = shape
    return (
        rng.normal(0, spread[0], (arms, seeds, 1))
        + rng.normal(0, spread[1], (arms, 1, patients))
        + rng.normal(0, spread[2], shape)
    )


def table_of(records: list[RunRecord]) -> np.ndarray:
    """``(seeds, patients)`` of the study's primary metric: Dice, or pseudo-values of the AUC."""
    if any(s.metric == "dice" for s in records[0].scores):
        return patient_table(records, "dice")[0]
    classes = sorted({s.structure for s in records[0].scores if s.metric == "probability"})
    return metric_table(weighted_auc, [run_scores(r, classes) for r in records])


def percent(figure: Interval | None) -> str:
    if figure is None:
        return "none"
    return f"{100 * figure.mean:.1f} ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def of_recorded(folder: Path, baseline: str, level: float | None, **settings: int) -> None:
    plan = json.loads((folder / "plan.json").read_text())["plan"]
    arms = {
        arm["name"]: Arm(arm["name"], tuple(arm["parts"]), transforms=tuple(arm["transforms"])) for arm in plan["arms"]
    }
    for labelled, runs in read_runs(folder).items():
        print(f"\n{labelled or 'all'} labelled\n")
        # An arm that must equal the baseline is a check, one with all labels a reference: no comparisons.
        compared = {
            name: of
            for name, of in runs.items()
            if not is_check(arms[name], arms[baseline]) and not is_reference(arms[name])
        }
        of_block(folder, compared, baseline, level, **settings)


def of_block(
    folder: Path, runs: dict[str, list[RunRecord]], baseline: str, level: float | None, **settings: int
) -> None:
    if level is None:
        level = decision_level(len(runs) - 1)
    if baseline not in runs or len(runs) < 2:
        sys.exit(f"{folder} has the arms {sorted(runs)}: name one of at least two as --baseline")
    print("| arm | seeds | patients | arms alike that gain, % | detectable difference | planted and found, % |")
    print("| --- | --- | --- | --- | --- | --- |")
    for arm in sorted(set(runs) - {baseline}):
        rng = numpy_generator(0, "study errors", arm)
        # A run that failed leaves its seed without a pair.
        seeds = {r.seed for r in runs[arm]} & {r.seed for r in runs[baseline]}
        own, other = (table_of([r for r in runs[name] if r.seed in seeds]) for name in (arm, baseline))
        comparisons = len(runs) - 1
        errors = simulate_errors(other, own - other, comparisons=comparisons, rng=rng, level=level, **settings)
        found = errors.detectable
        size = found.words if found.difference is None else f"{found.difference:.4f}"
        row = (arm, found.seeds, found.patients, percent(errors.false_gain), size, percent(errors.found))
        print("| " + " | ".join(map(str, row)) + " |")


def of_simulated(seeds: int, patients: int, studies: int, resamples: int) -> None:
    print(f"{seeds} seeds, {patients} patients, {studies} studies each\n")
    print("| spread of seed, patient, rest | arms | interval | studies with a false gain, % | power, % |")
    print("| --- | --- | --- | --- | --- |")
    for name, spread in SPREADS.items():
        for arms in (1, 3, 6):
            for level in sorted({0.95, 1 - 0.05 / arms}):
                rng = numpy_generator(0, name, arms, level)

                null = partial(effects, rng, (arms, seeds, patients), spread)
                said = simulate_verdicts(null, studies, resamples=resamples, rng=rng, level=level)
                gains = share(sum("gain" in words for words in said), studies)
                recorded = null()
                errors = simulate_errors(
                    recorded[0],
                    recorded[0],
                    comparisons=arms,
                    rng=rng,
                    level=level,
                    studies=studies,
                    resamples=resamples,
                )
                row = (f"{name}: {spread}", arms, f"{100 * level:.1f} %", percent(gains), percent(errors.found))
                print("| " + " | ".join(map(str, row)) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, nargs="?", help="output folder of medgan compare")
    parser.add_argument("--baseline", default="classical")
    parser.add_argument(
        "--level", type=float, help="of the interval that must exclude 0; by default 1 - 0.05 / comparisons"
    )
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=10, help="without a study")
    parser.add_argument("--patients", type=int, default=30, help="without a study")
    given = parser.parse_args()
    if given.study is None:
        of_simulated(given.seeds, given.patients, given.studies, given.resamples)
    else:
        of_recorded(given.study, given.baseline, given.level, studies=given.studies, resamples=given.resamples)


if __name__ == "__main__":
    main()
