from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from medgan.evaluation.fidelity import SPACE_DISTANCES, Sets, compare_folds, feature_columns, mean_shift
from medgan.measures.features import volume_features

RNG = np.random.default_rng(0)
TRAINING = RNG.normal(size=(30, 3))
HELD_OUT = RNG.normal(size=(25, 3))
TRAINED = [f"t{i}" for i in range(30)]
OTHERS = [f"h{i}" for i in range(25)]
FIXED: dict[str, Any] = {"seed": 0, "resamples": 40}


@pytest.mark.parametrize("name", ["frechet", "kernel"])
def test_siblings_that_are_the_training_volumes_stand_at_the_floor(name: str) -> None:
    distance, least = SPACE_DISTANCES[name]
    sets = Sets(np.stack([TRAINING, TRAINING], axis=1), TRAINING, HELD_OUT, TRAINED)
    figures = compare_folds(distance, [sets], OTHERS, **FIXED, least=least)
    assert figures["siblings"] == pytest.approx(figures["real"])
    assert figures["difference"] == pytest.approx({"value": 0, "low": 0, "high": 0})
    assert figures["real"]["low"] < figures["real"]["value"] < figures["real"]["high"]


def test_held_out_volumes_themselves_are_at_distance_0() -> None:
    sets = Sets(HELD_OUT[:, None], HELD_OUT, HELD_OUT, OTHERS)
    figures = compare_folds(SPACE_DISTANCES["frechet"][0], [sets], OTHERS, **FIXED)
    assert figures["siblings"]["value"] == pytest.approx(0, abs=1e-9)


def test_siblings_elsewhere_are_as_far_as_they_were_moved() -> None:
    sets = Sets((HELD_OUT + 10)[:, None], HELD_OUT, HELD_OUT, OTHERS)
    figures = compare_folds(SPACE_DISTANCES["frechet"][0], [sets], OTHERS, **FIXED)
    assert figures["difference"]["value"] == pytest.approx(3 * 10**2)
    assert figures["difference"]["low"] > 200


def test_one_bad_sibling_of_two_counts_half() -> None:
    sets = Sets(np.stack([TRAINING, TRAINING + 4], axis=1), TRAINING, TRAINING, TRAINED)
    figures = compare_folds(lambda x, y: float(abs(x.mean() - y.mean())), [sets], TRAINED, **FIXED)
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
