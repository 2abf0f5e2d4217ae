from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from medgan.data.cohort import Case
from medgan.data.loaders import Prepared
from medgan.evaluation.privacy_figures import (
    Distances,
    adversarial,
    closeness,
    copy_figures,
    linkage,
    linkage_in_features,
    membership,
)
from medgan.evaluation.real import Real
from medgan.evaluation.space import Space
from medgan.measures.distances import correlations

RNG = np.random.default_rng(0)
TRAINING, HELD_OUT, OTHERS = RNG.normal(size=(40, 3)), RNG.normal(size=(30, 3)), RNG.normal(size=(40, 2, 3))
COPIES = np.stack([TRAINING, TRAINING], axis=1) + 1e-4


def cases(name: str, count: int, scans: int = 1) -> list[Prepared]:
    image = torch.zeros(1, 2, 2, 2)
    return [Prepared(Case(f"{name}{i}", f"{name}{i // scans}", (Path("x"),)), image, None, -1) for i in range(count)]


def distances(siblings: np.ndarray, rows: int = 40) -> Distances:
    """Distances in a space whose records, as they come, lie elsewhere, by 20: an attacker has both."""
    here, moved = (TRAINING[:rows], HELD_OUT), (TRAINING[:rows] + 20, HELD_OUT + 20)
    return Distances.of(Space(siblings, *here, moved, here))


def attacked(siblings: np.ndarray) -> dict[str, Any]:
    found = distances(siblings)
    return membership({"features": (found.training, found.held_out)}, REAL, 0)["features"]


REAL = Real(cases("t", 40), cases("h", 30))


def test_copies_have_adversarial_accuracy_0_and_lose_half() -> None:
    figures = adversarial(distances(COPIES), REAL, 0)
    assert figures["size"] == 30
    assert figures["training"]["value"] == 0
    assert figures["loss"]["value"] == pytest.approx(0.5, abs=0.12)
    assert figures["loss"]["low"] > 0.2
    assert figures["real"]["value"] == pytest.approx(0.5, abs=0.12)


def test_siblings_that_owe_nothing_to_training_lose_nothing() -> None:
    figures = adversarial(distances(OTHERS), REAL, 0)
    assert figures["training"]["value"] == pytest.approx(0.5, abs=0.12)
    assert figures["loss"]["low"] < 0 < figures["loss"]["high"]


def test_two_scans_of_a_patient_are_one_patient_to_every_attack() -> None:
    rng = np.random.default_rng(1)
    # Patients with two scans that lie close together; siblings that resemble the other scan of their own patient.
    training, held_out = (np.repeat(rng.normal(size=(n, 3)), 2, axis=0) for n in (20, 15))
    training, held_out = (part + rng.normal(0, 1e-3, part.shape) for part in (training, held_out))
    siblings = np.stack([training.reshape(20, 2, 3)[:, ::-1].reshape(40, 3)] * 2, axis=1) + 1e-5
    found = Distances.of(Space(siblings, training, held_out, (training, held_out), (training, held_out)))
    real = Real(cases("t", 40, 2), cases("h", 30, 2))
    unread = {"value": 0.0, "low": 0.0, "high": 0.0}
    link = linkage_in_features({"share": unread, "by": "voxels", "voxels": unread}, found, real, 0)
    assert link["share"] == link["features"] == {"value": 1, "low": 1, "high": 1}
    assert (link["by"], link["voxels"]) == ("features", unread)
    figures = closeness(found, real, 0)
    assert figures["neighbour_ratio"]["siblings"]["max"] < 0.1
    assert figures["neighbour_ratio"]["held_out"]["median"] > 0.3
    assert figures["adversarial"]["size"] == 15
    # Among strangers nobody's nearest neighbour is the same patient's other scan.
    assert figures["adversarial"]["real"]["value"] == pytest.approx(0.5, abs=0.15)


def test_a_sibling_nearest_to_another_scan_of_its_patient_is_linked() -> None:
    nearest = np.array([[1, 0], [0, 0], [3, 3], [2, 0]])
    measured = SimpleNamespace(nearest=nearest, correlation=np.ones((4, 2)))
    link = linkage(measured, Real(cases("t", 4, 2), []), 0)["linkage"]  # type: ignore[arg-type]
    assert link["share"]["value"] == 7 / 8
    assert link["chance"] == 1 / 2
    assert (link["by"], link["features"]) == ("voxels", None)


def test_the_better_of_two_links_is_the_headline() -> None:
    sure = {"value": 1.0, "low": 1.0, "high": 1.0}
    link = linkage_in_features({"share": sure, "by": "voxels", "voxels": sure}, distances(OTHERS), REAL, 0)
    assert (link["share"], link["by"]) == (sure, "voxels")
    assert link["features"]["value"] < 0.2


