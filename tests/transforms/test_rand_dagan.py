from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Randomizable,
    ScaleIntensityd,
    Transform,
)

from medgan.config import Config
from medgan.errors import InputFault
from medgan.transforms import RandDAGAN, RandDAGAND, RandDAGANd, RandDAGANDict

KEYS = ["image", "label"]
AFFINE = torch.tensor([[-2.0, 0, 0, 20], [0, 2.0, 0, -15], [0, 0, 2.5, 7], [0, 0, 0, 1]], dtype=torch.float64)


@pytest.fixture
def transform(checkpoint_folder: Path) -> RandDAGANd:
    return RandDAGANd(KEYS, checkpoint_folder, prob=1.0).set_random_state(5)


@pytest.fixture
def sample(volume: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"image": MetaTensor(volume, affine=AFFINE), "label": MetaTensor(label, affine=AFFINE)}


def files(cohort_folder: Path) -> list[dict[str, str]]:
    return [
        {
            "image": str(cohort_folder / f"images/case{i:02d}.nii.gz"),
            "label": str(cohort_folder / f"labels/case{i:02d}.nii.gz"),
        }
        for i in range(1, 7)
    ]


def test_aliases_are_monais() -> None:
    assert RandDAGAND is RandDAGANDict is RandDAGANd
    assert issubclass(RandDAGANd, Randomizable)
    assert issubclass(RandDAGAN, Transform)


def test_affine_dtype_and_type_are_kept_and_the_volume_changes(
    transform: RandDAGANd, sample: dict[str, torch.Tensor]
) -> None:
    out = transform(sample)
    for key in KEYS:
        assert isinstance(out[key], MetaTensor)
        assert out[key].dtype == sample[key].dtype
        assert torch.equal(out[key].affine, AFFINE)
        assert (out[key] != sample[key]).any()
    assert set(out["label"].unique().tolist()) == {0, 1}


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64, np.uint8])
def test_numpy_arrays_of_any_dtype(dtype: type, checkpoint_folder: Path, volume: torch.Tensor) -> None:
    array = (volume.numpy() / 4).clip(0, 255).astype(dtype)
    out = RandDAGAN(checkpoint_folder, prob=1.0).set_random_state(0)(array)
    assert np.asarray(out).dtype == dtype
    assert out.shape == array.shape


def test_the_label_follows_the_image(checkpoint_folder: Path, label: torch.Tensor) -> None:
    transform = RandDAGANd(KEYS, checkpoint_folder, prob=1.0).set_random_state(1)
    for _ in range(4):
        out = transform({"image": label.float() * 500, "label": label})
        bright, mask = out["image"] > 250, out["label"] > 0
        assert 2 * (bright & mask).sum() / (bright.sum() + mask.sum()) > 0.9


