"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest

import medgan.transforms


@pytest.mark.parametrize("name", ["RandDAGAN", "RandDAGANd"])
def test_the_example_runs(name: str, checkpoint_folder: Path) -> None:
    transform = getattr(medgan.transforms, name)
    names = {"np": np, "checkpoint": checkpoint_folder, name: transform}
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder(recurse=False).find(transform, name, globs=names):
        runner.run(test)
    assert runner.summarize(verbose=False) == doctest.TestResults(failed=0, attempted=2 + (name == "RandDAGANd"))
