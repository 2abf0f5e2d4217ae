from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import load as load_bundle
from monai.bundle import run, verify_metadata, verify_net_in_out

import medgan
from medgan.checkpoint import RECORD, WEIGHTS, load_checkpoint
from medgan.config import parse_config
from medgan.data.cohort import Case
from medgan.errors import InputFault
from medgan.export import CHECKPOINT, INFERENCE, METADATA, SiblingNetwork, export_bundle

GRID = (16, 16, 16)
TENSOR = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "format": {"type": "string"},
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "dtype": {"type": "string"},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object"},
    },
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
}
# What MONAI's schema of 2024-07-25 asks for; the schema itself is fetched from a network.
TEXTS = (
    "schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors",
    "copyright",
)  # fmt: skip
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        **{name: {"type": "string"} for name in (*TEXTS, "data_type", "image_classes", "label_classes")},
        **{name: {"type": "object"} for name in ("changelog", "required_packages_version", "eval_metrics")},
        "references": {"type": "array", "items": {"type": "string"}},
        "network_data_format": {
            "type": "object",
            "properties": {
                side: {"type": "object", "patternProperties": {"^.+$": TENSOR}} for side in ("inputs", "outputs")
            },
            "required": ["inputs", "outputs"],
        },
    },
    "required": [*TEXTS, "required_packages_version", "network_data_format"],
}


