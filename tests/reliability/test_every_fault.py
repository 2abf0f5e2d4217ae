"""docs/reliability.md maps every fault to its tests; here the map is held against the tests themselves."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from test_faults_at_the_door import DICOM, NIFTI

ROOT = Path(__file__).parents[2]
FAULTS = 33
PARAMETRISED = {
    "test_a_faulty_volume_is_refused_by_name": {row for row, *_ in NIFTI},
    "test_a_faulty_series_is_refused_by_name": {row for row, *_ in DICOM},
}


def table() -> dict[int, list[str]]:
    """The names in the last column of the table, by row."""
    text = (ROOT / "docs" / "reliability.md").read_text().split("## The faults")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \|.*\|([^|]*)\|$", text, re.MULTILINE)
    return {int(row): re.findall(r"`([^`]+)`", names) for row, names in rows}


def existing_tests() -> set[str]:
    """The names of all test functions."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "tests").rglob("test_*.py")]
    return {
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_fault_has_a_row() -> None:
    assert list(table()) == list(range(1, FAULTS + 1))


@pytest.mark.parametrize("row", range(1, FAULTS + 1))
def test_the_tests_named_for_a_fault_exist(row: int) -> None:
    names, existing = table()[row], existing_tests()
    programs = [name for name in names if name.endswith(".py")]
    patterns = [name for name in names if name not in programs]
    assert patterns
    for pattern in patterns:
        assert any(fnmatch(name, pattern) for name in existing), pattern
        if pattern in PARAMETRISED:
            assert row in PARAMETRISED[pattern]
        numbers = [int(number) for number in re.findall(r"_(\d\d)_", pattern)]
        assert not numbers or row in numbers
    assert all((ROOT / "benchmarks" / "reliability" / name).is_file() for name in programs)
