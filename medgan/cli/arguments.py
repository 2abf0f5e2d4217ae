"""What several subcommands ask for, and the values that their options allow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from medgan.limits import MAX_STRENGTH

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML configuration, e.g. configs/hippocampus.yaml")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="override keys, e.g. data.root=../scans training.steps=500"),
]
CheckpointFolder = Annotated[
    Path,
    typer.Argument(metavar="CHECKPOINT", help="folder of a trained generator, or models:/NAME@ALIAS of a registry"),
]
Output = Annotated[Path, typer.Option("--output", help="folder to write")]
CohortPath = Annotated[
    Path,
    typer.Option(
        "--data", metavar="COHORT", help="CSV manifest, dataset.json, or folder of NIfTI files or DICOM series"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print machine-readable JSON")]


def _within(words: str, is_allowed: Callable[[float], bool]) -> Callable[[float | None], float | None]:
    """Return a check of an option's value that says in words what is allowed, of NaN too."""

    def check(value: float | None) -> float | None:
        if value is not None and not is_allowed(value):
            raise typer.BadParameter(f"{value:g} is not {words}")
        return value

    return check


BELOW_ONE = _within("from 0 to below 1", lambda value: 0 <= value < 1)
STRENGTH = _within(f"from 0 to {MAX_STRENGTH:g}", lambda value: 0 <= value <= MAX_STRENGTH)
SOME_STRENGTH = _within(f"from 0.01 to {MAX_STRENGTH:g}", lambda value: 0.01 <= value <= MAX_STRENGTH)
ABOVE_ZERO = _within("above 0 and at most 1", lambda value: 0 < value <= 1)
