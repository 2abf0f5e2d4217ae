"""How often each sample has come by, known to all workers of a loader."""

from __future__ import annotations

from collections import Counter
from typing import Any

from medgan.seeding import derive_seed
from medgan.transforms.shared import shared_table, starts_a_worker

CAPACITY = 2**15  # samples that are told apart across processes
PROBES = 64


class Visits:
    """Counts a sample's visits in an epoch, in memory that forked and spawned workers share with their parent.

    So a sample's next visit gets the next number whichever worker serves it. Only the order of two visits of one sample
    at the same instant is open. Beyond ``CAPACITY`` samples each process counts for itself; setting the epoch
    (:meth:`start`) makes that harmless.

    A deep copy counts on for itself; a pickle that does not start a worker begins at nothing.
    """

    def __init__(self) -> None:
        self._table = shared_table(CAPACITY + 1, 2)  # key, visits; last row: the epoch
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
        return {"table": self._table} if starts_a_worker() else {"epoch": self.epoch}

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
