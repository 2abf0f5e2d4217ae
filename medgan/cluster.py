"""Ray, which runs work on a cluster and which an installation may lack: generation and the study both ask for it."""

from __future__ import annotations

from typing import Any

from medgan.errors import InputFault


def import_ray() -> Any:
    """Return the module ``ray``.

    Raises:
        InputFault: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise InputFault(
            "--engine",
            "RAY_MISSING",
            "Ray is not installed",
            "pip install '.[ray]' in medgan's repository, or use --engine local",
        ) from error
    return ray
