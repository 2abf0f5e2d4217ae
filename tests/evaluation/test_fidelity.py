from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from medgan.evaluation.fidelity import SPACE_DISTANCES, compare_sets, feature_columns, mean_shift
from medgan.measures.features import volume_features

RNG = np.random.default_rng(0)
TRAINING = RNG.normal(size=(30, 3))
HELD_OUT = RNG.normal(size=(25, 3))
FIXED: dict[str, Any] = {
    "training_patients": [f"t{i}" for i in range(30)],
    "held_out_patients": [f"h{i}" for i in range(25)],
    "seed": 0,
    "resamples": 40,
}


@pytest.mark.parametrize("name", ["frechet", "kernel"])
def test_siblings_that_are_the_training_volumes_stand_at_the_floor(name: str) -> None:
    distance, least = SPACE_DISTANCES[name]
    figures = compare_sets(distance, np.stack([TRAINING, TRAINING], axis=1), TRAINING, HELD_OUT, **FIXED, least=least)
    assert figures["siblings"] == pytest.approx(figures["real"])
    assert figures["difference"] == pytest.approx({"value": 0, "low": 0, "high": 0})
    assert figures["real"]["low"] < figures["real"]["value"] < figures["real"]["high"]


def test_held_out_volumes_themselves_are_at_distance_0() -> None:
    fixed = FIXED | {"training_patients": FIXED["held_out_patients"]}
    figures = compare_sets(SPACE_DISTANCES["frechet"][0], HELD_OUT[:, None], HELD_OUT, HELD_OUT, **fixed)
    assert figures["siblings"]["value"] == pytest.approx(0, abs=1e-9)


def test_siblings_elsewhere_are_as_far_as_they_were_moved() -> None:
    moved = (HELD_OUT + 10)[:, None]
    fixed = FIXED | {"training_patients": FIXED["held_out_patients"]}
    figures = compare_sets(SPACE_DISTANCES["frechet"][0], moved, HELD_OUT, HELD_OUT, **fixed)
    assert figures["difference"]["value"] == pytest.approx(3 * 10**2)
    assert figures["difference"]["low"] > 200


def test_one_bad_sibling_of_two_counts_half() -> None:
    siblings = np.stack([TRAINING, TRAINING + 4], axis=1)
    figures = compare_sets(lambda x, y: float(abs(x.mean() - y.mean())), siblings, TRAINING, TRAINING, **FIXED | {
        "held_out_patients": FIXED["training_patients"]})  # fmt: skip
    assert figures["siblings"]["value"] == pytest.approx(2)
    assert figures["real"]["value"] == 0


def test_a_brighter_volume_moves_the_grey_values_and_not_the_detail() -> None:
    volumes = torch.rand(4, 2, 12, 12, 12, generator=torch.Generator().manual_seed(0)) * 0.8
    features, brighter = volume_features(volumes), volume_features(volumes + 0.1)
    grey, detail = (feature_columns(group, features.shape[1]) for group in ("histogram", "spectrum"))
    assert mean_shift(features[:, grey], brighter[:, grey]) == pytest.approx(0.1, abs=1e-6)
    assert mean_shift(features[:, detail], brighter[:, detail]) == pytest.approx(0, abs=1e-3)


def test_a_fourth_of_the_contrast_takes_a_sixteenth_of_the_power() -> None:
    volumes = torch.rand(4, 1, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    features, fainter = volume_features(volumes), volume_features(volumes / 4)
    detail = feature_columns("spectrum", features.shape[1])
    assert mean_shift(features[:, detail], fainter[:, detail]) == pytest.approx(np.log10(16), rel=1e-3)
