from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medgan.data.loaders import Prepared
from medgan.evaluation import agreement
from medgan.evaluation.agreement import (
    Scores,
    agreement_figures,
    balanced_mean,
    draw_folds,
    measure_agreement,
    tasks_for,
)
from medgan.evaluation.judges import Task, Verdicts, fit_judge, judge
from medgan.evaluation.real import Real
from medgan.evaluation.siblings import OnGrid, make_sibling
from medgan.sampler import Sampler

Balls = Callable[[int, int], list[Prepared]]
CLASSES = Task("classification", ("small", "large"), (0, 1))
MASKS = Task("segmentation", ("ball",), (1,))


@pytest.fixture(scope="module")
def real(balls: Balls) -> Real:
    return Real(balls(8, 0), balls(6, 100))


def measured(task: Task, sampler: Sampler, real: Real, steps: int) -> dict[str, Any]:
    return measure_agreement(task, sampler, real, siblings=2, steps=steps, seed=0).figures


def test_a_network_fitted_to_masks_finds_them_in_the_siblings_of_the_identity_as_in_real_volumes(
    identity: Sampler, real: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: dict[int, torch.nn.Module] = {}

    def fit_once(task: Task, cases: Sequence[Prepared], *, seed: int, **rest: Any) -> torch.nn.Module:
        if seed not in fitted:
            fitted[seed] = fit_judge(task, cases, seed=seed, **rest)
        return fitted[seed]

    monkeypatch.setattr(agreement, "fit_judge", fit_once)
    figures = measured(MASKS, identity, real, 50)
    assert figures["able"]
    assert figures["real"]["value"] > 0.7
    assert abs(figures["difference"]["value"]) < 0.1
    assert abs(figures["difference_to_sources"]["value"]) < 0.1
    assert figures["parts"][0]["name"] == "ball"
    assert figures["sources"] == 8
    assert figures["fidelity"] is None  # two patients of a fold are too few

    def elsewhere(sampler: Sampler, source: Prepared, index: int, seed: int, strength: float) -> OnGrid:
        made = make_sibling(sampler, source, index, seed, strength)
        return replace(made, label=None if made.label is None else made.label.roll(6, dims=1))

    monkeypatch.setattr(agreement, "make_sibling", elsewhere)
    moved = measured(MASKS, identity, real, 50)
    assert moved["real"] == figures["real"]
    assert moved["difference"]["high"] < -0.2


def test_siblings_that_show_another_class_are_found_out(
    identity: Sampler, real: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = measured(CLASSES, identity, real, 60)
    assert figures["real"]["value"] > 0.8
    assert figures["siblings"]["value"] > 0.8
    other = {p.case.case_id: q for p, q in zip(real.training, [*real.training[1:], real.training[0]], strict=True)}

    def shuffled(sampler: Sampler, source: Prepared, index: int, seed: int, strength: float) -> OnGrid:
        return make_sibling(sampler, other[source.case.case_id], index, seed, strength)

    monkeypatch.setattr(agreement, "make_sibling", shuffled)
    wrong = measured(CLASSES, identity, real, 60)
    assert wrong["real"] == figures["real"]
    assert wrong["siblings"]["value"] < 0.2
    assert wrong["difference"]["high"] < 0


def test_no_patient_is_judged_by_a_network_that_knows_the_patient(
    identity: Sampler, balls: Balls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def marked(cases: list[Prepared], first: int) -> list[Prepared]:
        return [replace(p, image=torch.full_like(p.image, first + i)) for i, p in enumerate(cases)]

    real = Real(marked(balls(8, 0), 0), marked(balls(4, 100), 100))
    judged: list[int] = []

    def fit(task: Task, cases: Sequence[Prepared], **_: object) -> set[int]:
        return {int(p.image.mean()) for p in cases}

    def ask(network: set[int], task: Task, images: Tensor, truths: Sequence[Tensor]) -> Verdicts:
        shown = [round(float(image.mean())) for image in images]
        assert not set(shown) & network
        assert len(network) == 4
        judged.extend(shown)
        return Verdicts(np.ones((len(images), 2)), np.ones(len(images)), images.flatten(1)[:, :3].double().numpy())

    monkeypatch.setattr(agreement, "fit_judge", fit)
    monkeypatch.setattr(agreement, "judge", ask)
    found = measure_agreement(CLASSES, identity, real, siblings=3, steps=1, seed=0)
    assert set(range(8)) <= set(judged)
    assert {100, 101, 102, 103} <= set(judged)
    assert found.confidence.shape == (8, 3)
    assert np.isfinite(found.confidence).sum() == 16
    assert found.figures["siblings"]["value"] == found.figures["real"]["value"] == 1


def test_a_network_is_a_function_of_its_seed_and_leaves_the_stream_alone(balls: Balls) -> None:
    cases = balls(4, 0)
    before = torch.random.get_rng_state()
    truths = [truth for p in cases if (truth := CLASSES.truth(p)) is not None]
    said = [
        judge(
            fit_judge(CLASSES, cases, steps=2, seed=seed, description="t"),
            CLASSES,
            torch.stack([p.image for p in cases]),
            truths,
        ).confidence
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(said[0], said[1])
    assert not np.array_equal(said[0], said[2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_tasks_are_those_that_the_cases_allow(balls: Balls) -> None:
    names, labels = ("small", "large"), {1: "ball"}
    tasks, left_out = tasks_for(Real(balls(8, 0), balls(4, 100)), names, labels, [1])
    assert tasks == [MASKS, CLASSES]
    assert left_out == []
    tasks, left_out = tasks_for(Real(balls(6, 0), balls(4, 100)), names, labels, [1])
    assert tasks == [MASKS]
    assert left_out[0]["reason"].startswith("3 training and 2 held-out patients with the class small; 3 training")
    unlabelled = [replace(p, label=None) for p in balls(8, 0)]
    tasks, left_out = tasks_for(Real(unlabelled, balls(4, 100)), (), labels, [1])
    assert tasks == []
    assert left_out[0]["reason"].startswith("0 training and 4 held-out patients with the label ball")
    tasks, left_out = tasks_for(Real(balls(8, 0), balls(4, 100)), (), {1: "ball", 2: "cube"}, [1, 2])
    assert tasks == [MASKS]
    assert left_out[0]["reason"].startswith("0 training and 0 held-out patients with the label cube")


def test_other_label_values_are_background() -> None:
    assert MASKS.compact(torch.tensor([0, 1, 3])).tolist() == [0, 1, 0]
    assert Task("segmentation", ("a", "b"), (5, 3)).compact(torch.tensor([3, 5, 1])).tolist() == [2, 1, 0]


def test_folds_part_patients_and_spread_every_class() -> None:
    patients = [f"p{i // 2}" for i in range(24)]
    strata = [(i // 2) % 2 for i in range(24)]
    folds = draw_folds(patients, strata, seed=0)
    assert set(folds.tolist()) == {0, 1, 2}
    for fold in range(3):
        rows = np.flatnonzero(folds == fold)
        assert sorted({strata[i] for i in rows}) == [0, 1]
    assert all(folds[i] == folds[i + 1] for i in range(0, 24, 2))
    assert set(draw_folds(patients[:8], strata[:8], seed=0).tolist()) == {0, 1}


def test_every_class_and_every_structure_has_an_equal_say() -> None:
    nan = np.nan
    assert balanced_mean(np.array([[1.0, nan], [1.0, nan], [1.0, nan], [nan, 0.0]])) == 0.5
    assert balanced_mean(np.array([[1.0, nan], [1.0, nan]])) == 1
    assert np.isnan(balanced_mean(np.full((2, 2), nan)))


def test_the_difference_of_equal_scores_is_0_and_of_unequal_ones_theirs() -> None:
    ones = np.ones((6, 2))
    patients = [f"t{i}" for i in range(6)], [f"h{i}" for i in range(6)]
    figures = agreement_figures(Scores(np.ones((6, 2, 2)), ones, ones, ones), *patients, 0)
    assert figures["difference"] == {"value": 0, "low": 0, "high": 0}
    lower = np.ones((6, 2, 2)) - 0.25
    lower[0, 1] = np.nan
    figures = agreement_figures(Scores(lower, ones, ones, ones / 2), *patients, 0)
    assert figures["difference"]["value"] == pytest.approx(-0.25)
    assert figures["difference_to_sources"]["value"] == pytest.approx(-0.25)
    assert figures["raw"]["difference"]["value"] == pytest.approx(0.25)


def test_a_set_with_more_cases_of_the_hard_structure_is_not_worse() -> None:
    hard = np.array([[0.9, 0.1]] * 6)
    few = np.array([[0.9, 0.1]] + [[0.9, np.nan]] * 5)
    patients = [f"t{i}" for i in range(6)], [f"h{i}" for i in range(6)]
    assert agreement_figures(Scores(few[:, None], few, hard, hard), *patients, 0)["difference"]["value"] == 0


def test_what_is_not_found_in_real_volumes_does_not_count(
    identity: Sampler, balls: Balls, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task("segmentation", ("easy", "hard"), (1, 2))
    scores = {"easy": 0.8, "hard": 0.0}

    def ask(_: object, task: Task, images: Tensor, truths: Sequence[Tensor]) -> Verdicts:
        found = np.array([[scores[name] for name in task.names]] * len(images))
        return Verdicts(found, found.mean(axis=1), np.zeros((len(images), 2)))

    monkeypatch.setattr(agreement, "fit_judge", lambda *_, **__: None)
    monkeypatch.setattr(agreement, "judge", ask)
    real = Real(balls(8, 0), balls(4, 100))
    figures = measured(task, identity, real, 1)
    assert figures["able"]
    assert figures["siblings"]["value"] == pytest.approx(0.8)
    assert figures["real"]["value"] == pytest.approx(0.8)
    assert [part["readable"] for part in figures["parts"]] == [True, False]
    scores["easy"] = 0.1
    assert not measured(task, identity, real, 1)["able"]


def test_classes_told_by_chance_are_no_judgement(
    identity: Sampler, balls: Balls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def always_small(_: object, task: Task, images: Tensor, truths: Sequence[Tensor]) -> Verdicts:
        found = np.array([[1.0, np.nan] if int(truth) == 0 else [np.nan, 0.0] for truth in truths])
        return Verdicts(found, np.full(len(images), 0.5), np.zeros((len(images), 2)))

    monkeypatch.setattr(agreement, "fit_judge", lambda *_, **__: None)
    monkeypatch.setattr(agreement, "judge", always_small)
    figures = measured(CLASSES, identity, Real(balls(8, 0), balls(6, 100)), 1)
    assert figures["real"]["value"] == 0.5
    assert not figures["able"]


def test_a_dice_of_a_perfect_prediction_is_1_and_of_a_missing_structure_no_number() -> None:
    class Perfect(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([1 - images, images, torch.zeros_like(images)], dim=1)

    mask = torch.zeros(1, 1, 8, 8, 8)
    mask[..., 2:5, 2:5, 2:5] = 1
    task = Task("segmentation", ("a", "b"), (1, 2))
    said = judge(Perfect(), task, mask, [mask[0].long()])
    assert said.scores[0, 0] == 1
    assert np.isnan(said.scores[0, 1])
    assert said.confidence.tolist() == [1.0]
