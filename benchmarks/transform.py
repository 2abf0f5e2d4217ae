"""Time of one augmented sample (image + label), side by side in one run: python benchmarks/transform.py

Medians and quartiles over interleaved repeats, as ratios to MONAI's Rand3DElasticd; the floor is one bare
``grid_sample`` of image and label. The generator is untrained (its cost does not depend on its weights).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from monai.transforms import Rand3DElasticd, RandAffined

from medgan.checkpoint import Origin, save_checkpoint
from medgan.config import parse_config
from medgan.models.generator import Generator
from medgan.transforms import RandDAGANd

KEYS = ["image", "label"]
MODE = ("bilinear", "nearest")
Sample = dict[str, torch.Tensor]


def untrained_checkpoint(folder: Path) -> Path:
    config = parse_config({"preprocess": {"shape": [32, 48, 32], "fit": "resize"}, "tracking": {"kind": "none"}})
    generator = Generator(config.model, 1, 0, config.preprocess.shape)
    save_checkpoint(folder, generator.state_dict(), config, Origin((), {}, 1, [], ""))
    return folder


def floor(sample: Sample) -> Sample:
    """Sample image and label once at given positions: no augmentation can warp for less."""
    shape = [1, 1, *sample["image"].shape[1:]]
    grid = F.affine_grid(torch.eye(3, 4)[None] * 0.98, shape, align_corners=False)
    return {
        "image": F.grid_sample(sample["image"][None], grid, align_corners=False)[0],
        "label": F.grid_sample(sample["label"][None], grid, mode="nearest", align_corners=False)[0],
    }


def contenders(checkpoint: Path) -> dict[str, Callable[[Sample], Sample]]:
    elastic = Rand3DElasticd(KEYS, sigma_range=(5, 7), magnitude_range=(50, 150), prob=1.0, mode=MODE)
    affine = RandAffined(KEYS, prob=1.0, rotate_range=(0.3,) * 3, scale_range=(0.2,) * 3, mode=MODE)
    return {
        "Rand3DElasticd": elastic.set_random_state(0),
        "RandAffined": affine.set_random_state(0),
        "RandDAGANd": RandDAGANd(KEYS, checkpoint, prob=1.0).set_random_state(0),
        "floor": floor,
    }


def measure(size: int, repeats: int, checkpoint: Path) -> dict[str, np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    volume = torch.rand(1, size, size, size, generator=generator)
    sample = {"image": volume, "label": (volume > 0.5).float()}
    runs = contenders(checkpoint)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 2):
        for name, run in runs.items():
            started = time.perf_counter()
            run(dict(sample))
            if repeat >= 2:  # the first two warm caches up
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: np.array(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    print("| size | threads | transform | median ms | quartiles ms | ratio to Rand3DElasticd |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = untrained_checkpoint(Path(folder))
        for size in arguments.sizes:
            for threads in arguments.threads:
                torch.set_num_threads(threads)
                times = measure(size, arguments.repeats, checkpoint)
                reference = np.median(times["Rand3DElasticd"])
                for name, values in times.items():
                    low, middle, high = np.percentile(values, [25, 50, 75])
                    quartiles = f"{low:.1f} to {high:.1f}"
                    print(f"| {size}³ | {threads} | {name} | {middle:.1f} | {quartiles} | {middle / reference:.2f} |")


if __name__ == "__main__":
    main()
