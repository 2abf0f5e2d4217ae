"""The first and the last line that every program here prints, and its exit code: 0 where the promise was kept."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn


def started(program: str) -> None:
    """Print what runs, when and on what."""
    command = " ".join([Path(program).name, *sys.argv[1:]])
    print(f"{command} | {datetime.now(UTC):%Y-%m-%d} | python {platform.python_version()} on {platform.machine()}")


def ended(kept: bool, summary: str) -> NoReturn:
    """Print the result and leave."""
    print(f"{'KEPT' if kept else 'BROKEN'}: {summary}", flush=True)
    sys.exit(0 if kept else 1)
