"""Imbalanced classes: draw rare ones more often, and replace them by siblings more often, so that none is repeated.

Drawing is torch's: ``WeightedRandomSampler(balanced_weights(data, "class"), len(data))``, or with several processes
MONAI's ``DistributedWeightedRandomSampler``. Of the weights ours is only how they go with the transform's ``prob``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

ClassValue = str | int | None


def class_value(value: Any) -> ClassValue:
    """Return a sample's class: a name or an index; ``None``, "" and negative indices are ``None``, unknown."""
    if value is None or isinstance(value, str):
        return value or None
    number = int(value)
    return number if number >= 0 else None


def balanced_weights(data: Sequence[Mapping[Any, Any]], class_key: str) -> list[float]:
    """Return a weight for each sample, with which a weighted sampler draws every class equally often.

    Samples without a class keep the weight 1: they are drawn as often as without weights. The weights add up to the
    number of samples.

    Args:
        data: the samples before any transform, as a MONAI ``Dataset`` takes them.
        class_key: key of the class, a name or an index; see :func:`class_value`.

    Raises:
        ValueError: no sample has a class.
    """
    classes, counts, fair = _classes(data, class_key)
    return [1.0 if value is None else fair / counts[value] for value in classes]


def balanced_prob(data: Sequence[Mapping[Any, Any]], class_key: str, prob: float = 0.5) -> dict[ClassValue, float]:
    """Return, for each class, the ``prob`` of :class:`RandDAGANd` that goes with :func:`balanced_weights`.

    A class that is drawn more often than it has volumes is replaced by siblings the more often: on average no real
    volume comes by unchanged more often in an epoch than without balance, 1 − ``prob`` times, and what a rare class
    lacks is made up of siblings alone.

    Args:
        data: see :func:`balanced_weights`.
        class_key: likewise.
        prob: of the classes that are not rare, and (key ``None``) of samples without a class; 0 to 1.

    Raises:
        ValueError: no sample has a class, or ``prob`` is out of range.

    Example:
        >>> samples = [{"image": f"{i}.nii.gz", "class": "benign" if i < 90 else "malignant"} for i in range(100)]
        >>> balanced_weights(samples, "class")[-1]
        5.0
        >>> balanced_prob(samples, "class", prob=0.5)
        {None: 0.5, 'benign': 0.5, 'malignant': 0.9}
    """
    if not 0 <= prob <= 1:
        raise ValueError(f"prob must be in [0, 1], got {prob}")
    _, counts, fair = _classes(data, class_key)
    return {None: prob} | {name: 1 - (1 - prob) * min(1.0, number / fair) for name, number in counts.items()}


class ClassProb:
    """The probability of a sample being replaced: one for all, or one for each class.

    Args:
        prob: a number from 0 to 1, or numbers by class.
        class_key: key of a sample's class.

    Raises:
        ValueError: a number out of range, or a mapping without ``class_key`` or entries.
    """

    def __init__(self, prob: float | Mapping[Any, float], class_key: str | None) -> None:
        self.by_class = {class_value(name): float(p) for name, p in prob.items()} if isinstance(prob, Mapping) else None
        self.class_key = class_key
        if self.by_class is not None and (class_key is None or not self.by_class):
            raise ValueError(f"a prob for each class needs classes and a class_key, got {prob} and {class_key!r}")
        values = [float(prob)] if isinstance(prob, float | int) else list((self.by_class or {}).values())
        if not all(0 <= value <= 1 for value in values):
            raise ValueError(f"prob must be in [0, 1], got {prob}")
        self.largest = max(values)

    def of(self, sample: Mapping[Any, Any]) -> float:
        """Return a sample's probability.

        Raises:
            ValueError: there is none for its class.
        """
        if self.by_class is None:
            return self.largest
        value = class_value(sample.get(self.class_key))
        if value not in self.by_class:
            known = ", ".join(repr(name) for name in self.by_class)
            raise ValueError(f"prob has nothing for the class {value!r}, only for {known}; add it")
        return self.by_class[value]


def _classes(data: Sequence[Mapping[Any, Any]], class_key: str) -> tuple[list[ClassValue], Counter[ClassValue], float]:
    """Return each sample's class, how many there are of each, and how many a class would have if all had as many."""
    classes = [class_value(sample.get(class_key)) for sample in data]
    counts: Counter[ClassValue] = Counter(value for value in classes if value is not None)
    if not counts:
        raise ValueError(f"none of {len(classes)} samples has a class under {class_key!r}")
    return classes, counts, counts.total() / len(counts)
