"""Label maps under a deformation: the share of each label is interpolated, and the largest wins.

Nearest neighbour takes over every stair of the voxel grid and, where the deformation stretches, tears thin parts into
crumbs. Interpolating what is a share, not a number, and deciding afterwards keeps outlines smooth and makes no value
that was not there. It is how nnU-Net resamples segmentations (Isensee et al., Nature Methods 2021).

Away from outlines the eight voxels around a position carry the same label; so only positions beside an outline are
looked at closely, and the cost does not grow with the number of labels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

MODE = "label"
SLAB_VOXELS = 500_000  # compared at a time, whatever the volume's size
TIE = 1e-6  # shares closer than this are equal: rounding must not decide between two halves


def outlines(label: Tensor) -> Tensor:
    """Return which voxels of ``(C, X, Y, Z)`` have another label among their 26 neighbours, bool."""
    found = torch.empty(label.shape, dtype=torch.bool, device=label.device)
    length = label.shape[1]
    step = max(1, SLAB_VOXELS // max(1, label[:, 0].numel()))
    for start in range(0, length, step):
        first, stop = max(0, start - 1), min(length, start + step)
        part = label[:, first : min(length, stop + 1)]
        differs = _extreme(part, torch.maximum) != _extreme(part, torch.minimum)
        found[:, start:stop] = differs[:, start - first : stop - first]
    return found


def sample_labels(label: Tensor, edges: Tensor, positions: Tensor, padding: str = "border") -> Tensor:
    """Sample a label map anywhere.

    Args:
        label: ``(C, X, Y, Z)``, any number type; every channel a map of its own.
        edges: :func:`outlines` of it.
        positions: voxel indices of ``label``, array order, ``(3, ...)`` float.
        padding: beyond the volume ``"border"``, ``"zeros"`` or ``"reflection"``, as in torch's ``grid_sample``.

    Returns:
        ``(C, ...)`` in the dtype of ``label``; where two labels have the same share, the lower value.
    """
    size = torch.tensor(label.shape[1:], device=positions.device).reshape(3, *(1,) * (positions.ndim - 1))
    if padding == "reflection":
        positions = _reflected(positions, size)
    # Beyond "zeros" the volume ends in an outline of its own.
    outside = ((positions < 0) | (positions > size - 1)).any(dim=0) if padding == "zeros" else None
    nearest = _flat(positions.clamp(min=torch.zeros_like(size), max=size - 1).round().long(), label.shape[1:])
    sampled = label.flatten(1)[:, nearest]
    close = edges.flatten(1)[:, nearest]
    if outside is not None:
        close |= outside
    for channel, out, near in zip(label, sampled, close, strict=True):
        out[near] = _largest_share(channel, positions[:, near], padding)
    return sampled


def _largest_share(label: Tensor, positions: Tensor, padding: str) -> Tensor:
    """Return the winning label ``(N,)`` of ``(X, Y, Z)`` at ``(3, N)``."""
    size = torch.tensor(label.shape, device=positions.device)[:, None]
    if padding != "zeros":
        positions = positions.clamp(min=torch.zeros_like(size), max=size - 1)
    low = positions.floor()
    up = positions - low
    values, weights = [], []
    for corner in itertools.product((0, 1), repeat=3):
        at = torch.tensor(corner, device=positions.device)[:, None]
        voxel = low.long() + at
        inside = ((voxel >= 0) & (voxel < size)).all(dim=0)
        value = label.flatten()[_flat(voxel.clamp(min=torch.zeros_like(size), max=size - 1), label.shape)]
        values.append(torch.where(inside, value, torch.zeros_like(value)))
        weights.append(torch.where(at == 1, up, 1 - up).prod(dim=0))
    winner, most = values[0], torch.full_like(weights[0], -1)
    for candidate in values:
        share = sum((weight * (value == candidate) for value, weight in zip(values, weights, strict=True)), 0 * most)
        more = (share > most + TIE) | ((share > most - TIE) & (candidate < winner))
        winner, most = torch.where(more, candidate, winner), torch.where(more, share, most)
    return winner


def _extreme(label: Tensor, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the largest or least of each voxel's 3³ neighbourhood."""
    for axis in (1, 2, 3):
        length = label.shape[axis]
        if length == 1:
            continue
        pairs = choose(label.narrow(axis, 0, length - 1), label.narrow(axis, 1, length - 1))
        ends = (pairs.narrow(axis, 0, 1), pairs.narrow(axis, length - 2, 1))
        inner = choose(pairs.narrow(axis, 0, length - 2), pairs.narrow(axis, 1, length - 2))
        label = torch.cat([ends[0], inner, ends[1]], dim=axis)
    return label


def _flat(voxel: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the position of voxels ``(3, ...)`` in the flattened volume."""
    return (voxel[0] * shape[1] + voxel[1]) * shape[2] + voxel[2]


def _reflected(positions: Tensor, size: Tensor) -> Tensor:
    """Reflect at the outer faces of the outer voxels, as often as it takes."""
    period = 2 * size
    folded = torch.remainder(positions + 0.5, period)
    return torch.minimum(folded, period - folded) - 0.5
