from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medgan.data.cohort import read_cohort


@pytest.fixture(scope="session")
def seen_checkpoint(
    make_checkpoint: Callable[..., Path], cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint that has seen the first six cases of the cohort."""
    return make_checkpoint(tmp_path_factory.mktemp("seen"), seen=read_cohort(cohort_folder).cases[:6])
