"""Label maps under a deformation: the share of each label is interpolated, and the largest wins.

Nearest neighbour takes over every stair of the voxel grid and, where the deformation stretches, tears thin parts into
crumbs. Interpolating what is a share, not a number, and deciding afterwards keeps outlines smooth and makes no value
that was not there. It is how nnU-Net resamples segmentations (Isensee et al., Nature Methods 2021).

A position lies in a cell with a voxel at each of its eight corners. Where all carry the same label, that is the
answer; only in the cells that an outline crosses are shares compared, and the cost does not grow with the number of
labels. Most of a label map is background: outside the box around all that is not, nothing is looked at.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from medgan.models.deformation import sample_grid, to_voxels

MODE = "label"
SLAB_VOXELS = 500_000  # compared at a time, whatever the volume's size
TIE = 3e-5  # shares closer than this are equal: rounding must not decide between two halves
SLACK = 0.01  # voxels by which a position may be off by rounding

Box = tuple[tuple[int, int], ...]
"""For each axis the first voxel, and the one behind the last."""


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A label map made ready to be sampled.

    Attributes:
        values: ``(C, X, Y, Z)``, every channel a map of its own; in 8 bits where they hold it.
        background: ``(C,)`` value of every voxel outside the box.
        box: around all that is not background, and a voxel more on each side where there is one.
        cells: ``(C, x, y, z)`` of the cells in the box: the label at all their corners as a float that holds it
            exactly, NaN where they differ.
        dtype: of the map that is sampled.
        padding: beyond the volume ``"border"``, ``"zeros"`` or ``"reflection"``, as in torch's ``grid_sample``.
    """

    values: Tensor
    background: Tensor
    box: Box
    cells: Tensor
    dtype: torch.dtype
    padding: str


def label_map(label: Tensor, padding: str = "border") -> LabelMap:
    """Return ``(C, X, Y, Z)`` ready for :func:`sample_labels`, with what lies beyond it as ``grid_sample`` pads."""
    values = label.to(torch.uint8)  # a quarter of the memory to go through
    exact = torch.float32
    if not torch.equal(values.to(label.dtype), label):
        values = label
        if not torch.equal(values.to(exact).to(label.dtype), label):
            exact = torch.float64  # instance numbers beyond what float32 can count
    background = values[:, 0, 0, 0]
    box = _box(values, background, padding)
    within = _cut(values, box)
    highest, lowest = _over_corners(within, torch.maximum), _over_corners(within, torch.minimum)
    cells = highest.to(exact).masked_fill_(highest != lowest, torch.nan)
    return LabelMap(values, background.to(label.dtype), box, cells, label.dtype, padding)


def sample_labels(labels: LabelMap, grid: Tensor, out: Tensor | None = None) -> Tensor:
    """Sample a label map anywhere.

    Args:
        labels: the map.
        grid: positions as ``grid_sample`` takes them, ``(1, n, Y, Z, 3)``.
        out: where the result goes, in a dtype that holds its values; by default it is made, in the dtype of the map.

    Returns:
        ``(C, n, Y, Z)``; where two labels have the same share, the lower value.
    """
    if out is None:
        out = labels.background.new_empty((len(labels.values), *grid.shape[1:4]))
    for channel, value in zip(out, labels.background, strict=True):
        channel.fill_(value)
    reached = _reached(labels, grid)
    if all(start < stop for start, stop in reached):
        _cut(out, reached).copy_(_sample_box(labels, _cut(grid, reached)))
    return out


