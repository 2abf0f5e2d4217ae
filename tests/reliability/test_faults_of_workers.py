"""Fault 28 in medgan's own workers: the processes of a study. Of a loader: tests/transforms/test_sample_loader.py.

What a worker of Ray was at when it died is named by ``generate`` in tests/generate/test_lost_workers.py and by the
study in tests/comparison/test_engines.py.
"""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest
import yaml
from reliability_helpers import fingerprint

from medgan.comparison.design import Cell
from medgan.comparison.engines.pool import _lost

FATAL = """
import os, signal, time
from pathlib import Path

import numpy as np

HOME = Path(__file__).parent


def train(training, validation, test, *, seed, steps, task):
    try:
        (HOME / "first").touch(exist_ok=False)
    except FileExistsError:
        if (HOME / "fatal").exists():
            while not list((HOME / "study" / "runs").glob("*")):  # the other run is to be finished
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
    with (HOME / "calls").open("a") as calls:
        calls.write("x")
    zeros = np.zeros(test[0]["image"].shape[1:])[None]
    flat = np.full(task.outputs, 1 / task.outputs)
    answer = zeros if task.kind == "segmentation" else flat
    return {"validation": [answer] * len(validation), "test": [answer] * len(test)}
"""


def test_28_a_study_names_the_run_its_process_died_over_and_goes_on(tiny_tree, tmp_path, medgan, monkeypatch):
    (tmp_path / "fatal_model.py").write_text(FATAL)
    (tmp_path / "fatal").touch()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_tree))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    command = (
        "compare", "config.yaml", "compare.function=fatal_model:train", "compare.arms=[none, classical]",
        "compare.baseline=none", "--workers", 2, "--output", tmp_path / "study",
    )  # fmt: skip
    ended = medgan(*command)
    assert ended.code == 1
    line = ended.err.splitlines()[-1]
    assert "WORKER_DIED: a process of the study ended without a word over the run arm " in line
    named = line.split("over the run arm ")[1].split(" ")[0]
    assert named in ("none", "classical")
    assert " or arm " not in line
    assert "finished runs are kept, run the same command again" in line
    kept = fingerprint(tmp_path / "study" / "runs")
    assert kept
    assert not any(named in name for name in kept)
    (tmp_path / "fatal").unlink()
    assert medgan(*command).code == 0
    assert (tmp_path / "calls").read_text() == "xx"  # each run was made once
    assert kept.items() <= fingerprint(tmp_path / "study" / "runs").items()


def process(pid: int, exitcode: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, exitcode=exitcode, join=lambda _: None)


CELLS = [(Cell(0, 0, seed, "none"), "key") for seed in (1, 2, 3)]


@pytest.mark.parametrize(
    ("at", "exits", "words"),
    [
        ((0, 11, 12), (-signal.SIGKILL, -signal.SIGTERM), "over the run arm none labelled 0 fold 0 seed 2"),
        ((0, 0, 0), (1, -signal.SIGTERM), "before its first run"),
        # Somebody else's SIGTERM looks like the pool's own: either may be it.
        (
            (11, 12, 0),
            (-signal.SIGTERM, -signal.SIGTERM),
            "over the run arm none labelled 0 fold 0 seed 1 or arm none ",
        ),
    ],
)
def test_28_of_several_processes_the_one_that_died_of_itself_is_named(at, exits, words):
    found = _lost(CELLS, at, [process(pid, code) for pid, code in zip((11, 12), exits, strict=True)])
    assert found.startswith(words)
    assert os.linesep not in found
