"""Time and memory of one augmented sample (image + label), side by side in one run: python benchmarks/transform.py

Medians and quartiles over interleaved repeats, as ratios to MONAI's Rand3DElasticd and to the floor, one bare
``grid_sample`` of image and label. ``--clock cpu`` counts processor time, which other work on the machine disturbs
less. TorchIO and batchgeneratorsv2 are measured where they are installed. The generator is untrained (its cost does
not depend on its weights). ``--epoch COHORT`` times training epochs of a small U-Net instead. Memory is the most that
a call adds to the process (Linux).
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import CacheDataset, DataLoader
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Rand3DElasticd,
    RandAffined,
    ResizeWithPadOrCropd,
    ScaleIntensityRangePercentilesd,
)
from process_memory import kilobytes

from medgan.checkpoint import Origin, load_checkpoint, save_checkpoint
from medgan.config import parse_config
from medgan.data.cohort import read_cohort
from medgan.models.generator import Generator
from medgan.transforms import RandDAGANd

KEYS = ["image", "label"]
MODE = ("bilinear", "nearest")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Sample = dict[str, torch.Tensor]
Run = Callable[[Sample], Any]


def untrained_checkpoint(folder: Path) -> Path:
    config = parse_config({"preprocess": {"shape": [32, 48, 32], "fit": "resize"}, "tracking": {"kind": "none"}})
    generator = Generator(config.model, 1, 0, config.preprocess.shape)
    save_checkpoint(folder, generator.state_dict(), config, Origin((), {}, 1, [], ""))
    return folder


def bare_warp(sample: Sample, grid: torch.Tensor) -> Sample:
    return {
        "image": F.grid_sample(sample["image"][None], grid, align_corners=False)[0],
        "label": F.grid_sample(sample["label"][None], grid, mode="nearest", align_corners=False)[0],
    }


def elastic() -> Rand3DElasticd:
    return Rand3DElasticd(KEYS, sigma_range=(5, 7), magnitude_range=(50, 150), prob=1.0, mode=MODE).set_random_state(0)


def torchio_elastic() -> Run:
    import torchio

    transform = torchio.RandomElasticDeformation()

    def run(sample: Sample) -> Any:
        image, label = torchio.ScalarImage(tensor=sample["image"]), torchio.LabelMap(tensor=sample["label"])
        return transform(torchio.Subject(image=image, label=label))

    return run


def batchgenerators_spatial(size: int) -> Run:
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    transform = SpatialTransform(
        (size,) * 3, 0, random_crop=False, p_elastic_deform=1, p_rotation=1, p_scaling=1, mode_seg="nearest"
    )
    return lambda sample: transform(image=sample["image"], segmentation=sample["label"].to(torch.int16))


def contenders(checkpoint: Path, size: int) -> dict[str, Run]:
    affine = RandAffined(KEYS, prob=1.0, rotate_range=(0.3,) * 3, scale_range=(0.2,) * 3, mode=MODE)
    grid = F.affine_grid(torch.eye(3, 4)[None] * 0.98, [1, 1, size, size, size], align_corners=False)
    runs: dict[str, Run] = {
        "Rand3DElasticd": elastic(),
        "RandAffined": affine.set_random_state(0),
        "RandDAGANd": RandDAGANd(KEYS, checkpoint, prob=1.0).set_random_state(0),
        "RandDAGANd, bfloat16": RandDAGANd(KEYS, checkpoint, prob=1.0, precision="bfloat16").set_random_state(0),
        "RandDAGANd, cache_fields=4": RandDAGANd(KEYS, checkpoint, prob=1.0, cache_fields=4).set_random_state(0),
    }
    if importlib.util.find_spec("torchio"):
        runs["TorchIO RandomElasticDeformation"] = torchio_elastic()
    if importlib.util.find_spec("batchgeneratorsv2"):
        runs["batchgeneratorsv2 SpatialTransform"] = batchgenerators_spatial(size)
    runs["floor"] = lambda sample: bare_warp(sample, grid)
    return runs


def balls(size: int) -> torch.Tensor:
    """Return a label map as there are: eight structures of two labels each; 7 % of the voxels are beside an outline."""
    axis = torch.linspace(-2, 2, size).abs() - 1
    distance = axis[:, None, None].square() + axis[None, :, None].square() + axis[None, None, :].square()
    return ((distance < 0.18).float() + (distance < 0.08).float())[None]


def measure(
    size: int, repeats: int, checkpoint: Path, clock: Callable[[], float], *, noise: bool
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return milliseconds of every repeat, and the MB that a call adds at most."""
    generator = torch.Generator().manual_seed(0)
    volume = torch.rand(1, size, size, size, generator=generator)
    sample = {"image": volume, "label": (volume > 0.5).float() if noise else balls(size)}
    runs = contenders(checkpoint, size)
    for _ in range(20):  # so that all of its fields are prepared
        runs["RandDAGANd, cache_fields=4"](dict(sample))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            started = clock()
            run(dict(sample))
            if repeat:  # the first warms caches up
                times[name].append(1000 * (clock() - started))
    memory = {name: added_memory(lambda run=run: run(dict(sample))) for name, run in runs.items()}
    return {name: np.array(values) for name, values in times.items()}, memory


