"""Throughput and memory of batch generation, side by side in one run: python benchmarks/generate.py

Volumes per second of the whole pipeline against its parts alone – only computing, only compressing and writing – with
as many workers each, and the memory of few and of many volumes. Computing ends with a volume's bytes as they are
compressed. The scans are noisy phantoms and the generator is
untrained: its cost does not depend on its weights. ``--checkpoint`` and ``--cohort`` name real ones. Where either part
keeps all cores busy, the whole cannot reach the slower one; what the cores can do is the two in turn. Memory is read
where Linux says it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
from process_memory import kilobytes

from medgan.checkpoint import Origin, save_checkpoint
from medgan.config import parse_config
from medgan.generate.batch import generate
from medgan.generate.engines import default_workers, run_orders
from medgan.generate.formats.base import Encoded
from medgan.generate.job import Job, Ready, Workshop, claim, open_job
from medgan.generate.pipeline import Pipeline
from medgan.models.generator import Generator
from medgan.threads import torch_threads

SOURCES = 4


def prepare(folder: Path, size: int) -> tuple[Path, Path]:
    """Write an untrained checkpoint and a cohort of noisy balls with label maps."""
    config = parse_config({"preprocess": {"shape": [32, 32, 32], "fit": "resize"}, "tracking": {"kind": "none"}})
    generator = Generator(config.model, 1, 0, config.preprocess.shape)
    save_checkpoint(folder / "generator", generator.state_dict(), config, Origin((), {1: "ball"}, 1, [], ""))
    rng = np.random.default_rng(0)
    distance = (((np.indices((size, size, size)) - size / 2) / size) ** 2).sum(axis=0)
    for number in range(SOURCES):
        mask = distance < 0.1
        image = 200 + 600 * mask + rng.normal(0, 30, mask.shape)
        for kind, data in (("images", image.astype(np.int16)), ("labels", mask.astype(np.uint8))):
            path = folder / "cohort" / kind / f"case{number}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), path)
    return folder / "generator", folder / "cohort"


def opened(job: Job, output: Path) -> Workshop:
    workshop = open_job(Job(**{**job.__dict__, "output": str(output)}))
    claim(workshop)
    return workshop


def only_compute(workshop: Workshop, workers: int) -> float:
    there = [0]
    items = list(workshop.missing(0, len(workshop.plan), there))
    start = time.perf_counter()
    with torch_threads(1):
        for _ in Pipeline(workers).run(items, workshop.make, lambda _: None):
            pass
    return len(items) / (time.perf_counter() - start)


def only_write(workshop: Workshop, workers: int) -> float:
    there = [0]
    with torch_threads(1):
        made = [workshop.make(item) for item in workshop.missing(0, SOURCES, there)]
    items = [renamed(made[i % len(made)], f"{i:06d}") for i in range(len(workshop.plan))]
    start = time.perf_counter()
    for _ in Pipeline(workers).run(items, lambda item: item, workshop.write):
        pass
    return len(items) / (time.perf_counter() - start)


def renamed(ready: Ready, number: str) -> Ready:
    """Return the same bytes under other names."""
    kinds = {
        kind: tuple(replace(piece, path=f"{piece.path}.{number}") for piece in pieces)
        for kind, pieces in ready.encoded.by_kind().items()
    }
    return replace(ready, name=f"{ready.name}.{number}", encoded=Encoded(**kinds))


def whole(workshop: Workshop, workers: int) -> float:
    start = time.perf_counter()
    count = max(run_orders(workshop, 0, len(workshop.plan), workers=workers))
    return count / (time.perf_counter() - start)


def memory_mb(checkpoint: Path, cohort: Path, output: Path, count: int) -> float:
    """Return the peak memory of a process of its own that makes ``count`` volumes."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_peak, args=(queue, checkpoint, cohort, output, count))
    process.start()
    peak = queue.get()
    process.join()
    return float(peak)


def _peak(queue: object, checkpoint: Path, cohort: Path, output: Path, count: int) -> None:
    generate(checkpoint, cohort, output, count=count)
    queue.put(kilobytes("VmHWM") / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96, help="voxels along each axis of a phantom")
    parser.add_argument("--checkpoint", type=Path, help="a trained generator, with --cohort")
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--count", type=int, default=64, help="volumes a repeat")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--format", default="nifti", choices=["nifti", "dicom", "nnunet", "decathlon"])
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--memory", type=int, nargs=2, default=[10, 1000], help="volumes to compare the memory of")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint, cohort = options.checkpoint, options.cohort
        if checkpoint is None or cohort is None:
            checkpoint, cohort = prepare(folder, options.size)
        job = Job(str(checkpoint), cohort, "", options.count, format_name=options.format)
        parts = {"only compute": only_compute, "only compress and write": only_write, "whole": whole}
        rates: dict[str, list[float]] = {part: [] for part in parts}
        for repeat in range(options.repeats):
            for part, run in parts.items():
                rates[part].append(run(opened(job, folder / f"{repeat} {part}"), options.workers))
        for part, values in rates.items():
            print(f"{part:<24} {np.median(values):8.2f} volumes/s")
        # Ratios of one repeat: between repeats the speed of a shared machine drifts by more than they differ.
        compute, write, together = (np.array(rates[part]) for part in parts)
        ratios = {
            "whole / slower part": together / np.minimum(compute, write),
            "whole / both in turn": together * (1 / compute + 1 / write),
        }
        for compared, ratio in ratios.items():
            low, median, high = np.quantile(ratio, [0.25, 0.5, 0.75])
            print(f"{compared:<24} {median:8.0%} ({low:.0%} to {high:.0%})")
        few, many = (memory_mb(checkpoint, cohort, folder / f"memory {n}", n) for n in options.memory)
        print(f"{few:.0f} MB for {options.memory[0]} volumes, {many:.0f} MB for {options.memory[1]}: {many / few:.2f}x")


if __name__ == "__main__":
    main()
