"""Fitting: a known deformation is found again, whatever the brightness; a source that is the target stays as it is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medgan.models.deformation import sample_at, voxel_grid
from medgan.models.fields import Fields, displacement_field
from medgan.models.fitting import Effort, fit_shape, identity, mismatch, positions, standardised

SHAPE = (24, 32, 24)


@pytest.fixture
def scans() -> Tensor:
    """Two textured volumes ``(2, 1, *SHAPE)`` in 0..1."""
    noise = torch.rand(2, 1, 6, 8, 6, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, size=SHAPE, mode="trilinear")


def known(strength: float = 1.0) -> Fields:
    generator = torch.Generator().manual_seed(1)
    fields = identity(2, SHAPE)
    coarse = F.interpolate(torch.randn(2, 3, 2, 2, 2, generator=generator), size=(6, 8, 6), mode="trilinear")
    return Fields(coarse * strength, fields.generators, fields.gain, fields.offset)


def moved(scans: Tensor, fields: Fields) -> Tensor:
    return sample_at(scans, positions(fields, SHAPE, voxel_grid(SHAPE, scans)))


def test_a_known_deformation_is_found_again(scans: Tensor) -> None:
    target = moved(scans, known())[:1]
    standard, wanted = standardised(scans), standardised(target)
    fitted = fit_shape(standard[:1], wanted, identity(1, SHAPE), Effort(coarse=40, fine=20))
    before, after = (mismatch(standard[:1], wanted, f).mean() for f in (identity(1, SHAPE), fitted))
    assert after < 0.15 * before
    true, found = displacement_field(known(), SHAPE)[:1], displacement_field(fitted, SHAPE)
    inner = (..., slice(3, -3), slice(3, -3), slice(3, -3))
    assert (found - true)[inner].square().mean() < 0.5 * true[inner].square().mean()


def test_brightness_and_contrast_need_not_agree(scans: Tensor) -> None:
    target = moved(scans, known())[:1]
    standard = standardised(scans[:1])
    plain, relit = (
        fit_shape(standard, standardised(t), identity(1, SHAPE)) for t in (target, (0.6 * target + 0.3).clamp(0, 1))
    )
    difference = displacement_field(plain, SHAPE) - displacement_field(relit, SHAPE)
    assert difference.square().mean() < 0.1 * displacement_field(plain, SHAPE).square().mean()


def test_a_source_that_is_the_target_stays(scans: Tensor) -> None:
    standard = standardised(scans[:1])
    fitted = fit_shape(standard, standard, identity(1, SHAPE))
    assert displacement_field(fitted, SHAPE).abs().max() < 0.25


def test_each_source_is_fitted_alone(scans: Tensor) -> None:
    standard, wanted = standardised(scans), standardised(moved(scans, known())[:1])
    both = fit_shape(standard, wanted, identity(2, SHAPE), Effort(5, 2))
    alone = fit_shape(standard[1:], wanted, identity(1, SHAPE), Effort(5, 2))
    assert torch.allclose(both.velocity[1:], alone.velocity, atol=1e-4)


def test_nothing_is_recorded_for_gradients_and_appearance_is_left(scans: Tensor) -> None:
    standard = standardised(scans)
    with torch.no_grad():
        fitted = fit_shape(standard, standard[:1], identity(2, SHAPE), Effort(2, 1))
    assert not fitted.velocity.requires_grad
    assert not fitted.gain.any()
    assert not fitted.offset.any()
    assert not fitted.generators[:, 3].any()