def added_memory(run: Callable[[], Any]) -> float:
    """Return by how many MB the process grows at most while ``run`` runs; NaN where Linux does not say."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return float("nan")
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would else be taken again unseen
    reset.write_text("5")
    before = kilobytes("VmRSS")
    run()
    return (kilobytes("VmHWM") - before) / 1024


def table(arguments: argparse.Namespace, checkpoint: Path) -> None:
    print(
        "| size | threads | transform | median ms | quartiles ms | of Rand3DElasticd | of the floor | ns a voxel | MB |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for size in arguments.sizes:
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            times, memory = measure(size, arguments.repeats, checkpoint, CLOCKS[arguments.clock], noise=arguments.noise)
            reference, least = np.median(times["Rand3DElasticd"]), np.median(times["floor"])
            for name, values in times.items():
                low, middle, high = np.percentile(values, [25, 50, 75])
                ratios = f"{middle / reference:.2f} | {middle / least:.2f} | {1e6 * middle / size**3:.1f}"
                spread = f"{low:.1f} to {high:.1f}"
                print(f"| {size}³ | {threads} | {name} | {middle:.1f} | {spread} | {ratios} | {memory[name]:.0f} |")
    started = time.perf_counter()
    load_checkpoint(checkpoint)
    print(f"\nloading a checkpoint: {time.perf_counter() - started:.3f} s")


def epochs(arguments: argparse.Namespace, checkpoint: Path) -> None:
    """Time epochs of a hippocampus-sized U-Net with each augmentation at p = 0.5."""
    cases = [{"image": c.images[0], "label": c.label} for c in read_cohort(arguments.epoch).cases if c.label][:32]
    fixed = [LoadImaged(KEYS), EnsureChannelFirstd(KEYS), ResizeWithPadOrCropd(KEYS, (32, 48, 32))]
    fixed.append(ScaleIntensityRangePercentilesd("image", 0.5, 99.5, 0, 1, clip=True))
    augmentations = {"none": [], "Rand3DElasticd": [elastic()], "RandDAGANd": [RandDAGANd(KEYS, checkpoint)]}
    augmentations["Rand3DElasticd"][0].prob = 0.5
    loaders = {
        name: DataLoader(CacheDataset(cases, Compose([*fixed, *more]), progress=False), batch_size=4, shuffle=True)
        for name, more in augmentations.items()
    }
    torch.set_num_threads(max(arguments.threads))
    network = UNet(3, 1, out_channels=3, channels=(16, 32, 64), strides=(2, 2), num_res_units=1)
    loss_function = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for repeat in range(arguments.repeats + 1):
        for name, loader in loaders.items():
            started = CLOCKS[arguments.clock]()
            for batch in loader:
                optimizer.zero_grad()
                loss_function(network(batch["image"].as_tensor()), batch["label"].as_tensor()).backward()
                optimizer.step()
            if repeat:
                seconds[name].append(CLOCKS[arguments.clock]() - started)
    print("| augmentation | median s an epoch | of Rand3DElasticd |\n| --- | --- | --- |")
    for name, values in seconds.items():
        print(f"| {name} | {np.median(values):.2f} | {np.median(values) / np.median(seconds['Rand3DElasticd']):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--noise", action="store_true", help="an outline at every voxel: the worst label map")
    parser.add_argument("--epoch", metavar="COHORT", help="time training epochs on this cohort instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = untrained_checkpoint(Path(folder))
        epochs(arguments, checkpoint) if arguments.epoch else table(arguments, checkpoint)


if __name__ == "__main__":
    main()
