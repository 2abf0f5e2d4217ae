"""Runs spread over a Ray cluster: that at ``RAY_ADDRESS``, or one of this machine alone for as long as they last."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from medgan.cluster import import_ray
from medgan.comparison.design import Cell
from medgan.comparison.engines.attempts import Ended, Progress
from medgan.comparison.engines.crew import Crew, short
from medgan.comparison.kept import KeptModels
from medgan.config import Config
from medgan.errors import InputFault, TrainingFailure

logger = logging.getLogger(__name__)

STARTS = 3  # of a local cluster, see _start
REGISTER_SECONDS = 600  # Ray kills a process that takes 60 s to import it, and starts the next, for ever
OBJECT_BYTES = 256 * 2**20  # enough for label maps; Ray would claim a third of the memory


def run_on_ray(
    config: Config,
    cells: Sequence[tuple[Cell, str]],
    on_step: Progress,
    workers: int | None = None,
    kept: KeptModels | None = None,
) -> Iterator[Ended]:
    """Run cells, each with its key, over the cluster at ``RAY_ADDRESS``, or else over one of this machine alone.

    A run whose actor dies (for want of memory, with its node) is made again by another actor, and comes out the same.

    Args:
        config: of the study, whose checks have been made; its paths are seen by every node.
        cells: which runs.
        on_step: called as a run goes on, once for each step.
        workers: actors at most; by default as many as the cluster has room for.
        kept: trained models, where a node sees their folder; by default none is kept.

    Raises:
        InputFault: Ray is not installed, does not answer, has no node that is large enough, or a node sees other files
            or versions than this machine.
        TrainingFailure: Ray does not start on this machine, or a run has lost ``LIVES`` actors.
    """
    with _connected() as ray:
        room = _room(ray, config.compare.threads, workers)
        yield from Crew(ray, config, cells, on_step, room, kept).run()


@contextmanager
def _connected() -> Iterator[Any]:
    """Give Ray, connected; the connection is closed if it was not there before."""
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    try:
        _start(ray)
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS") or "local"
    if address != "local":
        try:
            ray.init(address, **quiet)
        except Exception as error:
            reason = f"no Ray cluster answers at {address} ({short(error)})"
            remedy = (
                "start one with `ray start --head`, set RAY_AUTH_MODE=token where it asks for its token, or unset "
                "RAY_ADDRESS to use this machine alone"
            )
            raise InputFault("RAY_ADDRESS", "RAY_UNREACHABLE", reason, remedy) from error
        return
    for number in range(1, STARTS + 1):
        before = set(psutil.Process().children(recursive=True))
        try:
            # Ray gives its own helper processes 15 s to start (ray-project/ray#65983). On a busy machine they may need
            # more the first time, when nothing of them is in memory yet.
            ray.init(
                "local",
                num_cpus=len(os.sched_getaffinity(0)),
                include_dashboard=False,
                object_store_memory=OBJECT_BYTES,
                _system_config={"worker_register_timeout_seconds": REGISTER_SECONDS},
                **quiet,
            )
            return
        except Exception as error:
            ray.shutdown()
            _sweep(before)
            if number == STARTS:
                raise TrainingFailure(
                    f"--engine: RAY_START: Ray did not start on this machine ({short(error)}), try again when it is "
                    "less busy, or use --engine local"
                ) from error
            logger.warning("Ray did not start (%s), once more", short(error))


def _sweep(before: set[psutil.Process]) -> None:
    """End what a failed start of Ray has left running, which would slow the next one down."""
    for process in set(psutil.Process().children(recursive=True)) - before:
        with suppress(psutil.Error):
            if any("/ray/" in word or word.startswith("ray::") for word in process.cmdline()):
                process.kill()


def _room(ray: Any, threads: int, workers: int | None) -> tuple[int, dict[str, int]]:
    """Return how many actors the cluster can hold at a time, and what each needs."""
    room = sum(int(node["Resources"].get("CPU", 0)) // threads for node in ray.nodes() if node["Alive"])
    gpus = int(ray.cluster_resources().get("GPU", 0))
    room = min(room, gpus) if gpus else room
    if not room:
        reason = f"no node of the cluster has {threads} cores"
        raise InputFault("--engine", "RAY_TOO_SMALL", reason, "lower compare.threads")
    return min(workers or room, room), {"num_cpus": threads, "num_gpus": 1 if gpus else 0}
