from __future__ import annotations

import io
import itertools
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medgan.errors import InputFault
from medgan.pictures import (
    OUTLINES,
    checkerboard,
    checkerboard_figure,
    deformation_figure,
    save_figure,
    siblings_figure,
)

RNG = np.random.default_rng(0)


def head(shape: tuple[int, int, int] = (24, 30, 20)) -> tuple[Any, Any]:
    """A ball with a smaller, brighter one inside, off the middle slice, and their labels 1 and 2."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    outer = sum(a**2 for a in axes) < 0.7
    inner = axes[0] ** 2 + axes[1] ** 2 + (axes[2] - 0.4) ** 2 < 0.06
    image = 0.4 * outer + 0.4 * inner + 0.02 * RNG.random(shape)
    return image.astype(np.float32), (outer.astype(np.uint8) + (outer & inner))


def pixels(figure: Any) -> Any:
    """RGB of the drawn figure, ``(rows, columns, 3)``."""
    from matplotlib.image import imread

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    return imread(buffer)[..., :3]


def count_of(colour: str, figure: Any) -> int:
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return int((np.abs(pixels(figure) - rgb).max(axis=-1) < 0.12).sum())


def shown(figure: Any, panel: int) -> Any:
    """The array drawn in a panel."""
    return figure.axes[panel].images[0].get_array()


def test_siblings_have_one_panel_a_volume_and_are_named() -> None:
    image, label = head()
    figure = siblings_figure([(image, label, [(image, label)] * 3), (image, None, [(image, None)])])
    assert len(figure.axes) == 2 * 4
    assert [a.get_title() for a in figure.axes[:4]] == ["real", "sibling 1", "sibling 2", "sibling 3"]
    assert [len(a.images) for a in figure.axes] == [1, 1, 1, 1, 1, 1, 0, 0]


def test_outlines_appear_in_their_colours_only_where_there_is_a_label() -> None:
    image, label = head()
    plain = siblings_figure([(image, None, [(image, None)])])
    outlined = siblings_figure([(image, label, [(image, label)])])
    only_outer = siblings_figure([(image, np.minimum(label, 1), [])])
    assert [count_of(c, plain) for c in OUTLINES] == [0] * len(OUTLINES)
    assert count_of(OUTLINES[0], outlined) > 100
    assert count_of(OUTLINES[1], outlined) > 30
    assert count_of(OUTLINES[1], only_outer) == 0


def test_the_slice_is_where_small_labels_are_largest() -> None:
    image, label = head()
    figure = siblings_figure([(image, label, [])])
    areas = (label == 2).sum(axis=(0, 1))
    best = [k for k in range(image.shape[2]) if areas[k] and np.array_equal(shown(figure, 0), image[:, :, k].T)]
    assert len(best) == 1
    assert areas[best[0]] >= 0.8 * areas.max()
    assert np.array_equal(shown(siblings_figure([(image, None, [])]), 0), image[:, :, 10].T)


def test_a_row_shares_slice_and_window() -> None:
    image, label = head()
    figure = siblings_figure([(image, label, [(0.5 * image, label)])])
    real, fake = (figure.axes[i].images[0] for i in range(2))
    assert real.get_clim() == fake.get_clim()
    assert np.allclose(0.5 * real.get_array(), fake.get_array())


def test_right_is_right_and_anterior_is_up() -> None:
    image = np.zeros((20, 30, 10), np.float32)
    image[15:, 25:, :] = 1.0  # right and anterior
    figure = siblings_figure([(image, None, [])])
    figure.axes[0].set_title("")
    drawn = pixels(figure).mean(axis=-1)
    rows, columns = np.nonzero(drawn < 0.5)  # the dark part of the image touches all four edges
    dark = drawn[rows.min() : rows.max(), columns.min() : columns.max()] < 0.5
    upper, left = dark.shape[0] // 2, dark.shape[1] // 2
    assert dark[upper:].mean() > 0.98
    assert dark[:upper, :left].mean() > 0.98
    assert dark[:upper, left:].mean() < 0.9


def test_thin_volumes_are_seen_along_their_thin_axis() -> None:
    assert shown(siblings_figure([(RNG.random((3, 40, 30)), None, [])]), 0).shape == (30, 40)
    assert shown(siblings_figure([(RNG.random((40, 3, 30)), None, [])]), 0).shape == (30, 40)
    assert shown(siblings_figure([(RNG.random((40, 30, 3)), None, [])]), 0).shape == (30, 40)
    assert shown(siblings_figure([(RNG.random((40, 40, 150)), None, [])]), 0).shape == (40, 40)


def test_spacing_sets_the_aspect() -> None:
    figure = siblings_figure([(RNG.random((16, 8, 8)), None, [])], spacing=(1.0, 2.5, 4.0))
    assert figure.axes[0].get_aspect() == 2.5


def test_volumes_without_contrast_or_with_an_empty_label_are_drawn() -> None:
    figure = siblings_figure([(np.zeros((16, 16, 16)), np.zeros((16, 16, 16), np.uint8), [])])
    assert pixels(figure).shape[2] == 3


def test_a_label_that_fills_the_slice_is_outlined_at_its_edge() -> None:
    image = np.zeros((16, 16, 16))
    assert count_of(OUTLINES[0], siblings_figure([(image, np.ones((16, 16, 16), np.uint8), [])])) > 50


def test_deformation_shows_five_views_and_moves_the_grid() -> None:
    image, label = head()
    shift = np.zeros((3, *image.shape))
    shift[0] = 2.0
    figure = deformation_figure(image, image + 0.1, shift, np.ones(image.shape), label=label, sibling_label=label)
    views = [a for a in figure.axes if a.get_title()]
    assert [a.get_title() for a in views][:5] == [
        "real",
        "sibling",
        "real and sibling in turn",
        "difference",
        "where it was sampled",
    ]
    assert views[5].get_title().endswith("(least det. 1.00)")
    assert np.allclose(views[3].images[0].get_array(), 0.1)
    columns = np.concatenate([line.get_xdata() for line in views[4].lines])
    assert columns.min() == 2.0
    assert columns.max() == image.shape[0] + 1
    rows = np.concatenate([line.get_ydata() for line in views[4].lines])
    assert (rows.min(), rows.max()) == (0, image.shape[1] - 1)


def test_colour_bars_do_not_push_panels_apart() -> None:
    image, label = head()
    figure = deformation_figure(image, image + 0.1, np.zeros((3, *image.shape)), np.ones(image.shape), label=label)
    pixels(figure)  # lays the panels out
    upper, lower = ([a.get_position() for a in figure.axes[row : row + 3]] for row in (0, 3))
    gaps = [right.x0 - left.x1 for panels in (upper, lower) for left, right in itertools.pairwise(panels)]
    assert max(gaps) - min(gaps) < 0.01
    assert np.allclose([a.x0 for a in upper], [a.x0 for a in lower], atol=0.01)


def test_folds_are_marked() -> None:
    image, _ = head()
    jacobian = np.ones(image.shape)
    clean = count_of("#F0E442", deformation_figure(image, image, np.zeros((3, *image.shape)), jacobian))
    jacobian[8:14, 8:14, :] = -0.5
    figure = deformation_figure(image, image, np.zeros((3, *image.shape)), jacobian)
    assert clean == 0
    assert count_of("#F0E442", figure) > 100
    assert figure.axes[5].get_title().endswith("(least det. -0.50)")


def test_a_checkerboard_shows_both_volumes_in_equal_parts() -> None:
    first, second = np.zeros((16, 16, 16)), np.ones((16, 16, 16))
    board = checkerboard(first, second, fields=8)
    assert board.mean() == 0.5
    assert board[0, 0, 0] == 0
    assert board[2, 0, 0] == board[0, 2, 0] == board[0, 0, 2] == 1
    assert np.array_equal(checkerboard(first, first), first)


def test_checkerboards_have_a_row_a_source() -> None:
    image, label = head()
    figure = checkerboard_figure([(image, image + 0.1), (image, image)], [label, None])
    assert len(figure.axes) == 6
    assert [a.get_title() for a in figure.axes[:3]] == ["real", "sibling", "real and sibling in turn"]
    drawn = shown(figure, 2) - shown(figure, 0)
    assert set(np.round(np.unique(drawn), 5)) == {0.0, np.float32(0.1).round(5)}
    with pytest.raises(ValueError, match="rows"):
        checkerboard_figure([])


def test_saved_picture_is_whole_and_alone(tmp_path: Path) -> None:
    image, label = head()
    path = tmp_path / "new" / "rows.png"
    for _ in range(2):
        save_figure(siblings_figure([(image, label, [(image, label)])]), path)
    assert [p.name for p in path.parent.iterdir()] == ["rows.png"]
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content.rstrip().endswith(b"IEND\xaeB`\x82")
    save_figure(siblings_figure([(image, label, [(image, label)])]), tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == content


def test_a_full_disk_keeps_the_old_picture_and_names_the_folder_and_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "rows.png"
    path.write_bytes(b"old")
    figure = siblings_figure([(head()[0], None, [])])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(InputFault, match=rf"{tmp_path}: NOT_WRITABLE: could not write the \d+ bytes of rows\.png"):
            save_figure(figure, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("rows.png", b"old")]


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputFault, match=r"file: NOT_WRITABLE: could not write the \d+ bytes of rows\.png"):
        save_figure(siblings_figure([(head()[0], None, [])]), tmp_path / "file" / "rows.png")


def test_shapes_that_do_not_fit_are_refused_with_the_value() -> None:
    image, label = head()
    with pytest.raises(ValueError, match="at least one source"):
        siblings_figure([])
    with pytest.raises(ValueError, match=r"label must have the shape \(24, 30, 20\), got \(24, 30, 19\)"):
        siblings_figure([(image, label[..., 1:], [])])
    with pytest.raises(ValueError, match=r"a volume must be \(D, H, W\)"):
        siblings_figure([(image[None], None, [])])
    with pytest.raises(ValueError, match="displacement must have the shape"):
        deformation_figure(image, image, np.zeros(image.shape), np.ones(image.shape))


def test_import_loads_no_matplotlib_and_drawing_no_pyplot() -> None:
    code = (
        "import sys, numpy as np; import medgan.pictures as p; assert 'matplotlib' not in sys.modules;"
        "p.siblings_figure([(np.zeros((8, 8, 8)), None, [])]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
