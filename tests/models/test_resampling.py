from __future__ import annotations

import torch

from medgan.models.resampling import resample, resample_slightly, slight_motion


def test_the_identity_changes_nothing() -> None:
    volumes = torch.rand(2, 1, 8, 9, 10, generator=torch.Generator().manual_seed(0))
    identity = torch.eye(3, 4).expand(2, 3, 4)
    assert torch.allclose(resample(volumes, identity), volumes, atol=1e-5)
    assert torch.equal(resample(volumes, identity, mode="nearest"), volumes)


def test_a_slight_motion_moves_less_than_a_voxel_and_smooths() -> None:
    noise = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    ramp = torch.arange(16.0).reshape(1, 1, 16, 1, 1).expand(1, 1, 16, 16, 16)
    theta = slight_motion(ramp, torch.Generator().manual_seed(1))
    assert 0 < (resample(ramp, theta) - ramp)[..., 4:12, 4:12, 4:12].abs().max() < 1
    assert resample(noise, theta).std() < noise.std()
    assert torch.equal(resample_slightly(noise, torch.Generator().manual_seed(1)), resample(noise, theta))


def test_each_volume_has_a_draw_of_its_own() -> None:
    volumes = torch.rand(1, 1, 8, 8, 8).repeat(2, 1, 1, 1, 1)
    first, second = resample_slightly(volumes, torch.Generator().manual_seed(0))
    assert not torch.equal(first, second)