def test_set_random_state_reproduces(checkpoint_folder: Path, sample: dict[str, torch.Tensor]) -> None:
    def run(seed: int) -> list[torch.Tensor]:
        transform = RandDAGANd(KEYS, checkpoint_folder, prob=0.5).set_random_state(seed)
        return [transform(sample)["image"].as_tensor() for _ in range(6)]

    assert all(torch.equal(a, b) for a, b in zip(run(3), run(3), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(run(3), run(4), strict=True))


def test_probability_is_kept(checkpoint_folder: Path, sample: dict[str, torch.Tensor]) -> None:
    transform = RandDAGANd(KEYS, checkpoint_folder, prob=0.3).set_random_state(0)
    changed = [bool((transform(sample)["image"] != sample["image"]).any()) for _ in range(60)]
    assert 8 <= sum(changed) <= 29
    never = RandDAGANd(KEYS, checkpoint_folder, prob=0.0)
    assert torch.equal(never(sample)["image"], sample["image"])


def test_replay_from_the_recorded_parameters(transform: RandDAGANd, sample: dict[str, torch.Tensor]) -> None:
    out = transform(sample)
    recorded = out["image"].applied_operations[-1]["extra_info"]
    again = transform.replay(sample, recorded)
    for key in KEYS:
        assert torch.equal(again[key].as_tensor(), out[key].as_tensor())


def test_parameters_of_another_checkpoint_are_refused(transform: RandDAGANd, sample: dict[str, torch.Tensor]) -> None:
    recorded = transform(sample)["image"].applied_operations[-1]["extra_info"]
    with pytest.raises(ValueError, match="checkpoint"):
        transform.replay(sample, {**recorded, "checkpoint": "0" * 64})


def test_inverse_brings_the_label_back_and_pops_the_record(
    transform: RandDAGANd, sample: dict[str, torch.Tensor]
) -> None:
    out = transform(sample)
    back = transform.inverse(out)
    assert back["label"].applied_operations == []
    label = sample["label"]
    assert (out["label"] != label).any()
    assert 2 * (back["label"] * label).sum() / (back["label"].sum() + label.sum()) > 0.93


def test_inverse_of_a_skipped_call_changes_nothing(checkpoint_folder: Path, sample: dict[str, torch.Tensor]) -> None:
    transform = RandDAGANd(KEYS, checkpoint_folder, prob=0.0)
    back = transform.inverse(transform(sample))
    assert torch.equal(back["image"], sample["image"])
    assert back["image"].applied_operations == []


def pipeline(checkpoint: Path) -> Compose:
    return Compose(
        [
            LoadImaged(KEYS),
            EnsureChannelFirstd(KEYS),
            ScaleIntensityd("image"),
            RandDAGANd(KEYS, checkpoint, prob=1.0),
        ]
    )


def test_in_compose_with_files(checkpoint_folder: Path, cohort_folder: Path) -> None:
    transform = pipeline(checkpoint_folder)
    transform.set_random_state(0)
    out = transform(files(cohort_folder)[0])
    assert out["image"].shape == out["label"].shape
    assert not out["image"].requires_grad


def test_behind_a_cache_the_randomness_stays_random(checkpoint_folder: Path, cohort_folder: Path) -> None:
    dataset = CacheDataset(files(cohort_folder)[:2], pipeline(checkpoint_folder), progress=False)
    assert not torch.equal(dataset[0]["image"], dataset[0]["image"])


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_loader_no_two_samples_share_a_draw(workers: int, checkpoint_folder: Path, cohort_folder: Path) -> None:
    transform = pipeline(checkpoint_folder)
    transform.set_random_state(0)
    loader = DataLoader(Dataset(files(cohort_folder), transform), batch_size=1, num_workers=workers)
    seeds = [item["image"].applied_operations[0][-1]["extra_info"]["seed"] for item in loader]
    assert len(set(seeds)) == 6


def test_copies_share_the_weights_and_pickles_carry_none(
    transform: RandDAGANd, sample: dict[str, torch.Tensor]
) -> None:
    twin = copy.deepcopy(transform)
    assert twin.transform.sampler is transform.transform.sampler
    content = pickle.dumps(transform)
    assert len(content) < 30_000
    restored = pickle.loads(content)
    assert torch.equal(restored(sample)["image"], transform(sample)["image"])


def test_the_class_of_a_sample_conditions_the_sibling(checkpoint_folder: Path, sample: dict[str, torch.Tensor]) -> None:
    def sibling(size: object) -> torch.Tensor:
        transform = RandDAGANd(KEYS, checkpoint_folder, prob=1.0, class_key="size").set_random_state(0)
        return transform({**sample, "size": size})["image"].as_tensor()

    assert not torch.equal(sibling("small"), sibling("large"))
    assert torch.equal(sibling(1), sibling("large"))
    assert torch.equal(sibling(None), sibling(-1))
    with pytest.raises(InputFault, match="no class 'huge'"):
        sibling("huge")


def test_several_channels_and_label_keys(
    make_checkpoint: Callable[..., Path], tmp_path: Path, volume: torch.Tensor, label: torch.Tensor
) -> None:
    checkpoint = make_checkpoint(tmp_path, channels=2)
    transform = RandDAGANd(["image", "organ", "lesion"], checkpoint, prob=1.0).set_random_state(0)
    out = transform({"image": volume.repeat(2, 1, 1, 1), "organ": label, "lesion": label})
    assert out["image"].shape[0] == 2
    assert torch.equal(out["organ"], out["lesion"])


def test_absent_keys(checkpoint_folder: Path, volume: torch.Tensor) -> None:
    with pytest.raises(KeyError, match="label"):
        RandDAGANd(KEYS, checkpoint_folder, prob=1.0)({"image": volume})
    out = RandDAGANd(KEYS, checkpoint_folder, prob=1.0, allow_missing_keys=True)({"image": volume})
    assert set(out) == {"image"}


def test_a_label_on_other_voxels_is_refused(transform: RandDAGANd, volume: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="label"):
        transform({"image": volume, "label": torch.zeros(1, 5, 5, 5)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prob": 1.2}, "1.2"),
        ({"strength": -1}, "-1"),
        ({"strength": (1.0, 0.5)}, r"\(1.0, 0.5\)"),
        ({"mode": "cubic"}, "cubic"),
    ],
)
def test_bad_arguments_name_the_value(arguments: dict[str, object], message: str, checkpoint_folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        RandDAGAN(checkpoint_folder, **arguments)


def test_a_strength_range_is_drawn_from(checkpoint_folder: Path, sample: dict[str, torch.Tensor]) -> None:
    transform = RandDAGANd(KEYS, checkpoint_folder, prob=1.0, strength=(0.2, 0.9)).set_random_state(0)
    drawn = [transform(sample)["image"].applied_operations[-1]["extra_info"]["strength"] for _ in range(10)]
    assert min(drawn) >= 0.2
    assert max(drawn) <= 0.9
    assert len(set(drawn)) == 10


def test_a_rescaled_ct_is_told_its_range(
    make_checkpoint: Callable[..., Path], tiny_config: Config, tmp_path: Path, volume: torch.Tensor
) -> None:
    window = tiny_config.preprocess.intensity.model_copy(update={"kind": "window", "window": (0.0, 1000.0)})
    config = tiny_config.model_copy(
        update={"preprocess": tiny_config.preprocess.model_copy(update={"intensity": window})}
    )
    checkpoint = make_checkpoint(tmp_path, config)
    in_units = RandDAGAN(checkpoint, prob=1.0).set_random_state(0)(volume)
    rescaled = RandDAGAN(checkpoint, prob=1.0, input_range=(0.0, 1.0)).set_random_state(0)(volume / 1000)
    assert torch.allclose(rescaled * 1000, in_units, atol=0.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_tensors(checkpoint_folder: Path, volume: torch.Tensor, label: torch.Tensor) -> None:
    transform = RandDAGANd(KEYS, checkpoint_folder, prob=1.0).set_random_state(0)
    out = transform({"image": volume.cuda(), "label": label.cuda()})
    assert out["image"].device.type == "cuda"
    on_cpu = RandDAGANd(KEYS, checkpoint_folder, prob=1.0).set_random_state(0)({"image": volume, "label": label})
    assert torch.allclose(out["image"].cpu(), on_cpu["image"], atol=2.0)
