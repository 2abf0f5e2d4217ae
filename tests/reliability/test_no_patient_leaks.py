"""Fault 33: what names a patient in a source's header appears nowhere in what medgan writes or says."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import yaml
from series import canaries, make_slices, write_slices

PATIENTS = 8
NIFTI_FIELDS = {"descrip": "CANARYDESCRIP Jane Doe", "aux_file": "CANARYAUX 19030101", "intent_name": "CANARYINTENT"}


def every_byte(folder: Path) -> dict[str, bytes]:
    """Everything below a folder by name; what is compressed also as it was before."""
    found = {}
    for path in folder.rglob("*"):
        found[f"{path} (name)"] = str(path.relative_to(folder)).encode()
        if not path.is_file():
            continue
        content = path.read_bytes()
        found[str(path)] = content
        if content.startswith(b"\x1f\x8b"):
            found[f"{path} (inside)"] = gzip.decompress(content)
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found |= {f"{path}:{name}": archive.read(name) for name in archive.namelist()}
    return found


def require_none(words: list[bytes], places: dict[str, bytes]) -> None:
    forms = [form for word in words for form in {word, word.decode().encode("utf-16-le")}]
    leaks = [f"{form!r} in {name}" for name, content in places.items() for form in forms if form in content]
    assert not leaks, leaks[:5]


def test_33_canaries_of_dicom_headers_appear_nowhere(tiny_tree, tmp_path, medgan):
    cohort, words = tmp_path / "cohort", []
    for patient in range(PATIENTS):
        slices = make_slices(patient, count=18)
        words += canaries(slices)
        write_slices(cohort / f"scan{patient}", slices)
    tree = tiny_tree | {
        "data": {"root": str(cohort), "modality": "ct", "validation": 0.3, "test": 0.2},
        "tracking": {"kind": "mlflow", "uri": f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}", "system_seconds": 0},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    out = tmp_path / "out"
    out.mkdir()
    run, said = out / "run", []
    for command in (
        ("check", cohort),
        ("train", tmp_path / "config.yaml", "training.steps=2", "--output", run),
        ("info", run, "--json"),
        ("generate", run, "--data", cohort, "--output", out / "made", "--count", 3),
        ("evaluate", run, "--data", cohort, "--output", out / "evaluation"),
    ):
        ended = medgan("-vv", *command)
        assert ended.code == 0, (command, ended.err)
        said += [ended.out, ended.err]
    places = every_byte(out) | {"what was said": "\n".join(said).encode()}
    assert any(name.endswith("mlflow.db") for name in places)
    require_none(sorted(set(words)), places)


def test_33_canaries_of_nifti_headers_appear_nowhere(checkpoint_folder, tmp_path, medgan):
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    image = nibabel.Nifti1Image(np.random.default_rng(0).integers(0, 900, (18, 19, 20)).astype(np.int16), np.eye(4))
    for name, value in NIFTI_FIELDS.items():
        image.header[name] = value
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"CANARYEXTENSION"))
    nibabel.save(image, cohort / "scan.nii.gz")
    ended = medgan("-vv", "generate", checkpoint_folder, "--data", cohort, "--output", tmp_path / "o", "--count", 2)
    assert ended.code == 0, ended.err
    words = [*(value.encode() for value in NIFTI_FIELDS.values()), b"CANARYEXTENSION"]
    require_none(words, every_byte(tmp_path / "o") | {"said": (ended.out + ended.err).encode()})


def test_33_a_damaged_header_is_refused_without_quoting_it(tmp_path, medgan):
    slices = make_slices()
    folder = write_slices(tmp_path / "scan", slices)
    for number, path in enumerate(sorted(folder.iterdir())):
        content = path.read_bytes()
        path.write_bytes(content[: 300 + 100 * number])
    ended = medgan("-vv", "check", tmp_path)
    assert ended.code == 2
    require_none(canaries(slices), {"said": (ended.out + ended.err).encode()})
