"""What the programs here work on: real volumes where there are any, and a small cohort made in place."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np

from medgan.checkpoint import Origin, save_checkpoint
from medgan.config import Config, parse_config
from medgan.models.generator import Generator

REALDATA = Path(os.environ.get("MEDGAN_REALDATA", Path(__file__).parents[3] / "shared" / "data"))


def real_volumes(limit: int, folder: Path) -> list[Path]:
    """Return real ``.nii.gz`` files, or made ones in ``folder`` where there are none."""
    found = sorted(REALDATA.rglob("*.nii.gz")) if REALDATA.is_dir() else []
    found = [path for path in found if path.stat().st_size < 2_000_000]
    if found:
        return found[:: max(1, len(found) // limit)][:limit]
    print("no real volumes (MEDGAN_REALDATA): made ones instead")
    return [write_volume(folder / f"made{i:02d}.nii.gz", i)[0] for i in range(min(limit, 8))]


def write_volume(path: Path, seed: int, side: int = 20) -> tuple[Path, Path]:
    """Write a noisy ball and its label map beside it."""
    rng = np.random.default_rng(seed)
    grid = np.indices((side, side, side)) - (side - 1) / 2 - rng.uniform(-1.5, 1.5, (3, 1, 1, 1))
    mask = (grid**2).sum(axis=0) <= (side / 5 + (seed % 2) * 2) ** 2
    label = path.with_name(path.name.replace(".nii", "-label.nii"))
    affine = np.diag([2.0, 2, 2, 1])
    image = (200 + 600 * mask + rng.normal(0, 30, mask.shape)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(image, affine), path)
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), affine), label)
    return path, label


def small_training(folder: Path, steps: int = 6) -> Config:
    """Write a cohort of eight and return the configuration of a training of seconds on it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["case_id,patient_id,image,label,size,split"]
    for i in range(8):
        image, label = write_volume(folder / f"c{i}.nii.gz", i)
        split = "train" if i < 6 else "val"
        rows.append(f"c{i},p{i},{image.name},{label.name},{'large' if i % 2 else 'small'},{split}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return parse_config(
        {
            "name": "small",
            "data": {"root": str(folder), "class_key": "size", "labels": {1: "ball"}},
            "preprocess": {"shape": [16, 16, 16], "spacing": [2, 2, 2]},
            "model": {"width": 4, "latent": 4, "basis": 2},
            "training": {
                "steps": steps, "batch": 2, "validate_every": 3, "picture_every": 1000, "state_every": 1,
                "log_every": 2, "penalty_every": 2,
            },
            "tracking": {"kind": "none"},
        }
    )  # fmt: skip


def small_generator(config: Config, folder: Path) -> Path:
    """Write an untrained generator for the cohort of :func:`small_training` to ``folder``; return the folder."""
    generator = Generator(config.model, 1, 0, config.preprocess.shape)
    save_checkpoint(folder, generator.state_dict(), config, Origin((), {1: "ball"}, 1, [], "0"))
    return folder
