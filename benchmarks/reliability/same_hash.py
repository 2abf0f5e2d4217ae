"""Same seed, one hash of the outputs: python benchmarks/reliability/same_hash.py

The line in a MONAI pipeline with 0, 1 and 4 loader workers; ``generate`` in one go and in two; a training in one go and
interrupted (``killed.py`` does that at random moments).
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import torch
from material import small_generator, small_training
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from report import ended, quiet, started

from medgan.generate.batch import generate
from medgan.transforms import RandDAGANd

KEYS = ["image", "label"]


def pipeline_hash(checkpoint: Path, cohort: Path, workers: int) -> str:
    # Without a seed of its own the transform draws from MONAI's stream, which a loader seeds anew in each worker.
    augment = RandDAGANd(KEYS, checkpoint=str(checkpoint), prob=1.0, seed=3)
    pipeline = Compose([LoadImaged(KEYS), EnsureChannelFirstd(KEYS), augment])
    files = [{"image": cohort / f"c{i}.nii.gz", "label": cohort / f"c{i}-label.nii.gz"} for i in range(8)]
    torch.manual_seed(3)
    digest = hashlib.sha256()
    for sample in DataLoader(Dataset(files, pipeline), batch_size=1, num_workers=workers):
        digest.update(sample["image"].numpy().tobytes() + sample["label"].numpy().tobytes())
    return digest.hexdigest()[:16]


def folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.nii.gz")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def main() -> None:
    started(__file__)
    quiet()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        config = small_training(home / "cohort")
        small_generator(config, home / "g")
        hashes = {f"pipeline, {n} workers": pipeline_hash(home / "g", home / "cohort", n) for n in (0, 1, 4)}
        files = {}
        generate(home / "g", home / "cohort", home / "once", count=8, seed=3)
        files["generate, in one go"] = folder_hash(home / "once")
        generate(home / "g", home / "cohort", home / "twice", count=8, seed=3)
        for path in sorted((home / "twice" / "images").iterdir())[5:]:
            path.unlink()
        shutil.rmtree(home / "twice" / "labels")
        (home / "twice" / "labels").mkdir()
        generate(home / "g", home / "cohort", home / "twice", count=8, seed=3)
        files["generate, resumed"] = folder_hash(home / "twice")
    for what, value in (hashes | files).items():
        print(f"{what:<22} {value}")
    same = len(set(hashes.values())) == 1 and len(set(files.values())) == 1
    ended(same, "one hash each" if same else "the hashes differ")


if __name__ == "__main__":
    main()
