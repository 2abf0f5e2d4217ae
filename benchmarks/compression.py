"""Size and speed of gzip and of ISA-L at each level: python benchmarks/compression.py [FILE.nii.gz ...]

Without files: images and label maps of four phantom patients. Speed is of one core (processor time), the best of the
repeats, in bytes before compression; size is the share of these bytes that is left.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from isal import igzip

from medgan.data.phantom import build_phantom_cohort
from medgan.generate.formats.base import LEVEL

COMPRESSORS: dict[str, tuple[Callable[[bytes, int], bytes], tuple[int, ...]]] = {
    "gzip": (gzip.compress, (1, 3, 6, 9)),
    "ISA-L": (igzip.compress, (0, 1, 2, 3)),
}


def seconds(compress: Callable[[bytes, int], bytes], raws: list[bytes], level: int) -> tuple[float, int]:
    """Return the processor time of compressing all, and the bytes that are left."""
    started, left = time.process_time(), 0
    for raw in raws:
        left += len(compress(raw, level))
    return time.process_time() - started, left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--size", type=int, default=128, help="voxels along each axis of the phantoms")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if not arguments.files:
            build_phantom_cohort(Path(name), patients=4, shape=(arguments.size,) * 3)
        files = arguments.files or sorted(Path(name).rglob("*.nii.gz"))
        raws = [gzip.decompress(path.read_bytes()) for path in files]
    total = sum(map(len, raws))
    print(f"{len(raws)} files, {total / 1e6:.1f} MB before compression\n")
    print("| compressor | level | size | MB/s |\n| --- | --- | --- | --- |")
    for what, (compress, levels) in COMPRESSORS.items():
        for level in levels:
            runs = [seconds(compress, raws, level) for _ in range(arguments.repeats)]
            used = " (default)" if (what, level) == ("ISA-L", LEVEL) else ""
            print(f"| {what} | {level}{used} | {runs[0][1] / total:.1%} | {total / min(runs)[0] / 1e6:.0f} |")


if __name__ == "__main__":
    main()
