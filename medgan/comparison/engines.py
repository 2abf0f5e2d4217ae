"""What runs the runs: this process, several processes of this machine, or a Ray cluster. The results are the same.

A run is a function of the configuration and its coordinates alone, with a number of threads that is part of the plan,
so it does not matter where it happens or what happens beside it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal

from medgan.comparison.design import Cell
from medgan.comparison.execution import Outcome, execute
from medgan.comparison.material import Material
from medgan.comparison.results import FailedRun
from medgan.config import Config
from medgan.errors import InputFault, TrainingFailure

logger = logging.getLogger(__name__)

EngineName = Literal["local", "ray"]
Progress = Callable[[Cell, int, Mapping[str, float]], None]
Ended = tuple[Cell, Outcome | FailedRun]
REPORT_EVERY = 5  # steps: a message each would cost more than it tells

_worker: dict[str, Any] = {}  # of a process of the pool: its material, and where it reports to


def run_cells(
    material: Material,
    cells: Sequence[tuple[Cell, str]],
    on_step: Progress,
    *,
    engine: EngineName = "local",
    workers: int | None = None,
) -> Iterator[Ended]:
    """Run cells, each with its key, and yield what they give as they end.

    A run whose loss becomes NaN ends as a :class:`FailedRun`; the others go on.

    Args:
        material: of the study.
        cells: which runs.
        on_step: called as a run goes on; not by Ray, whose runs only report their end.
        engine: ``local`` or ``ray``.
        workers: runs at a time; by default as many as the cores allow (one, with a GPU or under Ray's own count).
    """
    if engine == "ray":
        yield from _ray(material.config, cells, workers)
        return
    number = workers or default_workers(material.config)
    number = min(number, len(cells))
    if number <= 1:
        for cell, key in cells:
            yield cell, _attempt(material, cell, key, on_step)
        return
    yield from _pool(material.config, cells, on_step, number)


def default_workers(config: Config) -> int:
    """Return how many runs go beside each other: cores over threads; one on a GPU."""
    import torch

    if torch.cuda.is_available():
        return 1
    return max(1, len(os.sched_getaffinity(0)) // config.compare.threads)


def _attempt(material: Material, cell: Cell, key: str, on_step: Progress) -> Outcome | FailedRun:
    def report(step: int, values: Mapping[str, float]) -> None:
        on_step(cell, step, values)

    try:
        return execute(material, cell, key, report)
    except TrainingFailure as error:
        return FailedRun(cell.arm, cell.labelled, cell.fold, cell.seed, " ".join(str(error).split()))


def _pool(config: Config, cells: Sequence[tuple[Cell, str]], on_step: Progress, workers: int) -> Iterator[Ended]:
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
    _worker["material"] = Material(config)
    _worker["steps"] = steps


def _work(cell: Cell, key: str) -> Outcome | FailedRun:
    material: Material = _worker["material"]
    collected: list[tuple[int, dict[str, float]]] = []

    def report(of: Cell, step: int, values: Mapping[str, float]) -> None:
        collected.append((step, dict(values)))
        if step % REPORT_EVERY == 0 or step == material.config.compare.steps:
            _worker["steps"].put((of, list(collected)))
            collected.clear()

    return _attempt(material, cell, key, report)


def _drain(steps: Any, on_step: Progress) -> None:
    while True:
        try:
            cell, values = steps.get_nowait()
        except queue.Empty:
            return
        for step, figures in values:
            on_step(cell, step, figures)


def _ray(config: Config, cells: Sequence[tuple[Cell, str]], workers: int | None) -> Iterator[Ended]:
    """Run over a Ray cluster (or a local one): actors that each open the study once, the data on a shared path."""
    try:
        import ray
    except ImportError as error:
        raise InputFault(
            "--engine", "RAY_MISSING", "Ray is not installed", "pip install 'medgan[ray]', or use --engine local"
        ) from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    threads = config.compare.threads
    fit = sum(int(node["Resources"].get("CPU", 0)) // threads for node in ray.nodes() if node["Alive"])
    gpus = int(ray.cluster_resources().get("GPU", 0))
    fit = min(fit, gpus) if gpus else fit
    if not fit:
        reason = f"no node of the cluster has {threads} cores"
        raise InputFault("--engine", "RAY_TOO_SMALL", reason, "lower compare.threads")
    # No more actors than can be placed: one that waits for cores would keep its run forever.
    number = min(workers or fit, fit, len(cells))
    remote = ray.remote(num_cpus=threads, num_gpus=1 if gpus else 0)(_RayWorker)
    idle = [remote.remote(config) for _ in range(number)]
    waiting = list(cells)
    running: dict[Any, tuple[Cell, Any]] = {}
    while waiting or running:
        while waiting and idle:
            cell, key = waiting.pop(0)
            actor = idle.pop()
            running[actor.run.remote(cell, key)] = (cell, actor)
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        cell, actor = running.pop(done)
        idle.append(actor)
        yield cell, ray.get(done)


class _RayWorker:
    """An actor: opens the study once, then runs what it is given."""

    def __init__(self, config: Config) -> None:
        os.environ["MEDGAN_QUIET"] = "1"
        self.material = Material(config)

    def run(self, cell: Cell, key: str) -> Outcome | FailedRun:
        return _attempt(self.material, cell, key, lambda *_: None)
