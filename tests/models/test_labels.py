from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from medgan.models.deformation import sample_at, to_grid, voxel_grid
from medgan.models.labels import label_map, outlines, sample_labels


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
    return sample_labels(label_map(label), to_grid(positions[None], label.shape[1:]), padding)


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
def test_outlines_are_where_a_neighbour_differs(shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medgan.models.labels.SLAB_VOXELS", 3 * shape[1] * shape[2])
    label = torch.randint(0, 2, (2, *shape), generator=torch.Generator().manual_seed(1)).cumprod(dim=1)
    padded = F.pad(label.float(), (1,) * 6, mode="replicate")
    expected = F.max_pool3d(padded, 3, 1) != -F.max_pool3d(-padded, 3, 1)
    assert torch.equal(outlines(label), expected)


@pytest.mark.parametrize("value", [0, 7])
def test_a_map_of_one_value_stays_so(value: int) -> None:
    assert (sampled(torch.full((1, 20, 20, 20), value), turned()) == value).all()
