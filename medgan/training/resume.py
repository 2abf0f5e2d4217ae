"""Whether a training may start, or go on, in its output folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medgan.checkpoint import RECORD
from medgan.errors import InputFault
from medgan.training.state import has_state, recorded_run


def require_free(output: Path, fresh: bool) -> None:
    """Refuse a folder that holds a finished checkpoint, unless the training is to start over.

    Raises:
        InputFault: ``FINISHED_RUN``.
    """
    if not fresh and (output / RECORD).exists() and not has_state(output):
        raise InputFault(
            output,
            "FINISHED_RUN",
            "the folder holds a finished checkpoint",
            "name another --output, or start over with --fresh",
        )


def require_same_run(output: Path, mine: Mapping[str, Any]) -> None:
    """Refuse to go on with an unfinished run of another configuration or other data.

    Args:
        output: with a training state.
        mine: configuration, split and data of this run.

    Raises:
        InputFault: ``OTHER_DATA``, ``OTHER_RUN``.
    """
    found = recorded_run(output)
    # The budget may be extended; anything else would make it another run.
    theirs, ours = (_without_budget(run["config"]) for run in (found, mine))
    if theirs == ours and (found["split"], found["data"]) != (mine["split"], mine["data"]):
        raise InputFault(
            output, "OTHER_DATA", "the folder holds an unfinished run on other training cases",
            "restore them, use another --output, or --fresh to start over",
        )  # fmt: skip
    if theirs != ours:
        key = _first_difference(theirs, ours)
        raise InputFault(
            output, "OTHER_RUN", f"the folder holds an unfinished run with another {key}",
            "use the same configuration, another --output, or --fresh to start over",
        )  # fmt: skip


def _without_budget(config: dict[str, Any]) -> dict[str, Any]:
    """Return what makes a run that run: all but the budget, the study and the tracker."""
    kept = {k: v for k, v in config.items() if k not in ("compare", "tracking")}
    kept["training"] = {k: v for k, v in config["training"].items() if k not in ("steps", "max_minutes", "patience")}
    return kept


def _first_difference(theirs: dict[str, Any], ours: dict[str, Any], prefix: str = "") -> str:
    for key, value in ours.items():
        if isinstance(value, dict) and isinstance(theirs.get(key), dict):
            inner = _first_difference(theirs[key], value, f"{prefix}{key}.")
            if inner:
                return inner
        elif theirs.get(key) != value:
            return prefix + key
    return ""
