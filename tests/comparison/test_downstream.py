from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medgan.comparison.arms import Arm, build_transform, choose_indices, parse_parts
from medgan.comparison.downstream import score, train_downstream
from medgan.comparison.networks import build_network
from medgan.comparison.results import CurvePoint, Score
from medgan.comparison.scoring import Task, classification_scores, headline, segmentation_scores
from medgan.config import parse_config
from medgan.data.cohort import Case
from medgan.data.loaders import Prepared
from medgan.errors import TrainingFailure

SHAPE = (16, 16, 16)
SEGMENTATION = Task("segmentation", ("cube", "absent"), (2, 7))
CLASSIFICATION = Task("classification", class_names=("dark", "bright"))
SETTINGS = parse_config(
    {"compare": {"steps": 24, "width": 8, "batch": 4, "learning_rate": 0.01, "curve_points": 3}}
).compare


def item(index: int, *, bright_only: bool = False) -> Prepared:
    """A noisy volume with a cube of label 2; class ``bright`` has the cube brighter."""
    generator = torch.Generator().manual_seed(index)
    image = torch.rand(1, *SHAPE, generator=generator) * 0.3
    label = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    corner = torch.randint(2, 8, (3,), generator=generator).tolist()
    cube = (slice(None), *(slice(c, c + 6) for c in corner))
    bright = index % 2
    image[cube] += 0.6 if bright or not bright_only else 0.0
    label[cube] = 2
    case = Case(f"c{index}", f"p{index}", (Path("x.nii.gz"),), Path("y.nii.gz"), CLASSIFICATION.class_names[bright])
    return Prepared(case, image, label, bright)


@dataclass(frozen=True)
class Cases:
    training: list[Prepared]
    validation: list[Prepared]
    test: list[Prepared]


@dataclass(frozen=True)
class Result:
    scores: list[Score]
    headline: dict[str, float]
    curve: tuple[CurvePoint, ...]


def cases(**kind: bool) -> Cases:
    items = [item(i, **kind) for i in range(24)]
    return Cases(items[:8], items[8:14], items[14:])


def run(task: Task, known: Cases, arm_name: str, settings: Any, seed: int, on_step: Any = None) -> Result:
    arm = Arm(arm_name, parse_parts(arm_name))
    transform = build_transform(arm, task=task.kind, modality="mri", shape=SHAPE)
    trained = train_downstream(task, known.training, known.validation, arm, transform, settings, seed, on_step)
    scores = score(trained.network, known.test, task, "test")
    return Result(scores, headline(scores, task, "test"), trained.curve)


def test_segmentation_learns_to_find_a_cube() -> None:
    losses: list[float] = []
    result = run(SEGMENTATION, cases(), "none", SETTINGS, 0, lambda _, v: losses.append(v["loss"]))
    assert result.headline["dice/cube"] > 0.6
    assert losses[-1] < losses[0]
    assert len(losses) == 24
    assert [point.step for point in result.curve] == [8, 16, 24]
    assert result.curve[-1].value > 0.6
    assert math.isnan(result.headline["dice/absent"])
    assert result.headline["dice"] == result.headline["dice/cube"]
    figures = {(s.case_id, s.metric, s.structure) for s in result.scores if s.split == "test"}
    assert len(figures) == 10 * 2 * 3


def test_classification_learns_bright_from_dark() -> None:
    result = run(CLASSIFICATION, cases(bright_only=True), "none", SETTINGS, 0)
    assert result.headline["auc"] > 0.9
    assert 0 <= result.headline["brier"] < 0.5


def test_shuffled_classes_are_not_learned() -> None:
    # Which half of the test gets which class does not depend on the image, whatever the network has learned.
    shuffled = cases(bright_only=True)
    test = [replace(p, class_index=i % 2) for p in shuffled.test[::2] for i in (0, 1)]
    result = run(CLASSIFICATION, replace(shuffled, test=_renamed(test)), "none", SETTINGS, 0)
    assert result.headline["auc"] == 0.5


def test_a_seed_gives_the_same_weights_and_order_in_every_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[Any]] = {}
    for name in ("none", "classical"):
        orders: list[list[int]] = []
        weights: list[torch.Tensor] = []

        def remember(*args: Any, orders: Any = orders) -> list[int]:
            orders.append(choose_indices(*args))
            return orders[-1]

        def build(*args: Any, weights: Any = weights) -> torch.nn.Module:
            network = build_network(*args)
            weights += [p.detach().clone() for p in network.parameters()]
            return network

        monkeypatch.setattr("medgan.comparison.downstream.choose_indices", remember)
        monkeypatch.setattr("medgan.comparison.downstream.build_network", build)
        torch.manual_seed(len(seen))
        settings = SETTINGS.model_copy(update={"steps": 3})
        run(SEGMENTATION, cases(), name, settings, 5)
        seen[name] = [orders, weights]
    assert seen["none"][0] == seen["classical"][0]
    assert all(torch.equal(a, b) for a, b in zip(seen["none"][1], seen["classical"][1], strict=True))


