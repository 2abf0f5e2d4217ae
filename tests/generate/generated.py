"""Reading what was generated."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of an output's manifest."""
    with (folder / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def sidecars(folder: Path) -> dict[str, dict[str, Any]]:
    """The sidecars of an output, by the names of their volumes."""
    return {
        path.stem: json.loads(path.read_text())
        for part in ("images", "imagesTr")
        for path in (folder / part).glob("*.json")
    }


def files(folder: Path) -> dict[str, bytes]:
    """Every file of an output by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
