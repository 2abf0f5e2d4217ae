"""MONAI's contract for transforms, point by point."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.transforms
import numpy as np
import pytest
import torch
from monai.data import (
    CacheDataset,
    DataLoader,
    Dataset,
    MetaTensor,
    PersistentDataset,
    SmartCacheDataset,
    set_track_meta,
)
from monai.transforms import (
    Compose,
    EnsureTyped,
    InvertibleTransform,
    MapTransform,
    OneOf,
    RandGaussianNoised,
    RandomizableTransform,
    RandomOrder,
    RandSpatialCropSamplesd,
    ScaleIntensityd,
    SomeOf,
    get_number_image_type_conversions,
)
from monai.transforms.traits import RandomizableTrait, ThreadUnsafe
from monai.utils import TransformBackends, convert_to_numpy

import medgan.transforms
from medgan.transforms import RandDAGAN, RandDAGANd

KEYS = ["image", "label"]
OBLIQUE = torch.tensor(
    [[1.1, 0.2, 0, -9], [-0.2, 1.0, 0.3, 4], [0.1, -0.25, 2.9, 7], [0, 0, 0, 1]], dtype=torch.float64
)
ANISOTROPIC = torch.diag(torch.tensor([0.7, 0.7, 5.0, 1.0], dtype=torch.float64))
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
]
KINDS: dict[str, Callable[[torch.Tensor], Any]] = {
    "numpy": convert_to_numpy,
    "torch": lambda t: t,
    "metatensor": MetaTensor,
    "anisotropic": lambda t: MetaTensor(t, affine=ANISOTROPIC),
    "oblique": lambda t: MetaTensor(t, affine=OBLIQUE),
}


@pytest.fixture(scope="module")
def checkpoints(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return {c: make_checkpoint(tmp_path_factory.mktemp(f"channels{c}"), channels=c) for c in (1, 2, 3)}


def make_sample(channels: int = 1, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Odd sizes, and two label keys."""
    generator = torch.Generator().manual_seed(0)
    image = (200 * torch.rand(channels, 19, 21, 15, generator=generator)).to(dtype)
    label = torch.zeros(1, 19, 21, 15, dtype=torch.uint8)
    label[:, 5:14, 6:15, 4:11] = 1
    return {"image": image, "organ": label, "lesion": label * 2}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_form_is_kept_and_values_do_not_depend_on_the_kind(
    kind: str, channels: int, device: str, checkpoints: dict[int, Path]
) -> None:
    source = make_sample(channels)
    transform = RandDAGANd(list(source), checkpoints[channels], prob=1.0).set_random_state(0)
    given = {key: KINDS[kind](value.to(device)) for key, value in source.items()}
    before = {key: convert_to_numpy(value).copy() for key, value in given.items()}
    out = transform(given)
    for key, value in source.items():
        assert isinstance(out[key], MetaTensor)
        assert out[key].shape == value.shape
        assert out[key].dtype == value.dtype
        assert out[key].device.type == device
        assert not out[key].requires_grad
        assert np.array_equal(convert_to_numpy(given[key]), before[key]), "the input was changed"
        if kind in ("anisotropic", "oblique"):
            assert torch.equal(out[key].affine, given[key].affine)
    assert set(out["lesion"].unique().tolist()) == {0, 2}
    assert torch.equal(out["organ"] * 2, out["lesion"])
    assert not np.array_equal(convert_to_numpy(out["image"]), before["image"])
    if kind in ("numpy", "metatensor"):
        plain = RandDAGANd(list(source), checkpoints[channels], prob=1.0).set_random_state(0)(source)
        assert torch.allclose(out["image"].cpu().as_tensor(), plain["image"].as_tensor(), atol=2.0 * (device != "cpu"))


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float64]
)
def test_images_of_any_dtype(dtype: torch.dtype, checkpoints: dict[int, Path]) -> None:
    image = (make_sample()["image"] / 2).to(dtype)
    out = RandDAGAN(checkpoints[1], prob=1.0, seed=0)(image)
    whole = RandDAGAN(checkpoints[1], prob=1.0, seed=0)(image.float())
    assert out.dtype == dtype
    assert (out.double() - whole.double()).abs().max() < (3 if image.float().equal(image.double().float()) else 0)


def test_large_instance_numbers_stay_exact(checkpoints: dict[int, Path]) -> None:
    source = make_sample()
    number = 2**24 + 1
    labels = source["organ"].to(torch.int64) * number
    out = RandDAGANd(["image", "label"], checkpoints[1], prob=1.0, seed=0)({"image": source["image"], "label": labels})
    assert set(out["label"].unique().tolist()) == {0, number}


