from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

import medgan
from medgan.config import Config
from medgan.errors import InputFault
from medgan.models import labels
from medgan.models.deformation import sample_at
from medgan.models.fields import deform
from medgan.sampler import Part, Sampler, load, render, render_label, render_parts, warp
from medgan.sampler.recipe import transform_axes


@pytest.fixture
def sampler(checkpoint_folder: Path) -> Sampler:
    return medgan.load(checkpoint_folder)


def test_siblings_differ_from_their_source_and_from_each_other(
    sampler: Sampler, volume: torch.Tensor, label: torch.Tensor
) -> None:
    a, b = sampler.sample(volume, label, n=2, seed=3, class_name="small")
    assert a.volume.shape == volume.shape
    assert a.label.dtype == label.dtype
    for one, other in ((a.volume, volume), (a.volume, b.volume)):
        assert (one - other).abs().mean() > 5
    assert (a.label != label).any()
    assert a.fold_share == 0
    assert a.jacobian_min > 0


def test_image_and_mask_move_together(sampler: Sampler, label: torch.Tensor) -> None:
    """Of an image that is its own mask, the sibling's bright part is the sibling's mask."""
    image = label.float() * 1000
    for sibling in sampler.sample(image, label, n=4, seed=1):
        bright, mask = sibling.volume > 500, sibling.label > 0
        assert (mask != (label > 0)).float().mean() > 0.01
        assert 2 * (bright & mask).sum() / (bright.sum() + mask.sum()) > 0.9


def test_the_same_sibling_whatever_is_made_beside_it(sampler: Sampler, volume: torch.Tensor) -> None:
    many = sampler.sample(volume, n=5, seed=3)
    alone = sampler.recipe(volume, sampler.draw(3, index=4))
    assert torch.equal(many[4].volume, render(alone, volume))


def test_strength_zero_is_the_identity_exactly(sampler: Sampler, volume: torch.Tensor, label: torch.Tensor) -> None:
    (sibling,) = sampler.sample(volume, label, strength=0)
    assert torch.equal(sibling.volume, volume)
    assert torch.equal(sibling.label, label)


def test_the_dial_is_gradual(sampler: Sampler, volume: torch.Tensor) -> None:
    changes = [float((sampler.sample(volume, strength=s)[0].volume - volume).abs().mean()) for s in (0.25, 0.5, 1.0)]
    assert 0 < changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64, np.int32])
def test_type_and_dtype_of_the_source_are_kept(sampler: Sampler, volume: torch.Tensor, dtype: type) -> None:
    array = (volume[0].numpy() / 4).clip(0, 255).astype(dtype)
    sibling = sampler.sample(array)[0].volume
    assert isinstance(sibling, np.ndarray)
    assert sibling.dtype == dtype
    assert sibling.shape == array.shape


def test_a_linear_rescaling_of_an_mri_gives_the_same_sibling_rescaled(sampler: Sampler, volume: torch.Tensor) -> None:
    a = sampler.sample(volume)[0].volume
    b = sampler.sample(volume * 1e-3 - 2)[0].volume
    assert torch.allclose(b, a * 1e-3 - 2, atol=2e-4)


@pytest.mark.parametrize("axes", ["LAS", "PSR", "SRA", "RPI"])
def test_the_orientation_of_the_file_does_not_matter(axes: str, sampler: Sampler, volume: torch.Tensor) -> None:
    affine = np.diag([2.0, 2.0, 2.5, 1.0])
    image = nibabel.Nifti1Image(volume[0].numpy(), affine)
    turned = image.as_reoriented(
        nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(axes))
    )
    a = sampler.sample(image.get_fdata(dtype=np.float32), affine=image.affine)[0].volume
    b = sampler.sample(turned.get_fdata(dtype=np.float32), affine=turned.affine)[0].volume
    back = nibabel.as_closest_canonical(nibabel.Nifti1Image(b, turned.affine)).get_fdata(dtype=np.float32)
    assert np.abs(back - a).max() < 1.0
    assert np.abs(a - image.get_fdata()).mean() > 5


def test_a_metatensor_keeps_its_affine(sampler: Sampler, volume: torch.Tensor) -> None:
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.5, 1.0], dtype=torch.float64))
    sibling = sampler.sample(MetaTensor(volume, affine=affine))[0].volume
    assert isinstance(sibling, MetaTensor)
    assert torch.equal(sibling.affine, affine)


@pytest.mark.parametrize("shape", [(1, 7, 40, 19), (1, 33, 16, 1), (1, 64, 64, 64)])
def test_any_size_goes_through(shape: tuple[int, ...], sampler: Sampler) -> None:
    volume = torch.rand(shape)
    sibling = sampler.sample(volume)[0]
    assert sibling.volume.shape == shape
    assert torch.isfinite(sibling.volume).all()


