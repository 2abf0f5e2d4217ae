from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medgan.comparison.controls import RandMatchedDeformationd
from medgan.comparison.magnitudes import Magnitudes, measure_magnitudes
from medgan.sampler import load
from medgan.transforms import RandDAGANd

KEYS = ["image", "label"]


@pytest.fixture(scope="module")
def magnitudes(checkpoint_folder: Path) -> Magnitudes:
    return measure_magnitudes(load(checkpoint_folder), torch.rand(2, 1, 16, 16, 16), ["small", None], 4, 0)


def sample() -> dict[str, torch.Tensor]:
    label = torch.zeros(1, 16, 16, 16, dtype=torch.uint8)
    label[:, 4:12, 5:11, 4:12] = 1
    return {"image": label.float() * 0.5 + 0.25, "label": label}


def test_the_label_map_follows_the_image(magnitudes: Magnitudes) -> None:
    control = RandMatchedDeformationd(KEYS, magnitudes, 1.0)
    control.set_random_state(0)
    for _ in range(10):
        source = sample()
        out = control(source)
        recipe = control.recipe(source["image"])
        expected = recipe.warp(source["label"].float(), "label")
        assert torch.equal(out["label"].as_tensor().float(), expected)
        assert not torch.equal(expected, source["label"].float())
        shaped = recipe.warp(recipe.change_appearance(source["image"]))
        assert torch.equal(out["image"].as_tensor(), shaped)


def test_types_and_values_are_kept(magnitudes: Magnitudes) -> None:
    control = RandMatchedDeformationd(KEYS, magnitudes, 1.0)
    control.set_random_state(0)
    out = control(sample())
    assert out["label"].dtype == torch.uint8
    assert set(out["label"].unique().tolist()) == {0, 1}
    assert out["image"].dtype == torch.float32
    assert not torch.equal(out["image"].as_tensor(), sample()["image"])


def test_it_draws_from_its_own_stream_alone(magnitudes: Magnitudes) -> None:
    control = RandMatchedDeformationd(KEYS, magnitudes, 0.5)
    batches = []
    for stray in (0, 1):
        control.set_random_state(4)
        torch.manual_seed(stray)
        np.random.seed(stray)
        batches.append(torch.stack([torch.as_tensor(control(sample())["image"]) for _ in range(6)]))
    assert torch.equal(*batches)
    control.set_random_state(5)
    assert not torch.equal(batches[0], torch.stack([torch.as_tensor(control(sample())["image"]) for _ in range(6)]))


def test_it_replaces_the_samples_that_the_generator_replaces(magnitudes: Magnitudes, checkpoint_folder: Path) -> None:
    generator = RandDAGANd(KEYS, checkpoint_folder, prob=0.5, input_range=(0, 1))
    control = RandMatchedDeformationd(KEYS, magnitudes, 0.5)
    replaced: list[list[bool]] = []
    for transform in (generator, control):
        transform.set_random_state(7)
        outputs = [torch.as_tensor(transform(sample())["image"]) for _ in range(12)]
        replaced.append([not torch.equal(out, sample()["image"]) for out in outputs])
    assert replaced[0] == replaced[1]
    assert 0 < sum(replaced[0]) < 12


def test_strength_zero_and_probability_zero_are_the_identity(magnitudes: Magnitudes) -> None:
    for probability, strength in ((1.0, 0.0), (0.0, 1.0)):
        control = RandMatchedDeformationd(KEYS, magnitudes, probability, strength)
        out = control(sample())
        assert all(torch.equal(torch.as_tensor(out[key]), sample()[key]) for key in KEYS)


@pytest.mark.parametrize(("probability", "strength", "word"), [(1.2, 1.0, "prob"), (0.5, -1.0, "strength")])
def test_values_out_of_range_are_named(magnitudes: Magnitudes, probability: float, strength: float, word: str) -> None:
    with pytest.raises(ValueError, match=f"{word} must be"):
        RandMatchedDeformationd(KEYS, magnitudes, probability, strength)
