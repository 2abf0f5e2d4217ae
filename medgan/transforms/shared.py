"""Memory that forked and spawned workers of a loader share with their parent."""

from __future__ import annotations

import logging
from multiprocessing import context

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


def shared_table(rows: int, columns: int) -> Tensor:
    """Return zeros ``(rows, columns)`` int64 in shared memory; in the process's own, with a warning, without it."""
    table = torch.zeros(rows, columns, dtype=torch.int64)
    try:
        table.share_memory_()  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError) as error:
        logger.warning("no shared memory (%s): call set_epoch, or workers may repeat draws of earlier epochs", error)
    return table


def starts_a_worker() -> bool:
    """Whether what is being pickled now goes to a worker process that is being started."""
    return context.get_spawning_popen() is not None