def test_all_planted_copies_are_found_and_of_others_as_many_as_of_held_out_volumes() -> None:
    rng = np.random.default_rng(2)
    training, held_out = rng.normal(size=(20, 400)), rng.normal(size=(100, 400))
    copied = np.repeat(training, 10, axis=0) + 0.1 * rng.normal(size=(200, 400))
    fresh = rng.normal(size=(200, 400))
    names = [f"t{i}" for i in range(20)], [f"h{i}" for i in range(100)]

    def share(siblings: np.ndarray) -> float:
        found = correlations(siblings, training).reshape(20, 10, 20)
        return copy_figures(found, correlations(held_out, training), *names, 0)["share"]["value"]

    assert share(copied) == 1
    assert share(fresh) < 0.1
    assert share(np.concatenate([copied[:100], fresh[100:]])) == pytest.approx(0.525, abs=0.025)


def test_how_many_copies_there_are_is_no_surer_than_the_held_out_patients_that_set_the_threshold() -> None:
    training, held_out = [f"t{i}" for i in range(50)], [f"h{i}" for i in range(6)]
    siblings = np.full((50, 2, 50), 0.1)
    siblings[np.arange(50), :, np.arange(50)] = 0.5
    strangers = np.repeat([[0.1], [0.2], [0.3], [0.4], [0.45], [0.9]], 50, axis=1)
    figures = copy_figures(siblings, strangers, training, held_out, 0)
    assert figures["threshold"] > 0.5
    assert figures["share"]["value"] == figures["share"]["low"] == 0
    # Without the one stranger who looks like a copy all siblings would be copies.
    assert figures["share"]["high"] > 0.5
    assert figures["held_out_share"] == pytest.approx(1 / 6)
    surely = copy_figures(siblings, strangers[:5], training, held_out[:5], 0)
    assert surely["share"] == {"value": 1, "low": 1, "high": 1}
    few = copy_figures(siblings, strangers[4:], training, held_out[:2], 0)
    assert (few["share"]["low"], few["share"]["high"]) == (0, 1)


def test_who_is_closest_is_no_surer_than_the_few_held_out_patients() -> None:
    rng = np.random.default_rng(0)
    training, siblings = rng.normal(size=(40, 3)), rng.normal(size=(40, 2, 3)) * 0.01
    training += 10 * training / np.linalg.norm(training, axis=1, keepdims=True)
    held_out = np.array([[0.0, 0.0, 0.0], [50.0, 0, 0], [0, 50.0, 0], [0, 0, 50.0]])
    records = training, held_out
    figures = closeness(
        Distances.of(Space(siblings, *records, records, records)), Real(cases("t", 40), cases("h", 4)), 0
    )
    closest = figures["closest_record"]["share"]
    assert closest["value"] == closest["low"] == 0
    assert closest["high"] > 0.5


def test_siblings_far_away_are_told_from_both() -> None:
    figures = adversarial(distances(OTHERS + 50), REAL, 0)
    assert figures["training"]["value"] == figures["held_out"]["value"] == 1
    assert figures["loss"]["value"] == 0


def test_an_attack_on_copies_finds_every_member_and_only_those_whose_copies_are_out() -> None:
    attack = attacked(COPIES)
    assert attack["auc"] == {"value": 1, "low": 1, "high": 1}
    assert attack["sensitivity"]["value"] == 1
    assert attack["control"]["value"] == pytest.approx(0.5, abs=0.05)
    assert attack["weights"]["value"] == pytest.approx(0.5, abs=0.12)
    assert (attack["members"], attack["unseen"]) == (40, 30)
    assert (attack["mistakes_allowed"], attack["blind_sensitivity"]) == (0, 1 / 31)


def test_an_attack_on_siblings_of_nobody_is_at_chance() -> None:
    attack = attacked(OTHERS)
    assert attack["auc"]["low"] < 0.5 < attack["auc"]["high"]
    assert attack["control"]["low"] < 0.5 < attack["control"]["high"]


def test_three_patients_are_too_few_for_halves() -> None:
    few = Real(cases("t", 3), cases("h", 30))
    found = distances(COPIES[:3], 3)
    assert membership({"features": (found.training, found.held_out)}, few, 0) == {}


def test_copies_of_records_as_they_come_are_found_where_the_space_is_of_interpolated_ones() -> None:
    found = distances(COPIES + 20)
    assert found.training.min(axis=(1, 2)).max() < 1e-3
    assert attacked(COPIES + 20)["auc"]["value"] == 1


def test_copies_are_always_closer_to_training_and_one_record_stands_out() -> None:
    figures = closeness(distances(COPIES), REAL, 0)
    assert figures["closest_record"]["share"]["value"] == 1
    assert figures["neighbour_ratio"]["siblings"]["max"] < 0.1
    assert figures["neighbour_ratio"]["held_out"]["median"] > 0.3
