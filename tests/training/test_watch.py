from __future__ import annotations

from pathlib import Path

import pytest

from medgan.errors import TrainingFailure
from medgan.training.watch import STEPS, WARM_UP, Watch

SOUND = {"diversity/shape_voxels": 1.0, "discriminator/margin": 0.3, "generator/loss": 0.7}


def steps_until_noticed(watch: Watch, figures: dict[str, float], start: int = 0) -> int:
    for step in range(1, 1000):
        try:
            watch.look(start + step, SOUND | figures)
        except TrainingFailure:
            return step
    return 0


@pytest.fixture
def watch() -> Watch:
    found = Watch(Path("run"), varied=True)
    found.look(1, SOUND)
    return found


def test_a_sound_training_goes_on(watch: Watch) -> None:
    assert steps_until_noticed(watch, {}) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_ends_it_at_once(watch: Watch, value: float) -> None:
    with pytest.raises(TrainingFailure, match="run: NOT_FINITE: generator/loss is not a number at step 7"):
        watch.look(7, SOUND | {"generator/loss": value})


def test_a_collapse_and_a_constant_discriminator_are_noticed_in_time(watch: Watch) -> None:
    assert steps_until_noticed(watch, {"diversity/shape_voxels": 0.001}) == STEPS == 50
    assert steps_until_noticed(Watch(Path("run"), varied=True), {"discriminator/margin": 0.0}) == STEPS


def test_a_generator_that_has_not_begun_to_vary_has_longer() -> None:
    assert steps_until_noticed(Watch(Path("run"), varied=True), {"diversity/shape_voxels": 0.001}) == WARM_UP


def test_one_good_step_starts_the_count_anew(watch: Watch) -> None:
    for _ in range(3):
        for _ in range(STEPS - 1):
            watch.look(1, SOUND | {"discriminator/margin": 0.0})
        watch.look(1, SOUND)


def test_variety_that_nobody_asked_for_is_not_missed() -> None:
    assert steps_until_noticed(Watch(Path("run"), varied=False), {"diversity/shape_voxels": 0.0}) == 0
