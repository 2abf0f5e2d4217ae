"""Actors that each read the study once and make its runs, and are replaced when they die."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgan.comparison.design import Cell
from medgan.comparison.engines.attempts import Ended, Progress, Steps, attempt
from medgan.comparison.execution import Outcome
from medgan.comparison.kept import KeptModels
from medgan.comparison.material import Material
from medgan.comparison.results import FailedRun
from medgan.config import Config
from medgan.errors import InputFault, TrainingFailure

logger = logging.getLogger(__name__)

LIVES = 3  # actors that may die over one run, or one after the other before any has read the study
POLL_SECONDS = 1.0  # between two questions how a run goes on
SHOWN_LETTERS = 300  # of what Ray says of a death
PATIENCE_SECONDS = 60.0  # until a word is said about nothing happening


@dataclass(eq=False)
class _Task:
    """A run under way: its actor, and the answer to the last question how it goes on."""

    actor: Any
    cell: Cell
    key: str
    news: Any = None


class Crew:
    """Actors and the runs they are given. A run goes to an actor that is ready, never to one that waits for cores.

    Args:
        ray: the module, connected.
        config: of the study.
        cells: runs to be made, each with its key.
        on_step: called once for each step of a run.
        room: how many actors at a time, and the resources of each.
        kept: trained models, where a node sees their folder.
    """

    def __init__(
        self,
        ray: Any,
        config: Config,
        cells: Sequence[tuple[Cell, str]],
        on_step: Progress,
        room: tuple[int, dict[str, int]],
        kept: KeptModels | None = None,
    ) -> None:
        self.ray = ray
        self.config, self.kept = config, kept
        self.on_step = on_step
        self.size, resources = room
        # Two threads: one to run, one to be asked how it goes on.
        self.remote = ray.remote(max_concurrency=2, **resources)(StudyActor)
        self.waiting = deque(cells)
        self.actors: list[Any] = []  # all that live
        self.opening: dict[Any, Any] = {}  # an actor by the reference to its being ready
        self.idle: list[Any] = []
        self.running: dict[Any, _Task] = {}  # by the reference to what the run gives
        self.told: dict[Cell, int] = {}  # the last step of a run that was told
        self.lost: Counter[Cell | None] = Counter()  # actors by run; None: before the first one

    def run(self) -> Iterator[Ended]:
        """Yield what the runs give as they end; the actors end with the generator."""
        heard = time.monotonic()
        try:
            while self.waiting or self.running:
                self._employ()
                done, _ = self.ray.wait([*self.opening, *self.running], num_returns=1, timeout=POLL_SECONDS)
                self._ask()
                for reference in done:
                    if reference in self.opening:
                        self._welcome(reference)
                    else:
                        yield from self._collect(reference)
                if done or self.running:
                    heard = time.monotonic()
                elif time.monotonic() - heard > PATIENCE_SECONDS:
                    heard = time.monotonic()
                    self._complain()
        finally:
            for actor in list(self.actors):
                self._dismiss(actor)

    def _employ(self) -> None:
        """Give waiting runs to idle actors, and start as many actors as there is work for."""
        while self.waiting and self.idle:
            cell, key = self.waiting.popleft()
            actor = self.idle.pop()
            self.running[actor.run.remote(cell, key)] = _Task(actor, cell, key)
        while len(self.opening) < min(len(self.waiting), self.size - len(self.running)):
            actor = self.remote.remote()
            self.actors.append(actor)
            self.opening[actor.open.remote(self.config, str(Path.cwd()), self.kept)] = actor

    def _welcome(self, reference: Any) -> None:
        """An actor has read the study, or died over it."""
        actor = self.opening.pop(reference)
        try:
            self._get(reference)
        except self.ray.exceptions.RayError as error:
            self._dismiss(actor)
            self._mourn(None, error)
        else:
            self.idle.append(actor)
            self.lost[None] = 0

    def _collect(self, reference: Any) -> Iterator[Ended]:
        """A run has ended, or its actor has."""
        task = self.running.pop(reference)
        try:
            outcome, steps = self._get(reference)
        except self.ray.exceptions.RayError as error:
            self._dismiss(task.actor)
            self._mourn(task.cell, error)
            self.waiting.appendleft((task.cell, task.key))
            return
        if task.news is not None:
            with suppress(self.ray.exceptions.RayError):  # it may have died since
                self._tell(task.cell, self._get(task.news))
        self.idle.append(task.actor)
        self._tell(task.cell, steps)
        yield task.cell, outcome

    def _ask(self) -> None:
        """Hear how the runs go on; one that cannot answer will end of itself."""
        for task in self.running.values():
            if task.news is not None and self.ray.wait([task.news], timeout=0)[0]:
                with suppress(self.ray.exceptions.RayError):
                    self._tell(task.cell, self._get(task.news))
                task.news = None
            if task.news is None:
                task.news = task.actor.steps.remote()

    def _tell(self, cell: Cell, steps: Steps) -> None:
        # A run that is made again goes through the same steps once more.
        for step, values in steps:
            if step > self.told.get(cell, 0):
                self.told[cell] = step
                self.on_step(cell, step, values)

    def _get(self, reference: Any) -> Any:
        """Return a result; what an actor raised is raised as if it had happened here."""
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None

    def _mourn(self, cell: Cell | None, error: Exception) -> None:
        self.lost[cell] += 1
        what = "reading the study" if cell is None else f"the run {cell.arm}, seed {cell.seed}"
        if self.lost[cell] >= LIVES:
            raise TrainingFailure(
                f"--engine: RAY_DIED: {what} has cost {LIVES} of Ray's processes, most likely for want of memory "
                f"({short(error)}); finished runs are kept, run the same command again with fewer --workers"
            ) from error
        logger.warning("a process of Ray died over %s (%s), another one takes its place", what, short(error))

    def _complain(self) -> None:
        if not any(node["Alive"] for node in self.ray.nodes()):
            raise TrainingFailure("--engine: RAY_GONE: no node of the Ray cluster is alive; finished runs are kept")
        logger.warning(
            "no process of Ray is ready yet; each waits for %d free cores of the cluster, or reads the study",
            self.config.compare.threads,
        )

    def _dismiss(self, actor: Any) -> None:
        self.actors = [other for other in self.actors if other is not actor]
        with suppress(Exception):  # it may be dead, and so may Ray
            self.ray.kill(actor)


class StudyActor:
    """What Ray runs on a node: reads the study once, then makes the runs it is given."""

    def __init__(self) -> None:
        self._material: Material | None = None
        self._steps: Steps = []
        self._lock = threading.Lock()

    def open(self, config: Config, folder: str, kept: KeptModels | None = None) -> None:
        """Read the study, from the folder that its relative paths start from."""
        os.environ["MEDGAN_QUIET"] = "1"
        with suppress(OSError):
            os.chdir(folder)
        self._material = Material(config, checked=True, kept=kept)

    def run(self, cell: Cell, key: str) -> tuple[Outcome | FailedRun, Steps]:
        """Make a run and return what it gives, with the steps that were not asked for.

        Raises:
            InputFault: this node sees other files or has other versions.
        """
        if self._material is None:
            raise RuntimeError("the study is not open")
        if self._material.key(cell) != key:
            reason = "a node of the cluster sees other files, or has other versions of medgan, torch or monai"
            remedy = "give all nodes the same paths and packages as this machine, or use --engine local"
            raise InputFault("--engine", "RAY_OTHER_NODE", reason, remedy)
        return attempt(self._material, cell, key, self._note), self.steps()

    def steps(self) -> Steps:
        """Return the steps made since the last question."""
        with self._lock:
            steps, self._steps = self._steps, []
        return steps

    def _note(self, _: Cell, step: int, values: Mapping[str, float]) -> None:
        with self._lock:
            self._steps.append((step, dict(values)))


def short(error: Exception) -> str:
    """Return what Ray says of an error in one line, without the actor's identifiers."""
    words = " ".join(" ".join(line for line in str(error).splitlines() if not line.startswith("\t")).split())
    return words if len(words) <= SHOWN_LETTERS else f"{words[:SHOWN_LETTERS]} …"
