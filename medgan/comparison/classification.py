"""The threshold at which a classifier is used, fixed beforehand on validation cases.

It is about one class: ``scores`` are its probabilities, ``truth`` says which cases are of it. With more than two
classes, ask once a class (one against the rest).
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import NDArray

from medgan.comparison.statistics import Array

Truth = NDArray[np.bool_] | NDArray[np.int64]


def operating_point(validation_scores: Array, validation_truth: Truth, sensitivity: float = 0.9) -> float:
    """Return the highest threshold at which the validation cases reach a sensitivity.

    A case is called positive at or above the threshold. Choose it on validation cases and never on those of the test:
    a threshold fitted to the cases that it is judged on flatters the model.

    Args:
        validation_scores: ``(N,)`` probabilities of the class.
        validation_truth: ``(N,)`` whether each case is of the class.
        sensitivity: to be reached, above 0, at most 1.

    Returns:
        The threshold; NaN where no case is of the class.

    Raises:
        ValueError: ``sensitivity`` is out of range.
    """
    from sklearn.metrics import roc_curve

    if not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity must be above 0 and at most 1, got {sensitivity}")
    positive = np.asarray(validation_truth, dtype=bool)
    if not positive.any():
        return math.nan
    with warnings.catch_warnings():
        # Without a negative case scikit-learn warns that there is no specificity; none is needed here.
        warnings.simplefilter("ignore")
        _, reached, thresholds = roc_curve(positive, validation_scores, drop_intermediate=False)
    return float(thresholds[np.argmax(reached >= sensitivity)])
