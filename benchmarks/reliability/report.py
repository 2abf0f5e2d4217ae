"""How every program here begins and ends: its command first; KEPT or BROKEN, and exit code 0 or 1, last."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch


def started(program: str) -> None:
    """Print what runs, when and on what."""
    command = " ".join([Path(program).name, *sys.argv[1:]])
    print(f"{command} | {datetime.now(UTC):%Y-%m-%d} | python {platform.python_version()} on {platform.machine()}")


def seeded(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, np.random.Generator]:
    """Begin a program whose trials are a function of ``--seed``: return its arguments and its randomness."""
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started(sys.argv[0])
    return arguments, np.random.default_rng(arguments.seed)


def quiet() -> None:
    """Train without progress bars, and on one thread, as what must come out to the bit is."""
    os.environ["MEDGAN_QUIET"] = "1"
    torch.set_num_threads(1)


def ended(kept: bool, summary: str) -> NoReturn:
    """Print the result and leave."""
    print(f"{'KEPT' if kept else 'BROKEN'}: {summary}", flush=True)
    sys.exit(0 if kept else 1)
