"""What is said when Ray's workers die over a block of siblings; Ray itself is replaced."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from generated import files

from medgan.errors import MedganError
from medgan.generate.batch import generate
from medgan.generate.engines import MAX_LOSSES


class ActorDiedError(Exception):
    """As Ray's own."""


class Reference:
    def __init__(self, made: int | None) -> None:
        self.made = made


class FakeRay:
    """Actors that live in this process and die over one block, so many times.

    Args:
        deaths: how often the block that begins with the third sibling takes its actor with it.
    """

    exceptions = SimpleNamespace(RayTaskError=KeyError, RayActorError=ActorDiedError, WorkerCrashedError=ActorDiedError)

    def __init__(self, deaths: int) -> None:
        self.deaths = deaths

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def remote(self, **_: Any) -> Any:
        def wrap(cls: type) -> Any:
            def start(*arguments: Any) -> Any:
                worker = cls(*arguments)
                return SimpleNamespace(run=SimpleNamespace(remote=lambda *part: self._run(worker, part)))

            return SimpleNamespace(remote=start)

        return wrap

    def _run(self, worker: Any, part: tuple[int, int]) -> Any:
        if part[0] == 2 and self.deaths:
            self.deaths -= 1
            return Reference(None)
        return Reference(worker.run(*part))

    def wait(self, references: list[Reference], **_: Any) -> tuple[list[Reference], list[Reference]]:
        return references[:1], references[1:]

    def get(self, reference: Reference) -> int:
        if reference.made is None:
            raise ActorDiedError("the actor died")
        return reference.made


@pytest.fixture
def job(seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "checkpoint": seen_checkpoint, "data": cohort_folder, "output": tmp_path / "out", "count": 8, "engine": "ray",
    }  # fmt: skip


def test_28_a_sibling_that_costs_every_worker_is_named(
    job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MEDGAN_QUIET", "1")  # which a worker sets in its own process
    monkeypatch.setitem(sys.modules, "ray", FakeRay(deaths=99))
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(
            MedganError, match=rf"RAY_WORKER_LOST: the sibling case\d\d_sibling\d+ of .* {MAX_LOSSES + 1} wo"
        ),
    ):
        generate(**job)
    assert caplog.text.count("a worker was lost over the sibling case") == MAX_LOSSES
    # What was made before is whole, and the next call makes the rest.
    kept = {name: content for name, content in files(tmp_path / "out").items() if name.endswith(".gz")}
    assert kept
    monkeypatch.setitem(sys.modules, "ray", FakeRay(deaths=1))
    generate(**job)
    assert kept.items() <= files(tmp_path / "out").items()
    assert sum(name.startswith("images/") and name.endswith(".gz") for name in files(tmp_path / "out")) == 8
