"""Trained models that a study needs again: the teachers of its arms, and trials whose values an arm takes.

They lie in the study's folder until all its runs are there. Keeping them is a saving, not a need: what is missing or
cannot be read is trained again, and comes out the same.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from medgan.atomic import atomic_file
from medgan.comparison.downstream import Trained
from medgan.comparison.results import CurvePoint

logger = logging.getLogger(__name__)

FOLDER = "kept"
SUFFIX = ".safetensors"
TRAINING = "training"


@dataclass(frozen=True, eq=False)
class KeptModel:
    """A trained model with all that its training told.

    Attributes:
        trained: network, validation curve and time.
        teacher_seconds: what its teacher cost; 0 where it has none.
        steps: the number of each update, and what was to be recorded of it; empty where nobody listened.
    """

    trained: Trained
    teacher_seconds: float = 0.0
    steps: Sequence[tuple[int, Mapping[str, float]]] = ()


class KeptModels:
    """Trained models by the key of the run that trains them.

    Args:
        folder: where they lie, made by :meth:`open`; ``None`` keeps none. Where it does not exist (on another machine)
            none is kept either.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def open(self) -> None:
        """Make the folder; where there is no room for it, none is kept."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                self.folder.mkdir(exist_ok=True)

    def close(self) -> None:
        """Remove the folder with all models."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def keep(self, key: str, model: KeptModel) -> None:
        """Keep a model; one without steps does not replace another, which tells as much or more."""
        if self.folder is None or not self.folder.is_dir() or (not model.steps and self._path(key).exists()):
            return
        trained = model.trained
        # A copy of each: a network may list the same weights under two names, which the file format refuses to share.
        copied = partial(torch.clone, memory_format=torch.contiguous_format)
        weights = {name: copied(value.detach().cpu()) for name, value in trained.network.state_dict().items()}
        told = {
            "seconds": trained.seconds,
            "teacher_seconds": model.teacher_seconds,
            "curve": [astuple(point) for point in trained.curve],
            "steps": model.steps,
        }
        try:
            with atomic_file(self._path(key)) as stream:
                stream.write(save(weights, {TRAINING: json.dumps(told)}))
        except (OSError, SafetensorError, TypeError, ValueError, RuntimeError) as error:
            logger.debug("a trained model is not kept (%s)", error)

    def recall(self, key: str, network: nn.Module) -> KeptModel | None:
        """Load what was kept into a network of the same architecture.

        Returns:
            the model, with ``network`` for its own; ``None`` where none is kept, with the network as it was.
        """
        if self.folder is None or not self._path(key).is_file():
            return None
        try:
            with safe_open(self._path(key), framework="pt") as file:
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                told = json.loads(file.metadata()[TRAINING])
            model = _model(network, told)
            network.load_state_dict(weights)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
            logger.debug("a trained model that was kept cannot be read, it is trained again")
            with contextlib.suppress(OSError):
                self._path(key).unlink()  # so that what is trained now takes its place
            return None
        return model

    def keep_only(self, keys: Collection[str]) -> None:
        """Remove the models that are needed no more."""
        if self.folder is None or not self.folder.is_dir():
            return
        for file in self.folder.glob(f"*{SUFFIX}"):
            if file.name.removesuffix(SUFFIX) not in keys:
                with contextlib.suppress(OSError):
                    file.unlink()

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}{SUFFIX}"


def _model(network: nn.Module, told: dict[str, Any]) -> KeptModel:
    curve = tuple(CurvePoint(*point) for point in told["curve"])
    steps = tuple((int(number), dict(values)) for number, values in told["steps"])
    return KeptModel(Trained(network, curve, float(told["seconds"])), float(told["teacher_seconds"]), steps)