@pytest.fixture(scope="module")
def bundle(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "balls"
    export_bundle(load_checkpoint(checkpoint_folder), folder)
    return folder


def test_the_metadata_names_versions_as_an_index_has_them(bundle: Path) -> None:
    told = json.loads((bundle / METADATA).read_text())
    assert told["pytorch_version"] == torch.__version__.partition("+")[0]
    assert "+" not in "".join(told["required_packages_version"].values())


def test_monai_verifies_the_metadata(bundle: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    verify_metadata(meta_file=str(bundle / METADATA), filepath=str(schema))
    spoilt = json.loads((bundle / METADATA).read_text())
    del spoilt["network_data_format"]["outputs"]["pred"]["dtype"]
    (tmp_path / "spoilt.json").write_text(json.dumps(spoilt))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(tmp_path / "spoilt.json"), filepath=str(schema))


def test_monai_verifies_what_goes_in_and_out(bundle: Path) -> None:
    files = {"meta_file": str(bundle / METADATA), "config_file": str(bundle / INFERENCE)}
    verify_net_in_out("network_def", device="cpu", bundle_root=str(bundle), **files)
    with pytest.raises(ValueError, match="output channel number"):
        verify_net_in_out(
            "network_def",
            device="cpu",
            bundle_root=str(bundle),
            **files,
            **{"_meta_#network_data_format#outputs#pred#num_channels": 2},
        )


def test_monai_loads_the_network_with_its_weights(
    bundle: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle)
    network = load_bundle(bundle.name, bundle_dir=str(bundle.parent), workflow_type="inference", device="cpu")
    wanted = load_checkpoint(checkpoint_folder).generator.state_dict()
    for name, value in network.generator.state_dict().items():
        assert torch.equal(value, wanted[name])
    with_zeros = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    network.load_state_dict(with_zeros)
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    network.load_state_dict(weights)
    assert torch.equal(network.generator.velocity.weight, wanted["velocity.weight"])


def test_running_the_bundle_writes_a_sibling_of_every_volume(bundle: Path, cohort_folder: Path, tmp_path: Path) -> None:
    sources = sorted((cohort_folder / "images").glob("*.nii.gz"))[:2]
    scans = tmp_path / "scans"
    scans.mkdir()
    for source in sources:
        (scans / source.name).symlink_to(source)

    def siblings(name: str, **settings: Any) -> list[Any]:
        run(
            config_file=str(bundle / INFERENCE),
            meta_file=str(bundle / METADATA),
            bundle_root=str(bundle),
            dataset_dir=str(scans),
            output_dir=str(tmp_path / name),
            logging_file=False,
            **settings,
        )
        return [nibabel.load(path) for path in sorted((tmp_path / name).glob("*.nii.gz"))]

    first, again, other = siblings("first"), siblings("again"), siblings("other", seed=1)
    assert len(first) == len(sources)
    for source, sibling, same, different in zip(sources, first, again, other, strict=True):
        real = nibabel.load(source)
        assert np.allclose(sibling.affine, real.affine)
        assert sibling.shape == real.shape
        found = np.asarray(sibling.dataobj)
        assert np.abs(found - np.asarray(real.dataobj)).mean() > 5
        assert np.array_equal(found, np.asarray(same.dataobj))
        assert not np.array_equal(found, np.asarray(different.dataobj))
    for unchanged, source in zip(siblings("identity", strength=0.0), sources, strict=True):
        assert np.array_equal(np.asarray(unchanged.dataobj), np.asarray(nibabel.load(source).dataobj))


def test_label_maps_are_bent_along(bundle: Path, cohort_folder: Path, tmp_path: Path) -> None:
    """Image and label map have one name in two folders, and neither is written over the other."""
    case = {"image": cohort_folder / "images" / "case01.nii.gz", "label": cohort_folder / "labels" / "case01.nii.gz"}
    run(
        config_file=str(bundle / INFERENCE),
        bundle_root=str(bundle),
        output_dir=str(tmp_path),
        datalist=[{key: str(path) for key, path in case.items()}],
        logging_file=False,
    )
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["case01_sibling.nii.gz", "case01_sibling_label.nii.gz"]
    image, label = (np.asarray(nibabel.load(tmp_path / name).dataobj) for name in names)
    real = np.asarray(nibabel.load(case["label"]).dataobj)
    assert set(np.unique(label)) == {0, 1}
    assert not np.array_equal(label, real)
    # The ball is bright: the label map lies where the image shows it, no longer where it was.
    assert image[label == 1].mean() - image[label == 0].mean() > 300
    assert image[label == 1].mean() > image[real == 1].mean()


def test_the_network_makes_siblings_on_its_grid(bundle: Path) -> None:
    network = SiblingNetwork(bundle / CHECKPOINT)
    volume = torch.rand(2, 1, *GRID, generator=torch.Generator().manual_seed(0))
    z = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    sibling = network(volume, z)
    assert sibling.shape == volume.shape
    assert (sibling - volume).abs().mean() > 0.01
    assert torch.equal(sibling, network(volume, z, torch.tensor([2, 2])))
    assert not torch.equal(sibling, network(volume, z, torch.tensor([0, 1])))
    assert not torch.equal(sibling, network(volume, z.flip(0)))
    assert torch.allclose(network(volume, z, strength=0.0), volume, atol=1e-5)
    with pytest.raises(ValueError, match="16, 16, 16"):
        network(torch.rand(1, 1, 8, 16, 16))


def test_no_patient_is_named(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(b"scan")
    folder = make_checkpoint(tmp_path / "checkpoint", seen=[Case("canary-case", "canary-patient", (scan,))])
    record = json.loads((folder / RECORD).read_text())
    record["config"]["data"]["root"] = "/canary-place/scans"
    (folder / RECORD).write_text(json.dumps(record))
    export_bundle(load_checkpoint(folder), tmp_path / "bundle")
    files = [path for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert len(files) == 7
    for path in files:
        assert b"canary" not in path.read_bytes(), path.name
    copied = tmp_path / "bundle" / CHECKPOINT / WEIGHTS
    assert copied.read_bytes() == (folder / WEIGHTS).read_bytes()
    assert medgan.load(tmp_path / "bundle" / CHECKPOINT).checkpoint.origin.training_cases


def test_the_metadata_tells_modality_and_channels(
    make_checkpoint: Callable[..., Path], tiny_tree: dict[str, Any], tmp_path: Path
) -> None:
    config = parse_config({**tiny_tree, "data": {**tiny_tree["data"], "modality": "ct"}})
    export_bundle(load_checkpoint(make_checkpoint(tmp_path / "ct", config, channels=2)), tmp_path / "bundle")
    told = json.loads((tmp_path / "bundle" / METADATA).read_text())["network_data_format"]["inputs"]["image"]
    assert (told["modality"], told["format"], told["num_channels"]) == ("CT", "hounsfield", 2)
    assert told["spatial_shape"] == list(GRID)


def test_a_folder_that_holds_files_is_left_alone(checkpoint_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputFault, match="OUTPUT_IN_USE"):
        export_bundle(load_checkpoint(checkpoint_folder), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_bundle_is_whole_or_not_there(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> str:
        raise OSError("no room")

    monkeypatch.setattr("medgan.export.readme", fail)
    with pytest.raises(InputFault, match=r"NOT_WRITABLE.*no room"):
        export_bundle(load_checkpoint(checkpoint_folder), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
