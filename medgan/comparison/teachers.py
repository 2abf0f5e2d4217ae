"""Teachers of a study, each trained once: the same teacher is an arm of its own, or that of several arms.

They lie in the study's folder until all its runs are there. Keeping them is a saving, not a need: what is missing or
cannot be read is trained again, and comes out the same.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from medgan.atomic import atomic_file
from medgan.comparison.arms import TEACHER_PARTS, Arm

logger = logging.getLogger(__name__)

FOLDER = "teachers"
SECONDS = "seconds"


class Teachers:
    """Trained networks by the key of the run that trains them.

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
        """Remove the folder with all teachers."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def keep(self, key: str, network: nn.Module, seconds: float) -> None:
        """Keep a trained network, and how long its training took."""
        if self.folder is None or not self.folder.is_dir():
            return
        weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        try:
            with atomic_file(self._path(key)) as stream:
                stream.write(save(weights, {SECONDS: repr(seconds)}))
        except OSError as error:
            logger.debug("a teacher is not kept (%s)", error.strerror)

    def recall(self, key: str, network: nn.Module) -> float | None:
        """Load what was kept into a network of the same architecture.

        Returns:
            the seconds its training took; ``None`` where none is kept, with the network as it was.
        """
        if self.folder is None or not self._path(key).is_file():
            return None
        try:
            with safe_open(self._path(key), framework="pt") as file:
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                seconds = float(file.metadata()[SECONDS])
            network.load_state_dict(weights)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
            logger.debug("a teacher that was kept cannot be read, it is trained again")
            return None
        return seconds

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"


def teacher_of(arm: Arm) -> Arm | None:
    """Return how an arm's teacher is trained: as the arm is, but for its teacher; ``None`` where it has none."""
    parts = tuple(part for part in arm.parts if part not in TEACHER_PARTS)
    return None if parts == arm.parts else replace(arm, parts=parts)
