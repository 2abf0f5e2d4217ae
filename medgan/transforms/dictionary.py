"""``RandDAGANd``: image and label maps in, a sibling with its label maps under the same deformation out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import InvertibleTransform, MapTransform, RandomizableTransform
from monai.utils import convert_to_tensor, ensure_tuple_rep

from medgan.sampler import Recipe, Sampler, known_affine
from medgan.transforms.array import ClassName, RandDAGAN, require_mode


class RandDAGANd(RandomizableTransform, MapTransform, InvertibleTransform):
    """Dictionary version of :class:`RandDAGAN`.

    Args:
        keys: what to transform. The image changes in shape and appearance; every other key in shape alone, by the
            very same deformation.
        checkpoint: checkpoint folder of ``medgan train`` (or a loaded sampler).
        prob: probability of a sample being replaced, 0 to 1.
        strength: 0 is the identity, exactly; 1 what was learned; a pair draws uniformly between its numbers.
        mode: interpolation of each key, ``"bilinear"`` for images, ``"nearest"`` for label maps; by default nearest
            for every key but the image.
        padding_mode: ``"border"``, ``"zeros"`` or ``"reflection"`` beyond the volume.
        image_key: the image the generator looks at; it need not be one of ``keys``.
        class_key: key of the sample's class, name or index; absent, ``None`` or negative values count as unknown.
        input_range: see :class:`RandDAGAN`.
        allow_missing_keys: whether a sample may lack some of ``keys``.

    Raises:
        KeyError: the sample has no image.
        ValueError: a key's voxels are not those of the image.

    Example:
        >>> RandDAGANd(["image", "label"], "runs/hippocampus", prob=0.5)  # doctest: +SKIP
    """

    backend = RandDAGAN.backend

    def __init__(
        self,
        keys: KeysCollection,
        checkpoint: str | Path | Sampler,
        prob: float = 0.5,
        strength: float | tuple[float, float] = 1.0,
        mode: str | tuple[str, ...] | None = None,
        padding_mode: str = "border",
        image_key: str = "image",
        class_key: str | None = None,
        input_range: tuple[float, float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.transform = RandDAGAN(checkpoint, prob, strength, padding_mode=padding_mode, input_range=input_range)
        self.transform.prob = 1.0
        default = tuple("bilinear" if key == image_key else "nearest" for key in self.keys)
        self.mode = tuple(require_mode(m) for m in ensure_tuple_rep(default if mode is None else mode, len(self.keys)))
        self.image_key = image_key
        self.class_key = class_key

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandDAGANd:
        """Seed this transform and the one it wraps."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: Any = None) -> None:
        """Draw whether to transform, the noise's seed and the strength."""
        super().randomize(None)
        if self._do_transform:
            self.transform.randomize()

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return the sample with ``keys`` replaced."""
        d = dict(data)
        present = dict(self.key_iterator(d, self.mode))
        if not present:
            return d
        self.randomize()
        recipe = None
        if self._do_transform:
            image = self._image(d)
            recipe = self.transform.recipe(image, self.transform.drawn(self._class_of(d)))
        return self._apply(recipe, d, present)

    def replay(
        self, data: Mapping[Hashable, NdarrayOrTensor], parameters: Mapping[str, Any]
    ) -> dict[Hashable, NdarrayOrTensor]:
        """Make a sample's sibling again from its recorded parameters (those of ``applied_operations``)."""
        d = dict(data)
        recipe = self.transform.recipe(self._image(d), self.transform.recorded(parameters))
        return self._apply(recipe, d, dict(self.key_iterator(d, self.mode)))

    def inverse(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Bring every key back to the original's voxels; see :meth:`RandDAGAN.inverse`."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform.inverse(d[key])
        return d

    def _apply(
        self, recipe: Recipe | None, d: dict[Hashable, Any], present: Mapping[Hashable, str]
    ) -> dict[Hashable, NdarrayOrTensor]:
        image_shape = tuple(d[self.image_key].shape[1:]) if recipe is not None else None
        image_affine = known_affine(d[self.image_key]) if recipe is not None else None
        for key, mode in present.items():
            value = convert_to_tensor(d[key], track_meta=get_track_meta())
            if image_shape is not None and tuple(value.shape[1:]) != image_shape:
                raise ValueError(f"{key!r} has shape {tuple(value.shape)}, the image's voxels are {image_shape}")
            affine = known_affine(value)
            if image_affine is not None and affine is not None and not np.allclose(affine, image_affine, atol=1e-3):
                raise ValueError(f"{key!r} lies elsewhere than the image: their affines differ; resample it first")
            d[key] = self.transform.apply(recipe, value, mode, appearance=key == self.image_key)
        return d

    def _image(self, d: Mapping[Hashable, Any]) -> Any:
        if self.image_key not in d:
            raise KeyError(f"the sample has no {self.image_key!r}, which the generator looks at; set image_key")
        return convert_to_tensor(d[self.image_key], track_meta=get_track_meta())

    def _class_of(self, d: Mapping[Hashable, Any]) -> ClassName:
        if self.class_key is None or self.class_key not in d:
            return None
        value = d[self.class_key]
        if value is None or isinstance(value, str):
            return value or None
        number = int(value)
        return number if number >= 0 else None


RandDAGAND = RandDAGANDict = RandDAGANd