def test_without_tracking_plain_tensors_come_out(checkpoints: dict[int, Path]) -> None:
    for prob in (0.0, 1.0):
        set_track_meta(False)
        try:
            out = RandDAGANd(["image", "organ"], checkpoints[1], prob=prob)(make_sample())
        finally:
            set_track_meta(True)
        assert all(type(out[key]) is torch.Tensor for key in ("image", "organ"))


def test_a_skipped_sample_is_converted_all_the_same(checkpoints: dict[int, Path]) -> None:
    transform = RandDAGANd(["image", "organ"], checkpoints[1], prob=0.0)
    source = {key: value.numpy() for key, value in make_sample().items()}
    out = transform(source)
    assert isinstance(out["image"], MetaTensor)
    assert np.array_equal(convert_to_numpy(out["image"]), source["image"])
    assert isinstance(RandDAGAN(checkpoints[1], prob=0.0)(source["image"]), MetaTensor)


@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_the_source_is_not_written_on(prob: float, checkpoints: dict[int, Path]) -> None:
    image = MetaTensor(make_sample()["image"])
    out = RandDAGAN(checkpoints[1], prob=prob)(image)
    assert len(out.applied_operations) == 1
    assert image.applied_operations == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("points", torch.rand(1, 30, 3)),
        ("boxes", torch.rand(7, 6)),
        ("batch", torch.rand(2, 1, 8, 8, 8)),
        ("report", "normal"),
    ],
)
@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_what_is_no_volume_is_refused_by_name(prob: float, name: str, value: Any, checkpoints: dict[int, Path]) -> None:
    transform = RandDAGANd(["image", name], checkpoints[1], prob=prob)
    with pytest.raises(ValueError, match=rf"'{name}' .*only volumes \(C, X, Y, Z\).*points, boxes"):
        transform({"image": make_sample()["image"], name: value})


def test_a_sample_with_none_of_the_keys_passes(checkpoints: dict[int, Path]) -> None:
    transform = RandDAGANd(["image", "label"], checkpoints[1], prob=1.0, allow_missing_keys=True)
    assert transform({"other": 1}) == {"other": 1}


def test_an_absent_image_is_named(checkpoints: dict[int, Path]) -> None:
    transform = RandDAGANd("organ", checkpoints[1], prob=1.0)
    with pytest.raises(KeyError, match="image_key"):
        transform({"organ": make_sample()["organ"]})


def test_classes_are_monais(checkpoints: dict[int, Path]) -> None:
    array, dictionary = RandDAGAN(checkpoints[1]), RandDAGANd("image", checkpoints[1])
    for transform in (array, dictionary):
        assert isinstance(transform, RandomizableTransform | RandomizableTrait)
        assert isinstance(transform, InvertibleTransform)
        assert isinstance(transform, ThreadUnsafe)
        assert TransformBackends.TORCH in transform.backend
    assert isinstance(dictionary, MapTransform)
    assert dictionary.transform.prob == 1.0
    assert list(inspect.signature(RandDAGAN.__call__).parameters) == ["self", "img", "randomize"]
    assert next(iter(inspect.signature(RandDAGANd).parameters)) == "keys"


def test_monais_rule_of_aliases_holds_with_our_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As MONAI's ``test_transform_api``: a MapTransform has aliases ending with d, D and Dict, and nothing else."""
    for name in medgan.transforms.__all__:
        monkeypatch.setattr(monai.transforms, name, getattr(medgan.transforms, name), raising=False)
    found = {n for n, c in vars(monai.transforms).items() if inspect.isclass(c) and issubclass(c, MapTransform)}
    found.discard("MapTransform")
    assert "RandDAGANd" in found
    for name in [n for n in found if n.endswith("d")]:
        for ending in ("d", "D", "Dict"):
            found.remove(name[:-1] + ending)
    assert found == set()


def test_randomize_false_repeats_the_last_draw(checkpoints: dict[int, Path]) -> None:
    transform = RandDAGAN(checkpoints[1], prob=1.0).set_random_state(0)
    image = make_sample()["image"]
    first, second = transform(image), transform(image)
    assert torch.equal(transform(image, randomize=False), second)
    assert not torch.equal(first, second)


