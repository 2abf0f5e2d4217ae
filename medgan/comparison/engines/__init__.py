"""What runs the runs: this process, several processes of this machine, or a Ray cluster. The results are the same.

A run is a function of the configuration and its coordinates alone, with a number of threads that is part of the plan,
so it does not matter where it happens or what happens beside it.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from typing import Literal

from medgan.comparison.design import Cell
from medgan.comparison.engines.attempts import Ended, Progress, attempt
from medgan.comparison.material import Material
from medgan.config import Config

EngineName = Literal["local", "ray"]


def run_cells(
    material: Material,
    cells: Sequence[tuple[Cell, str]],
    on_step: Progress,
    *,
    engine: EngineName = "local",
    workers: int | None = None,
) -> Generator[Ended, None, None]:
    """Run cells, each with its key, and yield what they give as they end.

    A run whose loss becomes NaN ends as a :class:`~medgan.comparison.results.FailedRun`; the others go on. Close the
    generator to stop what is still running.

    Args:
        material: of the study, with its checks made.
        cells: which runs.
        on_step: called as a run goes on.
        engine: ``local`` or ``ray``.
        workers: runs at a time; by default as many as the cores allow (one, with a GPU or under Ray's own count).

    Raises:
        InputFault: Ray is not installed, does not answer or has no node that is large enough.
        TrainingFailure: processes died; what has ended was yielded.
    """
    if not cells:
        return
    if engine == "ray":
        from medgan.comparison.engines.cluster import run_on_ray

        yield from run_on_ray(material.config, cells, on_step, workers, material.kept)
        return
    number = min(workers or default_workers(material.config), len(cells))
    if number <= 1:
        for cell, key in cells:
            yield cell, attempt(material, cell, key, on_step)
        return
    from medgan.comparison.engines.pool import run_in_processes

    yield from run_in_processes(material, cells, on_step, number)


def default_workers(config: Config) -> int:
    """Return how many runs go beside each other: cores over threads; one on a GPU."""
    import torch

    if torch.cuda.is_available():
        return 1
    return max(1, len(os.sched_getaffinity(0)) // config.compare.threads)
