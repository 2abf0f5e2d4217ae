from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from medgan.comparison.arms import Arm, build_transform
from medgan.comparison.components import build_components, require_plain, resolve
from medgan.errors import InputFault

SHAPE = (12, 12, 12)
KEYS = ["image", "label"]
HOSTILE = [
    "os.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.run",
    "pickle.loads",
    "torch.load",
    "numpy.load",
    "monai.transforms",
    "monai.transforms.",
    ".monai.transforms.RandFlipd",
    "monai.transforms.np.load",
    "monai.transforms.utils.np.load",
    "monai.transforms.utils.rescale_array",
    "monai.transforms.rescale_array",
    "monai.transforms.print_transform_backends",
    "monai.transforms.apply_transform",
    "monai.transforms.Lambda",
    "monai.transforms.Lambdad",
    "monai.transforms.LambdaD",
    "monai.transforms.LambdaDict",
    "monai.transforms.RandLambdad",
    "monai.transforms.utility.dictionary.Lambdad",
    "monai.transforms.__loader__",
    "monai.transforms.__builtins__.eval",
    "monai.transforms.RandFlipd.__init__",
    "monai.transforms.RandFlipd.__mro__",
    "monai.transforms.Compose",
    "monai.transforms.OneOf",
    "monai.transforms.LoadImaged",
    "monai.transforms.SaveImaged",
    "monai.transforms.SaveClassificationd",
    "monai.transforms.WriteFileMappingd",
    "monai.transforms.RandTorchVisiond",
    "monai.transforms.RandTorchIOd",
    "monai.transforms.RandCuCIMd",
    "monai.transforms.Invertd",
    "monai.transforms.RandFlip",
    "monai.transforms.Randomizable",
    "monai.bundle.ConfigParser",
    "monai.networks.nets.UNet",
    "monai.utils.optional_import",
    "torchio.os.system",
    "torchio.Lambda",
    "torchio.transforms.Lambda",
    "torchio.MonaiAdapter",
    "torchio.OneOf",
    "torchio.Compose",
    "torchio.HistogramStandardization",
    "torchio.Resample",
    "torchio.datasets.IXI",
    "torchio.download",
    "torchio.Subject",
    "torchio.torch.load",
    "medgan.transforms.RandDAGANd",
    "medgan.transforms.array.np.load",
    "medgan.cli.main",
    "monai.transforms.RandFlipd; import os",
    "monai.transforms.RandFlipd\nos.system",
    "",
    None,
    7,
    ["monai.transforms.RandFlipd"],
]


def sample() -> dict[str, Any]:
    image = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(3))
    label = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    label[:, 2:8, 3:9, 4:10] = 1
    return {"image": image, "label": label, "class": None}


def arm_of(*specifications: dict[str, Any]) -> Any:
    arm = Arm("own", ("none",), transforms=specifications)
    transform = build_transform(arm, task="segmentation", modality="mri", shape=SHAPE)
    transform.set_random_state(0)
    return transform


def fault_of(specification: Any, keys: Any = KEYS) -> InputFault:
    with pytest.raises(InputFault) as caught:
        build_components([specification], keys)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_monai_transform_by_its_dotted_path() -> None:
    flip = arm_of({"_target_": "monai.transforms.Flipd", "keys": KEYS, "spatial_axis": 1})
    out = flip(sample())
    assert torch.equal(out["image"].as_tensor(), sample()["image"].flip(2))
    assert torch.equal(out["label"].as_tensor(), sample()["label"].flip(2))


def test_random_transforms_draw_from_the_arms_seed() -> None:
    specification = {"_target_": "monai.transforms.RandBiasFieldd", "keys": ["image"], "prob": 1.0}
    transform = arm_of(specification)
    first = torch.as_tensor(transform(sample())["image"])
    transform.set_random_state(0)
    assert torch.equal(torch.as_tensor(transform(sample())["image"]), first)
    transform.set_random_state(1)
    assert not torch.equal(torch.as_tensor(transform(sample())["image"]), first)


@pytest.mark.parametrize("target", HOSTILE, ids=lambda t: repr(t)[:60])
def test_a_hostile_target_is_refused(target: Any) -> None:
    if str(target).startswith("torchio"):
        pytest.importorskip("torchio")
    fault = fault_of({"_target_": target, "keys": KEYS, "func": "lambda x: x"})
    assert fault.code in ("COMPONENT_TARGET", "COMPONENT_REFUSED")
    assert fault.exit_code == 2


