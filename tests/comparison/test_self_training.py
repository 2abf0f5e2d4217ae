from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medgan.comparison.scoring import Task
from medgan.comparison.self_training import consensus_predictions, plain_predictions, pseudo_label
from medgan.data.case import Case
from medgan.data.loaders import Prepared
from medgan.data.preprocess import Scale
from medgan.models.fields import Fields, displacement_field
from medgan.sampler import Parameters, Recipe

SHAPE = (4, 4, 4)
SEGMENTATION = Task("segmentation", ("a", "b"), (2, 7))
CLASSIFICATION = Task("classification", class_names=("dark", "bright"))


class Known(nn.Module):
    """Logits that follow from the image: for a constant volume v, ``scale * v`` for the last output, 0 for others."""

    def __init__(self, outputs: int, *, maps: bool, scale: float = 4.0) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.outputs, self.maps, self.scale = outputs, maps, scale
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.modes.append(self.training)
        value = images * self.scale if self.maps else images.mean(dim=(2, 3, 4)) * self.scale
        rest = torch.zeros_like(value).repeat(1, self.outputs - 1, *[1] * (value.ndim - 2))
        return torch.cat([rest, value], dim=1)


def case(index: int, image: Tensor) -> Prepared:
    return Prepared(Case(f"c{index}", f"p{index}", (Path("x.nii.gz"),)), image, None, -1)


def constant(*values: float) -> list[Prepared]:
    return [case(i, torch.full((1, *SHAPE), v)) for i, v in enumerate(values)]


def test_classes_the_teacher_is_sure_of_are_kept() -> None:
    # σ(4) = 0.982, σ(0.4) = 0.599, σ(−4) = 0.018 → dark with 0.982
    cases = constant(1.0, 0.1, -1.0)
    kept = pseudo_label(plain_predictions(Known(2, maps=False)), cases, CLASSIFICATION)
    assert [(p.case.case_id, p.case.class_name, p.class_index) for p in kept] == [
        ("c0", "bright", 1),
        ("c2", "dark", 0),
    ]
    assert len(pseudo_label(plain_predictions(Known(2, maps=False)), cases, CLASSIFICATION, threshold=0.5)) == 3
    assert [p.case.class_name for p in cases] == [None] * 3


def test_label_maps_have_the_cohorts_values_and_all_cases_are_kept() -> None:
    image = torch.zeros(1, *SHAPE) - 1
    image[:, :2] = 1
    (kept,) = pseudo_label(plain_predictions(Known(3, maps=True)), [case(0, image)], SEGMENTATION)
    assert kept.label is not None
    assert kept.label.shape == (1, *SHAPE)
    assert kept.label.dtype == torch.uint8
    assert torch.equal(kept.label, torch.where(image > 0, 7, 0).to(torch.uint8))
    assert SEGMENTATION.compact(kept.label).unique().tolist() == [0, 2]


def test_confidence_of_a_label_map_is_that_of_its_structures() -> None:
    # Inside e⁴ / (e⁴ + 2) = 0.965, outside 1 / (2 + e⁻⁴) = 0.495; all outside: 0.495
    half = torch.zeros(1, *SHAPE) - 1
    half[:, :1] = 1
    cases = [case(0, half), *[replace(c) for c in constant(-1.0)]]
    assert len(pseudo_label(plain_predictions(Known(3, maps=True)), cases, SEGMENTATION, threshold=0.9)) == 1
    assert len(pseudo_label(plain_predictions(Known(3, maps=True)), cases, SEGMENTATION, threshold=0.49)) == 2
    assert not pseudo_label(plain_predictions(Known(3, maps=True)), cases, SEGMENTATION, threshold=0.97)


def test_the_teacher_predicts_in_evaluation_mode_and_is_put_back() -> None:
    network = Known(2, maps=False).train()
    pseudo_label(plain_predictions(network), constant(1.0, 1.0, 1.0), CLASSIFICATION, batch=2)
    assert network.modes == [False, False]
    assert network.training


def test_no_scans_and_a_threshold_out_of_range() -> None:
    assert pseudo_label(plain_predictions(Known(2, maps=False)), [], CLASSIFICATION) == []
    with pytest.raises(ValueError, match="threshold"):
        pseudo_label(plain_predictions(Known(2, maps=False)), [], CLASSIFICATION, threshold=1.5)


GRID = (16, 16, 16)


def shifted(voxels: float) -> Recipe:
    """A sibling that shows at p what its source has at p + voxels along the first axis."""
    zero = torch.zeros(1, 1, 4, 4, 4)
    generators = torch.zeros(1, 4, 4)
    generators[0, 0, 3] = voxels
    fields = Fields(torch.zeros(1, 3, 4, 4, 4), generators, zero, zero)
    scale = Scale(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
    return Recipe(fields, displacement_field(fields, GRID), np.eye(4), scale, GRID, Parameters(0, 0, 1.0, None, ""))


class Stained(nn.Module):
    """A teacher that finds the bright block, and always finds one more voxel, wherever the scan lies."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        found = (images > 0.5).float()
        found[:, :, 3, 3, 3] = 1
        return torch.cat([1 - found, found], dim=1) * 10


def block() -> Tensor:
    image = torch.zeros(1, *GRID)
    image[:, 6:11, 5:10, 5:10] = 1
    return image


def test_siblings_outvote_an_error_that_hangs_on_the_scans_place() -> None:
    task = Task("segmentation", ("block",), (1,))
    image = block()
    recipes = [shifted(2), shifted(-2), shifted(4), shifted(-4)]
    (plain,) = pseudo_label(plain_predictions(Stained()), [case(0, image)], task)
    (agreed,) = pseudo_label(consensus_predictions(Stained(), lambda _: recipes), [case(0, image)], task)
    assert plain.label is not None
    assert agreed.label is not None
    assert int(plain.label[0, 3, 3, 3]) == 1
    assert torch.equal(agreed.label.float(), image)


def test_a_class_is_the_mean_over_siblings() -> None:
    # The block leaves the grid with its bright voxels: the sibling is dark, and the mean of σ(4) and σ(0) is 0.741.
    bright = torch.zeros(1, *GRID)
    bright[:, :8] = 2.0
    predict = consensus_predictions(Known(2, maps=False), lambda _: [shifted(12)])
    (probabilities,) = predict([case(0, bright)])
    assert probabilities.tolist() == pytest.approx([0.259, 0.741], abs=1e-3)
