"""How a transform holds its generator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medgan.sampler import Sampler, load


class SamplerHandle:
    """A checkpoint's path and, once loaded, its sampler.

    A deep copy (MONAI copies transforms for caches and workers) shares the weights; a pickle holds the path alone, so
    a spawned worker loads the checkpoint for itself. The path is that of the folder, also where the checkpoint comes
    from a registry: an alias that moves must not give two workers two generators.

    Args:
        checkpoint: the folder, a generator in a registry (``models:/name@alias``), or a sampler already loaded.
    """

    def __init__(self, checkpoint: str | Path | Sampler) -> None:
        self._sampler: Sampler | None = checkpoint if isinstance(checkpoint, Sampler) else load(checkpoint)
        self.path = str(self._sampler.checkpoint.folder)

    @property
    def sampler(self) -> Sampler:
        """The sampler, loaded at its first use in this process."""
        if self._sampler is None:
            self._sampler = load(self.path)
        return self._sampler

    def __deepcopy__(self, memo: dict[int, Any]) -> SamplerHandle:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_sampler": None}