def test_slabs_make_no_difference(sampler: Sampler, volume: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sampler.sample(volume)[0].volume
    monkeypatch.setattr("medgan.sampler.warp.SLAB_VOXELS", 3 * 18 * 22)
    assert torch.allclose(sampler.sample(volume)[0].volume, whole, atol=1e-3)


def test_unwarp_brings_the_label_back(sampler: Sampler, volume: torch.Tensor, label: torch.Tensor) -> None:
    recipe = sampler.recipe(volume, sampler.draw(0))
    there = recipe.warp(label.float(), "nearest")
    back = recipe.unwarp(there, "nearest")
    dice = 2 * (back * label).sum() / (back.sum() + label.sum())
    assert (there != label).any()
    assert dice > 0.93


def test_values_beyond_a_ct_window_keep_their_distance(
    make_checkpoint: Callable[..., Path], tiny_config: Config, tmp_path: Path
) -> None:
    window = tiny_config.preprocess.intensity.model_copy(update={"kind": "window", "window": (0.0, 100.0)})
    config = tiny_config.model_copy(
        update={"preprocess": tiny_config.preprocess.model_copy(update={"intensity": window})}
    )
    sampler = load(make_checkpoint(tmp_path, config))
    metal = torch.full((1, 16, 16, 16), 3000.0)
    recipe = sampler.recipe(metal, sampler.draw(0))
    changed = recipe.change_appearance(metal)
    limit = 100 * (np.expm1(config.model.max_gain) + config.model.max_offset)
    assert 0 < float((changed - 3000).abs().max()) <= limit


def test_a_wrong_number_of_channels_and_an_unknown_class_are_named(sampler: Sampler, volume: torch.Tensor) -> None:
    with pytest.raises(InputFault, match="CHANNELS: the volume has 2 channels, the generator 1"):
        sampler.sample(volume.repeat(2, 1, 1, 1))
    with pytest.raises(InputFault, match=r"UNKNOWN_CLASS: no class 'huge', the generator knows: small, large"):
        sampler.sample(volume, class_name="huge")


def test_a_constant_volume_divides_by_nothing(sampler: Sampler) -> None:
    assert torch.isfinite(sampler.sample(torch.full((1, 16, 16, 16), 5.0))[0].volume).all()


def test_label_maps_and_image_share_their_positions(
    sampler: Sampler, volume: torch.Tensor, label: torch.Tensor
) -> None:
    recipe = sampler.recipe(volume, sampler.draw(0))
    parts = [Part(volume, "bilinear", appearance=True), Part(label, "label", appearance=False)]
    image, mask = render_parts(recipe, parts)
    assert torch.equal(image, render(recipe, volume))
    assert torch.equal(mask, render_label(recipe, label))


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_positions_by_axes_are_those_found_one_by_one(flip: float, sampler: Sampler) -> None:
    """The separable evaluation at the volume's voxels against φ evaluated at arbitrary positions."""
    affine = np.array([[0, 0, 1.7, 5], [-2.1 * flip, 0, 0, 3], [0, 2.6, 0, 2], [0, 0, 0, 1]])
    volume = torch.nn.functional.interpolate(torch.rand(1, 1, 6, 6, 6), size=(23, 19, 27), mode="trilinear")[0]
    recipe = sampler.recipe(volume, sampler.draw(2), affine)
    grid = recipe._grid_positions(volume, 0, 23)
    moved = transform_axes(recipe.matrix, deform(recipe.fields, recipe.displacement, grid, recipe.shape))
    assert torch.allclose(recipe.warp(volume), sample_at(volume[None], moved)[0], atol=1e-4)
    still = transform_axes(recipe.matrix, grid)
    assert torch.allclose(recipe.displacement_at_source(volume), (moved - still)[0], atol=1e-3)


@pytest.mark.parametrize("shape", [(12, 16, 20), (1, 5, 41), (47, 41, 50), (128, 33, 41)])
def test_threads_make_no_difference(shape: tuple[int, ...], sampler: Sampler) -> None:
    volume = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    recipe, before = sampler.recipe(volume, sampler.draw(0)), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            results.append(render(recipe, volume))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


def test_memory_is_four_copies_of_the_volume_at_most(sampler: Sampler) -> None:
    """So 512³ (0.5 GB in float32) takes 2.2 GB beside the volume itself and its label map."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux's account of a process's memory")
    # In a process of its own: in one that has run many tests the heap has holes, and they count.
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        copies = fresh.submit(_copies_added, sampler.checkpoint.folder).result()
    assert copies < 4.3


def _copies_added(folder: Path) -> float:
    """Return by how many float32 copies of the volume a process grows at most while it makes a sibling."""

    def kilobytes(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

    for module in (warp, labels):
        module.SLAB_VOXELS = 160**3 // 64  # the share of 512³ that a slab is
    sampler = load(folder)
    volume = torch.rand(1, 160, 160, 160)
    label = (volume > 0.5).to(torch.uint8)
    sampler.sample(volume[:, :32, :32, :32], label[:, :32, :32, :32])
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would else be taken again unseen
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    (sibling,) = sampler.sample(volume, label)
    added = kilobytes("VmHWM") - before
    assert sibling.volume.shape == volume.shape
    return 1024 * added / (4 * volume.nelement())
