"""What is drawn for a sample: a function of (seed, epoch, sample), whichever worker serves it."""

from __future__ import annotations

import hashlib
import multiprocessing
import secrets
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from monai.transforms import RandomizableTransform
from monai.utils import get_seed
from torch import Tensor
from torch.utils.data import get_worker_info

from medgan.seeding import derive_seed
from medgan.transforms.visits import Visits

CONTENT_VALUES = 4096


@dataclass(frozen=True)
class Draw:
    """What was drawn for one sample that is to be replaced.

    Attributes:
        seed: seed of the noise.
        strength: 0 is the identity, 1 what was learned.
        member: which of the generators.
        prepared: whether its fields are among those kept (``cache_fields``).
    """

    seed: int
    strength: float
    member: int = 0
    prepared: bool = False


class SampleRandomizable(RandomizableTransform):
    """A MONAI random transform that draws for a sample rather than from a stream.

    A sample with a name draws from a stream of its own, a function of (seed, epoch, name, visit in that epoch). One
    without a name draws from ``self.R`` as MONAI's transforms do; a worker that nobody has seeded then separates its
    copy of ``self.R`` from those of its siblings (torch's plain ``DataLoader`` does not).

    Args:
        prob: probability of a sample being transformed, 0 to 1.
        seed: fixed seed; then every sample counts as named, if need be by its voxels. ``None``: that of
            ``set_random_state``, ``set_determinism``, or in a worker of MONAI's loader that of the loader.

    Raises:
        ValueError: ``prob`` out of range.
    """

    R: np.random.RandomState

    def __init__(self, prob: float, seed: int | None) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob must be in [0, 1], got {prob}")
        RandomizableTransform.__init__(self, prob)
        self.seed = seed
        self.visits = Visits()
        determined = get_seed() if seed is None else seed
        self._key = secrets.randbits(62) if determined is None else int(determined)
        self._seeded_in: int | None = None

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> SampleRandomizable:
        """Seed as any MONAI transform; visits are counted anew. A ``seed`` given at construction stays."""
        super().set_random_state(seed, state)
        worker = current_worker()
        self._seeded_in = None if worker is None else worker.seed
        if self.seed is None and worker is None:
            state_words = np.asarray(cast("tuple[Any, ...]", self.R.get_state())[1])
            self._key = derive_seed(0, "state", hashlib.sha256(state_words.tobytes()).hexdigest())
            self.visits.start(self.visits.epoch)
        elif self.seed is None:
            # The loader seeds each worker by its number. What is common to its workers makes their number irrelevant.
            self._key = derive_seed(worker.seed - worker.id, "loader")
        return self

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins; workers that are alive hear of it too.

        Without it a sample's visits are counted, so no epoch repeats another either; with it, draws are those of that
        epoch also in a run that was resumed or that leaves epochs before their end.
        """
        self.visits.start(epoch)

    def stream(self, name: str | None) -> np.random.RandomState | None:
        """Return the stream of a sample's next visit, ``None`` for a sample without a name: then it is ``self.R``."""
        if name is None:
            self.separate_worker()
            return None
        visit = self.visits.count(name)
        return seeded_stream(derive_seed(self._key, "sample", self.visits.epoch, name, visit))

    def separate_worker(self) -> None:
        """Give a worker that nobody has seeded a stream of its own."""
        worker = current_worker()
        if worker is not None and self._seeded_in != worker.seed:
            self._seeded_in = worker.seed
            before = int(self.R.randint(2**31))
            self.R = np.random.RandomState(derive_seed(before, "worker", worker.seed) % 2**32)


def seeded_stream(seed: int) -> np.random.RandomState:
    """Return a stream with the methods of ``Randomizable.R``, from a 63-bit seed."""
    return np.random.RandomState(np.random.PCG64(seed))


def current_worker() -> Any:
    """Return torch's record of the loader's worker process that this is, or ``None``."""
    # Threads that stand in for workers leave their record behind in the main process.
    return get_worker_info() if multiprocessing.parent_process() is not None else None


def file_name(value: Any) -> str | None:
    """Return the file (and patch) that a MetaTensor says it comes from; ``None`` where it says nothing."""
    meta = getattr(value, "meta", None)
    name = meta.get("filename_or_obj") if isinstance(meta, dict) else None
    if meta is None or name is None or not isinstance(name, str) or not name:
        return None
    patch = meta.get("patch_index")
    return name if patch is None else f"{name}#{int(patch)}"


def content_name(value: Tensor) -> str:
    """Return a digest of a volume's shape and of some of its values."""
    flat = value.detach().reshape(-1)
    some = flat[:: max(1, flat.shape[0] // CONTENT_VALUES)].to("cpu", torch.float64)
    return hashlib.sha256(repr(tuple(value.shape)).encode() + some.numpy().tobytes()).hexdigest()
