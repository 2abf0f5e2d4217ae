from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from medgan.measures.attacks import adversarial_accuracy, attack_auc, attack_sensitivity, blind_sensitivity, halves


def gaussian(count: int, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3)) + shift


def accuracy(real: np.ndarray, synthetic: np.ndarray) -> float:
    return adversarial_accuracy(cdist(real, synthetic), cdist(real, real), cdist(synthetic, synthetic))


def test_adversarial_accuracy_is_0_for_copies_and_1_for_sets_far_apart() -> None:
    real = gaussian(30)
    assert accuracy(real, real.copy()) == 0
    assert accuracy(real, real + 1e-6) == 0
    assert accuracy(real, real + 100) == 1


def test_adversarial_accuracy_of_one_distribution_is_a_half() -> None:
    values = [accuracy(gaussian(40, seed=2 * i), gaussian(40, seed=2 * i + 1)) for i in range(60)]
    assert np.mean(values) == pytest.approx(0.5, abs=0.02)


def test_each_sample_is_asked_for_its_nearest_neighbour() -> None:
    real, synthetic = np.array([[0.0], [1.0], [10.0]]), np.array([[10.5], [20.0], [21.0]])
    # 0 and 1, 20 and 21 are nearest to one another; 10 and 10.5 are of two sets.
    assert accuracy(real, synthetic) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="at least 2"):
        accuracy(real[:1], synthetic)


def test_an_attack_on_members_that_were_copied_never_fails() -> None:
    assert attack_auc(np.zeros(5), np.ones(7)) == 1
    assert attack_sensitivity(np.zeros(5), np.ones(7)) == 1


def test_an_attack_that_knows_nothing_is_at_chance() -> None:
    distances = np.random.default_rng(0).random(4000)
    assert attack_auc(distances[:2000], distances[2000:]) == pytest.approx(0.5, abs=0.03)
    assert attack_sensitivity(distances[:2000], distances[2000:]) == pytest.approx(0.01, abs=0.01)
    assert attack_auc(np.zeros(3), np.zeros(4)) == 0.5
    assert attack_sensitivity(np.zeros(3), np.zeros(4)) == 0


def test_members_found_are_counted_below_the_allowed_false_positives() -> None:
    others = np.arange(200.0)
    assert attack_sensitivity(np.array([0.0, 1.5, 2.0, 3.0]), others) == 0.5  # threshold 2: 0 and 1 are mistaken
    assert attack_sensitivity(np.array([-1.0, 0.0]), others[:99]) == 0.5  # 99 others: none may be


def test_halves_part_by_patient() -> None:
    patients = ["a", "a", "b", "c", "c", "d"]
    first, second = halves(patients, np.random.default_rng(0))
    assert sorted([*first, *second]) == list(range(6))
    assert not {patients[i] for i in first} & {patients[i] for i in second}
    assert len({patients[i] for i in first}) == 2


@pytest.mark.parametrize("others", [4, 30, 150])
def test_a_blind_attacker_finds_more_than_the_false_alarms_where_others_are_few(others: int) -> None:
    rng = np.random.default_rng(0)
    found = [attack_sensitivity(rng.random(50), rng.random(others)) for _ in range(3000)]
    assert blind_sensitivity(others) == pytest.approx(np.mean(found), rel=0.1)
    assert blind_sensitivity(others) == pytest.approx({4: 1 / 5, 30: 1 / 31, 150: 2 / 151}[others])
