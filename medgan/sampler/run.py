"""The sampler: a checkpoint that predicts recipes and makes siblings of them."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgan.checkpoint import RECORD, Checkpoint, load_checkpoint
from medgan.data.preprocess import Scale
from medgan.errors import InputFault
from medgan.models.fields import Fields, without_folds
from medgan.models.generator import Generator
from medgan.sampler.quality import MAX_ATTEMPTS, Attempt, attempt_at, first_passing, require_gate, sibling_quality
from medgan.sampler.recipe import Parameters, Recipe
from medgan.sampler.render import channel_first, like, render_pair
from medgan.sampler.view import View, fixed_scale, view_volume
from medgan.seeding import torch_generator
from medgan.tracking import is_model_uri, resolve_model_uri

Precision = Literal["float32", "bfloat16"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Sibling:
    """A synthetic volume.

    Attributes:
        volume: shape, dtype and type (NumPy or torch) of the source.
        label: label map under the same deformation, or ``None``.
        parameters: what was drawn.
        jacobian_min: smallest Jacobian determinant of the deformation.
        fold_share: share of folded voxels; 0.
        quality: how usual it is among real volumes, see :func:`~medgan.sampler.quality.sibling_quality`; ``None``
            where the checkpoint has no critic.
    """

    volume: Any
    label: Any
    parameters: Parameters
    jacobian_min: float
    fold_share: float
    quality: float | None = None


class Sampler:
    """Runs one generator.

    Args:
        checkpoint: loaded and verified.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.generator = checkpoint.generator
        self.preprocessing = checkpoint.preprocessing
        self._copies: dict[torch.device, Generator] = {torch.device("cpu"): self.generator}

    def generator_on(self, device: torch.device) -> Generator:
        """Return the network on ``device``: one copy a device, so CPU workers and a CUDA batch do not fight over it."""
        if device not in self._copies:
            self._copies[device] = copy.deepcopy(self.generator).to(device)
        return self._copies[device]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes the generator was trained with."""
        return self.checkpoint.origin.class_names

    def class_index(self, class_name: str | int | None) -> int:
        """Return the index of a class given by name or index; ``None`` is "unknown".

        Raises:
            InputFault: no such class.
        """
        if class_name is None:
            return len(self.class_names)
        if isinstance(class_name, str) and class_name in self.class_names:
            return self.class_names.index(class_name)
        if not isinstance(class_name, str) and 0 <= int(class_name) < len(self.class_names):
            return int(class_name)
        known = ", ".join(self.class_names) or "none"
        raise InputFault(
            self.checkpoint.folder, "UNKNOWN_CLASS", f"no class {class_name!r}", f"the generator knows: {known}"
        )

    def draw(self, seed: int, index: int = 0, strength: float = 1.0, class_name: str | int | None = None) -> Parameters:
        """Bind seed, index, strength and class to this checkpoint."""
        number = self.class_index(class_name)
        name = self.class_names[number] if number < len(self.class_names) else None
        return Parameters(int(seed), int(index), float(strength), name, self.checkpoint.digest)

    def recipe(
        self,
        volume: Tensor,
        parameters: Parameters,
        affine: NDArray[np.float64] | None = None,
        input_range: tuple[float, float] | None = None,
        precision: Precision = "float32",
    ) -> Recipe:
        """Predict the sibling's fields for ``volume``: :meth:`predict` for its :meth:`view`."""
        return self.predict(self.view(volume, affine, input_range), parameters, precision)

    @torch.no_grad()
    def view(
        self,
        volume: Tensor,
        affine: NDArray[np.float64] | None = None,
        input_range: tuple[float, float] | None = None,
    ) -> View:
        """Lay a volume on the network's grid.

        Args:
            volume: ``(C, X, Y, Z)``, on the device to work on.
            affine: voxel to RAS mm; ``None`` for a volume in RAS order at the spacing of training.
            input_range: values of ``volume`` that 0 and 1 of the network's range stand for, where a pipeline has
                rescaled it already, e.g. ``(0, 1)`` after ``ScaleIntensityRange``. ``None``: the checkpoint's own
                rule (a window in HU, or percentiles of the volume).

        Raises:
            InputFault: another number of channels than the generator was trained with.
        """
        channels = self.checkpoint.origin.channels
        if volume.shape[0] != channels:
            reason = f"the volume has {volume.shape[0]} channels, the generator {channels}"
            raise InputFault(self.checkpoint.folder, "CHANNELS", reason, "give volumes like those of training")
        matrix = self.preprocessing.grid_map(tuple(volume.shape[1:]), affine)
        scale = self.scale(volume, input_range)
        return view_volume(volume, matrix, scale, self.preprocessing.config.shape, affine)

    @torch.no_grad()
    def predict(self, view: View, parameters: Parameters, precision: Precision = "float32") -> Recipe:
        """Predict the sibling's fields for a volume seen by :meth:`view`.

        Args:
            view: the source.
            parameters: from :meth:`draw`.
            precision: of the network; all else is float32.
        """
        device = view.unit.device
        z = torch.randn(
            1, self.generator.config.latent, generator=torch_generator(parameters.seed, "noise", parameters.index)
        )
        index = torch.tensor([self.class_index(parameters.class_name)], device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            fields: Fields = self.generator_on(device)(view.unit[None], z.to(device), index)
        fields, displacement = without_folds(fields.scaled(parameters.strength), view.shape)
        return Recipe(fields, displacement, view.matrix, view.scale, view.shape, parameters, view.spacing)

    def attempts(self, view: View, parameters: Parameters, precision: Precision = "float32") -> Iterator[Attempt]:
        """Yield draws of one sibling, each with noise of its own and its score, at most ``MAX_ATTEMPTS``.

        Attempt k is a function of source, parameters and k; the first is the sibling of ``parameters``.

        Args:
            view: the source.
            parameters: from :meth:`draw`.
            precision: see :meth:`predict`.
        """
        critic = self.checkpoint.critic
        for number in range(MAX_ATTEMPTS):
            recipe = self.predict(view, attempt_at(parameters, number), precision)
            yield Attempt(recipe, None if critic is None else sibling_quality(critic, view, recipe))

    def scale(self, volume: Tensor, input_range: tuple[float, float] | None = None) -> Scale:
        """Return the intensity scale of ``(C, X, Y, Z)``; see :meth:`view`."""
        data = volume.to(torch.float32)
        return self.preprocessing.scale(data) if input_range is None else fixed_scale(data, input_range)

    @torch.no_grad()
    def sample(
        self,
        volume: Any,
        label: Any = None,
        *,
        n: int = 1,
        seed: int = 0,
        strength: float = 1.0,
        class_name: str | int | None = None,
        affine: NDArray[np.float64] | None = None,
        input_range: tuple[float, float] | None = None,
        min_quality: float = 0.0,
    ) -> list[Sibling]:
        """Make ``n`` siblings of one volume.

        Args:
            volume: ``(C, X, Y, Z)`` or ``(X, Y, Z)``; NumPy array, tensor or MetaTensor, in real units.
            label: label map on the same voxels, with or without a channel axis, or ``None``.
            n: how many; sibling ``i`` does not depend on ``n``.
            seed: seed of the noise.
            strength: 0 is the identity, exactly; 1 what was learned.
            class_name: the source's class, where the generator has classes.
            affine: voxel to RAS mm; taken from a MetaTensor when not given (see :func:`known_affine`).
            input_range: see :meth:`view`.
            min_quality: see :func:`~medgan.sampler.quality.sibling_quality`; from 0, which takes every sibling, to
                below 1. One that falls short is drawn again with other noise, up to 20 times in all; if none passes
                it is left out, with a warning.

        Raises:
            InputFault: ``NO_CRITIC`` or ``MIN_QUALITY``: the checkpoint cannot judge, or not so.
        """
        if affine is None:
            affine = known_affine(volume)
        tensor = channel_first(volume)
        label_tensor = None if label is None else channel_first(label)
        if label_tensor is not None and label_tensor.shape[1:] != tensor.shape[1:]:
            raise ValueError(
                f"label {tuple(label_tensor.shape)} and volume {tuple(tensor.shape)} differ in their voxels"
            )
        require_gate(self.checkpoint, min_quality)
        view = self.view(tensor, affine, input_range)
        siblings = []
        for index in range(n):
            attempts = self.attempts(view, self.draw(seed, index, strength, class_name))
            attempt, refused = first_passing(attempts, min_quality)
            if attempt is None:
                logger.warning("sibling %d is left out: %d attempts below quality %g", index, refused, min_quality)
                continue
            recipe = attempt.recipe
            image, mask = render_pair(recipe, tensor, label_tensor)
            siblings.append(
                Sibling(
                    like(image, volume),
                    None if mask is None else like(mask, label),
                    recipe.parameters,
                    recipe.jacobian_min,
                    recipe.fold_share,
                    attempt.quality,
                )
            )
        return siblings


def known_affine(volume: Any) -> NDArray[np.float64] | None:
    """Return the affine of a MetaTensor; ``None`` where there is none or it is MONAI's default, the identity."""
    if not hasattr(volume, "affine"):
        return None
    affine = np.asarray(torch.as_tensor(volume.affine).cpu(), dtype=np.float64)
    return None if np.array_equal(affine, np.eye(4)) else affine


def load(folder: str | Path) -> Sampler:
    """Load a checkpoint, verified, ready to sample. A checkpoint unchanged on disk is loaded once a process.

    Args:
        folder: its folder, or a generator in an MLflow registry: ``models:/name@alias`` or ``models:/name/1``
            (see :func:`~medgan.tracking.resolve_model_uri`).

    Raises:
        InputFault: no such checkpoint or registered generator, or one that is damaged.
    """
    folder = resolve_model_uri(folder) if is_model_uri(folder) else Path(folder)
    record = folder / RECORD
    stamp = record.stat().st_mtime_ns if record.is_file() else 0
    return _load(folder.absolute() if stamp else folder, stamp)


@functools.lru_cache(maxsize=8)
def _load(folder: Path, stamp: int) -> Sampler:  # noqa: ARG001 - the stamp makes a rewritten checkpoint a new one
    return Sampler(load_checkpoint(folder))
