"""Fault 23: the stated budget of memory; ``benchmarks/reliability/memory.py`` measures it at 512³."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest

from medgan.config import PreprocessConfig
from medgan.data.preprocess import Preprocessing

SIDE = 224
COPY = 4 * SIDE**3  # bytes of a float32 copy


@pytest.mark.parametrize("kind", ["robust", "window"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_23_laying_a_volume_on_the_grid_takes_two_float32_copies(dtype: type, kind: str) -> None:
    data = np.zeros((SIDE, SIDE, SIDE, 1), dtype).T  # Fortran order, as a NIfTI file is read
    data += np.arange(SIDE, dtype=dtype)[:, None, None]
    preprocessing = Preprocessing(PreprocessConfig(shape=(32, 32, 32), fit="resize", intensity={"kind": kind}))
    read, write = os.pipe()
    child = os.fork()
    if not child:
        before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        preprocessing.image_to_grid(data, np.eye(4))
        os.write(write, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        grown = int(stream.read())
    os.waitpid(child, 0)
    assert COPY < grown < 2.5 * COPY + 20_000_000
