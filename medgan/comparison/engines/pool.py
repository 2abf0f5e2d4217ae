"""Runs in several processes of this machine, each of which reads the study once."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from medgan.comparison.design import Cell
from medgan.comparison.engines.attempts import Ended, Progress, Steps, attempt
from medgan.comparison.execution import Outcome
from medgan.comparison.material import Material
from medgan.comparison.results import FailedRun
from medgan.config import Config
from medgan.errors import TrainingFailure

REPORT_EVERY = 5  # steps: a message each would cost more than it tells

_worker: dict[str, Any] = {}  # of a process of the pool: its material, and where it reports to


def run_in_processes(
    config: Config, cells: Sequence[tuple[Cell, str]], on_step: Progress, workers: int
) -> Iterator[Ended]:
    """Run cells, each with its key, in so many processes; the study's checks have been made.

    Raises:
        TrainingFailure: a process died.
    """
    context = multiprocessing.get_context("spawn")
    steps: Any = context.Queue()
    pool = ProcessPoolExecutor(workers, context, _open_worker, (config, steps))
    pending: dict[Future[Outcome | FailedRun], Cell] = {}
    try:
        pending = {pool.submit(_work, cell, key): cell for cell, key in cells}
        while pending:
            done, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            _drain(steps, on_step)
            for future in done:
                yield pending.pop(future), future.result()
    except BrokenProcessPool as error:
        raise TrainingFailure(
            "a process of the study ended without a word, most likely for want of memory (or, in a script, for want of "
            "`if __name__ == '__main__'`); finished runs are kept, run the same command again, with --workers 1"
        ) from error
    finally:
        processes = list((getattr(pool, "_processes", None) or {}).values())  # shutdown forgets them
        pool.shutdown(wait=not pending, cancel_futures=True)
        if pending:
            for process in processes:
                process.terminate()


def _open_worker(config: Config, steps: Any) -> None:
    import torch

    torch.set_num_threads(config.compare.threads)
    logging.getLogger("medgan").setLevel(logging.WARNING)  # the parent has said it all
    os.environ["MEDGAN_QUIET"] = "1"
    _worker["material"] = Material(config, checked=True)
    _worker["steps"] = steps


def _work(cell: Cell, key: str) -> Outcome | FailedRun:
    material: Material = _worker["material"]
    collected: Steps = []

    def report(of: Cell, step: int, values: Mapping[str, float]) -> None:
        collected.append((step, dict(values)))
        if step % REPORT_EVERY == 0 or step == material.config.compare.steps:
            _worker["steps"].put((of, list(collected)))
            collected.clear()

    return attempt(material, cell, key, report)


def _drain(steps: Any, on_step: Progress) -> None:
    while True:
        try:
            cell, values = steps.get_nowait()
        except queue.Empty:
            return
        for step, figures in values:
            on_step(cell, step, figures)
