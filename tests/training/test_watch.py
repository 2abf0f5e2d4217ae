from __future__ import annotations

from pathlib import Path

import pytest
import torch

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


@pytest.mark.parametrize("figures", [{"diversity/shape_voxels": 0.001}, {"discriminator/margin": 0.0}])
def test_nothing_is_to_be_written_from_the_first_sign_on(watch: Watch, figures: dict[str, float]) -> None:
    assert not watch.suspicious
    watch.look(2, SOUND | figures)
    assert watch.suspicious
    watch.look(3, SOUND)
    assert not watch.suspicious


def test_a_beginner_that_wavers_is_not_suspected() -> None:
    watch = Watch(Path("run"), varied=True)
    for spread in (0.03, 0.01):
        watch.look(1, SOUND | {"diversity/shape_voxels": spread})
    assert not watch.suspicious


def test_what_was_seen_goes_on_in_a_resumed_run() -> None:
    seen: dict[str, int] = {}
    watch = Watch(Path("run"), varied=True, seen=seen)
    watch.look(1, SOUND)
    for _ in range(STEPS - 2):
        watch.look(2, SOUND | {"diversity/shape_voxels": 0.001})
    resumed = Watch(Path("run"), varied=True, seen=dict(seen))
    assert resumed.suspicious
    assert steps_until_noticed(resumed, {"diversity/shape_voxels": 0.001}) == 2


def test_weights_that_are_not_finite_are_named(watch: Watch) -> None:
    network = torch.nn.Linear(2, 2)
    watch.require_finite(3, {"average": network})
    torch.nn.init.constant_(network.bias, float("inf"))
    with pytest.raises(TrainingFailure, match="NOT_FINITE: average/bias is not finite at step 3"):
        watch.require_finite(3, {"average": network})
