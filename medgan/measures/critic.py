"""An independent critic: how usual is a volume among real ones?

It shares nothing with the discriminator the generator was trained against: plain statistics of the volume
(:mod:`medgan.measures.features`) and how real volumes vary in them. A sibling that is blurred, torn or lit like none of
them stands out, whatever the generator had learned to get past.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from medgan.measures.features import FEATURES_PER_CHANNEL, SMALLEST_SD, group_weights

Array = NDArray[np.float64]

LEAST = 6  # patients: below that nothing can be said of what is usual
FOLDS = 10
COMPONENTS = 16


@dataclass(frozen=True, eq=False)
class Critic:
    """What real volumes are like, as arrays that a checkpoint can hold.

    Attributes:
        mean, scale: ``(F,)`` of the features; the scale has the groups' weights in it.
        axes: ``(k, F)`` principal axes of the standardised features, orthonormal.
        spread: ``(k,)`` SD of the real volumes along them.
        inside, outside: ``(R,)`` ascending, of real volumes left out of the fit: distance from the mean along the axes,
            in SD, and distance from what the axes span.
        rarest: ``(R,)`` ascending, the smaller of the two tail shares of each.
    """

    mean: Array
    scale: Array
    axes: Array
    spread: Array
    inside: Array
    outside: Array
    rarest: Array

    def quality(self, features: Array) -> Array:
        """Return the share of real volumes that are no more usual, ``(N,)`` in (0, 1], of ``(N, F)`` features.

        Of real volumes of other patients it is spread evenly: 5 % of them are at or below 0.05.
        """
        tails = self._tails(*_distances(features, self.mean, self.scale, self.axes, self.spread))
        return _share_up_to(self.rarest, tails)

    @property
    def lowest(self) -> float:
        """The lowest quality there is: with R real volumes nothing rarer than 1 / (R + 1) can be told."""
        return 1 / (len(self.rarest) + 1)

    def _tails(self, inside: Array, outside: Array) -> Array:
        return np.minimum(_share_from(self.inside, inside), _share_from(self.outside, outside))

    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def fit_critic(features: Array, patients: Sequence[str] | None = None) -> Critic | None:
    """Learn what is usual from features of real volumes; ``None`` with fewer than six patients, or volumes all alike.

    What a real volume's distances are is measured on patients left out (ten-fold, leave-one-out in small sets): those
    of the fitted volumes, and of other scans of their patients, would be too small.

    Args:
        features: ``(N, F)``.
        patients: of the N volumes; ``None`` where each is of another patient.
    """
    features = np.asarray(features, dtype=np.float64)
    count = len(features)
    names = list(range(count)) if patients is None else list(patients)
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    if len(place) < LEAST or not np.any(features.std(axis=0) > 1e-9):
        return None
    folds = np.array([place[name] for name in names]) % min(FOLDS, len(place))
    measured = np.empty((count, 2))
    for fold in np.unique(folds):
        space = _space(features[folds != fold])
        measured[folds == fold] = np.stack(_distances(features[folds == fold], *space), axis=1)
    inside, outside = np.sort(measured, axis=0).T
    tails = np.minimum(_share_from(inside, measured[:, 0]), _share_from(outside, measured[:, 1]))
    return Critic(*_space(features), inside, outside, np.sort(tails))


def critic_of(arrays: Mapping[str, Array]) -> Critic:
    """Rebuild a critic from :meth:`Critic.arrays`.

    Raises:
        ValueError: an array is missing, not finite or of a shape that does not fit.
    """
    names = [field.name for field in fields(Critic)]
    if set(arrays) != set(names):
        raise ValueError(f"a critic has the arrays {', '.join(names)}")
    found = {name: np.asarray(arrays[name], dtype=np.float64) for name in names}
    size, references = found["mean"].size, found["inside"].size
    shapes = {"axes": (found["spread"].size, size), "scale": (size,), "outside": (references,), "rarest": (references,)}
    ones = all(found[name].ndim == 1 for name in ("mean", "spread", "inside"))
    if not ones or references < 1 or any(found[name].shape != shape for name, shape in shapes.items()):
        raise ValueError("the critic's arrays do not fit each other")
    if not all(np.isfinite(value).all() for value in found.values()) or found["scale"].min(initial=1) <= 0:
        raise ValueError("the critic's arrays hold values that are not finite, or a scale of 0")
    return Critic(**found)


def _space(features: Array) -> tuple[Array, Array, Array, Array]:
    count, size = features.shape
    whole = size % FEATURES_PER_CHANNEL == 0
    weights = group_weights(size // FEATURES_PER_CHANNEL) if whole else np.ones(size)
    mean = features.mean(axis=0)
    scale = np.maximum(features.std(axis=0), SMALLEST_SD) / weights
    _, singular, axes = np.linalg.svd((features - mean) / scale, full_matrices=False)
    kept = max(1, min(COMPONENTS, count // 3, int((singular > 1e-6 * singular[0]).sum())))
    return mean, scale, axes[:kept], singular[:kept] / np.sqrt(count - 1)


def _distances(features: Array, mean: Array, scale: Array, axes: Array, spread: Array) -> tuple[Array, Array]:
    scaled = (np.asarray(features, dtype=np.float64) - mean) / scale
    # Not by matrix products: BLAS adds up in an order that depends on its threads and on how many volumes there are.
    along = np.einsum("nf,kf->nk", scaled, axes)
    rest = scaled - np.einsum("nk,kf->nf", along, axes)
    return np.sqrt(np.square(along / spread).mean(axis=1)), np.sqrt(np.square(rest).sum(axis=1))


def _share_from(references: Array, values: Array) -> Array:
    """Return the share of ascending references at or above each value, itself counted as one of them."""
    above = len(references) - np.searchsorted(references, values, side="left")
    return np.asarray((above + 1) / (len(references) + 1), dtype=np.float64)


def _share_up_to(references: Array, values: Array) -> Array:
    below = np.searchsorted(references, values, side="right")
    return np.asarray((below + 1) / (len(references) + 1), dtype=np.float64)
