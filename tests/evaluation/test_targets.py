from __future__ import annotations

from typing import Any

from medgan.evaluation.targets import targets


def figure(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def report(**changed: Any) -> dict[str, Any]:
    found = {
        "difference": figure(0.0, -0.005, 0.01),
        "folds": 0.0,
        "ratio": figure(0.95, 0.91, 1.0),
        "beyond_moved": figure(0.02, 0.01, 0.03),
        "able": True,
    } | changed
    near = None if found["ratio"] is None else {"ratio": {"coverage": found["ratio"]}}
    judged = {"kind": "segmentation", "difference": found["difference"], "able": found["able"]}
    agreement = [] if found["difference"] is None else [judged]
    return {
        "preservation": {"agreement": agreement, "fold_share": {"max": found["folds"]}},
        "diversity": {"neighbourhoods": near, "volume_spread": {"beyond_moved": found["beyond_moved"]}},
    }


def outcome(**changed: Any) -> dict[str, tuple[bool | None, bool]]:
    return {target["name"]: (target["met"], target["sure"]) for target in targets(report(**changed))}


def test_a_good_generator_reaches_them_all() -> None:
    assert outcome() == dict.fromkeys(("mask_agreement", "folds", "coverage", "visible_noise"), (True, True))


def test_what_the_interval_does_not_settle_is_in_doubt() -> None:
    found = outcome(difference=figure(-0.005, -0.03, 0.02), ratio=figure(0.85, 0.8, 0.93))
    assert found["mask_agreement"] == (True, False)
    assert found["coverage"] == (False, False)


def test_a_point_below_is_the_limit() -> None:
    assert outcome(difference=figure(-0.02, -0.03, -0.011))["mask_agreement"] == (False, True)


def test_one_fold_and_no_spread_are_misses() -> None:
    found = outcome(folds=1e-6, beyond_moved=figure(-0.02, -0.03, -0.01))
    assert found["folds"] == (False, True)
    assert found["visible_noise"] == (False, True)


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    found = outcome(difference=None, ratio=None)
    assert found["class_agreement"] == found["coverage"] == (None, False)
    assert outcome(able=False)["mask_agreement"] == (None, False)
