"""How much of a patient is in a sibling: copies, closeness to training records, and the link back to the source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from medgan.evaluation.intervals import Array

STATEMENT = "each output is a transformed scan of one patient; treat it as that patient's data; it is not anonymous."
COPY_PERCENTILE = 95
COMPARED_VOXELS = 65_536


def pooling_factor(shape: tuple[int, ...]) -> int:
    """Return by how much a grid is averaged down, so that volumes of any size can be compared all with all."""
    factor = 1
    while np.prod([-(-n // factor) for n in shape]) > COMPARED_VOXELS:
        factor += 1
    return factor


def comparable(volumes: Tensor) -> NDArray[np.float32]:
    """Return ``(N, V)`` of ``(N, C, D, H, W)``: averaged down by :func:`pooling_factor`, one row a volume."""
    factor = pooling_factor(tuple(volumes.shape[2:]))
    pooled = volumes if factor == 1 else F.avg_pool3d(volumes, factor, ceil_mode=True)
    return np.asarray(pooled.float().reshape(len(volumes), -1).numpy(), dtype=np.float32)


def copy_threshold(held_out_nearest: Array) -> float:
    """Return the correlation above which a volume counts as a copy.

    Args:
        held_out_nearest: ``(M,)`` correlation of each held-out volume with the nearest training volume. One in twenty
            of these patients, of whom the training set holds nothing, lies above the threshold.
    """
    return float(np.percentile(held_out_nearest, COPY_PERCENTILE))


def copies(nearest: Array, held_out_nearest: Array) -> NDArray[np.bool_]:
    """Return which volumes are copies: nearer to a training volume than held-out patients ever are.

    Args:
        nearest: of any shape, correlation of each volume with the nearest training volume.
        held_out_nearest: see :func:`copy_threshold`.
    """
    found: NDArray[np.bool_] = nearest > copy_threshold(held_out_nearest)
    return found


def linked(nearest_index: NDArray[np.int64], patients: Sequence[str]) -> NDArray[np.bool_]:
    """Return which siblings' nearest real volume is of their own patient: their source, or another scan.

    Args:
        nearest_index: ``(N, n)`` index of the nearest source of each sibling of each source.
        patients: of the N sources.
    """
    names = np.asarray(patients)
    found: NDArray[np.bool_] = names[nearest_index] == names[:, None]
    return found


def chance_of_link(patients: Sequence[str]) -> float:
    """Return the share :func:`linked` of siblings whose nearest source is anyone's: 1 / P of P patients with one scan.

    Args:
        patients: of the sources; of one with more scans more siblings are made, and chance names that one more often.
    """
    _, scans = np.unique(np.asarray(patients), return_counts=True)
    return float(np.square(scans / scans.sum()).sum())


def closer_to_training(to_training: Array, to_held_out: Array) -> NDArray[np.bool_]:
    """Return which of K volumes have a training record nearer than any held-out one (distance to closest record).

    By chance, for volumes that owe nothing to either set, the share is N / (N + M) for N training and M held-out
    records.

    Args:
        to_training, to_held_out: ``(N, K)`` and ``(M, K)`` distances of the records to the volumes; K may be several
            axes.
    """
    found: NDArray[np.bool_] = to_training.min(axis=0) < to_held_out.min(axis=0)
    return found


def neighbour_ratios(to_training: Array, patients: Sequence[str]) -> Array:
    """Return, for K volumes, the distance to the nearest training patient over that to the second nearest.

    Near 0, one patient stands out as the volume's own; near 1, none does. A patient is as near as the nearest of the
    patient's records: two scans of one patient lie close together, and would hide that the patient stands out. Two
    patients at distance 0 cannot be told apart: the ratio is 1.

    Args:
        to_training: ``(N, K)`` distances of records to the volumes; K may be several axes.
        patients: of the N records, at least 2 different ones.
    """
    names = np.asarray(patients)
    of_patients = np.stack([to_training[names == name].min(axis=0) for name in np.unique(names)])
    nearest, second = np.partition(of_patients, 1, axis=0)[:2]
    ratios: Array = np.divide(nearest, second, out=np.ones(nearest.shape), where=second > 0)
    return ratios
