"""Pseudo-labels from fitted scans: whom they ask, how they weigh, and that they are better than a wrong teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from medgan.comparison.arms import Arm, build_transform, parse_parts
from medgan.comparison.atlas import TEACHER, Atlas, atlas_predictions
from medgan.comparison.scoring import Task
from medgan.comparison.self_training import pseudo_label
from medgan.data.loaders import Prepared

Balls = Callable[[int, int], list[Prepared]]
MASKS = Task("segmentation", ("ball",), (1,))


@pytest.fixture
def cases(balls: Balls) -> list[Prepared]:
    return balls(6, 0)


def atlas_of(cases: Sequence[Prepared], labelled: int, sources: int) -> Atlas:
    return Atlas(torch.stack([case.image for case in cases]), labelled, sources=sources)


def dice(a: Tensor, b: Tensor) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def nothing_known(cases: Sequence[Prepared]) -> Tensor:
    """A teacher that says background with 0.6, wherever it is asked."""
    shape = cases[0].image.shape[1:]
    return torch.tensor([0.6, 0.4]).reshape(1, 2, 1, 1, 1).expand(len(cases), 2, *shape)


def test_what_fitted_scans_say_is_near_the_truth(cases: list[Prepared]) -> None:
    atlas = atlas_of(cases, 4, 4)
    shares = torch.stack([torch.cat([case.label == v for v in (0, 1)]) for case in cases]).float()
    for row in (4, 5):
        said = atlas.say(row, shares)
        truth = cases[row].label[0] == 1
        assert torch.allclose(said.sum(dim=0), torch.ones(said.shape[1:]), atol=1e-4)
        assert dice(said.argmax(dim=0) == 1, truth) > 0.85
        plain = max(dice(cases[i].label[0] == 1, truth) for i in range(4))
        assert dice(said.argmax(dim=0) == 1, truth) > plain


def test_a_scan_is_never_asked_about_itself_and_half_are_labelled(cases: list[Prepared]) -> None:
    atlas = atlas_of(cases, 3, 4)
    for row in range(6):
        chosen = atlas.nearest(row)
        assert row not in chosen
        assert len(set(chosen)) == 4
        assert sum(r < 3 for r in chosen) == 2
    assert sorted(atlas_of(cases, 3, 100).nearest(4)) == [0, 1, 2, 3, 5]
    assert atlas_of(cases, 1, 4).nearest(5)[0] == 0


def test_a_fit_is_made_once(cases: list[Prepared]) -> None:
    atlas = atlas_of(cases, 4, 2)
    assert atlas.fit(5) is atlas.fit(5)


def test_pseudo_labels_mend_a_teacher_that_knows_nothing(cases: list[Prepared]) -> None:
    labelled, unlabelled = cases[:4], [replace(case, label=None) for case in cases[4:]]
    predict = atlas_predictions(atlas_of(cases, 4, 4), nothing_known, labelled, unlabelled, (1,))
    made = pseudo_label(predict, unlabelled, MASKS)
    for case, source in zip(made, cases[4:], strict=True):
        assert case.label is not None
        assert source.label is not None
        assert dice(case.label[0] == 1, source.label[0] == 1) > 0.8
    probabilities = predict(unlabelled)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones_like(probabilities[:, 0]), atol=1e-4)
    assert float(probabilities[:, 0].max()) <= TEACHER * 0.6 + (1 - TEACHER) + 1e-4


def test_it_is_for_label_maps_alone() -> None:
    arm = Arm("a", parse_parts("classical+atlas"))
    with pytest.raises(ValueError, match="atlas carries label maps over"):
        build_transform(arm, task="classification", modality="mri", shape=(16, 16, 16))
