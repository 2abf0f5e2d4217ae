"""Figures of volumes, masks and deformations, drawn without a display and without matplotlib's global state.

Volumes are ``(D, H, W)`` arrays along R, A, S: the view is axial, the patient's right on the right, anterior up. A
volume that is much thinner along R or A is seen along that axis instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medgan.atomic import atomic_file
from medgan.errors import InputFault

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Image = NDArray[Any]
Spacing = tuple[float, float, float]
Labelled = tuple[Image, Image | None]

# Okabe and Ito: told apart by colour-blind eyes too.
OUTLINES = ("#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#F0E442", "#E69F00")
PANEL_INCHES = 1.9
DPI = 110
CHECKERBOARD_FIELDS = 8


def siblings_figure(
    rows: Sequence[tuple[Image, Image | None, Sequence[Labelled]]],
    spacing: Spacing | None = None,
    *,
    titles: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw each source beside its siblings.

    A row shows one slice, where the source's labels are largest (its middle without a label), and one intensity window,
    that of the source, so that what differs between panels differs between volumes.

    Args:
        rows: (source volume, its label map or none, [(sibling, its label map or none), ...]); volumes ``(D, H, W)``.
        spacing: mm between voxels along the axes; none: cubes.
        titles: of the columns, the source's first; none: real, sibling 1, sibling 2, ...
        names: of the rows.

    Raises:
        ValueError: no rows, or shapes that do not fit.
    """
    if not rows:
        raise ValueError("rows must hold at least one source")
    columns = 1 + max(len(siblings) for _, _, siblings in rows)
    figure, axes = _panels(len(rows), columns)
    for row, (original, label, siblings) in enumerate(rows):
        plane = best_slice(original, label)
        window = _window(original)
        for column, (volume, mask) in enumerate([(original, label), *siblings]):
            _require_shape(volume, original.shape, "sibling")
            _show(axes[row][column], volume, mask, plane=plane, window=window, spacing=spacing)
    for column in range(columns):
        title = titles[column] if titles is not None else "real" if column == 0 else f"sibling {column}"
        axes[0][column].set_title(title, fontsize=9)
    for row, name in enumerate(names or ()):
        axes[row][0].set_ylabel(name, fontsize=9)
    return figure


