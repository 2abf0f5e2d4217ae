"""One run as every engine makes it, and the words in which engines report."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from medgan.comparison.design import Cell
from medgan.comparison.execution import Outcome, execute
from medgan.comparison.material import Material
from medgan.comparison.results import FailedRun
from medgan.errors import TrainingFailure

Progress = Callable[[Cell, int, Mapping[str, float]], None]
Ended = tuple[Cell, Outcome | FailedRun]
Steps = list[tuple[int, dict[str, float]]]  # of one run: number of the step, and its figures


def attempt(material: Material, cell: Cell, key: str, on_step: Progress) -> Outcome | FailedRun:
    """Make a run; one whose training fails, or does not fit the device's memory, is a result too."""

    def report(step: int, values: Mapping[str, float]) -> None:
        on_step(cell, step, values)

    try:
        return execute(material, cell, key, report)
    except TrainingFailure as error:  # a loss that is no number: the only failure that a run's training raises
        code, reason = "NOT_FINITE", " ".join(str(error).split())
    except torch.OutOfMemoryError as error:
        # Not halved as a generator's batch is: every arm is to see the same batches.
        code = "OUT_OF_MEMORY"
        reason = f"{' '.join(str(error).split())[:200]}; lower compare.batch or compare.width, in a new folder"
    return FailedRun(cell.arm, cell.labelled, cell.fold, cell.seed, reason, code)
