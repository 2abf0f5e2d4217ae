"""Class, mixtures of generators, prepared fields, and the picture of a sample."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from medgan.config import Config
from medgan.pictures import save_figure
from medgan.sampler import Sampler, load
from medgan.transforms import RandDAGAN, RandDAGANd
from medgan.transforms.handle import Mixture, PreparedRecipes

KEYS = ["image", "label"]


@pytest.fixture
def sample(volume: torch.Tensor, label: torch.Tensor) -> dict[str, Any]:
    return {"image": MetaTensor(volume, meta={"filename_or_obj": "case.nii.gz"}), "label": label}


@pytest.fixture(scope="module")
def other(make_checkpoint: Callable[..., Path], tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny_config.model.model_copy(update={"max_gain": 0.1})
    return make_checkpoint(tmp_path_factory.mktemp("other"), tiny_config.model_copy(update={"model": model}))


def record_of(out: dict[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = out["image"].applied_operations[-1]["extra_info"]
    return record


def test_a_fixed_class_is_that_of_a_key(checkpoint_folder: Path, sample: dict[str, Any]) -> None:
    fixed = RandDAGANd(KEYS, checkpoint_folder, prob=1.0, seed=0, class_name="large")(sample)
    keyed = RandDAGANd(KEYS, checkpoint_folder, prob=1.0, seed=0, class_key="size")({**sample, "size": "large"})
    assert torch.equal(fixed["image"], keyed["image"])
    assert record_of(fixed)["class_name"] == "large"


def test_generators_are_mixed_by_weight(checkpoint_folder: Path, other: Path, sample: dict[str, Any]) -> None:
    transform = RandDAGANd(KEYS, [checkpoint_folder, other], prob=1.0, weights=(1, 3), seed=0)
    members = [transform._draw(sample).member for _ in range(400)]  # type: ignore[union-attr]
    assert 0.68 < sum(members) / 400 < 0.82
    digests = {load(folder).checkpoint.digest for folder in (checkpoint_folder, other)}
    outputs = [transform(sample) for _ in range(12)]
    assert {record_of(out)["checkpoint"] for out in outputs} == digests
    for out in outputs[:6]:
        assert torch.equal(transform.replay(sample, record_of(out))["label"], out["label"])
        assert transform.inverse(out)["label"].shape == sample["label"].shape


@pytest.mark.parametrize("weights", [(1,), (1, -1), (1, 0), (1, float("inf"))])
def test_weights_that_do_not_fit_are_named(weights: tuple[float, ...], checkpoint_folder: Path) -> None:
    with pytest.raises(ValueError, match="weights must be one positive number for each of 2"):
        Mixture([checkpoint_folder, checkpoint_folder], weights)


def test_prepared_fields_are_few_and_predicted_once(
    checkpoint_folder: Path, sample: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions = []
    recipe = Sampler.recipe

    def counted(self: Sampler, *arguments: Any, **keywords: Any) -> Any:
        predictions.append(1)
        return recipe(self, *arguments, **keywords)

    monkeypatch.setattr(Sampler, "recipe", counted)
    transform = RandDAGANd(KEYS, checkpoint_folder, prob=1.0, strength=(0.5, 1.0), cache_fields=3, seed=0)
    outputs = [transform(sample) for _ in range(20)]
    assert len({record_of(out)["seed"] for out in outputs}) == 3
    assert len(predictions) == 3
    again = transform.replay(sample, record_of(outputs[-1]))
    assert torch.equal(again["image"], outputs[-1]["image"])
    another = {**sample, "image": MetaTensor(sample["image"] * 1, meta={"filename_or_obj": "another.nii.gz"})}
    seeds = {record_of(transform(another))["seed"] for _ in range(20)}
    assert seeds.isdisjoint(record_of(out)["seed"] for out in outputs)


def test_prepared_fields_follow_the_intensities_of_the_day(checkpoint_folder: Path, volume: torch.Tensor) -> None:
    transform = RandDAGAN(checkpoint_folder, prob=1.0, cache_fields=1, seed=0)
    named = {"filename_or_obj": "case.nii.gz"}
    a, b = transform(MetaTensor(volume, meta=named)), transform(MetaTensor(volume * 0.5, meta=named))
    assert torch.allclose(a * 0.5, b, atol=0.1)


def test_prepared_recipes_forget_the_oldest(
    checkpoint_folder: Path, volume: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = load(checkpoint_folder)
    recipe = sampler.recipe(volume, sampler.draw(0))
    prepared = PreparedRecipes()
    monkeypatch.setattr("medgan.transforms.handle.MAX_BYTES", 0)
    for key in "abc":
        prepared.get(key, lambda: recipe)
    assert len(prepared) == 1
    assert len(copy.deepcopy(prepared)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"cache_fields": -1}, "-1"), ({"precision": "int8"}, "int8"), ({"padding_mode": "wrap"}, "wrap")],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str, checkpoint_folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        RandDAGANd(KEYS, checkpoint_folder, **arguments)


def test_a_sample_is_explained_in_a_picture(checkpoint_folder: Path, sample: dict[str, Any], tmp_path: Path) -> None:
    transform = RandDAGANd(KEYS, checkpoint_folder, prob=1.0, seed=0)
    record = record_of(transform(sample))
    figure = transform.explain(sample, record)
    titles = [axes.get_title() for axes in figure.axes]
    for title in ("real", "sibling", "difference", "where it was sampled", "appearance, % of range"):
        assert title in titles
    save_figure(figure, tmp_path / "a.png")
    save_figure(transform.explain(sample, record), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert transform.explain({"image": sample["image"], "label": sample["label"]}).axes  # something new
