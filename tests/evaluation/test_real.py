from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from medgan.data.loaders import Prepared
from medgan.evaluation.real import Real, interpolate_once

Balls = Callable[[int, int], list[Prepared]]


def test_interpolated_cases_are_smoother_and_where_they_were(balls: Balls) -> None:
    case = balls(1, 0)[0]
    noise = Prepared(case.case, torch.rand(1, 16, 16, 16), None, 0)
    assert interpolate_once([noise], 0)[0].image.std() < noise.image.std()
    moved = interpolate_once([case], 0)[0]
    assert case.label is not None
    assert moved.label is not None
    assert moved.label.dtype == case.label.dtype
    assert set(moved.label.unique().tolist()) == {0, 1}
    assert (moved.image - case.image).abs().mean() < 0.1
    assert int((moved.label != case.label).sum()) < int(case.label.sum())


def test_a_case_moves_alike_whatever_other_cases_there_are(balls: Balls) -> None:
    cases = balls(3, 0)
    assert torch.equal(interpolate_once(cases, 0)[2].image, interpolate_once(cases[2:], 0)[0].image)
    assert not torch.equal(interpolate_once(cases, 0)[2].image, interpolate_once(cases[2:], 1)[0].image)
    assert not torch.equal(interpolate_once(cases, 0, "a")[2].image, interpolate_once(cases, 0, "b")[2].image)


@pytest.mark.parametrize("trained", [True, False])
def test_siblings_are_made_of_training_cases_or_where_there_are_none_of_the_others(trained: bool, balls: Balls) -> None:
    training, held_out = (balls(2, 0) if trained else []), balls(3, 100)
    real = Real(training, held_out)
    assert len(real.sources) == (2 if trained else 3)
    assert len(real.others) == (3 if trained else 0)
