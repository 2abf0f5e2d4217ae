"""What the critic says of a sibling, on the sampler's own side."""

from __future__ import annotations

import logging
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from medgan.errors import InputFault
from medgan.measures.features import volume_features
from medgan.sampler import MAX_ATTEMPTS, Sampler, attempt_number, load, render
from medgan.sampler.quality import ATTEMPT_STRIDE, attempt_at, sibling_quality
from medgan.sampler.view import View


@pytest.fixture(scope="module")
def judging(judged_checkpoint: Path) -> Sampler:
    return load(judged_checkpoint)


@pytest.fixture(scope="module")
def real(cohort_folder: Path) -> tuple[torch.Tensor, np.ndarray]:
    image = nibabel.load(cohort_folder / "images" / "case00.nii.gz")
    return torch.from_numpy(np.asarray(image.dataobj)[None]), image.affine


def test_a_sibling_scores_less_the_stronger_it_is(judging: Sampler, real: tuple[torch.Tensor, np.ndarray]) -> None:
    volume, affine = real
    scores = [judging.sample(volume, strength=s, affine=affine)[0].quality for s in (0.0, 0.1, 0.3, 1.0)]
    assert scores[0] == 1
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[3] < scores[1] < 1  # type: ignore[operator]


def test_the_score_is_that_of_the_sibling_on_the_networks_grid(
    judging: Sampler, real: tuple[torch.Tensor, np.ndarray]
) -> None:
    """A volume that is its own grid: rendered at its voxels and judged as a volume, it scores the same."""
    view = judging.view(*real)
    own = judging.view(view.unit, input_range=(0.0, 1.0))
    recipe = judging.predict(own, judging.draw(1, 0, 0.3))
    critic = judging.checkpoint.critic
    assert critic is not None
    assert torch.allclose(own.unit, view.unit, atol=1e-6)
    direct = critic.quality(volume_features(render(recipe, own.unit)[None]))[0]
    assert sibling_quality(critic, own, recipe) == pytest.approx(direct, abs=critic.lowest)


def test_a_sibling_that_is_not_finite_scores_nothing(judging: Sampler, real: tuple[torch.Tensor, np.ndarray]) -> None:
    view = judging.view(*real)
    recipe = judging.predict(view, judging.draw(1, 0, 0.3))
    critic = judging.checkpoint.critic
    assert critic is not None
    broken = View(torch.full_like(view.unit, torch.nan), view.matrix, view.scale)
    assert sibling_quality(critic, broken, recipe) == 0


def test_the_first_attempt_is_the_sibling_without_a_gate(
    judging: Sampler, real: tuple[torch.Tensor, np.ndarray]
) -> None:
    volume, affine = real
    parameters = judging.draw(3, 2, 0.3, "small")
    attempts = list(judging.attempts(judging.view(volume, affine), parameters))
    assert len(attempts) == MAX_ATTEMPTS
    assert [a.recipe.parameters.index for a in attempts] == [2 + k * ATTEMPT_STRIDE for k in range(MAX_ATTEMPTS)]
    assert [attempt_number(a.recipe.parameters.index) for a in attempts] == list(range(1, MAX_ATTEMPTS + 1))
    assert torch.equal(attempts[0].recipe.displacement, judging.recipe(volume, parameters, affine).displacement)
    later = judging.recipe(volume, attempt_at(parameters, 5), affine)
    assert torch.equal(attempts[5].recipe.displacement, later.displacement)


def test_a_sample_below_the_gate_is_drawn_again(judging: Sampler, real: tuple[torch.Tensor, np.ndarray]) -> None:
    volume, affine = real
    plain = judging.sample(volume, n=6, seed=5, strength=0.3, affine=affine)
    gated = judging.sample(volume, n=6, seed=5, strength=0.3, affine=affine, min_quality=0.11)
    assert min(sibling.quality for sibling in plain) < 0.11  # type: ignore[type-var]
    assert len(gated) == 6
    for before, after in zip(plain, gated, strict=True):
        assert after.quality >= 0.11
        assert torch.equal(before.volume, after.volume) == (before.quality >= 0.11)
        assert after.parameters.index % ATTEMPT_STRIDE == before.parameters.index


def test_a_sample_that_never_passes_is_left_out(
    judging: Sampler, real: tuple[torch.Tensor, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    volume, affine = real
    with caplog.at_level(logging.WARNING, "medgan.sampler.run"):
        assert judging.sample(volume, n=2, affine=affine, min_quality=0.9) == []
    assert "sibling 1 is left out: 20 attempts below quality 0.9" in caplog.text


def test_without_a_critic_there_is_no_score_and_no_gate(checkpoint_folder: Path, volume: torch.Tensor) -> None:
    sampler = load(checkpoint_folder)
    assert sampler.sample(volume)[0].quality is None
    with pytest.raises(InputFault, match="NO_CRITIC"):
        sampler.sample(volume, min_quality=0.05)
