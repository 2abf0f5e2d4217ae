"""What a study leaves behind: one record for each arm and seed, and the tables made of them.

Files are the hand-over between the study and its report, and a finished run's file is what a study that was
interrupted goes on from.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medgan.checkpoint import write_atomically
from medgan.comparison.statistics import RunScores

Array = NDArray[np.float64]
Split = Literal["validation", "test", "external"]
RUNS_FOLDER = "runs"
PLAN, RESULTS, SUMMARY, CURVE, REPORT = "plan.json", "results.csv", "summary.csv", "curve.csv", "report.html"
RUNS, GAP, TUNING = "runs.csv", "gap.csv", "tuning.csv"
COORDINATES = ("arm", "labelled", "fold", "seed")


@dataclass(frozen=True)
class Score:
    """One figure of one case. ``value`` is NaN where the case lacks the structure.

    ``metric`` is ``dice``, ``hd95`` or ``assd`` for segmentation (``structure``: the label's name); for classification
    ``probability`` (``structure``: the class), ``true_class`` (value 1) and ``brier``. ``split`` is ``external`` for
    cases of another site.
    """

    case_id: str
    patient_id: str
    split: Split
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
    """A finished run.

    Attributes:
        key: SHA-256 of all that decides its figures; the same key, the same figures.
        arm, labelled, fold, seed: its coordinates, see :class:`~medgan.comparison.design.Cell`.
        seconds: training of the model that was tested.
        teacher_seconds: training of the model that labelled further cases (self-training).
        headline: the test's figures, by metric.
        curve: the validation's primary metric along the steps.
        scores: every figure of every case.
    """

    key: str
    arm: str
    labelled: int
    fold: int
    seed: int
    seconds: float = 0.0
    teacher_seconds: float = 0.0
    headline: dict[str, float] = field(default_factory=dict)
    curve: tuple[CurvePoint, ...] = ()
    scores: tuple[Score, ...] = field(default=(), repr=False)

    @property
    def replicate(self) -> tuple[int, int]:
        """Seed and fold: what pairs it with the runs of other arms."""
        return self.seed, self.fold


@dataclass(frozen=True)
class FailedRun:
    """A run that did not come to its end, and why: in words, and as a short code that names nobody and no path."""

    arm: str
    labelled: int
    fold: int
    seed: int
    error: str
    code: str


@dataclass(frozen=True)
class Trial:
    """One training with values that are tried for an arm; a row of ``tuning.csv``.

    Attributes:
        arm, labelled, fold, seed: which arm, and where.
        probability, strength: the values.
        metric: the study's primary metric.
        value: its value on the validation cases; NaN for a training that failed.
        seconds, teacher_seconds: of the training, and of what came before it.
        chosen: whether the arm takes these values in this block and fold.
        error: why it failed; empty for a finished one.
    """

    arm: str
    labelled: int
    fold: int
    seed: int
    probability: float
    strength: float
    metric: str
    value: float
    seconds: float
    teacher_seconds: float
    chosen: bool
    error: str = ""


def run_file(arm: str, labelled: int, fold: int, seed: int) -> str:
    """Return the name of a run's file, the same on every file system."""
    name = re.sub(r"[^A-Za-z0-9.=-]+", "_", arm.replace("+", "-and-")).strip("_")
    short = hashlib.sha256(arm.encode()).hexdigest()[:6]  # two names may look alike without their special characters
    return f"{name}-{short}-labelled{labelled}-fold{fold}-seed{seed}"


def save_run(folder: Path, record: RunRecord) -> Path:
    """Write a finished run; NaN becomes ``null``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run_file(record.arm, record.labelled, record.fold, record.seed)}.json"
    write_atomically(path, json.dumps(_without_nan(asdict(record)), indent=1, allow_nan=False).encode())
    return path


def load_run(folder: Path, arm: str, labelled: int, fold: int, seed: int, key: str) -> RunRecord | None:
    """Return the finished run with this key, ``None`` where there is none (or the file is of another content)."""
    path = folder / f"{run_file(arm, labelled, fold, seed)}.json"
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if (tree["key"], tree["arm"], tree["labelled"], tree["fold"], tree["seed"]) != (key, arm, labelled, fold, seed):
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


def write_results(folder: Path, records: Iterable[RunRecord], failed: Iterable[FailedRun] = ()) -> None:
    """Write ``results.csv`` (a row for each run, case, metric and structure), ``curve.csv`` and ``runs.csv``."""
    records = list(records)

    def where(run: RunRecord | FailedRun) -> dict[str, object]:
        return {name: getattr(run, name) for name in COORDINATES}

    score_rows = [{**where(r), **asdict(score)} for r in records for score in r.scores]
    write_table(folder / RESULTS, score_rows, [*COORDINATES, *(f.name for f in fields(Score))])
    curve_rows = [{**where(r), **asdict(p)} for r in records for p in r.curve]
    write_table(folder / CURVE, curve_rows, [*COORDINATES, *(f.name for f in fields(CurvePoint))])
    run_rows: list[dict[str, object]] = [
        {**where(r), "status": "finished", "seconds": r.seconds, "teacher_seconds": r.teacher_seconds, "error": ""}
        for r in records
    ]
    run_rows += [{**where(f), "status": "failed", "seconds": 0, "teacher_seconds": 0, "error": f.error} for f in failed]
    write_table(folder / RUNS, run_rows, [*COORDINATES, "status", "seconds", "teacher_seconds", "error"])


def write_trials(folder: Path, trials: Iterable[Trial]) -> None:
    """Write ``tuning.csv``."""
    write_table(folder / TUNING, [asdict(trial) for trial in trials], [f.name for f in fields(Trial)])


def read_trials(folder: Path) -> list[Trial]:
    """Return the rows of ``tuning.csv``; none where nothing was tuned."""
    if not (folder / TUNING).is_file():
        return []
    rows = read_table(folder / TUNING)
    whole, words = ("labelled", "fold", "seed"), ("arm", "metric", "error")

    def typed(name: str, text: str) -> Any:
        if name == "chosen":
            return text == "True"
        return text if name in words else int(text) if name in whole else float(text)

    return [Trial(**{f.name: typed(f.name, row[f.name]) for f in fields(Trial)}) for row in rows]


def read_runs(folder: Path) -> dict[int, dict[str, list[RunRecord]]]:
    """Return the finished runs by number of labelled cases and arm, fold by fold and seed by seed (no headlines)."""
    scores: dict[tuple[str, ...], list[Score]] = {}
    for row in read_table(folder / RESULTS):
        split: Any = row["split"]
        figure = (row["metric"], row["structure"], float(row["value"]))
        scores.setdefault(_where(row), []).append(Score(row["case_id"], row["patient_id"], split, *figure))
    curves: dict[tuple[str, ...], list[CurvePoint]] = {}
    for row in read_table(folder / CURVE):
        curves.setdefault(_where(row), []).append(CurvePoint(int(row["step"]), row["metric"], float(row["value"])))
    runs: dict[int, dict[str, list[RunRecord]]] = {}
    for row in read_table(folder / RUNS):
        if row["status"] != "finished":
            continue
        labelled, fold, seed = (int(row[name]) for name in COORDINATES[1:])
        seconds = float(row["seconds"]), float(row["teacher_seconds"])
        found = tuple(curves.get(_where(row), ())), tuple(scores.get(_where(row), ()))
        record = RunRecord("", row["arm"], labelled, fold, seed, *seconds, {}, *found)
        runs.setdefault(labelled, {}).setdefault(row["arm"], []).append(record)
    for arms in runs.values():
        for records in arms.values():
            records.sort(key=lambda r: (r.fold, r.seed))
    return runs


def _where(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in COORDINATES)


def patient_table(
    records: Sequence[RunRecord], metric: str, split: str = "test", structure: str | None = None
) -> tuple[Array, list[str]]:
    """Return ``(seeds, patients)`` of one arm and the patients: the mean over a patient's cases, structures and folds.

    Args:
        records: the arm's runs in one block; a seed's folds are put together, each testing its own patients.
        metric: a metric that each case has (not ``probability``).
        split: ``"test"``, ``"validation"`` or ``"external"``.
        structure: one structure; ``None`` averages over those a case has.
    """
    patients = sorted({s.patient_id for r in records for s in r.scores if s.split == split})
    seeds = sorted({r.seed for r in records})
    column = {patient: i for i, patient in enumerate(patients)}
    table = np.full((len(seeds), len(patients)), np.nan)
    for i, seed in enumerate(seeds):
        of_patient: dict[str, list[float]] = {}
        for record in (r for r in records if r.seed == seed):
            for patient, values in _by_patient(record, metric, split, structure).items():
                of_patient.setdefault(patient, []).extend(values)
        for patient, values in of_patient.items():
            table[i, column[patient]] = sum(values) / len(values)
    return table, patients


def _by_patient(record: RunRecord, metric: str, split: str, structure: str | None) -> dict[str, list[float]]:
    """Return each patient's cases' means over the structures they have."""
    cases: dict[tuple[str, str], list[float]] = {}
    for s in record.scores:
        wanted = s.split == split and s.metric == metric and structure in (None, s.structure)
        if wanted and math.isfinite(s.value):
            cases.setdefault((s.patient_id, s.case_id), []).append(s.value)
    found: dict[str, list[float]] = {}
    for (patient, _), values in cases.items():
        found.setdefault(patient, []).append(sum(values) / len(values))
    return found


def run_scores(record: RunRecord, class_names: Sequence[str], split: str = "test") -> RunScores:
    """Return a run's class probabilities ``(N, K)``, true classes and patients."""
    rows = [s for s in record.scores if s.split == split and s.metric == "true_class"]
    cases = {s.case_id: i for i, s in enumerate(rows)}
    columns = {name: k for k, name in enumerate(class_names)}
    scores = np.full((len(cases), len(class_names)), np.nan)
    for s in record.scores:
        if s.split == split and s.metric == "probability":
            scores[cases[s.case_id], columns[s.structure]] = s.value
    truth = np.array([columns[s.structure] for s in rows], dtype=np.int64)
    return RunScores(record.seed, record.fold, scores, truth, tuple(s.patient_id for s in rows))


def _without_nan(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_nan(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
