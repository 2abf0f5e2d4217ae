"""Every run of a study, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from medgan.comparison.report.derived import replicate_values
from medgan.comparison.report.finished import FinishedStudy, Replicate, RunLine


@dataclass(frozen=True)
class Cost:
    """What an arm's runs cost, s.

    Attributes:
        arm: its name, with "tuning" for what was tried for it.
        runs: finished runs.
        mean: of a run.
        teacher: mean of what came before a run, such as the teacher of self-training; NaN where there was none.
        total: of all runs, failed ones and teachers too.
    """

    arm: str
    runs: int
    mean: float
    teacher: float
    total: float


def times(study: FinishedStudy) -> list[Cost]:
    """Return each arm's cost over all blocks, folds and seeds."""
    costs = []
    for arm in study.arms:
        runs = [run for run in study.runs if run.cell.arm == arm]
        finished = [run for run in runs if run.status == "finished"]
        taught = [run.teacher_seconds for run in finished if run.teacher_seconds > 0]
        total = sum(value for run in runs for value in (run.seconds, run.teacher_seconds) if math.isfinite(value))
        costs.append(Cost(arm, len(finished), _mean(run.seconds for run in finished), _mean(taught), total))
        tried = [trial for trial in study.trials if trial.arm == arm]
        if tried:
            whole = [trial.seconds for trial in tried if not trial.error]
            taught = [trial.teacher_seconds for trial in tried if trial.teacher_seconds > 0]
            total = sum(v for trial in tried for v in (trial.seconds, trial.teacher_seconds) if math.isfinite(v))
            costs.append(Cost(f"{arm}, tuning", len(whole), _mean(whole), _mean(taught), total))
    return costs


def runs_table(study: FinishedStudy) -> list[tuple[RunLine, float]]:
    """Return every run with its primary metric on the test cases; NaN for a run that failed."""
    values = {(arm, n): replicate_values(study, arm, n) for arm in study.arms for n in study.blocks}
    return [
        (run, values.get((run.cell.arm, run.cell.labelled), {}).get(Replicate(run.cell.fold, run.cell.seed), math.nan))
        for run in sorted(study.runs, key=_place)
    ]


def _place(run: RunLine) -> tuple[float, str, int, int]:
    """Where a run stands in the table: the block of all labelled cases (0) comes last."""
    cell = run.cell
    return cell.labelled or math.inf, cell.arm, cell.fold, cell.seed


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
