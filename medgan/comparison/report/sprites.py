"""Volumes as sprites: all slices of a volume tiled in one PNG, and outlines of label maps to lay over it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgan.pictures import best_slice, view_axis

Image = NDArray[np.uint8]
MAX_SLICES = 40
# Pixels of an outline's sprite for each voxel: thin lines on coarse grids.
FINE_BELOW, FINE, COARSE = 80, 3, 2
DASH = 3


@dataclass(frozen=True)
class Layout:
    """How the slices of a volume are tiled, the same for all that is laid over it.

    Attributes:
        axis: viewing axis of the volume.
        step: every how many slices one is shown.
        slices: number of slices shown.
        columns: tiles in a row.
        width, height: pixels of a tile, a border of one voxel on each side included.
        start: slice to begin with, where the labels are largest.
        aspect: width over height of a tile on the screen, in mm.
    """

    axis: int
    step: int
    slices: int
    columns: int
    width: int
    height: int
    start: int
    aspect: float

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return math.ceil(self.slices / self.columns)


def layout_of(volume: Image, label: Image | None, spacing: Sequence[float] | None) -> Layout:
    """Lay out a volume ``(D, H, W)`` along R, A, S; at most 40 slices are shown."""
    axis, best = best_slice(volume, label)
    across, up = (a for a in range(3) if a != axis)
    step = math.ceil(volume.shape[axis] / MAX_SLICES)
    slices = len(range(0, volume.shape[axis], step))
    mm = (1.0, 1.0, 1.0) if spacing is None else spacing
    wide, high = volume.shape[across] * mm[across], volume.shape[up] * mm[up]
    return Layout(
        axis=view_axis(volume.shape),
        step=step,
        slices=slices,
        columns=math.ceil(math.sqrt(slices)),
        width=volume.shape[across] + 2,
        height=volume.shape[up] + 2,
        start=best // step,
        aspect=round(wide / high, 4),
    )


def image_sprite(volume: Image, layout: Layout) -> bytes:
    """Return a grey PNG of the volume's slices."""
    from PIL import Image as Pillow

    return _png(Pillow.fromarray(_tiled(_slices(volume, layout), layout, 1)))


def outline_sprite(labels: Sequence[tuple[Image, str, bool]], layout: Layout) -> bytes:
    """Return a transparent PNG with the outlines of masks, later ones over earlier ones.

    Args:
        labels: (mask ``(D, H, W)``, colour ``#RRGGBB``, whether it is dashed).
        layout: of the volume underneath.
    """
    from PIL import Image as Pillow
    from scipy.ndimage import binary_erosion

    fine = FINE if max(layout.width, layout.height) < FINE_BELOW else COARSE
    plane = np.ones((1, 3, 3), dtype=bool)
    drawn: Image | None = None
    palette = [0, 0, 0]
    for index, (mask, colour, dashed) in enumerate(labels, start=1):
        inside = _slices(mask, layout).astype(bool).repeat(fine, axis=1).repeat(fine, axis=2)
        border = inside & ~binary_erosion(inside, structure=plane)
        if dashed:
            rows, columns = np.indices(border.shape[1:])
            border &= (rows + columns) // DASH % 2 == 0
        drawn = np.zeros(border.shape, dtype=np.uint8) if drawn is None else drawn
        drawn[border] = index
        palette += [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    if drawn is None:
        raise ValueError("labels must hold at least one mask")
    picture = Pillow.fromarray(_tiled(drawn, layout, fine), mode="P")
    picture.putpalette(palette)
    return _png(picture, transparency=0)


def _slices(volume: Image, layout: Layout) -> Image:
    """``(slices, rows, columns)`` as seen on the screen: the later axis upward, the first row on top."""
    moved = np.moveaxis(volume, layout.axis, 0)[:: layout.step]
    return np.ascontiguousarray(moved.transpose(0, 2, 1)[:, ::-1])


def _tiled(slices: Image, layout: Layout, fine: int) -> Image:
    # A border of the edge's own values keeps a neighbouring tile from shining in where the browser interpolates.
    padded = np.pad(slices, ((0, 0), (fine, fine), (fine, fine)), mode="edge")
    height, width = padded.shape[1:]
    sheet = np.zeros((layout.rows * height, layout.columns * width), dtype=np.uint8)
    for i, tile in enumerate(padded):
        row, column = divmod(i, layout.columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    return sheet


def _png(picture: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True, **options)
    return buffer.getvalue()
