"""What an attacker with real volumes in hand learns from synthetic ones.

Distances are given, so that any space will do. A record is *member* if the generator was trained on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FALSE_POSITIVES = 0.01


def adversarial_accuracy(across: Array, within_real: Array, within_synthetic: Array) -> float:
    """Return the nearest-neighbour adversarial accuracy of two sets (Yale et al., Neurocomputing 416, 2020).

    It is the share of samples whose nearest neighbour is of their own set, mean over the two sets: 0 where every sample
    has a copy in the other set, 0.5 for sets that cannot be told apart, 1 for sets far apart. It depends on the sizes:
    compare sets of equal ones.

    Args:
        across: ``(N, M)`` distances of real to synthetic samples, at least 2 of each.
        within_real, within_synthetic: ``(N, N)`` and ``(M, M)``; the diagonal does not count.

    Raises:
        ValueError: too few samples, or shapes that do not fit.
    """
    n, m = across.shape
    if min(n, m) < 2 or within_real.shape != (n, n) or within_synthetic.shape != (m, m):
        raise ValueError(f"distances of at least 2 samples each must match, got {across.shape}, {within_real.shape}")
    apart_real = across.min(axis=1) > np.where(np.eye(n, dtype=bool), np.inf, within_real).min(axis=1)
    apart_synthetic = across.min(axis=0) > np.where(np.eye(m, dtype=bool), np.inf, within_synthetic).min(axis=1)
    return float((apart_real.mean() + apart_synthetic.mean()) / 2)


def attack_auc(members: Array, others: Array) -> float:
    """Return the share of (member, other) pairs in which the member lies nearer to the synthetic volumes; ties half.

    Args:
        members: ``(N,)`` distance of each member to the nearest synthetic volume.
        others: ``(M,)`` the same of records that are no members.

    Returns:
        Area under the ROC curve of "the nearer, the likelier a member": 0.5 tells nothing.
    """
    nearer, as_near = members[:, None] < others[None], members[:, None] == others[None]
    return float(nearer.mean() + as_near.mean() / 2)


def attack_sensitivity(members: Array, others: Array, false_positives: float = FALSE_POSITIVES) -> float:
    """Return the share of members found where at most a share of the others is taken for members (Carlini et al. 2022).

    With fewer others than 1 / ``false_positives`` not one of them may be mistaken.

    Args:
        members, others: distances as in :func:`attack_auc`.
        false_positives: share of the others, from 0 to below 1.
    """
    # So many others lie below the threshold, or fewer where there are ties.
    threshold = np.sort(others)[allowed_mistakes(len(others), false_positives)]
    return float((members < threshold).mean())


def allowed_mistakes(others: int, false_positives: float = FALSE_POSITIVES) -> int:
    """Return how many of so many others :func:`attack_sensitivity` lets be taken for members."""
    return int(np.floor(false_positives * others + 1e-9))


def blind_sensitivity(others: int, false_positives: float = FALSE_POSITIVES) -> float:
    """Return the sensitivity to expect where distances know nothing of membership: (allowed + 1) / (M + 1) of M others.

    The threshold is the smallest distance but for the mistakes allowed; a member is as likely as any other to have one
    of the first ranks. With few others that is far more than ``false_positives``.
    """
    return (allowed_mistakes(others, false_positives) + 1) / (others + 1)


def halves(patients: Sequence[str], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part rows into two halves by patient, at random; the first is the smaller one of an odd number.

    Args:
        patients: of each row; at least 2 of them.
        rng: what to draw from.
    """
    names, of_row = np.unique(np.asarray(patients), return_inverse=True)
    first = np.isin(of_row, rng.permutation(len(names))[: len(names) // 2])
    return np.flatnonzero(first), np.flatnonzero(~first)
