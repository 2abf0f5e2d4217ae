"""What makes the siblings: threads of this process, or actors of a Ray cluster. The files are the same bit for bit."""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, Literal

from medgan.cluster import import_ray
from medgan.errors import MedganError
from medgan.generate.job import Job, Workshop, open_job
from medgan.generate.making import Gate
from medgan.generate.pipeline import Pipeline
from medgan.threads import torch_threads

logger = logging.getLogger(__name__)

EngineName = Literal["local", "ray"]
MAX_BLOCK = 64
"""Siblings an actor is asked for at a time: so many are looked for again when it is lost, and none made twice."""
MAX_LOSSES = 3
"""How often a block may take its actor with it before it is the block's own fault."""


def run_orders(
    workshop: Workshop, start: int, stop: int, *, engine: EngineName = "local", workers: int | None = None
) -> Iterator[int]:
    """Make the siblings from number ``start`` to ``stop`` that are not there; yield how many are, as it grows.

    Args:
        workshop: the job, opened and claimed.
        start, stop: numbers in its plan.
        engine: ``local`` or ``ray``.
        workers: siblings at a time; by default one a core, of this machine or of the cluster.
    """
    if engine == "ray":
        yield from _run_ray(workshop, start, stop, workers)
    else:
        yield from _run_here(workshop, start, stop, workers or default_workers())


def default_workers() -> int:
    """Return the number of cores this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


def _run_here(workshop: Workshop, start: int, stop: int, workers: int) -> Iterator[int]:
    there = [0]
    made = 0
    # Each sibling on one thread: several would add up in another order, and so to other bits.
    with torch_threads(1):
        for _ in Pipeline(workers).run(workshop.missing(start, stop, there), workshop.make, workshop.write):
            made += 1
            yield made + there[0]
    yield made + there[0]


def _run_ray(workshop: Workshop, start: int, stop: int, workers: int | None) -> Iterator[int]:
    """Hand out blocks to actors, one a core; a block whose actor is lost goes to a new one."""
    ray = import_ray()
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
    number = min(workers or cores, cores, stop - start)
    block = max(1, min(MAX_BLOCK, (stop - start) // (4 * number)))
    waiting = deque((first, min(first + block, stop)) for first in range(start, stop, block))
    losses: Counter[tuple[int, int]] = Counter()
    actor_class = ray.remote(num_cpus=1)(RayWorker)
    idle = [actor_class.remote(workshop.job, workshop.gate) for _ in range(number)]
    running: dict[Any, tuple[tuple[int, int], Any]] = {}
    made = 0
    while waiting or running:
        while waiting and idle:
            part, actor = waiting.popleft(), idle.pop()
            running[actor.run.remote(*part)] = (part, actor)
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        part, actor = running.pop(done)
        try:
            made += ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, MedganError) else MedganError(str(error)) from error
        except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError) as error:
            losses[part] += 1
            if losses[part] > MAX_LOSSES:
                reason = f"{_named(workshop, part)} cost {losses[part]} workers"
                raise MedganError(f"--engine: RAY_WORKER_LOST: {reason}, look at its memory, then run again") from error
            logger.warning("a worker was lost over %s; what is missing is tried again", _named(workshop, part))
            waiting.appendleft(part)
            idle.append(actor_class.remote(workshop.job, workshop.gate))
            continue
        idle.append(actor)
        yield made


def _named(workshop: Workshop, part: tuple[int, int]) -> str:
    """Name the sibling of a block that a lost worker was at: they are made in order, while the next source is read."""
    missing = [order for order in workshop.plan.orders(*part) if not workshop.is_done(order)]
    if not missing:
        return f"siblings {part[0]} to {part[1] - 1}"
    return f"the sibling {missing[0].name} of the case {missing[0].case.case_id}, or the one after it,"


class RayWorker:
    """An actor: opens the job once, then makes the blocks it is given.

    Args:
        job: whose paths it sees as the driver does.
        gate: judges siblings.
    """

    def __init__(self, job: Job, gate: Gate | None) -> None:
        os.environ["MEDGAN_QUIET"] = "1"
        logging.getLogger("medgan").setLevel(logging.WARNING)  # the driver has said it all
        self._workshop = open_job(job, gate)

    def run(self, start: int, stop: int) -> int:
        """Make a block; return how many of its siblings are there."""
        return max(_run_here(self._workshop, start, stop, workers=1))
