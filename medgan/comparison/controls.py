"""The control ``random-deformation``: what a generator does to a volume, by chance instead of by learning."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor, ensure_tuple_rep
from torch import Tensor

from medgan.comparison.composition import plain
from medgan.comparison.magnitudes import Magnitudes
from medgan.sampler import Part, Recipe, render_parts


class RandMatchedDeformationd(RandomizableTransform, MapTransform):
    """Deform and shade a sample by random fields of a generator's magnitudes.

    Applied by the generator's own machinery, at the sample's own voxels, without folds. It draws as
    :class:`~medgan.transforms.RandDAGANd` does: seeded alike, both replace the same samples.

    Args:
        keys: what to transform; the image changes in shape and appearance, every other key in shape alone.
        magnitudes: from :func:`~medgan.comparison.magnitudes.measure_magnitudes`.
        prob: probability of a sample being replaced, 0 to 1.
        strength: 0 is the identity, exactly; 1 the generator's magnitudes.
        mode: interpolation of each key; by default ``"label"`` for every key but the image.
        image_key: the image, values in 0..1.

    Raises:
        ValueError: ``prob`` or ``strength`` out of range.
    """

    def __init__(
        self,
        keys: KeysCollection,
        magnitudes: Magnitudes,
        prob: float = 0.5,
        strength: float = 1.0,
        mode: str | tuple[str, ...] | None = None,
        image_key: str = "image",
    ) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob must be in [0, 1], got {prob}")
        if not strength >= 0:
            raise ValueError(f"strength must be ≥ 0, got {strength}")
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.magnitudes = magnitudes
        self.strength = strength
        default = tuple("bilinear" if key == image_key else "label" for key in self.keys)
        self.mode = ensure_tuple_rep(default if mode is None else mode, len(self.keys))
        self.image_key = image_key
        self._seed = 0

    def randomize(self, data: Any = None) -> None:  # noqa: ARG002 - MONAI's signature
        """Draw whether to transform, and the fields' seed, from ``self.R``."""
        # One number a sample, as RandDAGANd takes from its stream; it has 53 bits, enough for both.
        number = float(self.R.rand())
        self._do_transform = number < self.prob
        self._seed = int(number * 2**53)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return the sample with ``keys`` deformed together."""
        d = dict(data)
        self.randomize()
        if not self._do_transform:
            return d
        recipe = self.recipe(convert_to_tensor(d[self.image_key], track_meta=get_track_meta()))
        values = [convert_to_tensor(d[key], track_meta=get_track_meta()) for key in self.keys]
        parts = [
            Part(plain(value), mode, appearance=key == self.image_key)
            for key, mode, value in zip(self.keys, self.mode, values, strict=True)
        ]
        for key, value, made in zip(self.keys, values, render_parts(recipe, parts), strict=True):
            d[key] = convert_to_dst_type(made, value)[0]
        return d

    def recipe(self, img: Tensor) -> Recipe:
        """Return what was drawn last, bound to the voxels of ``img`` ``(C, X, Y, Z)``."""
        return self.magnitudes.recipe(img, self._seed, self.strength)
