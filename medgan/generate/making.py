"""One sibling of a source: drawn, rendered and – where there is a gate – judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medgan.data.volume import Volume
from medgan.errors import MedganError
from medgan.generate.plan import Order
from medgan.generate.source import Source
from medgan.sampler import Recipe, Sampler, render, render_label

MAX_ATTEMPTS = 20
ATTEMPT_STRIDE = 1_000_000
"""Noise of the second attempt at sibling 7 is number 1,000,007: none depends on how often others were rejected."""


@dataclass(frozen=True, eq=False)
class Made:
    """A sibling in memory.

    Attributes:
        order: what was asked for.
        source: what it was made of.
        recipe: how.
        image: ``(C, X, Y, Z)`` in the source's real units.
        label: ``(1, X, Y, Z)`` in the label map's own type, or ``None``.
        rejected: earlier attempts that the gate refused: their noise index and the gate's reason.
    """

    order: Order
    source: Source
    recipe: Recipe
    image: NDArray[Any]
    label: NDArray[Any] | None
    rejected: tuple[tuple[int, str], ...] = ()


Gate = Callable[[Made], str | None]
"""Judges a sibling before it is written: ``None`` lets it pass, a string is the reason to make another instead.

It must be a function of the sibling alone, or siblings would depend on what else is made."""


def make_sibling(source: Source, order: Order, sampler: Sampler, strength: float, gate: Gate | None = None) -> Made:
    """Make the sibling an order asks for.

    Raises:
        MedganError: the gate refused every attempt.
    """
    class_name = known_class(source.case.class_name, sampler)
    rejected: list[tuple[int, str]] = []
    for attempt in range(MAX_ATTEMPTS):
        index = order.index + attempt * ATTEMPT_STRIDE
        made = make_again(source, order, sampler, index, strength, class_name)
        reason = gate(made) if gate else None
        if reason is None:
            return Made(order, source, made.recipe, made.image, made.label, tuple(rejected))
        rejected.append((index, reason))
    raise MedganError(
        f"{order.name}: REJECTED: the quality gate refused {MAX_ATTEMPTS} attempts (last: {rejected[-1][1]}), "
        "lower --strength or leave this source out"
    )


def make_again(
    source: Source, order: Order, sampler: Sampler, index: int, strength: float, class_name: str | None
) -> Made:
    """Make the sibling of given noise index, whatever a gate thinks of it."""
    parameters = sampler.draw(order.seed, index, strength, class_name)
    recipe = sampler.recipe(source.tensor, parameters, source.image.affine)
    label = None if source.label is None else warp_label(recipe, source.label)
    return Made(order, source, recipe, sibling_image(recipe, source), label)


def known_class(class_name: str | None, sampler: Sampler) -> str | None:
    """Return the class if the generator was trained with it, else ``None``: unknown."""
    return class_name if class_name in sampler.class_names else None


def sibling_image(recipe: Recipe, source: Source) -> NDArray[Any]:
    """Return the sibling's voxels, ``(C, X, Y, Z)``; at strength 0 the source's own, whatever their dtype."""
    return np.asarray(source.image.data) if recipe.is_identity else render(recipe, source.tensor).numpy()


def warp_label(recipe: Recipe, label: Volume) -> NDArray[Any]:
    """Return the label map's voxels under the sibling's deformation, in its own dtype."""
    data = np.ascontiguousarray(label.data)
    if recipe.is_identity:
        return data
    return render_label(recipe, torch.from_numpy(data.astype(np.float32))).numpy().astype(data.dtype)
