"""How often each sample has come by, known to all workers of a loader."""

from __future__ import annotations

import logging
from collections import Counter
from multiprocessing import context
from typing import Any

import torch

from medgan.seeding import derive_seed

CAPACITY = 2**15  # samples that are told apart across processes
PROBES = 64

logger = logging.getLogger(__name__)


class Visits:
    """Counts a sample's visits in an epoch, in memory that forked and spawned workers share with their parent.

    So a sample's next visit gets the next number whichever worker serves it. Only the order of two visits of one sample
    at the same instant is open. Beyond ``CAPACITY`` samples each process counts for itself; setting the epoch
    (:meth:`start`) makes that harmless.

    A deep copy counts on for itself; a pickle that does not start a worker begins at nothing.
    """

    def __init__(self) -> None:
        self._table = _shared(torch.zeros(CAPACITY + 1, 2, dtype=torch.int64))  # key, visits; last row: the epoch
        self._rows = self._table.numpy()
        self._rest: Counter[str] = Counter()

    @property
    def epoch(self) -> int:
        """The epoch set last; 0 at first."""
        return int(self._rows[-1, 0])

    def start(self, epoch: int) -> None:
        """Begin an epoch, also in workers that are alive: no sample has been seen in it.

        Raises:
            ValueError: ``epoch`` is negative.
        """
        if epoch < 0:
            raise ValueError(f"epoch must be ≥ 0, got {epoch}")
        self._rows[:] = 0
        self._rows[-1, 0] = epoch
        self._rest.clear()

    def count(self, name: str) -> int:
        """Return how often ``name`` has been counted in this epoch, and count it."""
        key = derive_seed(0, "visit", name) or 1
        for step in range(PROBES):
            row = self._rows[(key + step) % CAPACITY]
            if row[0] == 0:
                row[0] = key
            if row[0] == key:
                row[1] += 1
                return int(row[1]) - 1
        self._rest[name] += 1
        return self._rest[name] - 1

    def __getstate__(self) -> dict[str, Any]:
        starts_a_worker = context.get_spawning_popen() is not None
        return {"table": self._table} if starts_a_worker else {"epoch": self.epoch}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        if "table" in state:
            self._table = state["table"]
            self._rows = self._table.numpy()
        else:
            self.start(state["epoch"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Visits:
        twin = Visits()
        twin._rows[:] = self._rows
        twin._rest = self._rest.copy()
        return twin


def _shared(table: torch.Tensor) -> torch.Tensor:
    try:
        table.share_memory_()  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError) as error:
        logger.warning("no shared memory (%s): call set_epoch, or workers may repeat draws of earlier epochs", error)
    return table
