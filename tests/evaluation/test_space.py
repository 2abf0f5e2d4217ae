from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from medgan.data.loaders import Prepared, stack_images
from medgan.evaluation.real import Real, interpolate_once
from medgan.evaluation.siblings import Measured
from medgan.evaluation.space import fidelity_figures, lay_out, neighbourhood_figures
from medgan.measures.features import volume_features

Balls = Callable[[int, int], list[Prepared]]


def noisy(prepared: list[Prepared]) -> list[Prepared]:
    """Cases with the noise of a scanner."""
    found = []
    for p in prepared:
        rng = torch.Generator().manual_seed(int(p.case.case_id[4:]))
        found.append(replace(p, image=p.image + 0.1 * torch.randn(p.image.shape, generator=rng)))
    return found


@pytest.fixture(scope="module")
def real(balls: Balls) -> Real:
    return Real(noisy(balls(24, 0)), noisy(balls(24, 100)))


@pytest.fixture(scope="module")
def moved(real: Real) -> Measured:
    """Siblings as good as can be: their sources, moved by less than a voxel."""
    siblings = (interpolate_once(real.training, 0, "sibling", i) for i in range(2))
    features = np.stack([volume_features(stack_images(part)) for part in siblings], axis=1)
    return cast(Measured, SimpleNamespace(features=features))


def test_faultless_siblings_are_beside_interpolated_volumes_at_the_floor(real: Real, moved: Measured) -> None:
    space = lay_out(moved, real.interpolated(0), real)
    near: dict[str, Any] = neighbourhood_figures(space, real, 0)
    assert near["ratio"]["coverage"]["value"] == pytest.approx(1, abs=0.15)
    assert near["ratio"]["precision"]["value"] == pytest.approx(1, abs=0.15)
    for part in (near["siblings"], near["real"]):
        for figure in part.values():
            assert figure["low"] <= figure["value"] <= figure["high"]


def test_and_beside_volumes_as_they_come_the_smoothing_alone_sets_them_apart(real: Real, moved: Measured) -> None:
    equal, raw = (lay_out(moved, reals, real) for reals in (real.interpolated(0), real))
    assert neighbourhood_figures(raw, real, 0)["siblings"]["precision"]["value"] < 0.5
    # The fine detail that an interpolation takes away.
    found = [fidelity_figures(moved, space, real, 0)["spectrum"] for space in (equal, raw)]
    assert found[0]["difference"]["low"] < 0 < found[0]["difference"]["high"]
    assert found[1]["difference"]["low"] > 0.05
    assert np.allclose(raw.training, raw.raw[0])
    assert not np.allclose(equal.training, equal.raw[0])
