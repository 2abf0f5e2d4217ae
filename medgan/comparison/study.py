"""The study: arms × paired seeds of a downstream model, every run kept, a verdict at the end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from medgan.checkpoint import Checkpoint
from medgan.comparison.design import TUNED, Cell, all_cells
from medgan.comparison.engines import EngineName
from medgan.comparison.gallery import save_gallery
from medgan.comparison.gap_table import GAP_COLUMNS, GapRow, gap_rows
from medgan.comparison.kept import FOLDER as KEPT
from medgan.comparison.kept import KeptModels
from medgan.comparison.material import Material
from medgan.comparison.plan import checks, freeze, make_plan, require_own_folder, warn_of_few_seeds
from medgan.comparison.recording import CellRecorder, StudyRecorder
from medgan.comparison.report import write_report
from medgan.comparison.results import (
    GAP,
    RUNS_FOLDER,
    SUMMARY,
    FailedRun,
    RunRecord,
    write_results,
    write_table,
)
from medgan.comparison.running import Listener, Ran, run_all
from medgan.comparison.summary import COLUMNS, Question, SummaryRow, summarise
from medgan.comparison.tuning import tune, with_choices
from medgan.config import Config
from medgan.errors import TrainingFailure
from medgan.tracking import Tracker, open_tracker

logger = logging.getLogger(__name__)

Runs = Mapping[int, Mapping[str, Sequence[RunRecord]]]


@dataclass(frozen=True)
class StudyResult:
    """What a study gives.

    Attributes:
        output: the folder with plan.json, results.csv, curve.csv, runs.csv, summary.csv, report.html and runs/; with
            gap.csv where there is a reference to close a gap to, tuning.csv and tuning/ where arms are tuned.
        summary: a row for each block, split, metric, structure and arm.
        runs: the finished runs by block and arm, in the order of fold and seed.
        failed: those that did not come to their end.
        reused: how many were there already.
        gaps: where each arm with a generator or fitted scans lies between the best control and the reference, by block.
    """

    output: Path
    summary: tuple[SummaryRow, ...]
    runs: Runs
    failed: tuple[FailedRun, ...]
    reused: int
    gaps: tuple[GapRow, ...] = ()


def compare(
    config: Config,
    output: Path,
    tracker: Tracker | None = None,
    *,
    engine: EngineName = "local",
    workers: int | None = None,
) -> StudyResult:
    """Run the study that ``config.compare`` describes and write its files into ``output``.

    A study that was interrupted goes on where it stopped: a finished run of the same content is not made again.

    Args:
        config: data, preprocessing and study.
        output: folder for all results.
        tracker: where runs are recorded; by default what ``config.tracking`` says.
        engine: what runs the runs, see :func:`~medgan.comparison.engines.run_cells`.
        workers: how many at a time.

    Raises:
        InputFault: the data or a generator do not allow the study, or the folder holds another one or something else.
        TrainingFailure: every run of an arm failed, or a process died; finished runs are kept.
    """
    require_own_folder(output)
    material = Material(config, kept=KeptModels(output / KEPT))
    digest, plan = freeze(make_plan(material), output)
    tracker = open_tracker(config.tracking) if tracker is None else tracker
    cells = all_cells(config, list(material.arms.values()))
    added = {arm["name"] for arm in plan["arms"] if arm["exploratory"]}
    warn_of_few_seeds(material, added)
    with StudyRecorder(tracker, plan, digest) as recorder:
        cells = with_choices(cells, tune(material, output, engine=engine, workers=workers))
        if material.trials:
            material.kept.keep_only({key for cell in cells for key in material.keys(cell)})
        ran = _run_all(material, cells, output, recorder, engine, workers)
        records, failed = [ran.records[cell] for cell in cells if cell in ran.records], ran.failed
        runs = _arranged(records, list(material.arms))
        summary, gaps = _summarise(material, runs, plan)
        write_results(output, records, failed)
        write_table(output / SUMMARY, [asdict(row) for row in summary], COLUMNS)
        if gaps:
            write_table(output / GAP, [asdict(row) for row in gaps], GAP_COLUMNS)
        if config.compare.pictures and records:
            save_gallery(output, material, runs)
        if records:
            write_report(output)
        recorder.finish(output, _whole(material))
    lost = {arm for arm in material.arms if not any(r.arm == arm for r in records)}
    if lost:
        raise TrainingFailure(f"{output}: FAILED_RUNS: every run of {', '.join(sorted(lost))} failed, see runs.csv")
    return StudyResult(output, tuple(summary), runs, tuple(failed), ran.reused, tuple(gaps))


def _run_all(
    material: Material,
    cells: Sequence[Cell],
    output: Path,
    recorder: StudyRecorder,
    engine: EngineName,
    workers: int | None,
) -> Ran:
    """Run the study's runs, each recorded in the tracking store."""
    with _Recording(recorder, material) as recording:
        ran = run_all(material, cells, output, RUNS_FOLDER, recording, engine=engine, workers=workers)
    material.kept.close()
    return ran


