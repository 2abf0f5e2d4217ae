"""Memory of a large volume: python benchmarks/reliability/memory.py --side 512

The budget, in bytes for a volume of V voxels stored with s bytes each: reading takes the volume once (s·V) and
laying it on the network's grid two float32 copies more (8·V); half a float32 copy and 200 MB are room for the rest.
Each figure is the peak of a process of its own (``ru_maxrss``), above what its imports take.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import torch
from report import ended, started

from medgan.config import PreprocessConfig
from medgan.data.nifti import read_nifti
from medgan.data.preprocess import Preprocessing

ROOM = 200_000_000


def peak(work: Callable[[], object]) -> int:
    """Return the bytes that ``work`` takes at most, in a child, above what was there before."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        try:
            work()
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        except BaseException as error:
            print(f"failed: {error!r}", flush=True)
            grown = 2**62
        os.write(write, str(grown).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        value = int(stream.read())
    os.waitpid(child, 0)
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512)
    arguments = parser.parse_args()
    started(__file__)
    torch.set_num_threads(1)
    side = arguments.side
    preprocessing = Preprocessing(PreprocessConfig(shape=(64, 64, 64), fit="resize"))
    kept = True
    with tempfile.TemporaryDirectory() as name:
        for dtype in (np.int16, np.float32):
            path = Path(name) / f"{np.dtype(dtype).name}.nii.gz"
            plane = np.random.default_rng(0).integers(0, 2000, (side, side, 1)).astype(dtype)
            nibabel.save(nibabel.Nifti1Image(np.broadcast_to(plane, (side, side, side)), np.eye(4), dtype=dtype), path)

            def on_grid(path: Path = path) -> object:
                volume = read_nifti(path)
                return preprocessing.image_to_grid(volume.data, volume.affine)

            stored = side**3 * np.dtype(dtype).itemsize
            for what, work, budget in (
                ("read", lambda path=path: read_nifti(path), stored + 2 * side**3 + ROOM),
                ("on the grid", on_grid, stored + 10 * side**3 + ROOM),
            ):
                used = peak(work)
                kept &= used <= budget
                print(f"{path.name:<15} {what:<12} {used / 2**20:8.0f} MiB of {budget / 2**20:8.0f} MiB")
            path.unlink()
    ended(kept, f"volumes of {side}³ within the stated budget" if kept else "a budget was exceeded")


if __name__ == "__main__":
    main()
