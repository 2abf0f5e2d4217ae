"""A finished study as its files tell it: plan, summary, scores, curves, runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from medgan.comparison.design import Cell
from medgan.comparison.gap_table import GapRow, read_gaps
from medgan.comparison.results import CURVE, PLAN, RESULTS, SUMMARY, Trial, read_table, read_trials
from medgan.comparison.summary import SummaryRow
from medgan.errors import InputFault

RUNS = "runs.csv"
# Beside their names everything in summary.csv is a number.
WORDS = ("split", "arm", "metric", "structure", "verdict")
WHOLE = ("labelled", "replicates", "patients", "missing")


class Replicate(NamedTuple):
    """What is paired between arms: a seed in a fold."""

    fold: int
    seed: int


class ScoreLine(NamedTuple):
    """A row of ``results.csv`` without its run."""

    case_id: str
    patient_id: str
    split: str
    metric: str
    structure: str
    value: float


class CurveLine(NamedTuple):
    """A row of ``curve.csv`` without its run."""

    step: int
    metric: str
    value: float


@dataclass(frozen=True)
class RunLine:
    """A row of ``runs.csv``; times in s, NaN where there is none."""

    cell: Cell
    status: str
    seconds: float
    teacher_seconds: float
    error: str


@dataclass(frozen=True)
class FinishedStudy:
    """All that a report is made of.

    Attributes:
        sha256: of the frozen plan.
        earlier: of the plans before arms were added to it.
        plan: the frozen plan.
        summary: rows of ``summary.csv``.
        runs: every run, failed ones too.
        scores: rows of ``results.csv`` by run.
        curves: rows of ``curve.csv`` by run, steps ascending.
        gaps: rows of ``gap.csv``; none without a reference.
        trials: rows of ``tuning.csv``; none where nothing is tuned.
    """

    sha256: str
    earlier: Sequence[str]
    plan: Mapping[str, Any]
    summary: Sequence[SummaryRow]
    runs: Sequence[RunLine]
    scores: Mapping[Cell, Sequence[ScoreLine]]
    curves: Mapping[Cell, Sequence[CurveLine]]
    gaps: Sequence[GapRow] = ()
    trials: Sequence[Trial] = ()

    @property
    def arms(self) -> list[str]:
        """Names of the arms in the plan's order."""
        return [str(arm["name"]) for arm in self.plan["arms"]]

    @property
    def baseline(self) -> str:
        """The arm the others are compared with."""
        return str(self.plan["compare"]["baseline"])

    @property
    def others(self) -> list[str]:
        """The arms that are compared with the baseline."""
        return [arm for arm in self.arms if arm != self.baseline]

    @property
    def blocks(self) -> list[int]:
        """Labelled cases of each block of the learning curve, ascending; all (0) comes last."""
        return sorted({int(n) for n in self.plan["labelled"]} or {0}, key=lambda n: n or math.inf)

    def rows(self, labelled: int, metric: str, split: str = "test", structure: str | None = "") -> list[SummaryRow]:
        """Rows of the summary in the arms' order; ``structure`` None gives those of single structures or classes."""
        order = {arm: i for i, arm in enumerate(self.arms)}
        chosen = [
            row
            for row in self.summary
            if (row.labelled, row.metric, row.split) == (labelled, metric, split)
            and (row.structure == structure if structure is not None else row.structure != "")
        ]
        return sorted(chosen, key=lambda row: order.get(row.arm, len(order)))

    def cells(self, arm: str, labelled: int) -> list[Cell]:
        """Cells of an arm's finished runs, by fold and seed."""
        return sorted(cell for cell in self.scores if (cell.arm, cell.labelled) == (arm, labelled))


def read_study(output: Path) -> FinishedStudy:
    """Read the folder of a finished study.

    Raises:
        InputFault: a file is missing or cannot be read.
    """
    try:
        frozen = json.loads((output / PLAN).read_text(encoding="utf-8"))
        scores: dict[Cell, list[ScoreLine]] = {}
        for row in read_table(output / RESULTS):
            figures = (row["metric"], row["structure"], _number(row["value"]))
            line = ScoreLine(row["case_id"], row["patient_id"], row["split"], *figures)
            scores.setdefault(_cell(row), []).append(line)
        curves: dict[Cell, list[CurveLine]] = {}
        for row in read_table(output / CURVE):
            point = CurveLine(int(row["step"]), row["metric"], _number(row["value"]))
            curves.setdefault(_cell(row), []).append(point)
        return FinishedStudy(
            sha256=str(frozen["sha256"]),
            earlier=[str(digest) for digest in frozen.get("earlier", [])],
            plan=frozen["plan"],
            summary=[_summary_row(row) for row in read_table(output / SUMMARY)],
            runs=list(_runs(output / RUNS)),
            scores=scores,
            curves={cell: sorted(points, key=lambda point: point.step) for cell, points in curves.items()},
            gaps=read_gaps(output),
            trials=read_trials(output),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"not the folder of a finished study ({type(error).__name__})"
        raise InputFault(
            output, "STUDY_UNREADABLE", reason, "run medgan compare into this folder to its end"
        ) from error


def _runs(path: Path) -> Iterator[RunLine]:
    for row in read_table(path):
        times = _number(row["seconds"]), _number(row["teacher_seconds"])
        yield RunLine(_cell(row), row["status"], *times, row["error"] or "")


def _cell(row: Mapping[str, str]) -> Cell:
    return Cell(int(row["labelled"]), int(row["fold"]), int(row["seed"]), row["arm"])


def _summary_row(row: Mapping[str, str]) -> SummaryRow:
    values: dict[str, Any] = {}
    for field in fields(SummaryRow):
        text = row[field.name]
        if field.name in WORDS:
            values[field.name] = text
        elif field.name in WHOLE:
            values[field.name] = int(float(text or 0))
        elif field.name == "exploratory":
            values[field.name] = text.strip().lower() in ("true", "1", "1.0")
        else:
            values[field.name] = _number(text)
    return SummaryRow(**values)


def _number(text: str) -> float:
    return float(text) if text else math.nan
