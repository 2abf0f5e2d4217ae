from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from medgan.comparison import study
from medgan.comparison.design import Cell
from medgan.comparison.engines import cluster, crew
from medgan.comparison.engines.crew import LIVES, Crew, StudyActor
from medgan.config import Config
from medgan.errors import InputFault, TrainingFailure
from medgan.tracking import NoTracker

CELLS = [(Cell(0, 0, seed, "none"), f"key {seed}") for seed in range(3)]
NOWHERE = InputFault("/data", "UNREADABLE", "it is not there", "mount it")


class DiedError(Exception):
    """As Ray's ``ActorDiedError``."""


class TaskError(DiedError):
    """As Ray's ``RayTaskError``: what an actor raised."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class Reference:
    def __init__(self, name: str) -> None:
        self.name = name


class FakeRay:
    """The part of Ray that the engine uses, without processes.

    Args:
        answers: of the actors' methods, one after the other; the last one stands for all that follow.
        starts: what is raised by ``init``, one after the other.
    """

    exceptions = SimpleNamespace(RayError=DiedError, RayTaskError=TaskError)

    def __init__(self, starts: Sequence[Exception] = (), **answers: list[Any]) -> None:
        self.answers: dict[str, list[Any]] = {"open": [None], "steps": [[]], **answers}
        self.starts = list(starts)
        self.actors: list[Any] = []
        self.killed: list[Any] = []
        self.alive = True
        self.shut = 0

    def init(self, *_: Any, **__: Any) -> None:
        if self.starts:
            raise self.starts.pop(0)

    def is_initialized(self) -> bool:
        return False

    def shutdown(self) -> None:
        self.shut += 1

    def remote(self, **_: Any) -> Callable[[type], Any]:
        return lambda _: SimpleNamespace(remote=self._actor)

    def _actor(self) -> Any:
        methods = ("open", "run", "steps")
        actor = SimpleNamespace(**{name: SimpleNamespace(remote=lambda *_, n=name: Reference(n)) for name in methods})
        self.actors.append(actor)
        return actor

    def wait(self, references: Sequence[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        ready = [r for r in references if self.answers[r.name]][:1]
        return ready, [r for r in references if r not in ready]

    def get(self, reference: Any) -> Any:
        answers = self.answers[reference.name]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": self.alive, "Resources": {"CPU": 4.0}}]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 4.0}


def make_crew(ray: FakeRay, config: Callable[..., Config], told: list[Any] | None = None, size: int = 1) -> Crew:
    def on_step(cell: Cell, step: int, values: Any) -> None:
        if told is not None:
            told.append((cell.seed, step, values["loss"]))

    return Crew(ray, config(), CELLS, on_step, (size, {"num_cpus": 1}))


def steps(*numbers: int) -> list[tuple[int, dict[str, float]]]:
    return [(number, {"loss": 1 / number}) for number in numbers]


def test_a_run_whose_actor_died_is_made_again_by_another(
    config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    died = DiedError("The actor died.\n\tip: 10.0.0.7\nWorker exit type: SYSTEM_ERROR")
    ray = FakeRay(run=[("a", []), died, ("b", []), ("c", [])])
    ended = list(make_crew(ray, config).run())
    assert ended == [(CELLS[0][0], "a"), (CELLS[1][0], "b"), (CELLS[2][0], "c")]
    assert len(ray.actors) == 2
    assert set(map(id, ray.killed)) == set(map(id, ray.actors))
    assert "the run none, seed 1 (The actor died. Worker exit type: SYSTEM_ERROR)" in caplog.text


def test_each_step_is_told_once_though_its_run_is_made_again(config: Callable[..., Config]) -> None:
    ray = FakeRay(run=[DiedError("killed"), ("a", steps(3, 4)), ("b", steps(1, 2, 3, 4))])
    ray.answers["steps"] = [steps(1, 2), steps(1, 2), []]
    told: list[Any] = []
    list(make_crew(ray, config, told).run())
    expected = [(seed, step, 1 / step) for seed in (0, 1, 2) for step in (1, 2, 3, 4)]
    assert told == expected


def test_a_run_that_costs_too_many_actors_ends_the_study(config: Callable[..., Config]) -> None:
    ray = FakeRay(run=[("a", []), DiedError("out of memory")])
    ended = []
    with pytest.raises(
        TrainingFailure, match=r"RAY_DIED: the run none, seed 1 .*out of memory.*finished runs are kept"
    ):
        ended.extend(make_crew(ray, config).run())
    assert len(ray.actors) == LIVES
    assert len(ray.killed) == LIVES


def test_actors_that_die_over_the_data_end_the_study(config: Callable[..., Config]) -> None:
    ray = FakeRay(open=[DiedError("out of memory")], run=[("a", [])])
    with pytest.raises(TrainingFailure, match="RAY_DIED: reading the study"):
        list(make_crew(ray, config).run())
    assert len(ray.actors) == LIVES


def test_a_fault_on_a_node_is_the_fault_itself(config: Callable[..., Config]) -> None:
    ray = FakeRay(open=[TaskError(NOWHERE)], run=[("a", [])])
    with pytest.raises(InputFault, match="/data: UNREADABLE"):
        list(make_crew(ray, config).run())
    assert ray.killed == ray.actors


def test_the_actors_end_when_nobody_listens_any_more(config: Callable[..., Config]) -> None:
    ray = FakeRay(run=[("a", [])])
    runs = make_crew(ray, config, size=2).run()
    next(iter(runs))
    runs.close()  # type: ignore[attr-defined]
    assert len(ray.killed) == len(ray.actors) == 2


def test_a_cluster_without_a_living_node_ends_the_study(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "PATIENCE_SECONDS", -math.inf)
    ray = FakeRay(open=[], run=[])
    ray.alive = False
    with pytest.raises(TrainingFailure, match="RAY_GONE"):
        list(make_crew(ray, config).run())


def test_a_node_that_sees_other_files_makes_no_run(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDGAN_QUIET", "1")
    actor = StudyActor()
    actor.open(config(), str(Path.cwd()))
    with pytest.raises(InputFault, match="RAY_OTHER_NODE"):
        actor.run(CELLS[0][0], "the key of other files")


def test_ray_is_started_again_when_it_did_not_start(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray = FakeRay([Exception("The current node timed out during startup.")], run=[("a", [])])
    monkeypatch.setitem(sys.modules, "ray", ray)
    ended = list(cluster.run_on_ray(config(), CELLS, lambda *_: None))
    assert [cell.seed for cell, _ in ended] == [0, 1, 2]
    assert ray.shut == 2  # after the first try, and at the end


def test_ray_that_does_not_start_is_one_line(config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray = FakeRay([Exception("The current node timed out\nduring startup.")] * cluster.STARTS)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(TrainingFailure, match=r"RAY_START.*timed out during startup.*--engine local"):
        list(cluster.run_on_ray(config(), CELLS, lambda *_: None))


def test_a_cluster_that_does_not_answer_is_named(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    monkeypatch.setitem(sys.modules, "ray", FakeRay([ConnectionError("could not connect")]))
    with pytest.raises(InputFault, match=r"RAY_UNREACHABLE.*10\.0\.0\.7:6379"):
        list(cluster.run_on_ray(config(), CELLS, lambda *_: None))


def test_a_cluster_of_small_nodes_and_a_machine_without_ray_are_refused(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    with pytest.raises(InputFault, match=r"RAY_TOO_SMALL.*16 cores"):
        list(cluster.run_on_ray(config(threads=16), CELLS, lambda *_: None))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputFault, match="RAY_MISSING"):
        list(cluster.run_on_ray(config(), CELLS, lambda *_: None))


def test_a_study_over_ray_is_the_same_to_the_byte_though_a_process_is_killed(
    config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install '.[ray]')")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(crew, "POLL_SECONDS", 0.1)
    settings = config(seeds=1, steps=20)
    study.compare(settings, tmp_path / "local", NoTracker(), workers=1)
    tell, killed = Crew._tell, list[int]()

    def tell_and_kill(self: Crew, cell: Cell, news: Any) -> None:
        tell(self, cell, news)
        if news and self.running and not killed:  # the first news of a run under way
            worker = next(p for p in psutil.Process().children(recursive=True) if p.name().startswith("ray::StudyA"))
            worker.kill()
            killed.append(worker.pid)

    monkeypatch.setattr(Crew, "_tell", tell_and_kill)
    try:
        result = study.compare(settings, tmp_path / "ray", NoTracker(), engine="ray", workers=1)
    except TrainingFailure as error:
        if "RAY_START" in str(error) and "timed out" in str(error):
            pytest.skip("Ray, installed, does not start within its 30 s: this machine is too busy")
        raise
    assert len(killed) == 1
    assert "a process of Ray died over the run none, seed 0" in caplog.text
    assert not result.failed
    assert not ray.is_initialized()
    for name in ("results.csv", "curve.csv"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes(), name
