"""Progress bars on stderr, quiet where nobody watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


def progress_bar() -> Progress:
    """Return a rich progress bar for stderr: description, bar, count, elapsed and remaining time, a free text."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(file=sys.stderr),
        # A worker process must not draw over its parent's bar.
        disable=bool(os.environ.get("MEDGAN_QUIET")),
    )


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` while a bar named ``description`` counts them."""
    with progress_bar() as bar:
        task = bar.add_task(description, total=total if total is not None else len(items), note="")  # type: ignore[arg-type]
        for item in items:
            yield item
            bar.advance(task)
