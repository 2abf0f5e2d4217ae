"""Runs from their cells to their records: those that are there are taken, the others made, each kept as it ends."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from medgan.comparison.arms import teacher_of
from medgan.comparison.design import Cell
from medgan.comparison.engines import EngineName, run_cells
from medgan.comparison.execution import Outcome
from medgan.comparison.gallery import PREDICTIONS, save_predictions
from medgan.comparison.live import LiveTable
from medgan.comparison.material import Material
from medgan.comparison.results import FailedRun, RunRecord, load_run, save_run

logger = logging.getLogger(__name__)


class Listener:
    """Hears what becomes of runs; this one does nothing with it."""

    def again(self, cell: Cell, record: RunRecord) -> None:
        """A finished run was there already."""

    def step(self, cell: Cell, step: int, values: Mapping[str, float]) -> None:
        """A run has made so many steps."""

    def result(self, cell: Cell, record: RunRecord) -> None:
        """A run has ended, and its record is kept."""

    def failed(self, cell: Cell, failure: FailedRun) -> None:
        """A run did not come to its end."""


@dataclass
class Ran:
    """What has become of runs.

    Attributes:
        records: the finished ones, by cell.
        failed: the others.
        reused: how many of the finished ones were there already.
    """

    records: dict[Cell, RunRecord] = field(default_factory=dict)
    failed: list[FailedRun] = field(default_factory=list)
    reused: int = 0


def run_all(
    material: Material,
    cells: Sequence[Cell],
    output: Path,
    folder: str,
    listener: Listener,
    *,
    engine: EngineName,
    workers: int | None,
    title: str = "",
) -> Ran:
    """Make the runs that are not there yet.

    Args:
        material: of the study.
        cells: the runs.
        output: the study's folder.
        folder: in it, where the records lie.
        listener: hears of every run.
        engine: what runs the runs, see :func:`~medgan.comparison.engines.run_cells`.
        workers: how many at a time.
        title: of the table that shows them.

    Raises:
        TrainingFailure: a process died; finished runs are kept.
    """
    metric = material.task.metric
    keys = {cell: material.key(cell) for cell in cells}
    ran = Ran()
    with LiveTable(cells, metric, material.config.compare.steps, title) as table:
        for cell in cells:
            found = load_run(output / folder, **cell.coordinates, key=keys[cell])
            if found is not None:
                ran.records[cell] = found
                table.finish(cell, found.headline.get(metric), reused=True)
                listener.again(cell, found)
        ran.reused = len(ran.records)
        if ran.reused:
            logger.info("%d finished runs of the same content were there already", ran.reused)
        waiting = [(cell, keys[cell]) for cell in _teachers_first(material, cells) if cell not in ran.records]
        if waiting:
            material.kept.open()
        ended = set[Cell]()

        def on_step(cell: Cell, step: int, values: Mapping[str, float]) -> None:
            if cell in ended:  # a message that its run's end has overtaken
                return
            table.step(cell, step, values)
            listener.step(cell, step, values)

        with closing(run_cells(material, waiting, on_step, engine=engine, workers=workers)) as runs:
            for cell, outcome in runs:
                ended.add(cell)
                if isinstance(outcome, Outcome):
                    # The record last: it is the mark that the run is whole.
                    if outcome.predictions is not None:
                        save_predictions(output / PREDICTIONS, cell, outcome.predictions)
                    save_run(output / folder, outcome.record)
                    ran.records[cell] = outcome.record
                    listener.result(cell, outcome.record)
                    # Steps that were not made would make the time to go too short.
                    table.finish(cell, outcome.record.headline.get(metric), reused=outcome.recalled)
                else:
                    ran.failed.append(outcome)
                    listener.failed(cell, outcome)
                    table.finish(cell, None)
                    logger.warning("%s, seed %d: %s", cell.arm, cell.seed, outcome.error)
                logger.info("%s, seed %d ended; %s", cell.arm, cell.seed, table.line())
    return ran


def _teachers_first(material: Material, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells with those last, within a seed's, whose arm has a teacher: it may be an arm of its own."""
    return sorted(cells, key=lambda cell: (cell.seed, teacher_of(material.arm(cell)) is not None))
