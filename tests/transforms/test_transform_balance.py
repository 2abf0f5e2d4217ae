"""Classes are drawn equally often, and no real volume is repeated for it."""

from __future__ import annotations

import doctest
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DistributedWeightedRandomSampler, MetaTensor
from sklearn.utils.class_weight import compute_sample_weight
from torch.utils.data import WeightedRandomSampler

from medgan.errors import InputFault
from medgan.transforms import RandDAGANd, balance, balanced_prob, balanced_weights


def samples(**counts: int) -> list[dict[str, Any]]:
    return [{"image": f"{name}{i}.nii.gz", "class": name} for name, number in counts.items() for i in range(number)]


def test_the_weights_are_those_of_scikit_learn() -> None:
    data = samples(benign=70, malignant=20, other=10)
    expected = compute_sample_weight("balanced", [sample["class"] for sample in data])
    assert balanced_weights(data, "class") == pytest.approx(expected.tolist())


def test_every_class_is_drawn_equally_often_and_the_unknown_as_before() -> None:
    data = [*samples(benign=900, malignant=100), *({"image": f"{i}.nii.gz", "class": None} for i in range(500))]
    weights = balanced_weights(data, "class")
    assert sum(weights) == pytest.approx(len(data))
    sampler = WeightedRandomSampler(weights, 30_000, generator=torch.Generator().manual_seed(0))
    drawn = Counter(data[i]["class"] for i in sampler)
    for value in ("benign", "malignant", None):
        assert drawn[value] == pytest.approx(10_000, rel=0.04)


def test_no_real_volume_comes_by_more_often_than_without_balance() -> None:
    data = samples(benign=70, malignant=20, other=10)
    weights, prob = balanced_weights(data, "class"), balanced_prob(data, "class", prob=0.4)
    unchanged = {s["class"]: w * (1 - prob[s["class"]]) for s, w in zip(data, weights, strict=True)}
    assert unchanged["malignant"] == pytest.approx(0.6)
    assert unchanged["other"] == pytest.approx(0.6)
    assert unchanged["benign"] < 0.6
    assert prob["benign"] == prob[None] == 0.4


def test_balanced_classes_are_left_alone() -> None:
    data = samples(a=10, b=10)
    assert set(balanced_weights(data, "class")) == {1.0}
    assert balanced_prob(data, "class", 0.3) == pytest.approx({None: 0.3, "a": 0.3, "b": 0.3})


@pytest.mark.parametrize("unknown", [None, "", -1])
def test_the_transform_replaces_by_class(unknown: Any, checkpoint_folder: Path, volume: torch.Tensor) -> None:
    transform = RandDAGANd(
        "image", checkpoint_folder, prob={"small": 0.0, "large": 1.0, unknown: 1.0}, class_key="size", seed=0
    )
    image = MetaTensor(volume, meta={"filename_or_obj": "case.nii.gz"})

    def replaced(size: Any) -> bool:
        return not torch.equal(transform({"image": image, "size": size})["image"], volume)

    assert not any(replaced("small") for _ in range(3))
    assert all(replaced("large") for _ in range(3))
    assert replaced(None)
    assert transform.prob == 1.0


def test_classes_may_be_indices_and_tensors(checkpoint_folder: Path, volume: torch.Tensor) -> None:
    transform = RandDAGANd("image", checkpoint_folder, prob={0: 0.0, 1: 1.0}, class_key="size", seed=0)
    for size in (0, torch.tensor(0), 1, torch.tensor([1])):
        out = transform({"image": volume, "size": size})
        assert torch.equal(out["image"], volume) == (int(size) == 0)


def test_a_class_without_a_prob_is_named(checkpoint_folder: Path, volume: torch.Tensor) -> None:
    transform = RandDAGANd("image", checkpoint_folder, prob={"small": 0.5}, class_key="size")
    with pytest.raises(ValueError, match="nothing for the class 'large', only for 'small'"):
        transform({"image": volume, "size": "large"})


@pytest.mark.parametrize(
    ("prob", "class_key", "words"),
    [({"a": 0.5}, None, "class_key"), ({}, "size", "needs classes"), ({"small": 1.5}, "size", r"\[0, 1\]")],
)
def test_a_prob_that_cannot_be_is_refused(prob: Any, class_key: Any, words: str, checkpoint_folder: Path) -> None:
    with pytest.raises(ValueError, match=words):
        RandDAGANd("image", checkpoint_folder, prob=prob, class_key=class_key)


def test_data_without_classes_is_refused() -> None:
    for function in (balanced_weights, balanced_prob):
        with pytest.raises(ValueError, match="none of 2 samples has a class under 'size'"):
            function([{"size": None}, {"image": "a.nii.gz"}], "size")
    with pytest.raises(ValueError, match=r"got 1\.2"):
        balanced_prob(samples(a=1), "class", 1.2)


def test_monais_distributed_sampler_takes_the_weights() -> None:
    data = samples(benign=90, malignant=10)
    rank = DistributedWeightedRandomSampler(
        data, balanced_weights(data, "class"), num_samples_per_rank=4000, num_replicas=2, rank=1, shuffle=False,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert len(list(rank)) == 4000


def test_the_example_of_balance_runs() -> None:
    names = {"balanced_weights": balanced_weights, "balanced_prob": balanced_prob}
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder(recurse=False).find(balance.balanced_prob, globs=names):
        runner.run(test)
    assert runner.summarize(verbose=False) == doctest.TestResults(failed=0, attempted=3)


def test_a_class_the_generator_does_not_know_is_refused(checkpoint_folder: Path, volume: torch.Tensor) -> None:
    transform = RandDAGANd("image", checkpoint_folder, prob={"huge": 1.0}, class_key="size")
    with pytest.raises(InputFault, match="UNKNOWN_CLASS"):
        transform({"image": volume, "size": "huge"})
