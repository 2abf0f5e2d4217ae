"""Everything that is state in a training, and nothing else; so a resumed run ends as the uninterrupted one would.

Randomness is no state: each step draws from a stream that is a function of (seed, step).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from medgan.checkpoint import file_digest
from medgan.errors import InputFault, TrainingFailure
from medgan.models.ema import MovingAverage
from medgan.training.history import PastFakes

FOLDER = "training_state"
KEEP = 2
START_OVER = "lower the learning rates and start over with --fresh"
TENSORS = "state.safetensors"
RECORD = "state.json"


@dataclass
class TrainingState:
    """Networks, moving average, optimisers, and the few numbers that go with them.

    Attributes:
        networks: by name; the underlying modules, not their Fabric wrappers.
        average: the generator's moving average.
        optimizers: by name.
        step: updates done.
        seconds: training time spent, over all resumptions.
        best_score: validation score of the saved checkpoint; ``None`` before the first.
        stale: validations since then.
        augment: probability of the augmentation, where it adapts; ``None`` before the first step.
        leads: the discriminator's, in the steps since the augmentation's probability last moved.
        past_fakes: the pool, empty where none is used.
        part: pairs that an update computes at a time, where memory did not allow the whole batch.
        seen: what the :class:`~medgan.training.watch.Watch` has seen.
    """

    networks: Mapping[str, nn.Module]
    average: MovingAverage
    optimizers: Mapping[str, Optimizer]
    step: int = 0
    seconds: float = 0.0
    best_score: float | None = None
    stale: int = 0
    augment: float | None = None
    leads: list[float] = field(default_factory=list)
    past_fakes: PastFakes = field(default_factory=PastFakes)
    part: int | None = None
    seen: dict[str, int] = field(default_factory=dict)

    def save(self, output: Path, run: Mapping[str, Any]) -> None:
        """Write the state under ``output/training_state``; the two latest are kept.

        Args:
            output: the checkpoint folder.
            run: what makes this run that run; given back by :func:`recorded_run`.

        Raises:
            TrainingFailure: a weight is not finite; nothing is written, the states before stay.
            InputFault: the disk is full or the folder cannot be written.
        """
        tensors = self._tensors()
        bad = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
        if bad:
            reason = f"{bad[0]} is not finite at step {self.step}; the last good state before is kept"
            raise TrainingFailure(f"{output}: NOT_FINITE: {reason}; {START_OVER}")
        folder = output / FOLDER
        final = folder / f"step-{self.step:08d}"
        temporary = folder / f".{final.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            save_file(tensors, temporary / TENSORS)
            record = {
                "run": run,
                "step": self.step,
                "seconds": self.seconds,
                "best_score": self.best_score,
                "stale": self.stale,
                "augment": self.augment,
                "leads": self.leads,
                "part": self.part,
                "seen": self.seen,
                "sha256": file_digest(temporary / TENSORS),
            }
            (temporary / RECORD).write_text(json.dumps(record, indent=1))
            for path in (temporary / TENSORS, temporary / RECORD):
                _flush(path)
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            _flush(folder)
        except (OSError, SafetensorError) as error:  # the latter is what a full disk is to safetensors
            shutil.rmtree(temporary, ignore_errors=True)
            needed = sum(value.numel() * value.element_size() for value in tensors.values())
            why = getattr(error, "strerror", None) or error
            raise InputFault(
                folder, "NOT_WRITABLE", f"could not write the {needed} bytes of the training state ({why})",
                "free some space and run the same command again: it resumes from the state before",
            ) from error  # fmt: skip
        for old in _states(output)[:-KEEP]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self, output: Path) -> None:
        """Load the latest whole state; the networks must be those of the recorded run."""
        folder, record = _latest(output)
        self._restore(load_file(folder / TENSORS))
        self.step, self.seconds = record["step"], record["seconds"]
        self.best_score, self.stale = record["best_score"], record["stale"]
        self.augment, self.part = record.get("augment"), record.get("part")
        self.leads = list(record.get("leads", []))
        self.seen = dict(record.get("seen", {}))

    def _tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, network in {**self.networks, "average": self.average.average}.items():
            tensors |= {f"{name}/{key}": value for key, value in network.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for index, slots in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}/{index}/{slot}": torch.as_tensor(value) for slot, value in slots.items()}
        tensors |= {f"past_fakes/{name}": value for name, value in self.past_fakes.tensors().items()}
        return {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        for name, network in {**self.networks, "average": self.average.average}.items():
            network.load_state_dict(_below(tensors, name))
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(tensors, name).items():
                index, slot = key.split("/")
                state.setdefault(int(index), {})[slot] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self.past_fakes.restore(_below(tensors, "past_fakes"))


def recorded_run(output: Path) -> dict[str, Any]:
    """Return what the latest whole state says of the run it belongs to.

    Raises:
        InputFault: there are states, but all are damaged.
    """
    run: dict[str, Any] = _latest(output)[1]["run"]
    return run


def _latest(output: Path) -> tuple[Path, dict[str, Any]]:
    for folder in reversed(_states(output)):
        try:
            record: dict[str, Any] = json.loads((folder / RECORD).read_text())
            if file_digest(folder / TENSORS) == record["sha256"] and "run" in record:
                return folder, record
        except (OSError, ValueError, KeyError, TypeError):
            continue
    raise InputFault(output / FOLDER, "STATE_DAMAGED", "no training state in it is whole", "start over with --fresh")


def remove_states(output: Path) -> None:
    """Remove the states of a finished (or restarted) training."""
    shutil.rmtree(output / FOLDER, ignore_errors=True)


def latest_step(output: Path) -> int | None:
    """Return the number of updates behind the latest state, ``None`` where there is none."""
    states = _states(output)
    return int(states[-1].name.removeprefix("step-")) if states else None


def has_state(output: Path) -> bool:
    """Whether ``output`` holds an unfinished training."""
    return bool(_states(output))


def _below(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = name + "/"
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _states(output: Path) -> list[Path]:
    folder = output / FOLDER
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if re.fullmatch(r"step-\d{8}", p.name))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
