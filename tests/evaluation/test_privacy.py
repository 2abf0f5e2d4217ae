from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from medgan.evaluation.privacy import (
    COMPARED_VOXELS,
    STATEMENT,
    chance_of_link,
    closer_to_training,
    comparable,
    copies,
    copy_threshold,
    linked,
    neighbour_ratios,
    pooling_factor,
)
from medgan.measures.distances import correlations

RNG = np.random.default_rng(0)
TRAINING, HELD_OUT, OTHERS = (RNG.normal(size=(40, 500)) for _ in range(3))
REFERENCE = correlations(HELD_OUT, TRAINING).max(axis=1)


def test_planted_copies_are_all_found_even_brightened() -> None:
    planted = TRAINING * 0.5 + 3 + RNG.normal(0, 0.1, TRAINING.shape)
    found = correlations(planted, TRAINING)
    assert copies(found.max(axis=1), REFERENCE).all()
    assert linked(found.argmax(axis=1).reshape(-1, 1), [str(i) for i in range(40)]).all()


def test_other_patients_are_copies_as_seldom_as_held_out_ones() -> None:
    nearest = correlations(OTHERS, TRAINING).max(axis=1)
    assert copies(nearest, REFERENCE).mean() < 0.2
    assert copies(REFERENCE, REFERENCE).mean() == 0.05


def test_the_threshold_is_the_95th_percentile_of_held_out_patients() -> None:
    assert copy_threshold(np.arange(101) / 100) == pytest.approx(0.95)


def test_linkage_counts_the_own_patient_alone() -> None:
    nearest = np.array([[0, 1], [1, 1], [0, 2]])
    assert linked(nearest, ["a", "b", "c"]).tolist() == [[True, False], [True, True], [False, True]]
    assert chance_of_link(["a", "b", "c"]) == pytest.approx(1 / 3)


def test_another_scan_of_the_own_patient_is_a_link() -> None:
    patients = ["a", "a", "b", "b"]
    assert linked(np.array([[1, 2], [0, 1], [0, 3], [2, 1]]), patients).tolist() == [
        [True, False],
        [True, True],
        [False, True],
        [True, False],
    ]
    assert chance_of_link(patients) == pytest.approx(1 / 2)
    # Whoever points anywhere is right as often as that.
    uneven = ["a"] * 6 + ["b", "c"]
    blind = np.random.default_rng(0).integers(8, size=(8, 5000))
    assert linked(blind, uneven).mean() == pytest.approx(chance_of_link(uneven), abs=0.01)


def test_records_of_the_training_set_are_closer_to_it() -> None:
    def closer(volumes: np.ndarray) -> np.ndarray:
        return closer_to_training(cdist(TRAINING, volumes), cdist(HELD_OUT, volumes))

    assert closer(TRAINING + 0.01).all()
    assert not closer(HELD_OUT + 0.01).any()
    assert 0.2 < closer(OTHERS).mean() < 0.8


def test_the_neighbour_ratio_of_a_copy_is_0_and_between_two_records_1() -> None:
    training = np.array([[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]])
    volumes = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.0]])
    assert neighbour_ratios(cdist(training, volumes), ["a", "b", "c"]) == pytest.approx([0, 1, 1 / 3])
    assert neighbour_ratios(np.zeros((2, 1)), ["a", "b"]) == [1]


def test_two_scans_of_a_patient_do_not_hide_that_the_patient_stands_out() -> None:
    training = np.array([[0.0], [0.1], [8.0], [8.1]])
    volumes = np.array([[-1.0], [0.05], [8.1]])
    ratios = neighbour_ratios(cdist(training, volumes), ["a", "a", "b", "b"])
    assert ratios == pytest.approx([1 / 9, 0.05 / 7.95, 0])


def test_large_volumes_are_compared_at_a_lower_resolution() -> None:
    assert pooling_factor((32, 48, 32)) == 1
    assert pooling_factor((128, 128, 128)) == 4
    volumes = torch.rand(2, 1, 50, 60, 70)
    rows = comparable(volumes)
    assert rows.shape == (2, 25 * 30 * 35)
    assert rows.shape[1] <= COMPARED_VOXELS
    assert rows[0, 0] == pytest.approx(float(volumes[0, 0, :2, :2, :2].mean()))
    assert np.array_equal(comparable(volumes[..., :4, :4, :4]), volumes[..., :4, :4, :4].reshape(2, -1).numpy())


def test_the_statement_is_the_agreed_one() -> None:
    assert STATEMENT == (
        "each output is a transformed scan of one patient; treat it as that patient's data; it is not anonymous."
    )
