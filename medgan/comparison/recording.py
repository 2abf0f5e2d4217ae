"""A study as it stands in the tracking store: one run for the study, below it one for each arm, block, fold and seed.

What is recorded names no patient and no case: ``results.csv`` and the gallery's arrays stay in the
output folder. The report goes along, and with ``compare.pictures`` it shows slices of some test and training cases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from medgan.checkpoint import Checkpoint
from medgan.comparison.account import Row, champion_of, datasets, describe, heading, plan_params, verdict_line
from medgan.comparison.design import Cell
from medgan.comparison.gap_table import GapRow, read_gaps
from medgan.comparison.results import GAP, PLAN, REPORT, SUMMARY, TUNING, CurvePoint, read_table
from medgan.serving import register_generator
from medgan.tracking import Run, Tracker

REPORTS = (PLAN, SUMMARY, GAP, TUNING, REPORT, "report.md")
# What a reader of the table wants to see without scrolling.
FIRST_COLUMNS = ("arm", "metric", "mean", "difference", "verdict", "labelled", "split", "structure")
CHAMPION, CHALLENGER = "champion", "challenger"


class CellRecorder:
    """One downstream training that is being recorded.

    Args:
        run: of the store.
        row: its line of the table of replicates, filled in here.
        steps: of the training.
    """

    def __init__(self, run: Run, row: dict[str, object], steps: int) -> None:
        self.run = run
        self._row = row
        self._steps = steps

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        """Record losses and validations along the way."""
        self.run.log_metrics(values, step)

    def result(self, headline: Mapping[str, float], seconds: float, teacher_seconds: float = 0.0) -> None:
        """Record what the training came to: the test's figures by metric, and its times."""
        times = {"seconds": seconds, **({"teacher_seconds": teacher_seconds} if teacher_seconds else {})}
        self.run.log_metrics({**{f"test/{name}": value for name, value in headline.items()}, **times}, self._steps)
        self._row.update({"status": "finished", **times, **headline})

    def fail(self, reason: str) -> None:
        """Let the run end FAILED although its block does not raise; ``reason`` names no patient and no path."""
        self.run.fail(reason)
        self._row["status"] = "failed"


