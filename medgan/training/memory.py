"""Updates that fit the memory: a batch that does not is computed in parts, whose gradients add up to its own.

The mean over the batch is kept exactly. What is a mean over *some* pairs (those with a stranger, where not all have
one), or looks at the whole batch (``model.batch_diversity``, ``training.mode_seeking_directions``), is taken over each
part.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from medgan.errors import TrainingFailure
from medgan.training.steps import PastRows, StepBatch

logger = logging.getLogger(__name__)

Rows = TypeVar("Rows", StepBatch, PastRows)

Work = Callable[[slice, float], dict[str, float]]
"""Accumulates the gradients of some rows of the batch, whose loss counts for a share of the whole; returns figures."""


def in_parts(work: Work, batch: int, part: int) -> dict[str, float]:
    """Do the work part by part; return the figures' means over the batch.

    Args:
        work: called for each part.
        batch: pairs in all.
        part: pairs at a time.
    """
    sums: dict[str, float] = defaultdict(float)
    weights: dict[str, float] = defaultdict(float)
    for start in range(0, batch, part):
        rows = slice(start, min(start + part, batch))
        share = (rows.stop - rows.start) / batch
        for name, value in work(rows, share).items():
            sums[name] += value * share
            weights[name] += share
    return {name: value / weights[name] for name, value in sums.items()}


def fitting(
    work: Work, batch: int, part: int, *, rng: torch.Generator, start: Callable[[], None], output: Path
) -> tuple[dict[str, float], int]:
    """Do the work in parts of ``part`` pairs, or of half, a quarter, ... as many where the device's memory is short.

    Args:
        work: called for each part.
        batch: pairs in all.
        part: pairs at a time to begin with.
        rng: of the step; put back to where it was before another try.
        start: clears the gradients, before each try.
        output: the folder, for the message.

    Returns:
        the figures, and the pairs at a time that fitted.

    Raises:
        TrainingFailure: ``OUT_OF_MEMORY``: not even one pair fits.
    """
    drawn = rng.get_state()
    while True:
        start()
        try:
            return in_parts(work, batch, part), part
        except torch.OutOfMemoryError as error:
            if part == 1:
                raise TrainingFailure(
                    f"{output}: OUT_OF_MEMORY: one pair of volumes is more than the device's memory holds "
                    f"({' '.join(str(error).split())[:200]}); the last good state is kept; lower preprocess.shape or "
                    "model.width"
                ) from error
        # Outside of the handler: the error holds on to all that was computed until then.
        part = (part + 1) // 2
        rng.set_state(drawn)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logger.warning(
            "out of memory: a batch of %d pairs is computed %d at a time from here on, gradients added up", batch, part
        )


def rows_of(batch: Rows, rows: slice) -> Rows:
    """Return some rows of a batch, or of the past fakes that go with it."""
    parts: dict[str, Tensor] = {field.name: getattr(batch, field.name)[rows] for field in fields(batch)}
    return type(batch)(**parts)
