"""Damaged ``.nii.gz``, made from real files: python benchmarks/reliability/damaged_nifti.py

Truncated files, flipped and swapped bytes, headers that lie about size, type, place or scale of the voxels, and bombs.
Each must be refused with its cause, or – where the damage lies in gzip's own time stamp or name – read voxel by voxel
and millimetre by millimetre as before. Anything else is a volume that is wrong in silence.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from material import real_volumes
from report import ended, seeded

from medgan.data.nifti import read_nifti
from medgan.data.volume import Volume
from medgan.errors import InputFault

Damage = Callable[[bytes, np.random.Generator], bytes]


def truncated(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content)))]


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for position in rng.integers(len(content), size=rng.integers(1, 9)):
        damaged[position] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def overwritten(content: bytes, rng: np.random.Generator) -> bytes:
    start, length = int(rng.integers(len(content))), int(rng.integers(1, 4097))
    return content[:start] + rng.bytes(len(content[start : start + length])) + content[start + length :]


def swapped(content: bytes, rng: np.random.Generator) -> bytes:
    """Two blocks in each other's place, as a disk or a resumed download may leave them."""
    size = int(rng.integers(1, max(2, len(content) // 4)))
    a = int(rng.integers(len(content) - 2 * size + 1))
    return content[:a] + content[a + size : a + 2 * size] + content[a : a + size] + content[a + 2 * size :]


def lying(content: bytes, rng: np.random.Generator) -> bytes:
    """A whole gzip file whose header says of the voxels what cannot be."""
    raw = bytearray(gzip.decompress(content))
    order = "<" if raw[:4] == (348).to_bytes(4, "little") else ">"
    dims = np.frombuffer(bytes(raw[40:56]), order + "i2").copy()
    kind = rng.integers(6)
    if kind == 0:  # other sizes: more voxels, fewer, none, a negative number, terabytes
        dims[1 + rng.integers(3)] = rng.choice([0, -1, -32768, 32767, dims[1] + 1 + rng.integers(99), 3])
        if np.prod(dims[1:4].astype(int)) == np.prod(np.frombuffer(bytes(raw[40:56]), order + "i2")[1:4].astype(int)):
            dims[1] += 1
        raw[40:56] = dims.tobytes()
    elif kind == 1:  # another type, of another size
        raw[70:72] = np.array([rng.choice([0, 1, 32, 128, 77, 1536, 2048])], order + "i2").tobytes()
    elif kind == 2:  # another place
        raw[108:112] = np.array([rng.choice([0, 100, 351, 360, 368, 1e6, 1e30, np.nan, -352])], order + "f4").tobytes()
    elif kind == 3:  # a scale that is none
        raw[112:116] = np.array([rng.choice([np.inf, -np.inf])], order + "f4").tobytes()
    elif kind == 4:  # an affine that is none
        raw[252:256] = np.array([0, 1], order + "i2").tobytes()
        raw[280:328] = np.full(12, rng.choice([np.nan, np.inf, 0, 1]), order + "f4").tobytes()
    else:
        raw[344:348] = rng.bytes(4)
        raw[0:4] = rng.bytes(4)
    return gzip.compress(bytes(raw), 1)


def bomb(content: bytes, rng: np.random.Generator) -> bytes:
    return gzip.compress(gzip.decompress(content) + bytes(int(rng.integers(1, 30_000_000))), 1)


KINDS: tuple[tuple[str, Damage, int], ...] = (
    ("truncated", truncated, 5),
    ("flipped", flipped, 5),
    ("overwritten", overwritten, 3),
    ("swapped", swapped, 2),
    ("lying header", lying, 4),
    ("bomb", bomb, 1),
)


def verdict(path: Path, truth: Volume) -> str:
    """Return the code of the refusal, ``as before``, or – what must not be – ``WRONG`` or ``TRACEBACK``."""
    try:
        found = read_nifti(path)
    except InputFault as fault:
        line = str(fault)
        return fault.code if line.startswith(f"{path}: {fault.code}: ") and "\n" not in line else "UNNAMED"
    except Exception as error:
        return f"TRACEBACK {type(error).__name__}"
    same = found.data.dtype == truth.data.dtype and np.array_equal(found.data, truth.data)
    return "as before" if same and np.array_equal(found.affine, truth.affine) else "WRONG"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000, help="damaged files to try")
    parser.add_argument("--sources", type=int, default=40, help="real files they are made from")
    arguments, rng = seeded(parser)
    tally: dict[str, Counter[str]] = {name: Counter() for name, _, _ in KINDS}
    weights = np.array([share for _, _, share in KINDS], float)
    with tempfile.TemporaryDirectory() as name:
        sources = [(p.read_bytes(), read_nifti(p)) for p in real_volumes(arguments.sources, Path(name))]
        path = Path(name) / "damaged.nii.gz"
        for _ in range(arguments.files):
            content, truth = sources[rng.integers(len(sources))]
            kind, damage, _ = KINDS[rng.choice(len(KINDS), p=weights / weights.sum())]
            damaged = damage(content, rng)
            if damaged == content:
                continue
            path.write_bytes(damaged)
            tally[kind][verdict(path, truth)] += 1
    for kind, found in tally.items():
        print(f"{kind:<13}", ", ".join(f"{code} {count}" for code, count in found.most_common()))
    total = sum(tally.values(), Counter())
    bad = sum(count for code, count in total.items() if code.startswith(("WRONG", "TRACEBACK", "UNNAMED")))
    unharmed = total["as before"]
    summary = f"{total.total()} tried, {total['WRONG']} loaded silently wrong, {bad} without a named cause, "
    ended(bad == 0, summary + f"{unharmed} read as before (damage in gzip's own header)")


if __name__ == "__main__":
    main()