def test_a_run_can_be_repeated_exactly() -> None:
    settings = SETTINGS.model_copy(update={"steps": 4})
    first, second = (run(SEGMENTATION, cases(), "classical", settings, 1) for _ in range(2))
    # NaN of the absent structure is not equal to itself, its text is.
    assert repr(first.scores) == repr(second.scores)


def test_dropout_is_a_function_of_the_seed_too() -> None:
    network = {"name": "UNet", "arguments": {"channels": [4, 8], "strides": [2], "dropout": 0.5}}
    settings = parse_config({"compare": {"steps": 2, "batch": 2, "curve_points": 1, "network": network}}).compare
    first = run(SEGMENTATION, cases(), "none", settings, 1)
    torch.rand(7)  # whatever was drawn from the global stream before
    assert repr(run(SEGMENTATION, cases(), "none", settings, 1).scores) == repr(first.scores)


def test_a_loss_that_is_nan_stops_the_run_with_the_reason() -> None:
    broken = cases()
    broken.training[0].image[:] = math.nan
    with pytest.raises(TrainingFailure, match=r"nan at step 1 .*learning_rate"):
        run(SEGMENTATION, broken, "none", SETTINGS.model_copy(update={"batch": 8}), 0)


def test_dice_and_distance_of_known_shapes() -> None:
    truth = torch.zeros(3, 1, *SHAPE, dtype=torch.uint8)
    truth[0, :, 4:8, 4:8, 4:8] = 1
    truth[1, :, 4:8, 4:8, 4:8] = 1
    logits = torch.zeros(3, 3, *SHAPE)
    logits[:, 0] = 0.5
    logits[0, 1, 6:10, 4:8, 4:8] = 1  # moved by half its length
    figures = _figures(
        segmentation_scores(
            logits, truth, _of(3), replace(SEGMENTATION, spacing=(2.0, 1.0, 1.0)), "test", distances=True
        )
    )
    assert figures["dice", "c0", "cube"] == pytest.approx(0.5)
    assert figures["hd95", "c0", "cube"] == pytest.approx(4.0)
    assert figures["dice", "c1", "cube"] == 0
    assert figures["assd", "c1", "cube"] == figures["hd95", "c1", "cube"]
    assert figures["hd95", "c1", "cube"] == pytest.approx(math.dist((0, 0, 0), (32, 16, 16)))
    assert math.isnan(figures["dice", "c2", "cube"])
    assert math.isnan(figures["hd95", "c2", "absent"])
    assert math.isnan(figures["assd", "c2", "absent"])


def test_surfaces_of_two_parallel_plates_are_as_far_apart_as_the_plates() -> None:
    truth = torch.zeros(1, 1, *SHAPE, dtype=torch.uint8)
    truth[0, :, 4] = 1
    logits = torch.zeros(1, 3, *SHAPE)
    logits[:, 0] = 0.5
    logits[0, 1, 7] = 1  # three voxels of 2 mm further on
    task = replace(SEGMENTATION, spacing=(2.0, 1.0, 1.0))
    figures = _figures(segmentation_scores(logits, truth, _of(1), task, "test", distances=True))
    assert figures["assd", "c0", "cube"] == pytest.approx(6.0)
    # Half of the predicted plate missing: its own surface still lies 6 mm away, the truth's other half further.
    logits[0, 1, 7, :8] = 0
    figures = _figures(segmentation_scores(logits, truth, _of(1), task, "test", distances=True))
    further = [math.hypot(6, 8 - row) for row in range(8)]
    assert figures["assd", "c0", "cube"] == pytest.approx((6.0 * 16 + sum(further)) / 24)


def test_probabilities_and_brier_of_known_logits() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    scores = classification_scores(logits, [1, 0], _of(2), CLASSIFICATION, "test")
    figures = _figures(scores)
    assert figures["probability", "c0", "bright"] == pytest.approx(0.75)
    assert figures["brier", "c0", ""] == pytest.approx(0.125)
    assert figures["brier", "c1", ""] == pytest.approx(0.5)
    assert headline(scores, CLASSIFICATION, "test")["auc"] == 1.0
    assert headline(scores, CLASSIFICATION, "validation") == {}


def test_label_values_are_numbered_in_order_and_others_are_background() -> None:
    compact = SEGMENTATION.compact(torch.tensor([0, 2, 7, 5], dtype=torch.uint8))
    assert compact.tolist() == [0, 1, 2, 0]


def _of(count: int) -> list[Case]:
    return [item(i).case for i in range(count)]


def _figures(scores: Any) -> Mapping[tuple[str, str, str], float]:
    return {(s.metric, s.case_id, s.structure): s.value for s in scores}


def _renamed(prepared: list[Prepared]) -> list[Prepared]:
    return [replace(p, case=replace(p.case, case_id=f"t{i}", patient_id=f"t{i}")) for i, p in enumerate(prepared)]
