"""The generator as an MLflow model: registered without identifiers, served without pickle.

What is stored is a checkpoint folder and the name of this module; whoever loads the model (``mlflow models serve``,
``mlflow.pyfunc.load_model``) needs medgan installed and runs no code from the store.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgan.checkpoint import Checkpoint, save_without_identifiers
from medgan.limits import MAX_STRENGTH
from medgan.sampler import Sampler, load
from medgan.tracking import PackedModel, Tracker

# What must be installed, in the versions that made the generator.
REQUIRED = ("medgan", "torch", "monai", "numpy", "safetensors")
STATEMENT = (
    "A sibling is a deformed and relit scan of one patient: treat it as that patient's data. It is not anonymous, and "
    "not for diagnosis."
)
PARAMS: Mapping[str, int | float | str] = {"seed": 0, "strength": 1.0, "class_name": ""}


class ServedGenerator:
    """What MLflow calls: volumes in, one sibling of each out."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def predict(self, volumes: NDArray[np.float32], params: Mapping[str, Any] | None = None) -> NDArray[np.float32]:
        """Return a sibling of each volume, ``(B, C, X, Y, Z)`` float32 like ``volumes``.

        Args:
            volumes: in real units (HU, or the scanner's), axes in R, A, S order at the spacing of training.
            params: ``seed`` of the noise, the same for each volume; ``strength``, 0 for the identity to 4; and
                ``class_name``, empty for "unknown".

        Raises:
            ValueError: not five axes, or a strength out of range.
            InputFault: another number of channels than the generator was trained with, or an unknown class.
        """
        volumes = np.asarray(volumes, dtype=np.float32)
        if volumes.ndim != 5:
            raise ValueError(f"volumes have the shape (B, C, X, Y, Z), got {volumes.shape}")
        drawn = {**PARAMS, **(params or {})}
        seed, strength, name = int(drawn["seed"]), float(drawn["strength"]), drawn["class_name"] or None
        if not 0 <= strength <= MAX_STRENGTH:
            raise ValueError(f"strength must be in [0, {MAX_STRENGTH:g}], got {strength}")
        siblings = [
            self.sampler.sample(volume, seed=seed, strength=strength, class_name=name)[0].volume for volume in volumes
        ]
        return np.stack(siblings) if siblings else volumes


def _load_pyfunc(path: str) -> ServedGenerator:
    """MLflow's hook: read the model from its checkpoint folder."""
    return ServedGenerator(load(path))


def register_generator(
    tracker: Tracker, checkpoint: Checkpoint, name: str, *, run_id: str = "", alias: str | None = None
) -> str | None:
    """Register a generator as a version of the model ``name``; it can be loaded as ``models:/name@alias`` afterwards.

    The store gets a copy of the checkpoint without case ids, patient ids and paths
    (:func:`~medgan.checkpoint.save_without_identifiers`). One that is registered already is found again by the digest
    of its original.

    Args:
        tracker: the store.
        checkpoint: the generator.
        name: of the registered model; ``/`` and ``:`` become ``_``.
        run_id: the run it comes from.
        alias: e.g. ``champion``; taken from the version that bore it.

    Returns:
        The version's number, or ``None`` where nothing is recorded.

    Raises:
        InputFault: the store refuses it.
    """
    origin = checkpoint.origin
    with tempfile.TemporaryDirectory(prefix="medgan-generator-") as scratch:
        folder = Path(scratch) / "checkpoint"
        save_without_identifiers(checkpoint, folder)
        model = PackedModel(
            name,
            folder,
            __name__,
            origin.channels,
            PARAMS,
            checkpoint.digest,
            _requirements(checkpoint),
            describe(checkpoint),
            {
                "medgan.kind": "generator",
                "medgan.config": checkpoint.config.name,
                "medgan.steps": str(origin.steps),
                "medgan.training_cases": str(len(origin.training_cases)),
                "medgan.training_patients": str(origin.training_patients),
            },
        )
        return tracker.register(model, run_id=run_id, alias=alias)


def _requirements(checkpoint: Checkpoint) -> list[str]:
    """Return pip requirements; a build's local label (``+cpu``) is on no index."""
    versions: Mapping[str, str] = checkpoint.record["versions"]
    return [
        f"{name}=={versions[name].partition('+')[0]}" for name in REQUIRED if versions.get(name, "not")[0].isdigit()
    ]


def describe(checkpoint: Checkpoint) -> str:
    """Return what whoever receives a generator must know of it, as Markdown; no patient is named."""
    origin, config = checkpoint.origin, checkpoint.config
    channels = f"{origin.channels} channel" + ("s" if origin.channels > 1 else "")
    grid = " x ".join(map(str, config.preprocess.shape))
    spacing = config.preprocess.spacing
    lines = [
        f"Generator of siblings of 3-D {config.data.modality.upper()} volumes ({channels}), trained for {origin.steps} "
        f"steps on {len(origin.training_cases)} cases of {origin.training_patients} patients.",
        "",
        f"* Classes: {', '.join(origin.class_names) or 'none'}; structures: "
        f"{', '.join(origin.label_names.values()) or 'none'}",
        f"* Grid: {grid} voxels" + (f" of {' x '.join(f'{n:g}' for n in spacing)} mm" if spacing else ""),
        f"* SHA-256 of the checkpoint: `{checkpoint.digest}`",
        "",
        STATEMENT,
    ]
    return "\n".join(lines)
