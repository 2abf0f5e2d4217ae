from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

import medgan
from medgan.config import Config
from medgan.errors import InputFault
from medgan.sampler import Sampler, load


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
    from medgan.sampler import render

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
    monkeypatch.setattr("medgan.sampler.SLAB_VOXELS", 3 * 18 * 22)
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
