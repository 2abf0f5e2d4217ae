"""One sibling of a source: drawn, rendered and – where there is a gate – judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgan.generate.plan import Order
from medgan.generate.source import Source
from medgan.sampler import Parameters, Recipe, Sampler, View, attempt_number, channel_first, render_pair


@dataclass(frozen=True)
class Rejection:
    """An attempt that was refused.

    Attributes:
        index: of its noise.
        quality: its score; ``None`` where the checkpoint has no critic.
        reason: why.
    """

    index: int
    quality: float | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in a sidecar."""
        number = attempt_number(self.index)
        return {"attempt": number, "index": self.index, "quality": self.quality, "reason": self.reason}


@dataclass(frozen=True, eq=False)
class Made:
    """A sibling in memory.

    Attributes:
        order: what was asked for.
        source: what it was made of.
        recipe: how.
        image: ``(C, X, Y, Z)`` in the source's real units.
        label: ``(1, X, Y, Z)`` in the label map's own type, or ``None``.
        quality: its score (:func:`~medgan.sampler.quality.sibling_quality`); ``None`` where there is no critic.
        rejected: earlier attempts.
    """

    order: Order
    source: Source
    recipe: Recipe
    image: NDArray[Any]
    label: NDArray[Any] | None
    quality: float | None = None
    rejected: tuple[Rejection, ...] = ()

    @property
    def attempt(self) -> int:
        """Which attempt at its order it is, counted from 1."""
        return attempt_number(self.recipe.parameters.index)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """An order of which every attempt was refused: nothing is written but that.

    Attributes:
        order: what was asked for.
        source: what it was to be made of.
        parameters: of the first attempt.
        rejected: all attempts.
    """

    order: Order
    source: Source
    parameters: Parameters
    rejected: tuple[Rejection, ...]


Gate = Callable[[Made], str | None]
"""Judges a sibling before it is written: ``None`` lets it pass, a string is the reason to make another instead.

It must be a function of the sibling alone, or siblings would depend on what else is made."""


def make_sibling(
    source: Source,
    view: View,
    order: Order,
    sampler: Sampler,
    strength: float,
    gate: Gate | None = None,
    min_quality: float = 0.0,
) -> Made | LeftOut:
    """Make the sibling an order asks for; one that is refused is drawn again with other noise.

    Args:
        source: of the order's case.
        view: of the source, by :meth:`~medgan.sampler.Sampler.view`.
        order: what is asked for.
        sampler: runs the generator.
        strength: 0 is the identity, 1 what was learned.
        gate: judges what was rendered.
        min_quality: smallest score that is let pass, see :func:`~medgan.sampler.quality.sibling_quality`; judged first,
            so that what falls short is not rendered.
    """
    parameters = sampler.draw(order.seed, order.index, strength, known_class(source.case.class_name, sampler))
    rejected: list[Rejection] = []
    for attempt in sampler.attempts(view, parameters):
        index = attempt.recipe.parameters.index
        if not attempt.passes(min_quality):
            reason = f"quality {attempt.quality:.4f} is below {min_quality:g}"
        else:
            made = _rendered(source, order, attempt.recipe, attempt.quality, tuple(rejected))
            refusal = gate(made) if gate else None
            if refusal is None:
                return made
            reason = refusal
        rejected.append(Rejection(index, attempt.quality, reason))
    return LeftOut(order, source, parameters, tuple(rejected))


def make_again(
    source: Source, order: Order, sampler: Sampler, index: int, strength: float, class_name: str | None
) -> Made:
    """Make the sibling of given noise index, whatever a gate thinks of it."""
    parameters = sampler.draw(order.seed, index, strength, class_name)
    return _rendered(source, order, sampler.recipe(source.tensor, parameters, source.image.affine))


def _rendered(
    source: Source,
    order: Order,
    recipe: Recipe,
    quality: float | None = None,
    rejected: tuple[Rejection, ...] = (),
) -> Made:
    label = None if source.label is None else channel_first(source.label.data)
    made, mask = render_pair(recipe, source.tensor, label)
    # At strength 0 the image's own voxels, whatever their dtype.
    image = np.asarray(source.image.data) if recipe.is_identity else made.numpy()
    return Made(order, source, recipe, image, None if mask is None else mask.numpy(), quality, rejected)


def known_class(class_name: str | None, sampler: Sampler) -> str | None:
    """Return the class if the generator was trained with it, else ``None``: unknown."""
    return class_name if class_name in sampler.class_names else None
