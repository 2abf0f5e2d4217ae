"""Versions with known vulnerabilities cannot be installed beside medgan."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {"torch": (2, 10), "monai": (1, 6, 1), "pydicom": (3, 0, 2), "mlflow": (3, 16, 1), "Jinja2": (3, 1, 6)}


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


@pytest.mark.parametrize("name", FLOORS)
def test_the_floor_is_enforced_and_the_pinned_version_is_above_it(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (requirement,) = [line for line in project["dependencies"] if re.match(rf"{name}\b", line)]
    floor = version(requirement.split(">=")[1])
    pinned = re.search(rf"^{name}==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert FLOORS[name] <= floor <= version(pinned[1])


def test_the_audit_fails_where_it_could_audit_nothing() -> None:
    """Without the advisories pip-audit skips all packages, says "no known vulnerabilities" and ends with 0."""
    recipe = (ROOT / "Makefile").read_text().split("\naudit:")[1].split("\n\n")[0]
    assert re.search(r"pip-audit --strict .*--requirement constraints\.txt", recipe)