def test_no_hostile_target_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is given what would leave a trace, and none makes Python import a module of its name."""
    trace = tmp_path / "trace"
    (tmp_path / "trace_module.py").write_text(f"open({str(trace)!r}, 'w')\ndef f(**_): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    called: list[Any] = []
    for module, name in (
        (os, "system"),
        (subprocess, "run"),
        (subprocess, "Popen"),
        (pickle, "loads"),
        (torch, "load"),
    ):
        monkeypatch.setattr(module, name, lambda *args, **kwargs: called.append((args, kwargs)))
    for target in [*HOSTILE, "antigravity.x", "trace_module.f", "monai.transforms.trace_module"]:
        for word in ("func", "command", "name", "filename", "reader", "landmarks"):
            with pytest.raises(InputFault):
                build_components([{"_target_": target, word: f"touch {trace}"}], KEYS)
    assert not called
    assert not trace.exists()
    assert not {"antigravity", "trace_module"} & set(sys.modules)


@pytest.mark.parametrize(
    "value",
    [
        "$__import__('os').system('true')",
        "  $1 + 1",
        "@network",
        "%other.yaml",
        {"_target_": "monai.transforms.RandFlipd"},
        [{"a": {"_target_": "os.system"}}],
        {"_mode_": "callable"},
        {1: 2},
        float("nan"),
        float("inf"),
        1j,
        b"x",
        print,
        torch.zeros(1),
        [[[[[[[[[[1]]]]]]]]]],
    ],
    ids=lambda v: repr(v)[:40],
)
def test_a_value_that_is_not_plain_data_is_refused(value: Any) -> None:
    fault = fault_of({"_target_": "monai.transforms.RandFlipd", "keys": KEYS, "prob": value})
    assert fault.code == "COMPONENT_VALUE"
    assert fault.path == "monai.transforms.RandFlipd"


def test_plain_data_is_plain() -> None:
    require_plain({"a": [1, 2.5, "x", True, None, {"b": [[1]]}], "keys": ("image",)}, "here")


@pytest.mark.parametrize(
    ("specification", "code", "words"),
    [
        (
            {"_target_": "monai.transforms.RandBiasFeildd"},
            "COMPONENT_TARGET",
            "did you mean monai.transforms.RandBiasF",
        ),
        (
            {"_target_": "monai.transforms.RandFlip"},
            "COMPONENT_REFUSED",
            "use the dictionary version, monai.transforms",
        ),
        ({"_target_": "monai.transforms.RandFlipd", "prob": 1}, "COMPONENT_ARGUMENTS", "keys must be of image, label"),
        ({"_target_": "monai.transforms.RandFlipd", "keys": ["seg"]}, "COMPONENT_ARGUMENTS", "got ['seg']"),
        ({"_target_": "monai.transforms.RandFlipd", "keys": KEYS, "p": 1}, "COMPONENT_ARGUMENTS", "'p'"),
        (
            {"_target_": "medgan.transforms.RandDAGANd", "keys": KEYS},
            "COMPONENT_REFUSED",
            "leaks, use the part gan instead",
        ),
        ({"keys": KEYS}, "COMPONENT_TARGET", "_target_"),
        ("monai.transforms.RandFlipd", "COMPONENT_TARGET", "mapping"),
    ],
)
def test_a_fault_says_what_to_do(specification: Any, code: str, words: str) -> None:
    fault = fault_of(specification)
    assert fault.code == code
    assert words in str(fault)


def test_a_transform_that_changes_the_grid_is_found_out() -> None:
    crop = {"_target_": "monai.transforms.CenterSpatialCropd", "keys": KEYS, "roi_size": [8, 8, 8]}
    with pytest.raises(InputFault, match=r"COMPONENT_OUTPUT: .*\(1, 12, 12, 12\) to \(1, 8, 8, 8\)"):
        arm_of(crop)(sample())
    several = {
        "_target_": "monai.transforms.RandSpatialCropSamplesd",
        "keys": KEYS,
        "roi_size": SHAPE,
        "num_samples": 2,
    }
    with pytest.raises(InputFault, match="COMPONENT_OUTPUT"):
        arm_of(several)(sample())
    with pytest.raises(InputFault, match=r"COMPONENT_OUTPUT: .*label .* None"):
        arm_of({"_target_": "monai.transforms.DeleteItemsd", "keys": ["label"]})(sample())


def test_a_label_map_interpolated_linearly_is_found_out() -> None:
    rotate = {"_target_": "monai.transforms.Rotated", "keys": KEYS, "angle": [0.3, 0, 0], "mode": "bilinear"}
    source = sample()
    source["label"] = source["label"].float()
    with pytest.raises(InputFault, match="whole numbers"):
        arm_of(rotate)(source)


def test_a_transform_that_fails_is_one_line() -> None:
    broken = {"_target_": "monai.transforms.RandFlipd", "keys": KEYS, "prob": 1.0, "spatial_axis": 9}
    with pytest.raises(InputFault, match="COMPONENT_FAILED") as caught:
        arm_of(broken)(sample())
    assert "\n" not in str(caught.value)


def test_a_torchio_transform_moves_image_and_label_together() -> None:
    pytest.importorskip("torchio")
    source = sample()
    source["image"] = source["label"].float()
    transform = arm_of({"_target_": "torchio.RandomFlip", "axes": [0, 1, 2], "flip_probability": 0.5})
    made = [transform(source) for _ in range(8)]
    assert all(torch.equal(m["image"], m["label"].float()) for m in made)
    assert all(m["label"].dtype == torch.uint8 for m in made)
    assert len({m["image"].numpy().tobytes() for m in made}) > 2


def test_torchio_is_seeded_and_leaves_the_global_stream_alone() -> None:
    pytest.importorskip("torchio")
    transform = arm_of(
        {"_target_": "torchio.transforms.RandomAffine", "scales": [0.9, 1.1], "degrees": 10},
        {"_target_": "torchio.RandomBiasField", "coefficients": 0.5},
    )
    torch.manual_seed(5)
    expected = torch.rand(2)
    made = []
    for stray in (5, 6):
        torch.manual_seed(stray)
        transform.set_random_state(1)
        made.append(torch.stack([transform(sample())["image"] for _ in range(3)]))
        if stray == 5:
            assert torch.equal(torch.rand(2), expected)
    assert torch.equal(*made)
    assert not torch.equal(made[0][0], made[0][1])
    assert not torch.equal(made[0][0], sample()["image"])


def test_without_torchio_the_fault_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchio", None)
    fault = fault_of({"_target_": "torchio.RandomFlip"})
    assert fault.code == "COMPONENT_MISSING"
    assert "pip install torchio" in str(fault)


def test_aliases_of_a_class_are_that_class() -> None:
    from monai.transforms import RandFlipd

    assert resolve("monai.transforms.RandFlipDict") is RandFlipd
