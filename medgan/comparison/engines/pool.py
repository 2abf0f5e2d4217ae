"""Runs in several processes of this machine, each of which reads the study once."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
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

JOIN_SECONDS = 5.0
REPORT_EVERY = 5  # steps: a message each would cost more than it tells

_worker: dict[str, Any] = {}  # of a process of the pool: its material, and where it reports to


def run_in_processes(
    material: Material, cells: Sequence[tuple[Cell, str]], on_step: Progress, workers: int
) -> Iterator[Ended]:
    """Run cells, each with its key, in so many processes; the study's checks have been made.

    Raises:
        TrainingFailure: a process died; the run it was at is named.
    """
    context = multiprocessing.get_context("spawn")
    steps: Any = context.Queue()
    at: Any = context.RawArray("q", len(cells))  # by run the process at it: shared memory outlives a process, words not
    opened = {"checked": True, "kept": material.kept, "digests": dict(material.digests.known)}
    pool = ProcessPoolExecutor(workers, context, _open_worker, (material.config, opened, steps, at))
    pending: dict[Future[Outcome | FailedRun], Cell] = {}
    processes: list[Any] = []
    try:
        pending = {pool.submit(_work, number, cell, key): cell for number, (cell, key) in enumerate(cells)}
        processes = list((getattr(pool, "_processes", None) or {}).values())  # forgotten with the pool
        while pending:
            done, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            _drain(steps, on_step)
            for future in done:
                yield pending.pop(future), future.result()
    except BrokenProcessPool as error:
        raise TrainingFailure(
            f"--workers: WORKER_DIED: a process of the study ended without a word {_lost(cells, at, processes)}, most "
            "likely for want of memory (or, in a script, for want of `if __name__ == '__main__'`); finished runs are "
            "kept, run the same command again, with --workers 1"
        ) from error
    finally:
        pool.shutdown(wait=not pending, cancel_futures=True)
        if pending:
            for process in processes:
                process.terminate()


def _lost(cells: Sequence[tuple[Cell, str]], at: Sequence[int], processes: Sequence[Any]) -> str:
    """Say which runs were lost: those of the processes that died of themselves, of all where none is known to have."""
    under_way = {pid: cell for pid, (cell, _) in zip(at, cells, strict=True) if pid}
    for process in processes:
        process.join(JOIN_SECONDS)
    # The pool ends the others, by SIGTERM, as soon as it misses one.
    died = {p.pid for p in processes if p.exitcode not in (None, 0, -signal.SIGTERM)}
    lost = [cell for pid, cell in under_way.items() if pid in died] or list(under_way.values())
    named = [" ".join(f"{key} {value}" for key, value in cell.coordinates.items()) for cell in lost]
    return f"over the run {' or '.join(named)}" if named else "before its first run"


def _open_worker(config: Config, opened: Mapping[str, Any], steps: Any, at: Any) -> None:
    import torch

    torch.set_num_threads(config.compare.threads)
    logging.getLogger("medgan").setLevel(logging.WARNING)  # the parent has said it all
    os.environ["MEDGAN_QUIET"] = "1"
    _worker["material"] = Material(config, **opened)
    _worker["steps"] = steps
    _worker["at"] = at


def _work(number: int, cell: Cell, key: str) -> Outcome | FailedRun:
    _worker["at"][number] = os.getpid()
    material: Material = _worker["material"]
    collected: Steps = []

    def report(of: Cell, step: int, values: Mapping[str, float]) -> None:
        collected.append((step, dict(values)))
        if step % REPORT_EVERY == 0 or step == material.config.compare.steps:
            _worker["steps"].put((of, list(collected)))
            collected.clear()

    ended = attempt(material, cell, key, report)
    _worker["at"][number] = 0
    return ended


def _drain(steps: Any, on_step: Progress) -> None:
    while True:
        try:
            cell, values = steps.get_nowait()
        except queue.Empty:
            return
        for step, figures in values:
            on_step(cell, step, figures)
