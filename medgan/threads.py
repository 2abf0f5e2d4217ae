"""On how many threads torch computes, for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch compute on ``number`` threads, and after the block on as many as before.

    The number decides in which order sums add up, and so their last bits: what must come out the same everywhere is
    computed on a number of its own.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
