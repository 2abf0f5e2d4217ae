from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medgan.comparison.scoring import Task
from medgan.comparison.self_training import pseudo_label
from medgan.data.case import Case
from medgan.data.loaders import Prepared

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
    kept = pseudo_label(Known(2, maps=False), cases, CLASSIFICATION)
    assert [(p.case.case_id, p.case.class_name, p.class_index) for p in kept] == [
        ("c0", "bright", 1),
        ("c2", "dark", 0),
    ]
    assert len(pseudo_label(Known(2, maps=False), cases, CLASSIFICATION, threshold=0.5)) == 3
    assert [p.case.class_name for p in cases] == [None] * 3


def test_label_maps_have_the_cohorts_values_and_all_cases_are_kept() -> None:
    image = torch.zeros(1, *SHAPE) - 1
    image[:, :2] = 1
    (kept,) = pseudo_label(Known(3, maps=True), [case(0, image)], SEGMENTATION)
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
    assert len(pseudo_label(Known(3, maps=True), cases, SEGMENTATION, threshold=0.9)) == 1
    assert len(pseudo_label(Known(3, maps=True), cases, SEGMENTATION, threshold=0.49)) == 2
    assert not pseudo_label(Known(3, maps=True), cases, SEGMENTATION, threshold=0.97)


def test_the_teacher_predicts_in_evaluation_mode_and_is_put_back() -> None:
    network = Known(2, maps=False).train()
    pseudo_label(network, constant(1.0, 1.0, 1.0), CLASSIFICATION, batch=2)
    assert network.modes == [False, False]
    assert network.training


def test_no_scans_and_a_threshold_out_of_range() -> None:
    assert pseudo_label(Known(2, maps=False), [], CLASSIFICATION) == []
    with pytest.raises(ValueError, match="threshold"):
        pseudo_label(Known(2, maps=False), [], CLASSIFICATION, threshold=1.5)