class _Recording(Listener):
    """The tracked runs of trainings under way, several at once; what is left open by an error ends as failed."""

    def __init__(self, recorder: StudyRecorder, material: Material) -> None:
        self.recorder, self.material = recorder, material
        self._open: dict[Cell, tuple[AbstractContextManager[CellRecorder], CellRecorder]] = {}

    def __enter__(self) -> _Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for context, _ in self._open.values():
            with suppress(BaseException):  # it raises again what it is told of
                context.__exit__(kind or RuntimeError, value or RuntimeError("interrupted"), trace)
        self._open.clear()

    def again(self, cell: Cell, record: RunRecord) -> None:
        """Record a training of an interrupted study, so that the study stands in the store as a whole."""
        times = record.seconds, record.teacher_seconds
        self.recorder.record_again(cell, record.headline, record.curve, *times, chosen=self._chosen(cell))

    def step(self, cell: Cell, step: int, values: Mapping[str, float]) -> None:
        """Record losses and validations along the way."""
        self._of(cell).on_step(step, values)

    def result(self, cell: Cell, record: RunRecord) -> None:
        """Record what the training came to, and end its run."""
        self._of(cell).result(record.headline, record.seconds, record.teacher_seconds)
        self._close(cell)

    def failed(self, cell: Cell, failure: FailedRun) -> None:
        """End the run as failed."""
        self._of(cell).fail(failure.code)
        self._close(cell)

    def _of(self, cell: Cell) -> CellRecorder:
        """Return the tracked run of a training, opened where it is not."""
        if cell not in self._open:
            context = self.recorder.child(cell, chosen=self._chosen(cell))
            self._open[cell] = context, context.__enter__()
        return self._open[cell][1]

    def _close(self, cell: Cell) -> None:
        context, _ = self._open.pop(cell)
        context.__exit__(None, None, None)

    def _chosen(self, cell: Cell) -> dict[str, float]:
        """Return the values that tuning has chosen for a run's arm."""
        arm = self.material.arm(cell)
        return {parameter: getattr(arm, parameter) for parameter in TUNED} if cell.choice else {}


def _whole(material: Material) -> dict[str, Checkpoint]:
    """Return the generators by name; none where each fold or block has its own, which nobody would use further."""
    return {} if len(material.splits) > 1 else {name: point for (name, _, _), point in material.checkpoints().items()}


def _arranged(records: Sequence[RunRecord], arms: Sequence[str]) -> dict[int, dict[str, list[RunRecord]]]:
    runs: dict[int, dict[str, list[RunRecord]]] = {}
    for labelled in sorted({r.labelled for r in records}):
        runs[labelled] = {
            arm: sorted((r for r in records if (r.labelled, r.arm) == (labelled, arm)), key=lambda r: (r.fold, r.seed))
            for arm in arms
        }
    return runs


def _summarise(material: Material, runs: Runs, plan: Mapping[str, Any]) -> tuple[list[SummaryRow], list[GapRow]]:
    exploratory = frozenset(arm["name"] for arm in plan["arms"] if arm["exploratory"])
    rows: list[SummaryRow] = []
    gaps: list[GapRow] = []
    for labelled, of_arms in runs.items():
        used = material.block(labelled, 0).used
        ratio = len(used["test"]) / len(used["training"])
        question = Question(
            material.task,
            material.config.compare,
            material.config.seed,
            labelled,
            ratio,
            exploratory,
            checks(material),
            frozenset(material.references),
        )
        rows += summarise(of_arms, question)
        gaps += gap_rows(of_arms, question, material.arms)
    return rows, gaps
