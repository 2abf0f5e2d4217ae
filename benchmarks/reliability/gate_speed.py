"""What the gate costs: python benchmarks/reliability/gate_speed.py

Time of ``read_nifti`` (decompressed to the end, checksum, geometry, finite values) next to nibabel's plain full read of
the same cached file, medians over interleaved repeats. The aim is at most 1.3.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from report import ended, started

from medgan.data.nifti import read_nifti

AIM = 1.3


def plain(path: Path) -> None:
    np.asarray(nibabel.load(path, mmap=False).dataobj)


def ratio(path: Path, repeats: int) -> tuple[float, float, float]:
    """Return the median seconds of both, and the median of their ratios pair by pair."""
    calls: tuple[Callable[[Path], object], ...] = (read_nifti, plain)
    times = np.empty((repeats, 2))
    for row in times:
        for column, call in enumerate(calls):
            start = time.perf_counter()
            call(path)
            row[column] = time.perf_counter() - start
    gate, bare = np.median(times, axis=0)
    return float(gate), float(bare), float(np.median(times[:, 0] / times[:, 1]))


def volumes(folder: Path, side: int) -> list[Path]:
    rng = np.random.default_rng(0)
    smooth = np.indices((side, side, side)).sum(axis=0) * 7 + rng.integers(0, 40, (side, side, side))
    paths = []
    for dtype in (np.int16, np.float32):
        for suffix in (".nii", ".nii.gz"):
            paths.append(folder / f"{np.dtype(dtype).name}{suffix}")
            nibabel.save(nibabel.Nifti1Image(smooth.astype(dtype), np.eye(4)), paths[-1])
    scaled = nibabel.Nifti1Image(smooth.astype(np.int16), np.eye(4))
    scaled.header.set_slope_inter(0.5, -10)
    paths.append(folder / "int16-scaled.nii")
    nibabel.save(scaled, paths[-1])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=192, help="voxels along an axis")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    started(__file__)
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        for path in volumes(Path(name), arguments.side):
            gate, bare, share = ratio(path, arguments.repeats)
            worst = max(worst, share)
            print(f"{path.name:<18} gate {1000 * gate:7.1f} ms   plain {1000 * bare:7.1f} ms   ratio {share:.2f}")
    ended(worst <= AIM, f"worst ratio {worst:.2f}, aim {AIM}")


if __name__ == "__main__":
    main()