def deformation_figure(
    original: Image,
    sibling: Image,
    displacement: Image,
    jacobian: Image,
    *,
    label: Image | None = None,
    sibling_label: Image | None = None,
    spacing: Spacing | None = None,
    appearance: Image | None = None,
) -> Figure:
    """Draw what was done to one volume: source, sibling, both in turn; difference, warped grid, Jacobian determinant.

    Args:
        original, sibling: ``(D, H, W)``.
        displacement: ``(3, D, H, W)`` in voxels; the sibling at ``x`` is the source at ``x + displacement(x)``, and the
            grid is drawn at those points.
        jacobian: ``(D, H, W)`` determinant; 1 keeps volume. Values of 0 and below, folds, are marked.
        label, sibling_label: label maps whose outlines are drawn, and the first of which picks the slice.
        spacing: mm between voxels along the axes; none: cubes.
        appearance: ``(D, H, W)`` change of grey value before the deformation, as a share of the intensity range.

    Raises:
        ValueError: shapes that do not fit.
    """
    _require_shape(sibling, original.shape, "sibling")
    _require_shape(jacobian, original.shape, "jacobian")
    _require_shape(displacement, (3, *original.shape), "displacement")
    axis, index = plane = best_slice(original, label)
    window = _window(original)
    figure, axes = _panels(2, 3 if appearance is None else 4, wide=1.15, tall=1.25)
    (real, fake, board, *shade), (change, grid, folds, *_) = axes
    _show(real, original, label, plane=plane, window=window, spacing=spacing)
    _show(fake, sibling, sibling_label, plane=plane, window=window, spacing=spacing)
    _show(board, checkerboard(original, sibling), None, plane=plane, window=window, spacing=spacing)
    aspect = _aspect(axis, spacing)

    difference = _slice(np.asarray(sibling, dtype=np.float64) - original, axis, index)
    bound = max(float(np.abs(difference).max()), 1e-6)
    shown = change.imshow(difference, origin="lower", cmap="RdBu_r", vmin=-bound, vmax=bound, aspect=aspect)
    _scale(figure, shown, change)

    across, up = (a for a in range(3) if a != axis)
    moved = [_slice(displacement[a], axis, index) for a in (across, up)]
    rows, columns = np.indices(moved[0].shape, dtype=np.float64)
    x, y = columns + moved[0], rows + moved[1]
    step = max(1, round(max(x.shape) / 24))
    grid.imshow(
        _slice(original, axis, index),
        origin="lower",
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        alpha=0.45,
        aspect=aspect,
    )
    grid.plot(x[::step].T, y[::step].T, color="#0072B2", linewidth=0.6)
    grid.plot(x[:, ::step], y[:, ::step], color="#0072B2", linewidth=0.6)
    grid.set_xlim(-1.5, columns.max() + 1.5)
    grid.set_ylim(-1.5, rows.max() + 1.5)

    determinant = _slice(np.asarray(jacobian, dtype=np.float64), axis, index)
    logarithm = np.log2(np.where(determinant > 0, determinant, np.nan))
    bound = max(float(np.nanmax(np.abs(logarithm), initial=0.0)), 0.1)
    folds.set_facecolor("#F0E442")  # folds are not drawn over
    shown = folds.imshow(logarithm, origin="lower", cmap="PuOr", vmin=-bound, vmax=bound, aspect=aspect)
    _scale(figure, shown, folds)

    least = float(np.min(jacobian))
    titles = {
        "real": real,
        "sibling": fake,
        "real and sibling in turn": board,
        "difference": change,
        "where it was sampled": grid,
        f"log2 Jacobian (least det. {least:.2f})": folds,
    }
    for title, panel in titles.items():
        panel.set_title(title, fontsize=9)
    if appearance is not None:
        _require_shape(appearance, original.shape, "appearance")
        percent = 100 * _slice(np.asarray(appearance, dtype=np.float64), axis, index)
        bound = max(float(np.abs(percent).max()), 1.0)
        shown = shade[0].imshow(percent, origin="lower", cmap="RdBu_r", vmin=-bound, vmax=bound, aspect=aspect)
        _scale(figure, shown, shade[0])
        shade[0].set_title("appearance, % of range", fontsize=9)
    return figure


def checkerboard_figure(
    rows: Sequence[tuple[Image, Image]], labels: Sequence[Image | None] | None = None, spacing: Spacing | None = None
) -> Figure:
    """Draw each source, its sibling, and a board whose fields show the one and the other in turn.

    Where edges run on across the borders of the fields the two agree; where they break, the sibling was moved there.

    Args:
        rows: (source, sibling), ``(D, H, W)`` each.
        labels: label map of each source or none, which picks the slice; not drawn.
        spacing: mm between voxels along the axes; none: cubes.

    Raises:
        ValueError: no rows, or shapes that do not fit.
    """
    if not rows:
        raise ValueError("rows must hold at least one source and sibling")
    figure, axes = _panels(len(rows), 3)
    for panels, (original, sibling), label in zip(axes, rows, labels or [None] * len(rows), strict=True):
        _require_shape(sibling, original.shape, "sibling")
        plane = best_slice(original, label)
        window = _window(original)
        for panel, volume in zip(panels, (original, sibling, checkerboard(original, sibling)), strict=True):
            _show(panel, volume, None, plane=plane, window=window, spacing=spacing)
    for panel, title in zip(axes[0], ("real", "sibling", "real and sibling in turn"), strict=True):
        panel.set_title(title, fontsize=9)
    return figure


