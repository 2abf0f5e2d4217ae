from __future__ import annotations

import numpy as np
import pytest
import torch

from medgan.evaluation.preservation import (
    component_counts,
    deformation_figures,
    jacobian,
    label_figures,
    label_values,
    volume_ratios,
)
from medgan.models.deformation import jacobian_determinant

GRID = np.indices((6, 7, 8)).astype(np.float64)


def test_a_stretch_has_its_volume_as_jacobian() -> None:
    assert jacobian(GRID * np.reshape([0.1, 0.2, -0.5], (3, 1, 1, 1))) == pytest.approx(
        np.full((6, 7, 8), 1.1 * 1.2 * 0.5)
    )


def test_no_deformation_keeps_volume_and_a_reflection_folds() -> None:
    assert np.array_equal(jacobian(np.zeros_like(GRID)), np.ones((6, 7, 8)))
    assert (jacobian(GRID * np.reshape([-2, 0, 0], (3, 1, 1, 1))) < 0).all()


def test_a_field_that_goes_to_and_fro_between_voxels_is_a_fold() -> None:
    field = np.zeros((3, 8, 6, 5))
    field[1] = np.reshape([-0.6, 0.6] * 3, (6, 1))
    central = jacobian_determinant(torch.from_numpy(field)[None])[0].numpy()
    assert central[:, 1:-1] == pytest.approx(1)
    assert central.min() > 0
    found = jacobian(field)
    assert found.shape == (8, 6, 5)
    assert found[:, 1:-1] == pytest.approx(-0.2)
    assert found[:, [0, -1]] == pytest.approx(2.2)


def test_a_fold_is_at_the_voxels_around_it_alone() -> None:
    field = np.zeros((3, 6, 7, 8))
    field[2, 3, 3, 3] = 1.5  # the next voxel along the last axis is overtaken
    folded = np.argwhere(jacobian(field) <= 0)
    assert folded.tolist() == [[3, 3, 3], [3, 3, 4]]


def test_folds_are_counted_by_voxel_and_by_sibling() -> None:
    figures = deformation_figures(np.array([[0.5, -0.1], [0.9, 0.7]]), np.array([[0, 0.2], [0, 0]]))
    assert figures["jacobian_min"]["min"] == -0.1
    assert figures["fold_share"] == {"mean": pytest.approx(0.05), "max": 0.2}
    assert figures["siblings_with_a_fold"] == 0.25


def test_volume_ratios_are_of_each_label() -> None:
    source, sibling = np.zeros((2, 6, 6, 6), dtype=np.uint8)
    source[:2], source[4] = 1, 2
    sibling[:3] = 1
    ratios = volume_ratios(source, sibling, [1, 2, 3])
    assert ratios[1] == 1.5
    assert ratios[2] == 0
    assert np.isnan(ratios[3])


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    label = np.zeros((8, 8, 8), dtype=np.uint8)
    label[0, 0, 0] = label[1, 1, 1] = label[5, 5, 5] = 1
    label[3] = 2
    assert component_counts(label, [1, 2, 3]) == {1: 2, 2: 1, 3: 0}


def test_a_label_that_is_lost_or_torn_is_reported() -> None:
    ratios = np.array([[1.0, 0.0], [1.2, 0.8], [np.nan, np.nan]])
    before, after = np.array([1, 1, np.nan]), np.array([[1, 0], [2, 1], [np.nan, np.nan]])
    figures = label_figures(ratios, before, after)
    assert figures is not None
    assert figures["sources"] == 2
    assert figures["lost_share"] == 0.25
    assert figures["components_changed_share"] == 0.5
    assert (figures["components_before"], figures["components_after"]) == (1, 1)
    assert figures["volume_ratio"]["count"] == 4
    assert label_figures(ratios[2:], before[2:], after[2:]) is None


def test_labels_are_those_declared_else_those_found() -> None:
    found = [np.array([[[0, 3]]]), np.array([[[0, 1]]])]
    assert label_values(found, {2: "liver", 0: "background"}) == [2]
    assert label_values(found) == [1, 3]