def _sample_box(labels: LabelMap, grid: Tensor) -> Tensor:
    """Sample at positions in the box; a few outside do no harm, there is background all around."""
    shape = labels.values.shape[1:]
    found = sample_grid(labels.cells, _cell_grid(grid, labels), "nearest", "border")
    crossed = found.isnan()
    sampled = found.nan_to_num_(0).to(labels.dtype).contiguous()
    if labels.padding != "border":
        # Beyond its outer voxels the volume ends in an outline of its own, or comes back.
        size = torch.tensor(shape, dtype=grid.dtype, device=grid.device).flip(0)
        crossed |= (grid[0].abs() > 1 - 1 / size).any(dim=-1)
    positions = grid.reshape(-1, 3)
    for channel, out, at in zip(labels.values, sampled.view(len(sampled), -1), crossed.flatten(1), strict=True):
        # The eight corners take some 100 bytes a position.
        for part in at.nonzero()[:, 0].split(max(1, SLAB_VOXELS // 8)):
            corners = _corners(channel, to_voxels(positions[part], shape), labels.padding)
            out[part] = _vote(*corners).to(labels.dtype)
    return sampled


def _box(values: Tensor, background: Tensor, padding: str) -> Box:
    """Return the box outside of which there is background, whatever lies beyond the volume's faces."""
    whole = tuple((0, length) for length in values.shape[1:])
    # A position far outside is reflected to anywhere, and with zeros what lies there may be no background.
    if padding == "reflection" or (padding == "zeros" and bool(background.any())):
        return whole
    # In 8 bits: torch takes the largest of bytes many at a time, but looks at booleans one by one.
    if values.dtype == torch.uint8:
        other = values ^ background[:, None, None, None]
    else:
        other = (values != background[:, None, None, None]).view(torch.uint8)
    other = other.amax(dim=0) if len(other) > 1 else other[0]
    rows, plane = other.flatten(1).amax(dim=1), other.amax(dim=0)
    if not bool(rows.any()):
        return ((0, 1),) * 3
    box = []
    for along, length in zip((rows, plane.amax(dim=1), plane.amax(dim=0)), values.shape[1:], strict=True):
        voxels = along.nonzero()[:, 0]
        box.append((max(0, int(voxels[0]) - 1), min(length, int(voxels[-1]) + 2)))
    return tuple(box)


def _cut(volume: Tensor, box: Box) -> Tensor:
    """Return the box of ``(C, X, Y, Z)`` or ``(1, X, Y, Z, 3)``, a view."""
    x, y, z = (slice(*ends) for ends in box)
    return volume[:, x, y, z]


def _reached(labels: LabelMap, grid: Tensor) -> Box:
    """Return the box of the positions ``(1, n, Y, Z, 3)`` outside of which none lies in the map's own box."""
    reached = []
    for axis, ((first, stop), length) in enumerate(zip(labels.box, labels.values.shape[1:], strict=True)):
        along = grid[0, ..., 2 - axis]
        others = tuple(other for other in range(3) if other != axis)
        low, high = along.amin(dim=others), along.amax(dim=others)
        # In voxels; a box that ends at a face of the volume goes on beyond it.
        least = -math.inf if first == 0 else first - SLACK
        most = math.inf if stop == length else stop - 1 + SLACK
        voxels = (((high + 1) * length - 1 >= 2 * least) & ((low + 1) * length - 1 <= 2 * most)).nonzero()[:, 0]
        reached.append((int(voxels[0]), int(voxels[-1]) + 1) if len(voxels) else (0, 0))
    return tuple(reached)


def _cell_grid(grid: Tensor, labels: LabelMap) -> Tensor:
    """Return positions in the volume as positions among the cells of its box."""
    number = labels.cells.shape[1:]
    # The middle of the first cell, in voxels; an axis of one voxel is one cell, around it.
    first = [a + (0.5 if n < b - a else 0.0) for (a, b), n in zip(labels.box, number, strict=True)]
    size, cells, middle = (
        torch.tensor(of_axes, dtype=grid.dtype, device=grid.device).flip(0)
        for of_axes in (tuple(labels.values.shape[1:]), tuple(number), first)
    )
    # In voxels v = ((g + 1) size − 1) / 2; among the cells v − middle = ((h + 1) cells − 1) / 2.
    return grid * (size / cells) + ((size - 2 * middle) / cells - 1)


def _vote(values: Tensor, weights: Tensor) -> Tensor:
    """Return the value ``(N,)`` of ``(8, N)`` corners whose weights sum to most, the lower one of equals."""
    low, high = values.amin(dim=0), values.amax(dim=0)
    of_low, of_high = _share(values, weights, low), _share(values, weights, high)
    winner = torch.where(of_high > of_low + TIE, high, low)
    # Few cells have more than two labels. The weights sum to 1, so what is left is theirs.
    rest = (of_low + of_high < 1 - TIE).nonzero()[:, 0]
    if len(rest):
        winner[rest] = _vote_of_many(values[:, rest], weights[:, rest])
    return winner


def _vote_of_many(values: Tensor, weights: Tensor) -> Tensor:
    winner, most = values[0].clone(), torch.full_like(weights[0], -1)
    for candidate in values:
        share = _share(values, weights, candidate)
        more = (share > most + TIE) | ((share > most - TIE) & (candidate < winner))
        winner, most = torch.where(more, candidate, winner), torch.where(more, share, most)
    return winner


def _share(values: Tensor, weights: Tensor, label: Tensor) -> Tensor:
    return (weights * (values == label)).sum(dim=0)


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


def _over_corners(label: Tensor, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the largest or least label at the corners of each cell; an axis of one voxel is one cell."""
    for axis in (1, 2, 3):
        length = label.shape[axis]
        if length > 1:
            label = choose(label.narrow(axis, 0, length - 1), label.narrow(axis, 1, length - 1))
    return label


def _reflected(along: Tensor, length: int) -> Tensor:
    """Reflect at the outer faces of the outer voxels, as often as it takes."""
    period = 2 * length
    folded = torch.remainder(along + 0.5, period)
    return torch.minimum(folded, period - folded) - 0.5
