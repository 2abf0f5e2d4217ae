"""How a transform holds its generators, and the fields they have predicted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from medgan.sampler import Recipe, Sampler, load

Source = str | Path | Sampler
MAX_BYTES = 512 * 2**20


class SamplerHandle:
    """A checkpoint's path and, once loaded, its sampler.

    A deep copy (MONAI copies transforms for caches and workers) shares the weights; a pickle holds the path alone, so
    a spawned worker loads the checkpoint for itself. The path is that of the folder, also where the checkpoint comes
    from a registry: an alias that moves must not give two workers two generators.

    Args:
        checkpoint: the folder, a generator in a registry (``models:/name@alias``), or a sampler already loaded.
    """

    def __init__(self, checkpoint: Source) -> None:
        self._sampler: Sampler | None = checkpoint if isinstance(checkpoint, Sampler) else load(checkpoint)
        self.path = str(self._sampler.checkpoint.folder)
        self.digest = self._sampler.checkpoint.digest

    @property
    def sampler(self) -> Sampler:
        """The sampler, loaded at its first use in this process."""
        if self._sampler is None:
            self._sampler = load(self.path)
        return self._sampler

    def __deepcopy__(self, memo: dict[int, Any]) -> SamplerHandle:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "digest": self.digest, "_sampler": None}


class Mixture:
    """One generator or several, each with a weight.

    Args:
        checkpoints: one, or several.
        weights: as many positive numbers; by default all alike.

    Raises:
        ValueError: weights that do not fit the checkpoints.
    """

    def __init__(self, checkpoints: Source | Sequence[Source], weights: Sequence[float] | None = None) -> None:
        several = [checkpoints] if isinstance(checkpoints, str | Path | Sampler) else list(checkpoints)
        given = [1.0] * len(several) if weights is None else [float(w) for w in weights]
        if not several or len(given) != len(several) or not all(0 < w < float("inf") for w in given):
            raise ValueError(f"weights must be one positive number for each of {len(several)} checkpoints, got {given}")
        self.handles = tuple(SamplerHandle(checkpoint) for checkpoint in several)
        self.shares = tuple(weight / sum(given) for weight in given)

    def __len__(self) -> int:
        return len(self.handles)

    def member(self, number: float) -> int:
        """Return the generator that a number, uniform in 0..1, falls on."""
        total = 0.0
        for index, share in enumerate(self.shares):
            total += share
            if number < total:
                return index
        return len(self) - 1

    def by_digest(self, digest: str) -> Sampler:
        """Return the generator that parameters were drawn with.

        Raises:
            ValueError: it is none of these.
        """
        for handle in self.handles:
            if handle.digest == digest:
                return handle.sampler
        paths = ", ".join(handle.path for handle in self.handles)
        raise ValueError(f"parameters of checkpoint {digest[:12]}…, not of {paths}")


class PreparedRecipes:
    """Recipes kept in this process, those used last, at most ``MAX_BYTES`` of them; copies and pickles hold none."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Recipe | None] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable, make: Callable[[], Recipe | None]) -> Recipe | None:
        """Return what is kept under ``key``, made and kept if nothing is: a recipe, or that there is none."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        recipe = self._kept[key] = make()
        self._bytes += _size(recipe)
        while self._bytes > MAX_BYTES and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return recipe

    def __len__(self) -> int:
        return len(self._kept)

    def __deepcopy__(self, memo: dict[int, Any]) -> PreparedRecipes:
        return PreparedRecipes()

    def __reduce__(self) -> tuple[type[PreparedRecipes], tuple[()]]:
        return PreparedRecipes, ()


def _size(recipe: Recipe | None) -> int:
    if recipe is None:
        return 0
    fields = recipe.fields
    tensors = (recipe.displacement, fields.velocity, fields.gain, fields.offset, fields.texture)
    return sum(t.nelement() * t.element_size() for t in tensors if t is not None)
