"""``RandDAGANd``: image and label maps in, a sibling with its label maps under the same deformation out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import convert_to_tensor, ensure_tuple_rep
from torch import Tensor

from medgan.sampler import Recipe, known_affine
from medgan.sampler.run import Precision
from medgan.transforms.array import ClassName, RandDAGAN, require_mode, require_volume
from medgan.transforms.balance import ClassProb, class_value
from medgan.transforms.draws import Draw, SampleRandomizable
from medgan.transforms.explain import explain_figure
from medgan.transforms.handle import Source
from medgan.transforms.rejections import Rejections

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RandDAGANd(SampleRandomizable, MapTransform, InvertibleTransform):
    """Dictionary version of :class:`RandDAGAN`.

    Args:
        keys: what to transform. The image changes in shape and appearance; every other key in shape alone, by the
            very same deformation. Volumes only: points and boxes are refused.
        checkpoint: checkpoint folder of ``medgan train`` (or a loaded sampler); several are mixed by ``weights``.
        prob: probability of a sample being replaced, 0 to 1; or one for each class, by the values of ``class_key``, as
            :func:`~medgan.transforms.balance.balanced_prob` makes it (``None``: that of samples without a class).
        strength: 0 is the identity, exactly; 1 what was learned; a pair draws uniformly between its numbers.
        mode: interpolation of each key, ``"bilinear"`` for images, ``"label"`` or ``"nearest"`` for label maps; by
            default ``"label"`` for every key but the image (see :class:`RandDAGAN`).
        padding_mode: ``"border"``, ``"zeros"`` or ``"reflection"`` beyond the volume.
        image_key: the image the generator looks at; it need not be one of ``keys``.
        class_key: key of the sample's class, name or index; absent, ``None`` or negative values count as unknown.
        input_range: see :class:`RandDAGAN`.
        allow_missing_keys: whether a sample may lack some of ``keys``.
        class_name: class of all samples, where there is no ``class_key``.
        id_key: key of what tells a sample from others, e.g. a case number; by default the image's file.
        seed, weights, cache_fields, precision, min_quality: see :class:`RandDAGAN`.

    Raises:
        KeyError: the sample has no image.
        ValueError: a key is no volume, its voxels are not those of the image, or ``prob`` has nothing for its class.

    Example:
        >>> augment = RandDAGANd(["image", "label"], checkpoint, prob=1.0, seed=0)
        >>> sample = {"image": np.zeros((1, 40, 50, 41), np.int16), "label": np.zeros((1, 40, 50, 41), np.uint8)}
        >>> {key: tuple(value.shape) for key, value in augment(sample).items()}
        {'image': (1, 40, 50, 41), 'label': (1, 40, 50, 41)}
    """

    backend = RandDAGAN.backend

    def __init__(
        self,
        keys: KeysCollection,
        checkpoint: Source | Sequence[Source],
        prob: float | Mapping[Any, float] = 0.5,
        strength: float | tuple[float, float] = 1.0,
        mode: str | tuple[str, ...] | None = None,
        padding_mode: str = "border",
        image_key: str = "image",
        class_key: str | None = None,
        input_range: tuple[float, float] | None = None,
        allow_missing_keys: bool = False,
        *,
        class_name: ClassName = None,
        id_key: str | None = None,
        seed: int | None = None,
        weights: Sequence[float] | None = None,
        cache_fields: int = 0,
        precision: Precision = "float32",
        min_quality: float = 0.0,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self._class_prob = ClassProb(prob, class_key)
        SampleRandomizable.__init__(self, self._class_prob.largest, seed)
        self.transform = RandDAGAN(
            checkpoint,
            1.0,
            strength,
            padding_mode=padding_mode,
            class_name=class_name,
            input_range=input_range,
            seed=seed,
            weights=weights,
            cache_fields=cache_fields,
            precision=precision,
            min_quality=min_quality,
        )
        self.transform.visits = self.visits
        default = tuple("bilinear" if key == image_key else "label" for key in self.keys)
        self.mode = tuple(require_mode(m) for m in ensure_tuple_rep(default if mode is None else mode, len(self.keys)))
        self.image_key = image_key
        self.class_key = class_key
        self.id_key = id_key
        self._drawn: Draw | None = None

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandDAGANd:
        """Seed this transform and the one it wraps."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    @property
    def rejections(self) -> Rejections:
        """What ``min_quality`` has refused so far, in this process and in its loaders' workers."""
        return self.transform.rejections

    def randomize(self, data: Any = None) -> None:
        """Draw for the sample ``data``: whether to transform, the noise's seed, the strength."""
        self._remember(self._draw({} if data is None else data))

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return the sample with ``keys`` replaced."""
        d = dict(data)
        present = dict(self.key_iterator(d, self.mode))
        if not present:
            return d
        volumes = {key: self._volume(d, key) for key in present}
        # What is drawn stays a local: threads may share this transform.
        draw = self._remember(self._draw(d))
        recipe = None if draw is None else self.transform.recipe(self._image(d), draw, self._class_of(d))
        self._do_transform = recipe is not None
        return self._apply(recipe, d, volumes, present)

    def _remember(self, draw: Draw | None) -> Draw | None:
        self._drawn, self._do_transform = draw, draw is not None
        return draw

    def _draw(self, d: Mapping[Hashable, Any]) -> Draw | None:
        image = self._image(d) if self.image_key in d else None
        given = None if self.id_key is None else d.get(self.id_key)
        name = self.transform.name_of(image) if given is None else str(given)
        stream = self.stream(name)
        if stream is None:
            self.transform.separate_worker()
        if (stream or self.R).rand() >= self._class_prob.of(d):
            return None
        return self.transform.choose(stream or self.transform.R, name, image)

    def replay(
        self, data: Mapping[Hashable, NdarrayOrTensor], parameters: Mapping[str, Any]
    ) -> dict[Hashable, NdarrayOrTensor]:
        """Make a sample's sibling again from its recorded parameters (those of ``applied_operations``)."""
        d = dict(data)
        present = dict(self.key_iterator(d, self.mode))
        recipe = self.transform.recorded(self._image(d), parameters)
        return self._apply(recipe, d, {key: self._volume(d, key) for key in present}, present)

    def inverse(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Bring every key back to the original's voxels; see :meth:`RandDAGAN.inverse`."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform.inverse(d[key])
        return d

    def explain(self, data: Mapping[Hashable, NdarrayOrTensor], parameters: Mapping[str, Any] | None = None) -> Figure:
        """Draw what becomes of a sample: original, sibling, deformation, appearance, outlines of the first label map.

        Args:
            data: the sample before the transform.
            parameters: a record of ``applied_operations``; by default something new is drawn.

        Raises:
            ValueError: nothing that was drawn passes ``min_quality``.
        """
        d = dict(data)
        image = self._image(d)
        if parameters is None:
            draw = self.transform.choose(self.transform.R, None, image)
            drawn = self.transform.recipe(image, draw, self._class_of(d))
            if drawn is None:
                raise ValueError(f"no sibling of this sample passes min_quality = {self.transform.min_quality}")
            recipe = drawn
        else:
            recipe = self.transform.recorded(image, parameters)
        label = next((self._volume(d, key) for key in self.key_iterator(d) if key != self.image_key), None)
        return explain_figure(recipe, image, label)

    def _apply(
        self,
        recipe: Recipe | None,
        d: dict[Hashable, Any],
        volumes: Mapping[Hashable, Tensor],
        modes: Mapping[Hashable, str],
    ) -> dict[Hashable, NdarrayOrTensor]:
        if recipe is not None:
            self._require_same_voxels(self._image(d), volumes)
        parts = [(volume, modes[key], key == self.image_key) for key, volume in volumes.items()]
        d.update(zip(volumes, self.transform.apply(recipe, parts), strict=True))
        return d

    def _require_same_voxels(self, image: Tensor, volumes: Mapping[Hashable, Tensor]) -> None:
        shape, image_affine = tuple(image.shape[1:]), known_affine(image)
        for key, value in volumes.items():
            if tuple(value.shape[1:]) != shape:
                raise ValueError(f"{key!r} has shape {tuple(value.shape)}, the image's voxels are {shape}")
            affine = known_affine(value)
            if image_affine is not None and affine is not None and not np.allclose(affine, image_affine, atol=1e-3):
                raise ValueError(f"{key!r} lies elsewhere than the image: their affines differ; resample it first")

    def _volume(self, d: Mapping[Hashable, Any], key: Hashable) -> Tensor:
        return require_volume(convert_to_tensor(d[key], track_meta=get_track_meta()), repr(key))

    def _image(self, d: Mapping[Hashable, Any]) -> Tensor:
        if self.image_key not in d:
            raise KeyError(f"the sample has no {self.image_key!r}, which the generator looks at; set image_key")
        return self._volume(d, self.image_key)

    def _class_of(self, d: Mapping[Hashable, Any]) -> ClassName:
        if self.class_key is None or self.class_key not in d:
            return self.transform.class_name
        return class_value(d[self.class_key])


RandDAGAND = RandDAGANDict = RandDAGANd
