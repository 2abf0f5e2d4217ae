from __future__ import annotations

import pytest
import torch

from medgan.models.deformation import (
    affine_exponential,
    apply_affine,
    bending,
    corner_jacobians,
    integrate,
    jacobian_determinant,
    sample_at,
    voxel_grid,
)

SHAPE = (12, 14, 10)


def smooth_velocity(amplitude: float) -> torch.Tensor:
    d, h, w = voxel_grid(SHAPE, torch.zeros(1))[0]
    return amplitude * torch.stack([torch.sin(h / 4), torch.cos(w / 4), torch.sin(d / 4)])[None]


def test_sampling_at_the_grid_gives_the_volume_back() -> None:
    volume = torch.randn(2, 3, *SHAPE)
    assert torch.allclose(sample_at(volume, voxel_grid(SHAPE, volume).expand(2, -1, -1, -1, -1)), volume, atol=1e-4)


def test_sampling_one_voxel_further_shifts_along_the_right_axis() -> None:
    volume = torch.randn(1, 1, *SHAPE)
    for axis in range(3):
        positions = voxel_grid(SHAPE, volume)
        positions[:, axis] += 1
        shifted = sample_at(volume, positions).narrow(axis + 2, 0, SHAPE[axis] - 1)
        assert torch.allclose(shifted, volume.narrow(axis + 2, 1, SHAPE[axis] - 1), atol=1e-4)


def test_constant_velocity_is_a_shift() -> None:
    displacement = integrate(torch.full((1, 3, *SHAPE), 1.5))
    assert torch.allclose(displacement, torch.full_like(displacement, 1.5), atol=1e-5)


def test_minus_v_is_the_inverse() -> None:
    forward, backward = integrate(smooth_velocity(1.0)), integrate(smooth_velocity(-1.0))
    grid = voxel_grid(SHAPE, forward)
    there_and_back = grid + forward + sample_at(backward, grid + forward)
    inside = there_and_back[..., 3:-3, 3:-3, 3:-3] - grid[..., 3:-3, 3:-3, 3:-3]
    assert inside.abs().max() < 0.02


def test_a_strong_smooth_velocity_does_not_fold_but_the_bare_displacement_would() -> None:
    velocity = smooth_velocity(5.0)
    assert jacobian_determinant(velocity).min() < 0
    assert jacobian_determinant(integrate(velocity)).min() > 0


def test_jacobian_of_a_uniform_scaling() -> None:
    displacement = voxel_grid(SHAPE, torch.zeros(1)) * 0.1
    assert torch.allclose(jacobian_determinant(displacement), torch.tensor(1.1**3), atol=1e-4)


def test_affine_maps_bend_nothing() -> None:
    assert bending(voxel_grid(SHAPE, torch.zeros(1)) * 0.3 + 2) < 1e-9
    assert bending(smooth_velocity(1.0)) > 1e-4


def test_the_exponential_of_minus_the_generators_is_the_inverse() -> None:
    generators = torch.zeros(2, 4, 4)
    generators[:, :3] = torch.randn(2, 3, 4) * 0.2
    points, centre = torch.randn(2, 3, 4, 4, 4), torch.tensor([1.0, 2.0, 3.0])
    moved = apply_affine(affine_exponential(generators), points, centre)
    assert (moved - points).abs().max() > 0.1
    assert torch.allclose(apply_affine(affine_exponential(-generators), moved, centre), points, atol=1e-4)


def test_a_fold_inside_one_cell_is_seen_at_its_corners_though_central_differences_look_past_it() -> None:
    displacement = torch.zeros(1, 3, *SHAPE)
    displacement[:, 0, 6] = -1.2
    assert jacobian_determinant(displacement).min() > 0
    assert corner_jacobians(displacement).min() == pytest.approx(-0.2, abs=1e-5)


def test_corner_jacobians_of_a_uniform_scaling() -> None:
    displacement = voxel_grid(SHAPE, torch.zeros(1)) * 0.1
    assert torch.allclose(corner_jacobians(displacement), torch.tensor(1.1**3), atol=1e-4)
