"""``RandDAGAN``: one volume in, a sibling of the same class out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.data import MetaTensor, get_track_meta
from monai.transforms import InvertibleTransform
from monai.utils import TraceKeys, TransformBackends, convert_to_dst_type, convert_to_tensor
from torch import Tensor

from medgan.sampler import Parameters, Part, Recipe, Sampler, first_passing, known_affine, render_parts, require_gate
from medgan.sampler.render import to_floating
from medgan.sampler.run import Precision
from medgan.sampler.warp import to_dtype
from medgan.seeding import derive_seed
from medgan.transforms.draws import Draw, SampleRandomizable, content_name, file_name, seeded_stream
from medgan.transforms.handle import Mixture, PreparedRecipes, Source
from medgan.transforms.record import rescaled, to_parameters, to_recipe, to_record
from medgan.transforms.rejections import RejectionCount, Rejections

ClassName = str | int | None
MAX_SEED = 2**31 - 1


class RandDAGAN(SampleRandomizable, InvertibleTransform):
    """Replace a volume by a sibling that a trained generator makes of it.

    Args:
        checkpoint: checkpoint folder of ``medgan train`` (or a loaded sampler); several are mixed by ``weights``.
        prob: probability of a volume being replaced, 0 to 1.
        strength: 0 is the identity, exactly; 1 what was learned; a pair ``(low, high)`` draws uniformly between them.
        mode: interpolation, ``"bilinear"`` (trilinear), ``"nearest"``, or for label maps and binary shapes ``"label"``:
            each label's share is interpolated and the largest wins, which keeps outlines smooth.
        padding_mode: ``"border"``, ``"zeros"`` or ``"reflection"`` beyond the volume.
        class_name: class of the volumes, by name or index; ``None`` for unknown or where the generator has none.
        input_range: values of the volume that stand for 0 and 1 of the generator's range where the pipeline has
            rescaled intensities before, e.g. ``(0, 1)`` after ``ScaleIntensityRange`` of a CT; ``None`` where they are
            in the scan's own units (or, for MRI, in any linear scale of them).
        seed: fixes every draw by (seed, epoch, sample), whatever loader and number of workers; see below.
        weights: of several checkpoints, positive; by default alike.
        cache_fields: with ``k`` > 0 a sample draws from ``k`` prepared siblings' fields, predicted once a process.
            Faster and less diverse; meant for pipelines whose transforms before this one are not random.
        precision: ``"float32"``, or ``"bfloat16"`` for the network (not for the warp) where the chip has it; sampling
            positions then differ by some hundredths of a voxel.
        min_quality: from 0, which takes every sibling, to below 1. One that scores less – see
            :func:`~medgan.sampler.quality.sibling_quality`; 5 % of real volumes have 0.05 or less – is drawn again with
            other noise, up to 20 times in all; if none passes, the volume stays as it is. See :attr:`rejections`.

    Raises:
        ValueError: an argument out of range.
        InputFault: the checkpoint is missing or damaged, the class unknown to it, or it has no critic for
            ``min_quality``.

    Volumes are ``(C, X, Y, Z)`` of any size; orientation and spacing are taken from a MetaTensor's affine. A plain
    array, or a MetaTensor whose affine is exactly the identity (MONAI's sign for "not known"), is taken to be in RAS
    order at the spacing of training. The result has shape, dtype, affine and intensity scale of the source.

    Randomness: what a volume that was loaded from a file becomes is a function of (seed, epoch, file), the same in
    whichever of a loader's workers. Epochs are told apart by counting a file's visits, or by :meth:`set_epoch`. The
    seed is ``seed``; without it that of ``set_random_state`` or ``set_determinism``, and in workers of MONAI's
    ``DataLoader``, which seeds them itself, that of torch. A volume without a file name is drawn for in the order of
    MONAI's own transforms, unless ``seed`` is given: then its voxels are its name.

    Example:
        >>> augment = RandDAGAN(checkpoint, prob=1.0, seed=0)
        >>> augment(np.zeros((1, 40, 50, 41), np.int16)).dtype
        torch.int16
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's own form

    def __init__(
        self,
        checkpoint: Source | Sequence[Source],
        prob: float = 0.5,
        strength: float | tuple[float, float] = 1.0,
        mode: str = "bilinear",
        padding_mode: str = "border",
        class_name: ClassName = None,
        input_range: tuple[float, float] | None = None,
        *,
        seed: int | None = None,
        weights: Sequence[float] | None = None,
        cache_fields: int = 0,
        precision: Precision = "float32",
        min_quality: float = 0.0,
    ) -> None:
        SampleRandomizable.__init__(self, prob, seed)
        self.mixture = Mixture(checkpoint, weights)
        self.strength = _strength_range(strength)
        self.mode = require_mode(mode)
        if padding_mode not in ("border", "zeros", "reflection"):
            raise ValueError(f"padding_mode must be 'border', 'zeros' or 'reflection', got {padding_mode!r}")
        self.padding_mode = padding_mode
        self.class_name = class_name
        self.input_range = input_range
        if cache_fields < 0:
            raise ValueError(f"cache_fields must be ≥ 0, got {cache_fields}")
        self.cache_fields = cache_fields
        self.prepared = PreparedRecipes()
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32' or 'bfloat16', got {precision!r}")
        self.precision = precision
        if not 0 <= min_quality < 1:
            raise ValueError(f"min_quality must be in [0, 1), got {min_quality}")
        self.min_quality = min_quality
        self._rejections = RejectionCount()
        for handle in self.mixture.handles:
            handle.sampler.class_index(class_name)
            require_gate(handle.sampler.checkpoint, min_quality)
        self._drawn: Draw | None = None

    @property
    def sampler(self) -> Sampler:
        """The sampler behind the transform, the first of several."""
        return self.mixture.handles[0].sampler

    @property
    def rejections(self) -> Rejections:
        """What ``min_quality`` has refused so far, in this process and in its loaders' workers."""
        return self._rejections.total()

    def randomize(self, data: Any = None) -> None:
        """Draw for ``data``: whether to transform, the noise's seed, the strength."""
        self._remember(self._draw(data))

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        """Return the sibling of ``(C, X, Y, Z)``, in the same dtype, with the same affine."""
        img = require_volume(convert_to_tensor(img, track_meta=get_track_meta()))
        # What is drawn stays a local: threads may share this transform.
        draw = self._remember(self._draw(img)) if randomize else self._drawn
        recipe = None if draw is None else self.recipe(img, draw, self.class_name)
        self._do_transform = recipe is not None
        return self.apply(recipe, [(img, self.mode, True)])[0]

    def _remember(self, draw: Draw | None) -> Draw | None:
        self._drawn, self._do_transform = draw, draw is not None
        return draw

    def _draw(self, data: Any) -> Draw | None:
        name = self.name_of(data)
        stream = self.stream(name) or self.R
        return self.choose(stream, name, data) if stream.rand() < self.prob else None

    def name_of(self, volume: Any) -> str | None:
        """Return what tells a sample from others: its file, or with a ``seed`` its voxels."""
        name = file_name(volume)
        return content_name(volume) if name is None and self.seed is not None and volume is not None else name

    def choose(self, stream: np.random.RandomState, name: str | None, volume: Any) -> Draw:
        """Draw seed, strength and generator for a sample that is to be replaced."""
        if self.cache_fields == 0 or volume is None:
            seed = int(stream.randint(MAX_SEED)) if name is None else int(stream.randint(2**63 - 1, dtype=np.int64))
            return self._draw_of(seed, stream)
        number = int(stream.randint(self.cache_fields))
        seed = derive_seed(self._key, "prepared", content_name(volume) if name is None else name, number)
        return self._draw_of(seed, seeded_stream(derive_seed(seed, "rest")), prepared=True)

    def _draw_of(self, seed: int, stream: np.random.RandomState, *, prepared: bool = False) -> Draw:
        low, high = self.strength
        strength = float(stream.uniform(low, high)) if high > low else low
        member = self.mixture.member(float(stream.rand())) if len(self.mixture) > 1 else 0
        return Draw(seed, strength, member, prepared)

    def recipe(self, img: Tensor, draw: Draw, class_name: ClassName) -> Recipe | None:
        """Predict the fields for ``img``, or find them prepared; ``None`` where none of the attempts passes."""
        sampler = self.mixture.handles[draw.member].sampler
        parameters = sampler.draw(draw.seed, 0, draw.strength, class_name)
        if not draw.prepared:
            return self._passing(sampler, img, parameters)
        affine = known_affine(img)
        place = (parameters, tuple(img.shape), img.device, None if affine is None else affine.tobytes())
        kept = self.prepared.get(place, lambda: self._passing(sampler, img, parameters))
        return None if kept is None else rescaled(kept, sampler, plain(img), self.input_range)

    def _passing(self, sampler: Sampler, img: Tensor, parameters: Parameters) -> Recipe | None:
        """Return the first attempt that passes the gate: a function of volume and parameters, whoever asks."""
        if self.min_quality == 0:
            return self._predict(sampler, img, parameters, self.precision)
        view = sampler.view(plain(img), known_affine(img), self.input_range)
        attempt, refused = first_passing(sampler.attempts(view, parameters, self.precision), self.min_quality)
        self._rejections.add(refused, passed=attempt is not None)
        return None if attempt is None else attempt.recipe

    def _predict(self, sampler: Sampler, img: Tensor, parameters: Parameters, precision: Precision) -> Recipe:
        return sampler.recipe(plain(img), parameters, known_affine(img), self.input_range, precision)

    def replay(self, img: NdarrayOrTensor, parameters: Mapping[str, Any]) -> NdarrayOrTensor:
        """Make a sibling again from its recorded parameters (those of ``applied_operations``)."""
        img = require_volume(convert_to_tensor(img, track_meta=get_track_meta()))
        return self.apply(self.recorded(img, parameters), [(img, self.mode, True)])[0]

    def recorded(self, img: Tensor, record: Mapping[str, Any]) -> Recipe:
        """Predict the recorded fields again for their source.

        Raises:
            ValueError: they were drawn with another checkpoint.
        """
        parameters = to_parameters(record)
        precision: Precision = "bfloat16" if record.get("precision") == "bfloat16" else "float32"
        return self._predict(self.mixture.by_digest(parameters.checkpoint), img, parameters, precision)

    def apply(self, recipe: Recipe | None, volumes: Sequence[tuple[Tensor, str, bool]]) -> list[Tensor]:
        """Apply a recipe to volumes on the same voxels and record it; ``None`` leaves them as they are.

        Args:
            recipe: from :meth:`recipe`.
            volumes: ``(C, X, Y, Z)`` each, its interpolation, and whether its appearance changes too (an image) or
                only its shape (a label map).
        """
        made = [plain(img) for img, _, _ in volumes]
        if recipe is not None:
            device = recipe.displacement.device
            parts = [Part(plain(img).to(device), mode, appearance) for img, mode, appearance in volumes]
            made = render_parts(recipe, parts, self.padding_mode)
        # A tensor of its own also where the sample is left as it is: the source's record is not ours to write on.
        made = [convert_to_dst_type(out, img)[0] for out, (img, _, _) in zip(made, volumes, strict=True)]
        nothing = Parameters(0, 0, 0.0, None, self.mixture.handles[0].digest)
        parameters = nothing if recipe is None else recipe.parameters
        shape = self.sampler.preprocessing.config.shape if recipe is None else recipe.shape
        for out, (_, mode, _) in zip(made, volumes, strict=True):
            if get_track_meta() and isinstance(out, MetaTensor):
                info = to_record(parameters, recipe, mode, self.precision, shape)
                self.push_transform(out, extra_info=info)
                if out.applied_operations and TraceKeys.DO_TRANSFORM in out.applied_operations[-1]:
                    out.applied_operations[-1][TraceKeys.DO_TRANSFORM] = recipe is not None
        return made

    def inverse(self, data: Tensor) -> Tensor:
        """Bring ``(C, X, Y, Z)`` on the sibling's voxels back to the original's, by φ⁻¹; appearance stays."""
        transform = self.pop_transform(data)
        record = transform[TraceKeys.EXTRA_INFO]
        parameters = to_parameters(record)
        if not transform[TraceKeys.DO_TRANSFORM] or parameters.strength == 0:
            return data
        recipe = to_recipe(record, self.mixture.by_digest(parameters.checkpoint), data)
        with torch.no_grad():
            back = recipe.unwarp(to_floating(plain(data)), record["mode"], self.padding_mode)
        restored: Tensor = convert_to_dst_type(to_dtype(back, data.dtype), data)[0]
        return restored

    def _transforms_match(self, transform: Mapping[str, Any]) -> bool:
        """MONAI's hook: also accept what a worker's copy of this transform, with another ``id``, has recorded."""
        if super()._transforms_match(transform):
            return True
        record = transform.get(TraceKeys.EXTRA_INFO, {})
        digests = {handle.digest for handle in self.mixture.handles}
        return transform.get(TraceKeys.CLASS_NAME) == type(self).__name__ and record.get("checkpoint") in digests


def require_mode(mode: str) -> str:
    """Return ``mode`` if it is one of those that exist.

    Raises:
        ValueError: it is not.
    """
    if mode not in ("bilinear", "nearest", "label"):
        raise ValueError(f"mode must be 'bilinear', 'nearest' or 'label', got {mode!r}")
    return mode


def require_volume(value: Any, name: str = "the volume") -> Tensor:
    """Return ``value`` if it is a volume ``(C, X, Y, Z)``.

    Raises:
        ValueError: it is something else, such as points or boxes.
    """
    shape = tuple(getattr(value, "shape", ()))
    meta = getattr(value, "meta", None)
    if not isinstance(value, Tensor) or len(shape) != 4 or (isinstance(meta, dict) and meta.get("kind") == "point"):
        found = f"has shape {shape}" if isinstance(value, Tensor) else f"is a {type(value).__name__}"
        reason = "only volumes (C, X, Y, Z) can be warped, not points, boxes or batches"
        raise ValueError(f"{name} {found}: {reason}; leave it out of keys")
    return value


def plain(img: Tensor) -> Tensor:
    """Return the tensor under a MetaTensor: networks and grid_sample are faster and safer without it."""
    return img.as_tensor() if isinstance(img, MetaTensor) else img


def _strength_range(strength: float | Sequence[float]) -> tuple[float, float]:
    low, high = (strength, strength) if isinstance(strength, int | float) else strength
    if not 0 <= low <= high:
        raise ValueError(f"strength must be ≥ 0, or an ascending pair of such numbers, got {strength}")
    return float(low), float(high)
