from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medgan.measures.critic import Critic, critic_of, fit_critic
from medgan.measures.features import volume_features


def patients(count: int, seed: int) -> torch.Tensor:
    """Noisy balls of varying place, size and brightness."""
    rng = torch.Generator().manual_seed(seed)
    grid = torch.stack(torch.meshgrid(*[torch.arange(16.0)] * 3, indexing="ij"))
    volumes = []
    for _ in range(count):
        centre = 7.5 + torch.randn(3, generator=rng)
        radius, bright = 4 + torch.rand(1, generator=rng), 0.6 + 0.2 * torch.rand(1, generator=rng)
        ball = ((grid - centre.reshape(3, 1, 1, 1)).square().sum(dim=0) < radius**2).float()
        volumes.append(0.1 + bright * ball + 0.05 * torch.randn(16, 16, 16, generator=rng))
    return torch.stack(volumes)[:, None].clamp(0, 1)


@pytest.fixture(scope="module")
def critic() -> Critic:
    found = fit_critic(volume_features(patients(80, 0)))
    assert found is not None
    return found


def test_real_volumes_of_others_are_spread_evenly(critic: Critic) -> None:
    quality = critic.quality(volume_features(patients(200, 1)))
    assert 0.4 < quality.mean() < 0.6
    assert 0.01 <= (quality <= 0.05).mean() <= 0.12
    assert quality.min() > 0
    assert quality.max() <= 1


@pytest.mark.parametrize("fault", ["blur", "noise", "dark", "torn"])
def test_what_no_real_volume_is_like_stands_out(critic: Critic, fault: str) -> None:
    real = patients(30, 2)
    wrong = {
        "blur": lambda v: F.avg_pool3d(F.pad(v, (1,) * 6, mode="replicate"), 3, stride=1),
        "noise": lambda v: (v + 0.15 * torch.randn(v.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1),
        "dark": lambda v: v * 0.4,
        "torn": lambda v: torch.cat([v[..., 8:], v[..., :8]], dim=-1),
    }[fault](real)
    assert np.mean(critic.quality(volume_features(wrong)) <= 0.05) > 0.9


def test_a_critic_survives_the_way_through_arrays(critic: Critic) -> None:
    features = volume_features(patients(5, 3))
    assert critic_of(critic.arrays()).quality(features).tolist() == critic.quality(features).tolist()


def test_other_scans_of_the_same_patients_do_not_make_new_patients_look_strange() -> None:
    features = volume_features(patients(40, 0))
    rng = np.random.default_rng(0)
    scans = np.repeat(features, 3, axis=0) + rng.normal(0, 1e-3, (120, features.shape[1]))
    critic = fit_critic(scans, [str(i // 3) for i in range(120)])
    assert critic is not None
    quality = critic.quality(volume_features(patients(200, 1)))
    assert 0.4 < quality.mean() < 0.6
    assert (quality <= 0.05).mean() <= 0.15


def test_who_the_patients_are_changes_nothing_where_each_has_one_scan(critic: Critic) -> None:
    features = volume_features(patients(80, 0))
    named = fit_critic(features, [f"patient{79 - i}" for i in range(80)])
    assert named is not None
    for name, array in critic.arrays().items():
        assert np.array_equal(array, named.arrays()[name])


def test_too_few_volumes_or_all_alike_make_no_critic() -> None:
    features = volume_features(patients(5, 0))
    assert fit_critic(features) is None
    assert fit_critic(np.repeat(features[:1], 8, axis=0)) is None
    assert fit_critic(np.concatenate([features, features + 0.1]), list("abcdeabcde")) is None


@pytest.mark.parametrize("name", ["mean", "axes", "rarest"])
def test_arrays_that_do_not_fit_are_refused(critic: Critic, name: str) -> None:
    arrays = critic.arrays()
    with pytest.raises(ValueError, match="critic"):
        critic_of({**arrays, name: arrays[name][:-1]})
    with pytest.raises(ValueError, match="finite"):
        critic_of({**arrays, name: np.full_like(arrays[name], np.nan)})
    with pytest.raises(ValueError, match="has the arrays"):
        critic_of({key: value for key, value in arrays.items() if key != name})
