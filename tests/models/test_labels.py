from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from medgan.models.deformation import sample_at, to_grid, voxel_grid
from medgan.models.labels import label_map, sample_labels
from medgan.threads import torch_threads


def balls() -> Tensor:
    grid = torch.stack(torch.meshgrid(*[torch.arange(20.0)] * 3, indexing="ij"))
    label = torch.zeros(1, 20, 20, 20, dtype=torch.int16)
    for value, centre in ((3, (7.0, 9.0, 10.0)), (300, (13.0, 10.0, 9.0))):
        label[0][(grid - torch.tensor(centre).reshape(3, 1, 1, 1)).square().sum(dim=0) < 9] = value
    return label


def turned(shape: tuple[int, int, int] = (20, 20, 20)) -> Tensor:
    """Positions ``(3, ...)`` turned about the third axis by 20°, and stretched by a half."""
    grid = voxel_grid(shape, torch.zeros(1))[0]
    angle = np.deg2rad(20)
    matrix = torch.tensor([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]).float()
    return torch.einsum("ij,jxyz->ixyz", matrix / 1.5, grid - 9.5) + 9.5


def sampled(label: Tensor, positions: Tensor, padding: str = "border") -> Tensor:
    return sample_labels(label_map(label, padding), to_grid(positions[None], label.shape[1:]))


def shares(label: Tensor, positions: Tensor, padding: str) -> Tensor:
    """Each label's share by ``grid_sample``, as ``(labels, C, ...)``, in ascending order of the labels."""
    return torch.stack(
        [sample_at((label == v).float()[None], positions[None], padding=padding)[0] for v in torch.unique(label)]
    )


def test_values_are_those_that_were_there_and_the_type_is_kept() -> None:
    out = sampled(balls(), turned())
    assert out.dtype == torch.int16
    assert torch.unique(out).tolist() == [0, 3, 300]


def test_nothing_moves_under_the_identity() -> None:
    label = balls()
    assert torch.equal(sampled(label, voxel_grid((20, 20, 20), torch.zeros(1))[0]), label)


@pytest.mark.parametrize("padding", ["border", "reflection", "zeros"])
def test_the_largest_share_wins_everywhere(padding: str) -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 6, (2, 9, 7, 8), generator=generator)
    label[0, :4] = 4  # where it is smooth
    positions = torch.rand((3, 12, 11, 10), generator=generator) * 14 - 3  # beyond every face as well
    share = shares(label, positions, padding)
    if padding == "zeros":
        share[0] += 1 - share.sum(dim=0)  # what lies beyond is background
    found = share.gather(0, sampled(label, positions, padding)[None])[0]
    assert torch.allclose(found, share.max(dim=0).values, atol=5e-5)


def test_numbers_that_float32_cannot_count_stay_what_they_are() -> None:
    label = balls().to(torch.int64)
    label[label == 300] = 2**24 + 1
    assert torch.unique(sampled(label, turned())).tolist() == [0, 3, 2**24 + 1]


def test_a_tie_goes_to_the_lower_value() -> None:
    half = torch.tensor([0.5, 0.0, 0.0]).reshape(3, 1, 1, 1)
    for values in ([1, 2], [2, 1]):
        assert sampled(torch.tensor(values).reshape(1, 2, 1, 1), half).item() == 1


def test_outlines_are_smoother_than_the_nearest_neighbours() -> None:
    def surface(label: Tensor) -> int:
        inside = label[0].numpy() == 3
        return int((inside & ~ndimage.binary_erosion(inside)).sum()) + int(ndimage.label(inside)[1]) * 100

    label = balls()
    nearest = sample_at(label.float()[None], turned()[None], "nearest")[0].to(label.dtype)
    smooth = sampled(label, turned())
    assert surface(smooth) < surface(nearest)
    both = ((smooth == 3) & (nearest == 3)).sum() * 2 / ((smooth == 3).sum() + (nearest == 3).sum())
    assert both > 0.85


@pytest.mark.parametrize("shape", [(20, 20, 20), (1, 20, 3), (5, 1, 1), (1, 1, 1)])
def test_a_cell_has_the_label_of_its_corners_where_that_is_one(shape: tuple[int, int, int]) -> None:
    label = torch.randint(0, 2, (2, *shape), generator=torch.Generator().manual_seed(1)).cumprod(dim=1)
    label[:, 0, 0, 0] = 2  # so that the box is the whole
    size = [min(2, length) for length in shape]
    highest, lowest = F.max_pool3d(label.float(), size, 1), -F.max_pool3d(-label.float(), size, 1)
    cells = label_map(label, "reflection").cells
    assert torch.equal(cells.isnan(), highest != lowest)
    assert torch.equal(cells.nan_to_num(0), highest.masked_fill(highest != lowest, 0))


@pytest.mark.parametrize("value", [0, 7])
def test_a_map_of_one_value_stays_so(value: int) -> None:
    assert (sampled(torch.full((1, 20, 20, 20), value), turned()) == value).all()


@pytest.mark.parametrize("padding", ["border", "reflection", "zeros"])
@pytest.mark.parametrize("background", [0, 7])
def test_the_box_around_what_is_no_background_changes_nothing(
    background: int, padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes down to one voxel, structures anywhere and at the faces, positions within the volume and far from it."""
    generator = torch.Generator().manual_seed(5)

    def number(least: int, most: int) -> int:
        return int(torch.randint(least, most, (1,), generator=generator))

    smaller = 0
    for turn in range(40):
        label = torch.full((number(1, 3), number(1, 16), number(1, 16), number(1, 16)), background)
        for value in range(number(0, 3)):
            corner = [number(0, length) for length in label.shape[1:]]
            x, y, z = (slice(start, start + number(1, 5)) for start in corner)
            label[:, x, y, z] = value + 1
        theta = torch.eye(3, 4)[None] + torch.randn(1, 3, 4, generator=generator) * 0.2
        size = [1, 1, number(1, 14), number(1, 14), number(1, 14)]
        grid = F.affine_grid(theta, size, align_corners=False) * (0.5, 1.0, 3.0)[turn % 3]
        whole_box = tuple((0, length) for length in label.shape[1:])
        labels = label_map(label, padding)
        smaller += labels.box != whole_box
        with monkeypatch.context() as patch:
            patch.setattr("medgan.models.labels._box", lambda *_, whole=whole_box: whole)
            whole = label_map(label, padding)
        assert whole.box == whole_box
        assert torch.equal(sample_labels(labels, grid), sample_labels(whole, grid))
    assert (smaller > 0) == (padding == "border" or (padding == "zeros" and background == 0))


def test_channels_of_a_map_of_as_many_planes_as_threads() -> None:
    label = torch.arange(36).reshape(2, 2, 3, 3)
    with torch_threads(2):
        assert torch.equal(sampled(label, voxel_grid((2, 3, 3), torch.zeros(1))[0]), label)
