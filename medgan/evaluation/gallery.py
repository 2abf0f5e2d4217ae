"""The report's pictures: the worst siblings first, then usual ones."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medgan.data.loaders import Prepared
from medgan.evaluation.figures import Measurements, grid_unit
from medgan.evaluation.preservation import jacobian
from medgan.evaluation.siblings import Measured, OnGrid, make_sibling
from medgan.pictures import checkerboard_figure, deformation_figure, siblings_figure
from medgan.sampler import Sampler
from medgan.seeding import numpy_generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 4
COLUMNS = 4


@dataclass(frozen=True)
class Picture:
    """A picture of the report.

    Attributes:
        title: what it shows.
        caption: how to read it.
        png: the file.
    """

    title: str
    caption: str
    png: bytes


def draw_gallery(
    sampler: Sampler,
    sources: Sequence[Prepared],
    measurements: Measurements,
    labels: Mapping[int, str],
    *,
    siblings: int,
    seed: int,
    strength: float = 1.0,
) -> list[Picture]:
    """Draw the worst siblings, a usual one, and sources drawn by the seed with their first siblings and checkerboards.

    Siblings are made again: they are a function of source, seed, number and strength.
    """
    spacing, unit = grid_unit(sampler.checkpoint)
    measured = measurements.measured
    pictures = []
    for (row, column), reasons in worst_siblings(measurements, labels).items():
        title = f"{_first_upper('; '.join(reasons))} ({sources[row].case.case_id}, sibling {column + 1})"
        figure = _deformation(sources[row], make_sibling(sampler, sources[row], column, seed, strength), spacing)
        pictures.append(Picture(title, "The worst of all siblings by this figure.", _png(figure)))
    row, column = usual_sibling(measured)
    length = measured.displacement[row, column]
    figure = _deformation(sources[row], make_sibling(sampler, sources[row], column, seed, strength), spacing)
    title = f"A usual deformation ({sources[row].case.case_id}, sibling {column + 1})"
    caption = f"The sibling whose displacement is the median one, {length:.2f} {unit} (root mean square)."
    pictures.append(Picture(title, caption, _png(figure)))
    chosen = numpy_generator(seed, "gallery").permutation(len(sources))[:ROWS]
    rows, boards = [], []
    for index in sorted(chosen.tolist()):
        source = sources[index]
        made = [make_sibling(sampler, source, number, seed, strength) for number in range(min(siblings, COLUMNS))]
        pairs = [(_plain(sibling.image), _mask(sibling.label)) for sibling in made]
        rows.append((_plain(source.image), _mask(source.label), pairs))
        boards.append((_plain(source.image), _plain(made[0].image)))
    caption = "Sources drawn by the seed, one a row; the same slice and grey scale along a row. Outlines are labels."
    pictures.append(Picture("Sources and their siblings", caption, _png(siblings_figure(rows, spacing))))
    caption = (
        "The same sources and their first siblings. Where edges break at the border of a field, the sibling was moved; "
        "where fields differ in brightness, it was relit."
    )
    board = checkerboard_figure(boards, [label for _, label, _ in rows], spacing)
    pictures.append(Picture("Source and sibling in one board", caption, _png(board)))
    return pictures


def worst_siblings(measurements: Measurements, labels: Mapping[int, str]) -> dict[tuple[int, int], list[str]]:
    """Return (source, sibling) of the extreme figures, each with the reasons it is among them."""
    measured = measurements.measured
    found: dict[tuple[int, int], list[str]] = {}

    def add(place: tuple[int, int], reason: str) -> None:
        found.setdefault(place, []).append(reason)

    for agreement in measurements.agreements:
        if not np.isfinite(agreement.confidence).any():
            continue
        place = _place(agreement.confidence, int(np.nanargmin(agreement.confidence)))
        least = agreement.confidence[place]
        if agreement.kind == "segmentation":
            add(place, f"least agreement of an independent network with the label map, Dice {least:.2f}")
        else:
            add(place, f"class least believed by an independent network, probability {least:.2f}")
    if measurements.strangeness is not None:
        place = _place(measurements.strangeness, int(measurements.strangeness.argmax()))
        add(place, f"farthest from every held-out volume, {measurements.strangeness[place]:.1f} in the feature space")
    place = _place(measured.jacobian_min, int(measured.jacobian_min.argmin()))
    add(place, f"lowest Jacobian determinant, {measured.jacobian_min[place]:.2f}")
    known = {value: ratios for value, ratios in measured.ratios.items() if np.isfinite(ratios).any()}
    if known:
        smallest = min(known, key=lambda value: float(np.nanmin(known[value])))
        largest = max(known, key=lambda value: float(np.nanmax(known[value])))
        place = _place(known[smallest], int(np.nanargmin(known[smallest])))
        add(place, f"most shrunken label, {_name(labels, smallest)}: {known[smallest][place]:.2f} of its volume")
        place = _place(known[largest], int(np.nanargmax(known[largest])))
        add(place, f"most grown label, {_name(labels, largest)}: {known[largest][place]:.2f} of its volume")
    return found


def usual_sibling(measured: Measured) -> tuple[int, int]:
    """Return (source, sibling) with the median displacement (of an even number, the lower of the two)."""
    lengths = measured.displacement
    order = lengths.reshape(-1).argsort(kind="stable")
    return _place(lengths, int(order[(len(order) - 1) // 2]))


def _place(values: NDArray[np.floating], position: int) -> tuple[int, int]:
    row, column = np.unravel_index(position, values.shape)
    return int(row), int(column)


def _deformation(source: Prepared, sibling: OnGrid, spacing: tuple[float, float, float]) -> Figure:
    return deformation_figure(
        _plain(source.image),
        _plain(sibling.image),
        sibling.displacement,
        jacobian(sibling.displacement),
        label=_mask(source.label),
        sibling_label=_mask(sibling.label),
        spacing=spacing,
    )


def _plain(image: Tensor) -> NDArray[Any]:
    """Return the first channel, ``(D, H, W)``."""
    return np.asarray(image[0])


def _mask(label: Tensor | None) -> NDArray[Any] | None:
    return None if label is None else np.asarray(label[0])


def _name(labels: Mapping[int, str], value: int) -> str:
    return labels.get(value, f"label {value}")


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor="white", metadata={"Software": None})
    return stream.getvalue()
