from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from medgan.evaluation.diversity import (
    Similarity,
    neighbourhoods,
    neighbours_for,
    shape_spread,
    sibling_similarity,
    similarity_for,
)

REAL = np.random.default_rng(0).normal(size=(20, 3))
PATIENTS: dict[str, Any] = {
    "training_patients": [f"t{i}" for i in range(20)],
    "held_out_patients": [f"h{i}" for i in range(20)],
    "seed": 0,
}


def values(figures: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {column: {name: one["value"] for name, one in found.items()} for column, found in figures.items()}


def test_siblings_that_are_the_held_out_volumes_cover_them_all() -> None:
    figures = values(neighbourhoods(np.stack([REAL, REAL], axis=1), REAL + 100, REAL, k=3, **PATIENTS))
    assert figures["siblings"]["precision"] == figures["siblings"]["recall"] == figures["siblings"]["coverage"] == 1
    assert figures["siblings"]["density"] >= 1
    assert set(figures["real"].values()) == {0.0}


def test_siblings_far_away_cover_nothing() -> None:
    figures = values(neighbourhoods((REAL + 100)[:, None], REAL, REAL, k=3, **PATIENTS))
    assert set(figures["siblings"].values()) == {0.0}
    assert figures["real"]["coverage"] == 1
    assert figures["ratio"]["coverage"] == 0


def test_the_ratio_to_real_volumes_is_1_for_siblings_that_are_the_training_volumes() -> None:
    training = np.random.default_rng(1).normal(size=(20, 3))
    figures = neighbourhoods(training[:, None], training, REAL, k=3, **PATIENTS)
    assert figures["ratio"]["coverage"] == {"value": 1, "low": 1, "high": 1}
    coverage = figures["real"]["coverage"]
    assert coverage["low"] < coverage["value"] <= coverage["high"] <= 1


@pytest.mark.parametrize("count", [3, 4, 7])
def test_few_patients_have_wide_intervals_and_no_fault(count: int) -> None:
    few = {name: names[:count] for name, names in PATIENTS.items() if name != "seed"}
    figures = neighbourhoods(REAL[:count, None], REAL[:count], REAL[10 : 10 + count], k=count - 1, **few, seed=0)
    for figure in figures["siblings"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]


def test_small_sets_have_fewer_neighbours() -> None:
    assert [neighbours_for(100, 40), neighbours_for(4, 40), neighbours_for(1, 40)] == [5, 3, 0]


def test_the_spread_of_shape_is_a_distance_in_mm() -> None:
    fields = np.zeros((2, 3, 4, 4, 4))
    fields[1, 0], fields[1, 1] = 3, 2
    assert shape_spread(fields) == pytest.approx(np.hypot(3, 2))
    assert shape_spread(fields, (1.0, 2.0, 5.0)) == pytest.approx(5)
    assert shape_spread(np.repeat(fields[1:], 3, axis=0), (1.0, 2.0, 5.0)) == 0


@pytest.mark.parametrize("side", [16, 24, 32, 48])
def test_monai_takes_the_similarity_chosen_for_a_grid(side: int) -> None:
    similarity = similarity_for((side, side + 8, side))
    a = torch.rand(1, 1, side, side + 8, side, generator=torch.Generator().manual_seed(0))
    assert similarity(a, a) == pytest.approx([1.0], abs=1e-4)
    assert similarity(a, 1 - a)[0] < 0.5


def test_larger_grids_have_more_scales() -> None:
    assert similarity_for((16, 64, 64)) == Similarity(1, 7)
    assert similarity_for((32, 48, 32)) == Similarity(3, 7)
    assert similarity_for((64, 64, 64)) == Similarity(3, 11)
    assert similarity_for((192, 192, 192)) == Similarity(5, 11)
    assert Similarity(1, 7).name.startswith("SSIM")
    assert Similarity(3, 7).name.startswith("MS-SSIM")


def test_only_the_first_pairs_of_siblings_are_compared() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 1, 16, 16, 16, generator=generator)
    siblings = torch.stack([a, a, b])
    assert sibling_similarity(siblings, Similarity(1, 7), pairs=1) == pytest.approx(1, abs=1e-4)
    assert sibling_similarity(siblings, Similarity(1, 7), pairs=3) < 0.7
