"""What a study leaves behind: one record for each arm and seed, and the tables made of them.

Files are the hand-over between the study and its report, and a finished run's file is what a study that was
interrupted goes on from.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medgan.checkpoint import write_atomically

Array = NDArray[np.float64]
RUNS_FOLDER = "runs"
PLAN, RESULTS, SUMMARY, CURVE, REPORT = "plan.json", "results.csv", "summary.csv", "curve.csv", "report.html"


@dataclass(frozen=True)
class Score:
    """One figure of one case. ``value`` is NaN where the case lacks the structure.

    ``metric`` is ``dice`` or ``hd95`` for segmentation (``structure``: the label's name); for classification
    ``probability`` (``structure``: the class), ``true_class`` (value 1) and ``brier``.
    """

    case_id: str
    patient_id: str
    split: Literal["validation", "test"]
    metric: str
    structure: str
    value: float


@dataclass(frozen=True)
class CurvePoint:
    """A validation along the way."""

    step: int
    metric: str
    value: float


@dataclass(frozen=True)
class RunRecord:
    """A finished run of one arm and seed."""

    plan: str
    arm: str
    seed: int
    seconds: float
    headline: dict[str, float]
    curve: tuple[CurvePoint, ...] = ()
    scores: tuple[Score, ...] = field(default=(), repr=False)

    @property
    def file_name(self) -> str:
        """Name of the run's file under ``runs/``."""
        return run_file(self.arm, self.seed)


def run_file(arm: str, seed: int) -> str:
    """Return the name of an arm's and seed's file, the same on every file system."""
    return f"{arm.replace('+', '-and-')}-seed{seed}.json"


def save_run(folder: Path, record: RunRecord) -> Path:
    """Write a finished run; NaN becomes ``null``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / record.file_name
    write_atomically(path, json.dumps(_without_nan(asdict(record)), indent=1, allow_nan=False).encode())
    return path


def load_run(folder: Path, arm: str, seed: int, plan: str) -> RunRecord | None:
    """Return the finished run of this plan, ``None`` where there is none (or the file is of another plan)."""
    path = folder / run_file(arm, seed)
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if (tree["plan"], tree["arm"], tree["seed"]) != (plan, arm, seed):
            return None
        tree["headline"] = {key: _number(value) for key, value in tree["headline"].items()}
        tree["curve"] = tuple(CurvePoint(**{**row, "value": _number(row["value"])}) for row in tree["curve"])
        tree["scores"] = tuple(Score(**{**row, "value": _number(row["value"])}) for row in tree["scores"])
        return RunRecord(**tree)
    except (ValueError, KeyError, TypeError, AttributeError):
        # A file nobody can read is no finished run: it is made again.
        return None


def write_table(path: Path, rows: Sequence[dict[str, object]], columns: Sequence[str]) -> None:
    """Write a CSV file whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file as one mapping a row."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write_results(folder: Path, records: Iterable[RunRecord]) -> None:
    """Write ``results.csv`` (a row for each arm, seed, case, metric and structure) and ``curve.csv``."""
    records = list(records)
    score_rows: list[dict[str, object]] = [
        {"arm": r.arm, "seed": r.seed, **asdict(score)} for r in records for score in r.scores
    ]
    write_table(folder / RESULTS, score_rows, ["arm", "seed", *(f.name for f in fields(Score))])
    curve_rows: list[dict[str, object]] = [
        {"arm": r.arm, "seed": r.seed, **asdict(p)} for r in records for p in r.curve
    ]
    write_table(folder / CURVE, curve_rows, ["arm", "seed", *(f.name for f in fields(CurvePoint))])


def read_runs(folder: Path) -> dict[str, list[RunRecord]]:
    """Return the runs of ``results.csv`` and ``curve.csv`` by arm, seeds ascending (without times and headlines)."""
    scores: dict[tuple[str, int], list[Score]] = {}
    for row in read_table(folder / RESULTS):
        split: Any = row["split"]
        of_run = scores.setdefault((row["arm"], int(row["seed"])), [])
        figure = (row["metric"], row["structure"], float(row["value"]))
        of_run.append(Score(row["case_id"], row["patient_id"], split, *figure))
    curves: dict[tuple[str, int], list[CurvePoint]] = {}
    for row in read_table(folder / CURVE):
        point = CurvePoint(int(row["step"]), row["metric"], float(row["value"]))
        curves.setdefault((row["arm"], int(row["seed"])), []).append(point)
    runs: dict[str, list[RunRecord]] = {}
    for (arm, seed), rows in sorted(scores.items(), key=lambda item: item[0][1]):
        curve = tuple(curves.get((arm, seed), ()))
        runs.setdefault(arm, []).append(RunRecord("", arm, seed, 0.0, {}, curve, tuple(rows)))
    return runs


def patient_table(
    records: Sequence[RunRecord], metric: str, split: str = "test", structure: str | None = None
) -> tuple[Array, list[str]]:
    """Return ``(seeds, patients)`` of one arm and the patients: the mean over a patient's cases and structures.

    Args:
        records: the arm's runs, one a seed, in the order of the seeds.
        metric: a metric that each case has (not ``probability``).
        split: ``"test"`` or ``"validation"``.
        structure: one structure; ``None`` averages over those a case has.
    """
    patients = sorted({s.patient_id for r in records for s in r.scores if s.split == split})
    row = {patient: i for i, patient in enumerate(patients)}
    table = np.full((len(records), len(patients)), np.nan)
    for i, record in enumerate(records):
        cases: dict[tuple[str, str], list[float]] = {}
        for s in record.scores:
            wanted = s.split == split and s.metric == metric and structure in (None, s.structure)
            if wanted and math.isfinite(s.value):
                cases.setdefault((s.patient_id, s.case_id), []).append(s.value)
        per_patient: dict[str, list[float]] = {}
        for (patient, _), values in cases.items():
            per_patient.setdefault(patient, []).append(sum(values) / len(values))
        for patient, values in per_patient.items():
            table[i, row[patient]] = sum(values) / len(values)
    return table, patients


def probability_table(
    records: Sequence[RunRecord], class_names: Sequence[str], split: str = "test"
) -> tuple[Array, NDArray[np.int64], list[str]]:
    """Return ``(seeds, N, K)`` class probabilities, ``(N,)`` class indices and the N cases' patients."""
    rows = [s for s in records[0].scores if s.split == split and s.metric == "true_class"]
    cases = {s.case_id: i for i, s in enumerate(rows)}
    columns = {name: k for k, name in enumerate(class_names)}
    scores = np.full((len(records), len(cases), len(class_names)), np.nan)
    for i, record in enumerate(records):
        for s in record.scores:
            if s.split == split and s.metric == "probability":
                scores[i, cases[s.case_id], columns[s.structure]] = s.value
    truth = np.array([columns[s.structure] for s in rows], dtype=np.int64)
    return scores, truth, [s.patient_id for s in rows]


def _without_nan(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_nan(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
