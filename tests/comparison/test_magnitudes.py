from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.ndimage import gaussian_filter

from medgan.comparison.controls import RandMatchedDeformationd
from medgan.comparison.magnitudes import FieldMagnitude, Magnitudes, measure_field, measure_magnitudes
from medgan.sampler import Recipe, Sampler, load
from medgan.seeding import torch_generator

GRIDS = [(16, 16, 16), (20, 18, 22)]
NAMES = ["small", "large", "unheard of", None]


@pytest.fixture(scope="module")
def sampler(checkpoint_folder: Path) -> Sampler:
    return load(checkpoint_folder)


@pytest.fixture(scope="module", params=GRIDS, ids=["its own grid", "another grid"])
def images(request: Any) -> torch.Tensor:
    return torch.rand(4, 1, *request.param, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def magnitudes(sampler: Sampler, images: torch.Tensor) -> Magnitudes:
    return measure_magnitudes(sampler, images, NAMES, 6, 0)


def recipes_of_generator(sampler: Sampler, images: torch.Tensor) -> list[Recipe]:
    classes = ["small", "large", None, None]
    return [
        sampler.recipe(images[i % 4], sampler.draw(99, i, 1.0, classes[i % 4]), None, (0.0, 1.0)) for i in range(60)
    ]


def recipes_of_control(magnitudes: Magnitudes, image: torch.Tensor) -> list[Recipe]:
    control = RandMatchedDeformationd(["image"], magnitudes, 1.0)
    control.set_random_state(3)
    recipes = []
    for _ in range(60):
        control.randomize()
        recipes.append(control.recipe(image))
    return recipes


def rms(values: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(v.square().mean()) for v in values) / len(values))


def test_the_control_moves_voxels_as_far_and_as_smoothly_as_the_generator(
    sampler: Sampler, images: torch.Tensor, magnitudes: Magnitudes
) -> None:
    own, drawn = recipes_of_generator(sampler, images), recipes_of_control(magnitudes, images[0])
    moved = [rms([r.displacement_at_source(images[0]) for r in recipes]) for recipes in (own, drawn)]
    assert moved[1] == pytest.approx(moved[0], rel=0.12)
    assert moved[0] > 0.5
    rough = [rms([r.displacement.diff(dim=2) for r in recipes]) for recipes in (own, drawn)]
    assert rough[1] == pytest.approx(rough[0], rel=0.15)
    for part in ("gain", "offset", "generators"):
        sizes = [rms([getattr(r.fields, part) for r in recipes]) for recipes in (own, drawn)]
        assert sizes[1] == pytest.approx(sizes[0], rel=0.12), part


def test_the_control_never_folds(magnitudes: Magnitudes, images: torch.Tensor) -> None:
    assert min(r.jacobian_min for r in recipes_of_control(magnitudes, images[0])) > 0


def test_size_and_smoothness_of_a_known_field() -> None:
    # White noise smoothed by a Gaussian of SD s has correlation exp(-h² / 4 s²) at lag h.
    noise = torch.randn(60, 2, 24, 24, 24, generator=torch.Generator().manual_seed(0)).numpy()
    smooth = torch.from_numpy(gaussian_filter(noise, (0, 0, 1.5, 1.0, 0.8), mode="wrap"))
    smooth = smooth / smooth.std() * torch.tensor([2.0, 0.5]).reshape(1, 2, 1, 1, 1)
    found = measure_field(smooth)
    assert found.correlation == pytest.approx([math.exp(-1 / (4 * s**2)) for s in (1.5, 1.0, 0.8)], abs=0.02)
    assert found.rms.square().mean(dim=(1, 2, 3)).sqrt().tolist() == pytest.approx([2.0, 0.5], rel=0.05)
    drawn = measure_field(torch.cat([found.draw(torch_generator(0, i)) for i in range(60)]))
    assert drawn.correlation == pytest.approx(found.correlation, abs=0.03)
    assert drawn.rms.square().mean(dim=(1, 2, 3)).sqrt().tolist() == pytest.approx([2.0, 0.5], rel=0.05)


def test_a_constant_field_stays_constant_and_an_absent_one_absent() -> None:
    constant = measure_field(torch.randn(200, 1, 1, 1, 1).expand(200, 1, 4, 5, 6))
    drawn = constant.draw(torch_generator(0, "x"))
    assert constant.correlation == pytest.approx((1, 1, 1))
    assert float(drawn.std()) < 1e-5 * float(drawn.abs().mean()) + 1e-6
    assert torch.equal(
        measure_field(torch.zeros(5, 1, 4, 4, 4), 0.0).draw(torch_generator(0)), torch.zeros(1, 1, 4, 4, 4)
    )


@pytest.mark.parametrize("share", [0.001, 0.3, 0.8, 0.95])
def test_a_field_near_its_bound_keeps_bound_and_size(share: float) -> None:
    power = torch.ones(8, 8, 8)
    field = FieldMagnitude(torch.full((1, 8, 8, 8), 2 * share), power, (0, 0, 0), bound=2.0)
    drawn = torch.cat([field.draw(torch_generator(0, i)) for i in range(40)])
    assert float(drawn.abs().max()) <= 2.0
    assert float(drawn.square().mean().sqrt()) == pytest.approx(2 * share, rel=0.03)


def test_a_draw_is_a_function_of_its_seed(magnitudes: Magnitudes) -> None:
    first, again, other = magnitudes.draw(5), magnitudes.draw(5), magnitudes.draw(6)
    assert torch.equal(first.velocity, again.velocity)
    assert torch.equal(first.generators, again.generators)
    assert not torch.equal(first.velocity, other.velocity)


def test_the_figures_can_be_written_as_json(magnitudes: Magnitudes) -> None:
    import json

    figures = json.loads(json.dumps(magnitudes.to_json(), allow_nan=False))
    assert set(figures) == {"velocity", "gain", "offset", "rotation", "stretch", "shift", "displacement"}
    assert figures["displacement"] > 0


def test_nothing_to_measure_is_refused(sampler: Sampler) -> None:
    with pytest.raises(ValueError, match="0 draws"):
        measure_magnitudes(sampler, torch.rand(1, 1, 16, 16, 16), ["small"], 0, 0)
    with pytest.raises(ValueError, match="2 class names"):
        measure_magnitudes(sampler, torch.rand(1, 1, 16, 16, 16), ["small", None], 1, 0)