def checkerboard(first: Image, second: Image, fields: int = CHECKERBOARD_FIELDS) -> Image:
    """Return ``first`` and ``second`` in turn, in cubes of which about ``fields`` go along the longest axis."""
    _require_shape(second, first.shape, "second")
    side = max(1, round(max(first.shape) / fields))
    odd = sum(index // side for index in np.indices(first.shape)) % 2 == 1
    return np.where(odd, second, first)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG; no half a picture is ever seen.

    Raises:
        InputFault: the disk is full or the folder cannot be written; a picture of that name from before stays.
    """
    path = Path(path)
    drawn = BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})  # the same figure, the same bytes
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(drawn.getbuffer())
    except OSError as error:
        reason = f"could not write the {drawn.tell()} bytes of {path.name} ({error.strerror})"
        raise InputFault(path.parent, "NOT_WRITABLE", reason, "free some space or choose another folder") from error


def _panels(rows: int, columns: int, wide: float = 1.0, tall: float = 1.0) -> tuple[Figure, list[list[Any]]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = (PANEL_INCHES * wide * columns, PANEL_INCHES * tall * rows + 0.3)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes: list[list[Any]] = [list(row) for row in figure.subplots(rows, columns, squeeze=False)]
    for panel in (panel for row in axes for panel in row):
        panel.set_xticks([])
        panel.set_yticks([])
        for spine in panel.spines.values():
            spine.set_visible(False)
    return figure, axes


def _scale(figure: Figure, shown: Any, panel: Any) -> None:
    """Draw a colour bar below its panel: beside it, it would push the panels of its column apart in every row."""
    figure.colorbar(shown, ax=panel, location="bottom", shrink=0.7, aspect=24, pad=0.03)


def _show(
    panel: Any,
    volume: Image,
    label: Image | None,
    *,
    plane: tuple[int, int],
    window: tuple[float, float],
    spacing: Spacing | None,
) -> None:
    axis, index = plane
    image = _slice(volume, axis, index)
    aspect = _aspect(axis, spacing)
    panel.imshow(image, origin="lower", cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect)
    if label is None:
        return
    _require_shape(label, volume.shape, "label")
    mask = _slice(label, axis, index)
    for value in np.unique(mask[mask != 0]):
        # A border of background closes outlines that run into the edge of the slice.
        inside = np.pad((mask == value).astype(np.float64), 1)
        rows, columns = (np.arange(-1, n - 1) for n in inside.shape)
        colour = OUTLINES[(int(value) - 1) % len(OUTLINES)]
        panel.contour(columns, rows, inside, levels=[0.5], colors=[colour], linewidths=1.1)
    panel.set_xlim(-0.5, image.shape[1] - 0.5)
    panel.set_ylim(-0.5, image.shape[0] - 0.5)


def best_slice(volume: Image, label: Image | None) -> tuple[int, int]:
    """Return the viewing axis, and the slice in which the labels are largest, each by its own largest slice.

    Args:
        volume: ``(D, H, W)``.
        label: its label map; none, or an empty one, gives the middle slice.

    Raises:
        ValueError: shapes that do not fit.
    """
    if volume.ndim != 3:
        raise ValueError(f"a volume must be (D, H, W), got the shape {volume.shape}")
    axis = view_axis(volume.shape)
    middle = volume.shape[axis] // 2
    if label is None:
        return axis, middle
    _require_shape(label, volume.shape, "label")
    in_plane = tuple(a for a in range(3) if a != axis)
    score = np.zeros(volume.shape[axis])
    for value in np.unique(label[label != 0]):
        area = (label == value).sum(axis=in_plane)
        score += area / area.max()
    return (axis, int(score.argmax())) if score.any() else (axis, middle)


def view_axis(shape: tuple[int, ...]) -> int:
    """Return the axis to look along: the last, unless another has far fewer voxels than both that remain."""
    thinnest = int(np.argmin(shape))
    return thinnest if thinnest != 2 and 3 * shape[thinnest] < sorted(shape)[1] else 2


def _slice(volume: Image, axis: int, index: int) -> Image:
    """Rows upward along the later axis: anterior (or superior) up once drawn with the origin below."""
    plane: Image = np.take(volume, index, axis=axis)
    return plane.T


def _aspect(axis: int, spacing: Spacing | None) -> float:
    across, up = (a for a in range(3) if a != axis)
    return 1.0 if spacing is None else spacing[up] / spacing[across]


def _window(volume: Image) -> tuple[float, float]:
    lower, upper = (float(v) for v in np.percentile(volume, (0.5, 99.9)))
    return (lower, upper) if upper > lower else (lower, lower + 1.0)


def _require_shape(array: Image, shape: tuple[int, ...], name: str) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} must have the shape {tuple(shape)}, got {array.shape}")