class StudyRecorder:
    """Records one study; use it in a ``with`` block, which is the study's run.

    Args:
        tracker: the store.
        plan: the frozen plan (``plan.json``'s ``plan``).
        digest: its SHA-256.
    """

    def __init__(self, tracker: Tracker, plan: Mapping[str, Any], digest: str) -> None:
        self.tracker = tracker
        self.plan = plan
        self.digest = digest
        self._rows: list[dict[str, object]] = []
        self._context: AbstractContextManager[Run] | None = None
        self._run: Run | None = None

    @property
    def run(self) -> Run:
        """The study's run."""
        if self._run is None:
            raise RuntimeError("the recorder is used outside its with block")
        return self._run

    def __enter__(self) -> StudyRecorder:
        plan = self.plan
        tags = {
            "medgan.kind": "study",
            "medgan.study": str(plan["name"]),
            "medgan.task": str(plan["task"]),
            "medgan.plan": self.digest,
            "medgan.exploratory": str(bool(plan["exploratory"])).lower(),
        }
        self._context = self.tracker.run(f"{plan['name']}: study", plan_params(plan), tags)
        self._run = self._context.__enter__()
        self._run.describe(f"{heading(plan)}\n\n*Running, or ended before its verdict.*")
        for dataset in datasets(plan):
            self._run.log_dataset(dataset)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self._context is None:
            return None
        return self._context.__exit__(kind, error, trace)

    @contextmanager
    def child(
        self, cell: Cell, *, reused: bool = False, chosen: Mapping[str, object] | None = None
    ) -> Iterator[CellRecorder]:
        """Record one training while the block lasts; several may be open at once, in any thread of this process.

        Args:
            cell: which one.
            reused: it was finished before, by an interrupted study of the same plan.
            chosen: what tuning has chosen for its arm, in the place of the plan's values.
        """
        arm: Row = next((arm for arm in self.plan["arms"] if arm["name"] == cell.arm), {})
        compare = self.plan["compare"]
        where = {"arm": cell.arm, "labelled": cell.labelled, "fold": cell.fold, "seed": cell.seed}
        settings = {key: value for key, value in arm.items() if key != "name" and value not in (None, [], ())}
        tags = {
            "medgan.kind": "arm",
            "medgan.arm": cell.arm,
            "medgan.study": str(self.plan["name"]),
            "medgan.plan": self.digest,
            "medgan.baseline": str(cell.arm == compare["baseline"]).lower(),
            **({"medgan.reused": "true"} if reused else {}),
        }
        row: dict[str, object] = {**where, "status": "failed", "reused": reused}
        self._rows.append(row)
        params = {**where, "steps": compare["steps"], **settings, **(chosen or {})}
        with self.tracker.run(self._name(cell), params, tags, parent=self.run.run_id or None) as run:
            yield CellRecorder(run, row, int(compare["steps"]))

    def record_again(
        self,
        cell: Cell,
        headline: Mapping[str, float],
        curve: Iterable[CurvePoint],
        seconds: float,
        teacher_seconds: float = 0.0,
        *,
        chosen: Mapping[str, object] | None = None,
    ) -> None:
        """Record a training of an interrupted study, so that the study stands in the store as a whole."""
        with self.child(cell, reused=True, chosen=chosen) as child:
            for point in curve:
                child.on_step(point.step, {f"validation/{point.metric}": point.value})
            child.result(headline, seconds, teacher_seconds)

    def finish(self, output: Path, generators: Mapping[str, Checkpoint] | None = None) -> dict[str, str]:
        """Record the verdict, tables, figures and report of the finished study, and register its generators.

        Args:
            output: the study's folder, with summary.csv and the report.
            generators: generators by name, as the plan's arms name them; each becomes a version of the registered model
                of that name, ``champion`` where :func:`champion_of` says so, else ``challenger``.

        Returns:
            ``name@alias`` and version of each generator that was registered.
        """
        rows: list[Row] = [_typed(row) for row in read_table(output / SUMMARY)]
        for row in rows:
            if row["structure"] == "":
                self.run.log_metrics(*self._summary_metrics(row))
        gaps = read_gaps(output)
        for gap in gaps:
            self.run.log_metrics(_gap_metrics(gap), self._size(gap.labelled))
        self.run.log_table([{**dict.fromkeys(FIRST_COLUMNS), **row} for row in rows], "tables/summary.json")
        self.run.log_table(_even(self._rows), "tables/replicates.json")
        for name in REPORTS:
            if (output / name).is_file():
                self.run.log_file(output / name)
        for picture in sorted((output / "figures").glob("*.png")):
            self.run.log_picture(picture, "figures")
        self.run.set_tags({"medgan.verdict": verdict_line(rows)})
        self.run.describe(describe(self.plan, self.digest, rows, gaps))
        champion = champion_of(rows, self.plan["arms"])
        registered = {}
        for name, checkpoint in (generators or {}).items():
            alias = CHAMPION if name == champion else CHALLENGER
            version = register_generator(self.tracker, checkpoint, name, run_id=self.run.run_id, alias=alias)
            if version is not None:
                registered[f"{name}@{alias}"] = version
        return registered

    def _name(self, cell: Cell) -> str:
        plan = self.plan
        parts = [cell.arm]
        if len(plan["labelled"]) > 1:
            parts.append(f"{cell.labelled} labelled" if cell.labelled else "all labelled")
        if plan["splits"] > 1:
            parts.append(f"fold {cell.fold}")
        return ", ".join([*parts, f"seed {cell.seed}"])

    def _summary_metrics(self, row: Row) -> tuple[dict[str, float], int]:
        """Return figures and step: the number of labelled cases, so that the store draws the learning curve."""
        prefix = "" if row["split"] == "test" else f"{row['split']}/"
        values = {f"{prefix}{row['metric']}/{row['arm']}": row["mean"]}
        if math.isfinite(row["difference"]):
            values[f"{prefix}{row['metric']}_difference/{row['arm']}"] = row["difference"]
        return values, self._size(row["labelled"])

    def _size(self, labelled: int) -> int:
        """Return how many labelled cases a block has, where 0 stands for all."""
        return labelled or int(self.plan["cohort"]["training"]["used_cases"])


def _gap_metrics(gap: GapRow) -> dict[str, float]:
    """Return the share with its interval, and the difference that it is a share of; without a gap that alone."""
    values = {
        f"gap_closed/{gap.arm}": gap.closed,
        f"gap_closed_low/{gap.arm}": gap.closed_low,
        f"gap_closed_high/{gap.arm}": gap.closed_high,
        f"gap/{gap.arm}": gap.room,
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _typed(row: Mapping[str, str]) -> dict[str, Any]:
    """Return a row of summary.csv with its figures as numbers; an empty figure is NaN."""
    whole = ("labelled", "replicates", "patients", "missing")
    words = ("split", "arm", "metric", "structure", "verdict", "exploratory")
    typed: dict[str, Any] = {key: value if key in words else float(value or math.nan) for key, value in row.items()}
    return typed | {key: int(typed[key]) for key in whole if math.isfinite(typed.get(key, math.nan))}


def _even(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return rows that all have the columns of any."""
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{column: row.get(column) for column in columns} for row in rows]
