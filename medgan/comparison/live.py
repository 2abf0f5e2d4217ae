"""What a person sees while a study runs: a table of arms × seeds that fills, the bar below it, and when it will end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from medgan.comparison.design import Cell

SHOWN_COLUMNS = 12


class LiveTable:
    """A live table on stderr, quiet where nobody watches.

    Args:
        cells: all runs of the study.
        metric: figure of a finished run to show.
        steps: of a run.
        title: what the runs are, where they are not the study itself.
    """

    def __init__(self, cells: Sequence[Cell], metric: str, steps: int, title: str = "") -> None:
        from rich.console import Console
        from rich.live import Live

        self.cells, self.metric, self.steps, self.title = list(cells), metric, steps, title
        self.state: dict[Cell, str] = {}
        self.done: dict[Cell, int] = {}
        self.reused: set[Cell] = set()
        self.started = time.monotonic()
        console = Console(file=sys.stderr)
        watched = console.is_terminal and not os.environ.get("MEDGAN_QUIET")
        self._live = Live(console=console, refresh_per_second=2, get_renderable=self.render) if watched else None

    def __enter__(self) -> LiveTable:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def step(self, cell: Cell, step: int, values: Mapping[str, float]) -> None:
        """A run has made so many steps."""
        self.done[cell] = step
        self.state[cell] = f"{100 * step // self.steps} %  {values['loss']:.2f}" if "loss" in values else f"{step}"

    def finish(self, cell: Cell, figure: float | None, *, reused: bool = False) -> None:
        """A run has ended, with its figure; ``None`` for one that failed."""
        self.done[cell] = self.steps
        self.state[cell] = "failed" if figure is None else f"{figure:.3f}"
        if reused:
            self.reused.add(cell)

    @property
    def remaining_seconds(self) -> float | None:
        """Time to go, by the steps made since the start; ``None`` before there are any."""
        fresh = [c for c in self.cells if c not in self.reused]
        made = sum(self.done.get(cell, 0) for cell in fresh)
        if not made:
            return None
        return (time.monotonic() - self.started) * (len(fresh) * self.steps - made) / made

    def line(self) -> str:
        """Return where the study stands in one line."""
        ended = sum(self.done.get(cell, 0) >= self.steps for cell in self.cells)
        left = self.remaining_seconds
        eta = "" if left is None else f", about {_duration(left)} to go"
        return f"{f'{self.title}: ' if self.title else ''}{ended} of {len(self.cells)} runs{eta}"

    def render(self) -> Any:
        """Return the table: an arm a row, the newest replicates as columns."""
        from rich.table import Table

        columns = list(dict.fromkeys((c.labelled, c.fold, c.seed) for c in self.cells))
        touched = [i for i, c in enumerate(columns) if any((s.labelled, s.fold, s.seed) == c for s in self.state)]
        first = max(0, min(max(touched, default=0) + 2, len(columns)) - SHOWN_COLUMNS)
        shown = columns[first : first + SHOWN_COLUMNS]
        table = Table(title=self.line(), box=None, pad_edge=False, title_justify="left")
        table.add_column(self.metric)
        for labelled, fold, seed in shown:
            parts = [f"n={labelled}" if any(c.labelled != labelled for c in self.cells) else ""]
            parts += [f"fold {fold}" if any(c.fold != fold for c in self.cells) else "", f"seed {seed}"]
            table.add_column(" ".join(p for p in parts if p), justify="right")
        for arm in dict.fromkeys(cell.arm for cell in self.cells):
            table.add_row(arm, *(self.state.get(Cell(*column, arm), "·") for column in shown))
        return table


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
