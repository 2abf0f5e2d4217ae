"""``RandDAGAN``: one volume in, a sibling of the same class out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.data import MetaTensor, get_track_meta
from monai.transforms import InvertibleTransform, RandomizableTransform
from monai.utils import TraceKeys, TransformBackends, convert_to_dst_type, convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor

from medgan.models.fields import Fields
from medgan.sampler import Parameters, Recipe, Sampler, known_affine, render, render_label
from medgan.transforms.handle import SamplerHandle

ClassName = str | int | None
MAX_SEED = 2**31 - 1


class RandDAGAN(RandomizableTransform, InvertibleTransform):
    """Replace a volume by a sibling that a trained generator makes of it.

    Args:
        checkpoint: checkpoint folder of ``medgan train`` (or a loaded sampler).
        prob: probability of a volume being replaced, 0 to 1.
        strength: 0 is the identity, exactly; 1 what was learned; a pair ``(low, high)`` draws uniformly between them.
        mode: interpolation, ``"bilinear"`` (trilinear) or ``"nearest"``.
        padding_mode: ``"border"``, ``"zeros"`` or ``"reflection"`` beyond the volume.
        class_name: class of the volumes, by name or index; ``None`` for unknown or where the generator has none.
        input_range: values of the volume that stand for 0 and 1 of the generator's range where the pipeline has
            rescaled intensities before, e.g. ``(0, 1)`` after ``ScaleIntensityRange`` of a CT; ``None`` where they are
            in the scan's own units (or, for MRI, in any linear scale of them).

    Raises:
        ValueError: ``prob`` or ``strength`` out of range.
        InputFault: the checkpoint is missing or damaged, or the class unknown to it.

    Volumes are ``(C, X, Y, Z)`` of any size; orientation and spacing are taken from a MetaTensor's affine. A plain
    array, or a MetaTensor whose affine is exactly the identity (MONAI's sign for "not known"), is taken to be in RAS
    order at the spacing of training.

    Seed it as any MONAI transform, by ``set_random_state`` or ``set_determinism``. With MONAI's ``DataLoader`` each
    worker then has a stream of its own; torch's plain ``DataLoader`` does not reseed MONAI's transforms, and unseeded
    workers may draw alike.

    Example:
        >>> sibling = RandDAGAN("runs/hippocampus", prob=1.0)(volume)  # doctest: +SKIP
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's own form

    def __init__(
        self,
        checkpoint: str | Path | Sampler,
        prob: float = 0.5,
        strength: float | tuple[float, float] = 1.0,
        mode: str = "bilinear",
        padding_mode: str = "border",
        class_name: ClassName = None,
        input_range: tuple[float, float] | None = None,
    ) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob must be in [0, 1], got {prob}")
        RandomizableTransform.__init__(self, prob)
        self.handle = SamplerHandle(checkpoint)
        self.strength = _strength_range(strength)
        self.mode = require_mode(mode)
        self.padding_mode = padding_mode
        self.class_name = class_name
        self.input_range = input_range
        self.handle.sampler.class_index(class_name)
        self._seed = 0
        self._strength = 0.0

    @property
    def sampler(self) -> Sampler:
        """The sampler behind the transform."""
        return self.handle.sampler

    def randomize(self, data: Any = None) -> None:
        """Draw whether to transform, the noise's seed and the strength, from ``self.R``."""
        super().randomize(None)
        if not self._do_transform:
            return
        self._seed = int(self.R.randint(MAX_SEED))
        low, high = self.strength
        self._strength = float(self.R.uniform(low, high)) if high > low else low

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        """Return the sibling of ``(C, X, Y, Z)``, in the same dtype, with the same affine."""
        if randomize:
            self.randomize()
        img = convert_to_tensor(img, track_meta=get_track_meta())
        recipe = self.recipe(img, self.drawn(self.class_name)) if self._do_transform else None
        return self.apply(recipe, img, self.mode, appearance=True)

    def drawn(self, class_name: ClassName) -> Parameters:
        """Return what was drawn last, for a volume of ``class_name``."""
        return self.sampler.draw(self._seed, 0, self._strength, class_name)

    def recipe(self, img: Tensor, parameters: Parameters) -> Recipe:
        """Predict the fields for ``img``."""
        return self.sampler.recipe(plain(img), parameters, known_affine(img), self.input_range)

    def replay(self, img: NdarrayOrTensor, parameters: Mapping[str, Any]) -> NdarrayOrTensor:
        """Make a sibling again from its recorded parameters (those of ``applied_operations``)."""
        img = convert_to_tensor(img, track_meta=get_track_meta())
        return self.apply(self.recipe(img, self.recorded(parameters)), img, self.mode, appearance=True)

    def recorded(self, parameters: Mapping[str, Any]) -> Parameters:
        """Read recorded parameters.

        Raises:
            ValueError: they were drawn with another checkpoint.
        """
        found = Parameters(**{name: parameters[name] for name in Parameters.__dataclass_fields__})
        if found.checkpoint != self.sampler.checkpoint.digest:
            raise ValueError(f"parameters of checkpoint {found.checkpoint[:12]}…, not of {self.handle.path}")
        return found

    def apply(self, recipe: Recipe | None, img: Tensor, mode: str, *, appearance: bool) -> Tensor:
        """Apply a recipe to one volume and record it; ``None`` leaves it as it is.

        Args:
            recipe: from :meth:`recipe`.
            img: ``(C, X, Y, Z)`` on the voxels the recipe was made for.
            mode: interpolation.
            appearance: whether the appearance changes too (an image) or only the shape (a label map).
        """
        if recipe is None:
            out, info = img, {}
        else:
            make = render if appearance else render_label
            out = convert_to_dst_type(make(recipe, plain(img), mode, self.padding_mode), img)[0]
            # The fields themselves, on their coarse grid, because an inverse meets the augmented volume only.
            info = {**recipe.parameters.to_json(), "mode": mode, "shape_fields": _shape_fields(recipe)}
        if get_track_meta() and isinstance(out, MetaTensor):
            self.push_transform(out, extra_info=info)
            out.applied_operations[-1][TraceKeys.DO_TRANSFORM] = recipe is not None
        return out

    def inverse(self, data: Tensor) -> Tensor:
        """Bring ``(C, X, Y, Z)`` on the sibling's voxels back to the original's, by φ⁻¹; appearance stays."""
        transform = self.pop_transform(data)
        if not transform[TraceKeys.DO_TRANSFORM]:
            return data
        info = transform[TraceKeys.EXTRA_INFO]
        parameters = self.recorded(info)
        if parameters.strength == 0:
            return data
        recipe = self._recipe_from(info["shape_fields"], parameters, data)
        back = recipe.unwarp(plain(data).to(torch.float32), info["mode"], self.padding_mode)
        restored: Tensor = convert_to_dst_type(back if data.is_floating_point() else back.round(), data)[0]
        return restored

    def _recipe_from(self, recorded: Mapping[str, Any], parameters: Parameters, data: Tensor) -> Recipe:
        velocity = torch.as_tensor(recorded["velocity"], dtype=torch.float32, device=data.device)
        generators = torch.as_tensor(recorded["generators"], dtype=torch.float32, device=data.device)
        nothing = velocity[:, :1] * 0
        fields = Fields(velocity, generators, nothing, nothing)
        preprocessing = self.sampler.preprocessing
        shape = preprocessing.config.shape
        matrix = preprocessing.grid_map(tuple(data.shape[1:]), known_affine(data))
        scale = preprocessing.scale(plain(data).to(torch.float32))
        return Recipe(fields, velocity, matrix, scale, shape, parameters)


def require_mode(mode: str) -> str:
    """Return ``mode`` if it is one of those that exist.

    Raises:
        ValueError: it is not.
    """
    if mode not in ("bilinear", "nearest"):
        raise ValueError(f"mode must be 'bilinear' or 'nearest', got {mode!r}")
    return mode


def plain(img: Tensor) -> Tensor:
    """Return the tensor under a MetaTensor: networks and grid_sample are faster and safer without it."""
    return img.as_tensor() if isinstance(img, MetaTensor) else img


def _strength_range(strength: float | Sequence[float]) -> tuple[float, float]:
    low, high = (strength, strength) if isinstance(strength, int | float) else strength
    if not 0 <= low <= high:
        raise ValueError(f"strength must be ≥ 0, or an ascending pair of such numbers, got {strength}")
    return float(low), float(high)


def _shape_fields(recipe: Recipe) -> dict[str, NDArray[np.float32]]:
    return {
        "velocity": recipe.fields.velocity.cpu().numpy(),
        "generators": recipe.fields.generators.cpu().numpy(),
    }
