"""Fault 23: the stated budget of memory; ``benchmarks/reliability/memory.py`` measures it at 512³."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SIDE = 224
COPY = 4 * SIDE**3  # bytes of a float32 copy

# A process of its own, as torch's threads do not survive a fork; and its peak from its own memory map, as the peak that
# getrusage tells includes that of the process it was started from.
MEASURED = """
import sys
from pathlib import Path
import numpy as np
from medgan.config import PreprocessConfig
from medgan.data.preprocess import Preprocessing

side, dtype, kind = int(sys.argv[1]), np.dtype(sys.argv[2]), sys.argv[3]
preprocessing = Preprocessing(PreprocessConfig(shape=(32, 32, 32), fit="resize", intensity={"kind": kind}))
preprocessing.image_to_grid(np.zeros((1, 40, 40, 40), dtype), np.eye(4))  # what libraries take once
data = np.zeros((side, side, side, 1), dtype).T  # Fortran order, as a NIfTI file is read
data += np.arange(side, dtype=dtype)[:, None, None]

def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = kilobytes("VmRSS")
preprocessing.image_to_grid(data, np.eye(4))
print((kilobytes("VmHWM") - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of a process's memory")
@pytest.mark.parametrize("kind", ["robust", "window"])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_23_laying_a_volume_on_the_grid_takes_two_float32_copies(dtype: str, kind: str) -> None:
    command = [sys.executable, "-c", MEASURED, str(SIDE), dtype, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert COPY < int(done.stdout) < 2.5 * COPY + 20_000_000
