from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medgan.evaluation.fidelity import Sets
from medgan.evaluation.intervals import Array
from medgan.evaluation.judges import Task, run_and_describe
from medgan.evaluation.sections import agreement
from medgan.evaluation.task_space import task_fidelity
from medgan.models.task_networks import task_network

PATIENTS = [f"h{i}" for i in range(12)]


def described(shift: float = 0.0, noise: float = 0.01, seed: int = 0, count: int = 12) -> Sets:
    """Return features of sources and held-out volumes of one kind, and siblings that lie elsewhere by ``shift``."""
    rng = np.random.default_rng(seed)
    sources, held_out = rng.normal(size=(count, 6)), rng.normal(size=(12, 6))
    siblings = sources[:, None] + rng.normal(scale=noise, size=(count, 2, 6)) + shift
    return Sets(siblings, sources, held_out, [f"p{seed}-{i}" for i in range(count)])


@pytest.mark.parametrize("name", ["frechet", "kernel"])
def test_siblings_like_their_sources_lie_at_the_floor_and_others_beyond(name: str) -> None:
    alike = task_fidelity([described(seed=i) for i in range(3)], PATIENTS, 0, resamples=30)
    elsewhere = task_fidelity([described(shift=2.0, seed=i) for i in range(3)], PATIENTS, 0, resamples=30)
    assert alike is not None
    assert elsewhere is not None
    assert alike[name]["real"] == elsewhere[name]["real"]
    assert alike[name]["difference"]["low"] < 0.1 * elsewhere[name]["difference"]["value"]
    assert abs(alike[name]["difference"]["value"]) < 0.1 * elsewhere[name]["difference"]["value"]
    assert elsewhere[name]["difference"]["low"] > 0
    difference = elsewhere[name]["siblings"]["value"] - elsewhere[name]["real"]["value"]
    assert elsewhere[name]["difference"]["value"] == pytest.approx(difference)


def test_one_strange_fold_of_three_counts_for_a_third() -> None:
    folds = [described(seed=i) for i in range(3)]
    strange = described(shift=2.0, seed=2)
    all_strange = task_fidelity([strange], PATIENTS, 0, resamples=10)
    one = task_fidelity([*folds[:2], strange], PATIENTS, 0, resamples=10)
    none = task_fidelity(folds, PATIENTS, 0, resamples=10)
    assert all_strange is not None and one is not None and none is not None  # noqa: PT018
    own = task_fidelity([folds[2]], PATIENTS, 0, resamples=10)
    assert own is not None
    gained = one["frechet"]["siblings"]["value"] - none["frechet"]["siblings"]["value"]
    whole = all_strange["frechet"]["siblings"]["value"] - own["frechet"]["siblings"]["value"]
    assert gained == pytest.approx(whole / 3)


def test_the_page_shows_both_distances_beside_their_floor() -> None:
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    fidelity = {name: {"siblings": figure, "real": figure, "difference": figure} for name in ("frechet", "kernel")}
    judged: dict[str, Any] = {"kind": "segmentation", "siblings_judged": 2, "sources": 8, "held_out_cases": 4}
    judged |= {"steps": 1, "folds": 2, "parts": [], "raw": {"real": figure, "difference": figure}}
    judged |= dict.fromkeys(("siblings", "real", "difference", "own_sources", "difference_to_sources"), figure)

    def names(fidelity: Any) -> list[str]:
        page = agreement({"preservation": {"agreement": [judged | {"fidelity": fidelity}]}})
        return [row["name"] for row in page["rows"] if "networks see" in row["name"]]

    assert names(fidelity) == [
        "… Fréchet distance in what the networks see",
        "… Kernel distance in what the networks see",
    ]
    assert names(None) == []


def test_too_few_patients_or_nothing_to_see_is_no_figure() -> None:
    few = Sets(np.zeros((4, 1, 2)), np.zeros((4, 2)), np.zeros((12, 2)), ["a", "a", "b", "b"])
    assert task_fidelity([described(), few], PATIENTS, 0) is None
    blind = Sets(np.zeros((4, 1, 2)), np.zeros((4, 2)), np.zeros((12, 2)), list("abcd"))
    assert task_fidelity([blind], PATIENTS, 0) is None


@pytest.mark.parametrize(("kind", "features"), [("segmentation", 48), ("classification", 32)])
def test_the_deepest_layer_is_what_describes_a_volume(kind: str, features: int) -> None:
    torch.manual_seed(0)
    task = Task(kind, ("a", "b"), (1, 2))  # type: ignore[arg-type]
    network = task_network(task.kind, 1, 2, 8).eval()
    images = torch.rand(5, 1, 16, 16, 16)
    with torch.no_grad():
        logits, seen = run_and_describe(network, images)
        one = run_and_describe(network, images[3:4])[1]
    assert seen.shape == (5, features)
    assert np.allclose(seen[3:4], one, atol=1e-6)
    assert not any(module._forward_hooks for module in network.modules())
    if kind == "classification":
        assert np.allclose(_by_last_layer(network, seen), logits.numpy(), atol=1e-5)


def _by_last_layer(network: nn.Module, features: Array) -> Array:
    layer = next(module for module in network.modules() if isinstance(module, nn.Linear))
    logits: Tensor = layer(torch.from_numpy(features).float())
    return np.asarray(logits.detach().numpy(), dtype=np.float64)
