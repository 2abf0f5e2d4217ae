from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from medgan.models.deformation import sample_at, voxel_grid
from medgan.models.labels import sample_labels


def balls() -> Tensor:
    grid = torch.stack(torch.meshgrid(*[torch.arange(20.0)] * 3, indexing="ij"))
    label = torch.zeros(1, 20, 20, 20, dtype=torch.int16)
    for value, centre in ((3, (7.0, 9.0, 10.0)), (300, (13.0, 10.0, 9.0))):
        label[0][(grid - torch.tensor(centre).reshape(3, 1, 1, 1)).square().sum(dim=0) < 9] = value
    return label


def turned(volume: Tensor, mode: str = "bilinear") -> Tensor:
    """Turn about the third axis by 20°, and stretch by a half."""
    grid = voxel_grid((20, 20, 20), volume)
    angle, centre = np.deg2rad(20), 9.5
    matrix = torch.tensor([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]).float()
    moved = torch.einsum("ij,bjxyz->bixyz", matrix / 1.5, grid - centre) + centre
    return sample_at(volume[None], moved, mode)[0]


def test_values_are_those_that_were_there_and_the_type_is_kept() -> None:
    out = sample_labels(balls(), turned)
    assert out.dtype == torch.int16
    assert torch.unique(out).tolist() == [0, 3, 300]


def test_nothing_moves_under_the_identity() -> None:
    label = balls()
    assert torch.equal(sample_labels(label, lambda v: v), label)


def test_outlines_are_smoother_than_the_nearest_neighbours() -> None:
    def surface(label: Tensor) -> int:
        inside = label[0].numpy() == 3
        return int((inside & ~ndimage.binary_erosion(inside)).sum()) + int(ndimage.label(inside)[1]) * 100

    label = balls()
    nearest, smooth = turned(label.float(), "nearest").to(label.dtype), sample_labels(label, turned)
    assert surface(smooth) < surface(nearest)
    both = ((smooth == 3) & (nearest == 3)).sum() * 2 / ((smooth == 3).sum() + (nearest == 3).sum())
    assert both > 0.85


def test_a_tie_goes_to_the_lower_value() -> None:
    label = torch.tensor([1, 2]).reshape(1, 2, 1, 1)
    assert sample_labels(label, lambda v: v.mean(dim=1, keepdim=True)).item() == 1


@pytest.mark.parametrize("value", [0, 7])
def test_a_map_of_one_value_stays_so(value: int) -> None:
    assert (sample_labels(torch.full((1, 4, 4, 4), value), lambda v: v[:, :2]) == value).all()
