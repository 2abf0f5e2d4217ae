from __future__ import annotations

import numpy as np
import pytest
import torch

from medgan.measures.features import (
    BANDS,
    EDGE_QUANTILES,
    FEATURES_PER_CHANNEL,
    LAYOUT_CELLS,
    QUANTILES,
    FeatureSpace,
    group_weights,
    volume_features,
)

LAYOUT = slice(0, LAYOUT_CELLS**3)
SPECTRUM = slice(-BANDS, None)


def random_volumes(count: int, seed: int = 0, channels: int = 1) -> torch.Tensor:
    return torch.rand((count, channels, 18, 20, 12), generator=torch.Generator().manual_seed(seed))


def test_shape_counts_volumes_and_channels() -> None:
    assert volume_features(random_volumes(3)).shape == (3, FEATURES_PER_CHANNEL)
    assert volume_features(random_volumes(2, channels=2)).shape == (2, 2 * FEATURES_PER_CHANNEL)


def test_features_of_a_volume_do_not_depend_on_the_others() -> None:
    volumes = random_volumes(4)
    assert np.array_equal(volume_features(volumes)[2:3], volume_features(volumes[2:3]))


def test_channels_are_described_one_after_the_other() -> None:
    volumes = random_volumes(2, channels=2)
    both = volume_features(volumes)
    assert np.array_equal(both[:, FEATURES_PER_CHANNEL:], volume_features(volumes[:, 1:]))


def test_constant_volume_has_its_value_everywhere_and_no_edges() -> None:
    row = volume_features(torch.full((1, 1, 16, 16, 16), 0.25))[0]
    edges = row[LAYOUT_CELLS**3 + len(QUANTILES) + 2 : -BANDS]
    assert np.allclose(row[LAYOUT], 0.25)
    assert len(edges) == len(EDGE_QUANTILES) + 2
    assert np.allclose(edges, 0)
    assert np.allclose(row[SPECTRUM], -8, atol=1e-3)


def test_ramp_has_its_slope_as_gradient() -> None:
    ramp = torch.linspace(0, 1, 21)[None, None, :, None, None].expand(1, 1, 21, 10, 10)
    edges = volume_features(ramp)[0, LAYOUT_CELLS**3 + len(QUANTILES) + 2 : -BANDS]
    assert np.allclose(edges[: len(EDGE_QUANTILES) + 1], 0.05, atol=1e-5)
    assert edges[-1] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("cycles", "band"), [(1, 0), (9, 4), (15, 7)])
def test_wave_shows_in_its_band_of_the_spectrum(cycles: int, band: int) -> None:
    axis = torch.arange(32) / 32
    wave = 0.5 + 0.4 * torch.sin(2 * torch.pi * cycles * axis)
    volume = wave[None, None, None, :, None].expand(1, 1, 32, 32, 32)
    assert volume_features(volume)[0, SPECTRUM].argmax() == band


def test_values_that_are_not_finite_and_wrong_shapes_are_refused() -> None:
    bad = random_volumes(1)
    bad[0, 0, 3, 3, 3] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        volume_features(bad)
    with pytest.raises(ValueError, match=r"got \(1, 8, 8, 8\)"):
        volume_features(torch.zeros(1, 8, 8, 8))


def test_space_whitens_its_reference() -> None:
    reference = volume_features(random_volumes(30))
    space = FeatureSpace().fit(reference)
    points = space.transform(reference)
    assert points.shape[0] == 30
    assert np.allclose(points.mean(axis=0), 0, atol=1e-9)
    assert np.allclose(np.cov(points, rowvar=False), np.eye(points.shape[1]), atol=1e-8)


def dimensions(space: FeatureSpace, reference: np.ndarray) -> int:
    return space.fit(reference).transform(reference).shape[1]


def test_space_keeps_no_more_components_than_asked_or_samples_bear() -> None:
    features = volume_features(random_volumes(60))
    assert dimensions(FeatureSpace(variance=1.0), features) == 16
    assert dimensions(FeatureSpace(components=4, variance=1.0), features) == 4
    assert dimensions(FeatureSpace(variance=1.0), features[:12]) == 4


def test_space_keeps_the_components_that_reach_the_share_of_variance() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((200, 3)) @ np.array([[1, 1, 1, 1], [1, -1, 1, -1], [0.01, 0, 0, 0]])
    assert dimensions(FeatureSpace(variance=0.95), features) == 2
    assert dimensions(FeatureSpace(variance=0.4), features) == 1


def test_groups_have_an_equal_say_whatever_their_size() -> None:
    weights = group_weights(2)
    assert len(weights) == 2 * FEATURES_PER_CHANNEL
    assert (weights[LAYOUT] ** 2).sum() == pytest.approx(1)
    assert (weights[SPECTRUM] ** 2).sum() == pytest.approx(1)
    assert FeatureSpace().fit(volume_features(random_volumes(9))).weights == pytest.approx(group_weights(1))


def test_a_feature_that_never_varies_does_no_harm() -> None:
    features = np.random.default_rng(0).standard_normal((20, 5))
    features[:, 2] = 7.0
    space = FeatureSpace().fit(features)
    assert np.isfinite(space.transform(features + 1)).all()


def test_misuse_of_the_space_is_refused_with_the_value() -> None:
    features = np.random.default_rng(0).standard_normal((20, 5))
    with pytest.raises(ValueError, match="call fit first"):
        FeatureSpace().transform(features)
    with pytest.raises(ValueError, match="at least 3 samples, got 2"):
        FeatureSpace().fit(features[:2])
    with pytest.raises(ValueError, match="all alike"):
        FeatureSpace().fit(np.ones((5, 4)))
    with pytest.raises(ValueError, match="5 columns, got 4"):
        FeatureSpace().fit(features).transform(features[:, :4])
    with pytest.raises(ValueError, match=r"variance must be in \(0, 1\], got 1.5"):
        FeatureSpace(variance=1.5)