def test_compose_randomizes_without_a_warning(checkpoints: dict[int, Path], recwarn: pytest.WarningsRecorder) -> None:
    for transform in (RandDAGAN(checkpoints[1]), RandDAGANd("image", checkpoints[1])):
        Compose([transform]).randomize()
    assert not [w for w in recwarn if "not randomized" in str(w.message)]


@pytest.mark.parametrize("collection", [OneOf, RandomOrder, SomeOf])
def test_inside_monais_choices(collection: Any, checkpoints: dict[int, Path]) -> None:
    transform = RandDAGANd(["image", "organ"], checkpoints[1], prob=1.0)
    choice = collection([transform, RandGaussianNoised("image", 1.0)])
    outputs = []
    for _ in range(2):
        choice.set_random_state(3)
        outputs.append([choice(make_sample())["image"].as_tensor() for _ in range(3)])
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    flat = Compose([ScaleIntensityd("image"), Compose([transform])]).flatten()
    assert flat.transforms[-1] is transform


def test_items_of_a_list_are_mapped_and_differ(checkpoints: dict[int, Path]) -> None:
    keys = ["image", "organ"]
    crops = RandSpatialCropSamplesd(keys, (12, 12, 12), num_samples=3, random_size=False)
    transform = RandDAGANd(keys, checkpoints[1], prob=1.0)
    image = MetaTensor(make_sample()["image"], meta={"filename_or_obj": "case.nii.gz"})
    pipeline = Compose([crops, transform], map_items=True)
    pipeline.set_random_state(0)
    out = pipeline({"image": image, "organ": make_sample()["organ"]})
    assert len({item["image"].applied_operations[-1]["extra_info"]["seed"] for item in out}) == 3


def test_images_are_converted_once(checkpoints: dict[int, Path]) -> None:
    pipeline = Compose([RandDAGANd("image", checkpoints[1], prob=1.0), RandGaussianNoised("image", 1.0)])
    assert get_number_image_type_conversions(pipeline, {"image": make_sample()["image"].numpy()}, "image") == 1


@pytest.mark.parametrize("kind", ["cache", "persistent", "smart"])
def test_behind_monais_caches_it_stays_random(kind: str, checkpoints: dict[int, Path], tmp_path: Path) -> None:
    keys = ["image", "organ"]
    pipeline = Compose([EnsureTyped(keys), RandDAGANd(keys, checkpoints[1], prob=1.0)])
    data = [make_sample() for _ in range(2)]
    made = {
        "cache": lambda: CacheDataset(data, pipeline, progress=False, num_workers=2),
        "persistent": lambda: PersistentDataset(data, pipeline, tmp_path),
        "smart": lambda: SmartCacheDataset(data, pipeline, replace_rate=0.5, cache_num=2, progress=False),
    }[kind]()
    assert not torch.equal(made[0]["image"], made[0]["image"])
    assert not torch.equal(made[0]["image"], made[1]["image"])


def test_gradients_pass_by_and_workers_do_not_hang(checkpoints: dict[int, Path]) -> None:
    source = make_sample()
    source["image"].requires_grad_()
    transform = RandDAGANd(["image", "organ"], checkpoints[1], prob=1.0)
    loader = DataLoader(Dataset([source] * 2, transform), num_workers=1, timeout=120)
    weight = torch.ones(1, requires_grad=True)
    for batch in loader:
        (batch["image"].as_tensor() * weight).sum().backward()  # made under no_grad: usable in training
    assert weight.grad is not None


def test_a_pickle_is_small_and_equal(checkpoints: dict[int, Path]) -> None:
    transform = RandDAGANd(["image", "organ"], checkpoints[1], prob=1.0, seed=3, cache_fields=2)
    transform(make_sample())
    content = pickle.dumps(transform)
    assert len(content) < 30_000
    fresh = RandDAGANd(["image", "organ"], checkpoints[1], prob=1.0, seed=3, cache_fields=2)
    assert torch.equal(pickle.loads(content)(make_sample())["image"], fresh(make_sample())["image"])


def test_crops_of_large_volumes_agree_with_the_whole(checkpoints: dict[int, Path]) -> None:
    """Fields come at the generator's resolution; only the warp knows the volume's size."""
    generator = torch.Generator().manual_seed(0)
    for size in ((64, 7, 40), (130, 3, 5), (16, 16, 16)):
        image = torch.rand(1, *size, generator=generator)
        out = RandDAGAN(checkpoints[1], prob=1.0, seed=0)(image)
        assert out.shape == image.shape
        assert torch.isfinite(out).all()
