"""How many draws a transform's quality gate has refused, in all of a loader's workers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from medgan.transforms.draws import current_worker
from medgan.transforms.shared import shared_table, starts_a_worker

WORKERS = 256
FIRST_REPORT = 64

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rejections:
    """What a gate has done so far.

    Attributes:
        samples: that were to be replaced.
        tries: siblings drawn for them.
        rejected: of these, below the gate.
        left_real: samples of which every try was rejected: they stayed as they were.
    """

    samples: int
    tries: int
    rejected: int
    left_real: int

    @property
    def rate(self) -> float:
        """Share of the tries that were rejected; 0 before the first."""
        return self.rejected / max(1, self.tries)


class RejectionCount:
    """Counts what a gate refuses. Each worker writes a row of its own, so none waits for another or loses a count.

    A deep copy, or a pickle that does not start a worker, begins at nothing.
    """

    def __init__(self) -> None:
        self._table = shared_table(WORKERS + 1, 4)

    def add(self, rejected: int, *, passed: bool) -> None:
        """Count a sample: how many tries were rejected, and whether one passed after them."""
        worker = current_worker()
        row = self._table[0 if worker is None else 1 + worker.id % WORKERS]
        row += row.new_tensor([1, rejected + passed, rejected, not passed])
        samples = int(row[0])
        if samples >= FIRST_REPORT and samples & (samples - 1) == 0:  # ever more rarely
            self._report()

    def total(self) -> Rejections:
        """Return the counts of all workers."""
        return Rejections(*(int(number) for number in self._table.sum(dim=0)))

    def _report(self) -> None:
        total = self.total()
        level = logging.WARNING if total.rate > 0.5 else logging.INFO
        logger.log(
            level, "min_quality: %d of %d tries rejected (%.1f %%), %d of %d samples left real",
            total.rejected, total.tries, 100 * total.rate, total.left_real, total.samples,
        )  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        return {"_table": self._table} if starts_a_worker() else {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._table = state["_table"] if state else shared_table(WORKERS + 1, 4)

    def __deepcopy__(self, memo: dict[int, Any]) -> RejectionCount:
        return RejectionCount()
