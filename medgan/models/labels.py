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
from dataclasses import dataclass

import torch
from torch import Tensor

from medgan.models.deformation import sample_grid, to_voxels

MODE = "label"
SLAB_VOXELS = 500_000  # compared at a time, whatever the volume's size
TIE = 3e-5  # shares closer than this are equal: rounding must not decide between two halves


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A label map made ready to be sampled.

    Attributes:
        values: ``(C, X, Y, Z)``, every channel a map of its own; in 8 bits where they hold it.
        inner: ``(C, X, Y, Z)``: the values as floats that hold them exactly, NaN beside an outline.
        dtype: of the map that is sampled.
    """

    values: Tensor
    inner: Tensor
    dtype: torch.dtype


def label_map(label: Tensor) -> LabelMap:
    """Return ``(C, X, Y, Z)`` ready for :func:`sample_labels`."""
    values = label.to(torch.uint8)  # a quarter of the memory to go through
    inner = values.to(torch.float32)
    if not torch.equal(inner.to(label.dtype), label):
        values, inner = label, label.to(torch.float32, copy=True)
        if not torch.equal(inner.to(label.dtype), label):
            inner = label.to(torch.float64, copy=True)  # instance numbers beyond what float32 can count
    return LabelMap(values, inner.masked_fill_(outlines(values), torch.nan), label.dtype)


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


def sample_labels(labels: LabelMap, grid: Tensor, padding: str = "border") -> Tensor:
    """Sample a label map anywhere.

    Args:
        labels: the map.
        grid: positions as ``grid_sample`` takes them, ``(1, n, Y, Z, 3)``.
        padding: beyond the volume ``"border"``, ``"zeros"`` or ``"reflection"``, as in torch's ``grid_sample``.

    Returns:
        ``(C, n, Y, Z)`` in the dtype of the map; where two labels have the same share, the lower value.
    """
    nearest = sample_grid(labels.inner, grid, "nearest", padding)
    close = nearest.isnan()
    sampled = nearest.nan_to_num_(0).to(labels.dtype)
    shape = labels.values.shape[1:]
    if padding == "zeros":
        # Beyond "zeros" the volume ends in an outline of its own.
        size = torch.tensor(shape, dtype=grid.dtype, device=grid.device).flip(0)
        close |= (grid[0].abs() > 1 - 1 / size).any(dim=-1)
    positions = grid.reshape(-1, 3)
    for channel, out, near in zip(labels.values, sampled.view(len(sampled), -1), close.flatten(1), strict=True):
        # The eight corners take some 100 bytes a position.
        for part in near.nonzero()[:, 0].split(max(1, SLAB_VOXELS // 8)):
            out[part] = _largest_share(channel, to_voxels(positions[part], shape), padding).to(labels.dtype)
    return sampled


def _largest_share(label: Tensor, positions: Tensor, padding: str) -> Tensor:
    """Return the winning label ``(N,)`` of ``(X, Y, Z)`` at ``(3, N)``."""
    values, weights = _corners(label, positions, padding)
    winner = values[0].clone()
    # Beside an outline is not yet across it: most of these positions have one label at all their corners.
    mixed = (values != winner).any(dim=0).nonzero()[:, 0]
    winner[mixed] = _vote(values[:, mixed], weights[:, mixed])
    return winner


def _vote(values: Tensor, weights: Tensor) -> Tensor:
    """Return the value ``(N,)`` of ``(8, N)`` corners whose weights sum to most, the lower one of equals."""
    winner, most = values[0].clone(), torch.full_like(weights[0], -1)
    for candidate in values:
        share = (weights * (values == candidate)).sum(dim=0)
        more = (share > most + TIE) | ((share > most - TIE) & (candidate < winner))
        winner, most = torch.where(more, candidate, winner), torch.where(more, share, most)
    return winner


def _corners(label: Tensor, positions: Tensor, padding: str) -> tuple[Tensor, Tensor]:
    """Return the labels at the eight voxels around each position, and how much each counts there: ``(8, N)``."""
    low, up, inside = [], [], []
    for axis, length in enumerate(label.shape):
        along = positions[axis]
        if padding == "reflection":
            along = _reflected(along, length)
        if padding != "zeros":
            along = along.clamp(0, length - 1)
        first = along.floor()
        share, voxels = along - first, first.long()
        low.append((voxels.clamp(0, length - 1), (voxels + 1).clamp(0, length - 1)))
        up.append((1 - share, share))
        if padding == "zeros":
            inside.append(((voxels >= 0) & (voxels < length), (voxels >= -1) & (voxels < length - 1)))
    flat = label.flatten()
    values, weights = [], []
    for x, y in itertools.product((0, 1), repeat=2):
        row = (low[0][x] * label.shape[1] + low[1][y]) * label.shape[2]
        of_row = up[0][x] * up[1][y]
        for z in (0, 1):
            value = flat[row + low[2][z]]
            if inside:
                value = torch.where(inside[0][x] & inside[1][y] & inside[2][z], value, torch.zeros_like(value))
            values.append(value)
            weights.append(of_row * up[2][z])
    return torch.stack(values), torch.stack(weights)


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


def _reflected(along: Tensor, length: int) -> Tensor:
    """Reflect at the outer faces of the outer voxels, as often as it takes."""
    period = 2 * length
    folded = torch.remainder(along + 0.5, period)
    return torch.minimum(folded, period - folded) - 0.5
