from __future__ import annotations

import os
from pathlib import Path

import pytest

REALDATA = Path(os.environ.get("MEDGAN_REALDATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real volumes; tests that need it are skipped, by name, without it."""
    if not REALDATA.is_dir():
        pytest.skip("real CT and MRI volumes absent (set MEDGAN_REALDATA to their folder)")
    return REALDATA
