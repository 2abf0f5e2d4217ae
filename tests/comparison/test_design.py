from __future__ import annotations

from typing import Any

import pytest

from medgan.comparison.design import Cell, all_cells, blocks, expand_arms
from medgan.config import Config, parse_config
from medgan.errors import InputFault


def config(data: dict[str, Any] | None = None, **compare: Any) -> Config:
    return parse_config({"data": data or {}, "compare": compare})


def names(settings: Config) -> list[str]:
    return [arm.name for arm in expand_arms(settings.compare)]


def test_a_plain_name_is_an_arm_of_its_parts() -> None:
    arms = expand_arms(config(gan={"probability": 0.3, "strength": 0.7, "min_quality": 0.05}).compare)
    assert [arm.parts for arm in arms] == [("none",), ("classical",), ("gan",), ("classical", "gan")]
    assert [arm.generator for arm in arms] == [None, None, "generator", "generator"]
    assert {(arm.probability, arm.strength, arm.min_quality) for arm in arms} == {(0.3, 0.7, 0.05)}


def test_a_sweep_repeats_arms_with_a_generator_alone() -> None:
    found = names(config(arms=["classical", "classical+gan"], sweep={"probability": [0.25, 1], "strength": [0.5]}))
    assert found == ["classical", "classical+gan p=0.25 s=0.5", "classical+gan p=1 s=0.5"]


def test_several_generators_stand_side_by_side() -> None:
    settings = config(arms=["none", "gan"], baseline="none", generators={"a": "runs/a", "b": "runs/b"})
    arms = expand_arms(settings.compare)
    assert [(arm.name, arm.generator) for arm in arms] == [("none", None), ("gan [a]", "a"), ("gan [b]", "b")]


def test_an_arm_of_its_own_name_has_its_own_settings() -> None:
    mine = {
        "name": "mild",
        "use": "classical+gan",
        "probability": 0.2,
        "min_quality": 0.1,
        "transforms": [{"_target_": "monai.transforms.RandFlipd", "keys": ["image"], "prob": 0.5}],
    }
    arm = expand_arms(config(arms=["classical", mine]).compare)[1]
    assert (arm.name, arm.parts) == ("mild", ("classical", "gan"))
    assert (arm.probability, arm.strength, arm.min_quality) == (0.2, 1.0, 0.1)
    assert arm.transforms[0]["prob"] == 0.5


@pytest.mark.parametrize(
    ("compare", "reason"),
    [
        ({"arms": ["classical", "gann"]}, "no part 'gann'"),
        ({"arms": ["gan"], "baseline": "gan", "sweep": {"strength": [0.5, 1]}}, "baseline 'gan' is repeated"),
        ({"arms": ["classical", {"name": "x", "use": "gan", "generator": "c"}]}, "no generator 'c'"),
        (
            {"arms": ["classical", {"name": "x", "use": "gan"}], "generators": {"a": "a", "b": "b"}},
            "say which generator of a, b",
        ),
        ({"arms": ["classical", "none+gan"]}, "none"),
        ({"arms": ["classical+all-labels"], "baseline": "classical+all-labels"}, "labels that the other arms lack"),
        ({"arms": ["classical", "all-labels+consensus"]}, "nothing is left for a teacher"),
    ],
)
def test_what_is_no_arm_is_refused_with_the_reason(compare: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputFault, match=reason):
        expand_arms(config(**compare).compare)


def test_runs_go_seed_by_seed_over_blocks_and_folds() -> None:
    settings = config({"folds": 5}, arms=["none", "classical"], labelled=[8, 2], splits=2, seeds=2)
    assert blocks(settings) == (2, 8)
    cells = all_cells(settings, expand_arms(settings.compare))
    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * 2
    assert cells[0] == Cell(2, 0, 0, "none")
    assert [cell.seed for cell in cells] == [0] * 8 + [1] * 8


def test_several_splits_need_folds() -> None:
    settings = config(splits=3)
    with pytest.raises(InputFault, match=r"compare\.splits"):
        all_cells(settings, expand_arms(settings.compare))


def test_what_is_not_taken_away_cannot_be_drawn_anew() -> None:
    assert blocks(config(redraw=True, labelled=[8, 2])) == (2, 8)
    with pytest.raises(InputFault, match=r"compare\.redraw"):
        blocks(config(redraw=True))


def test_a_fold_of_its_own_is_not_taken_for_the_study() -> None:
    settings = config({"folds": 5, "fold": 3})
    with pytest.raises(InputFault, match=r"data\.fold"):
        all_cells(settings, expand_arms(settings.compare))
