"""An arm's transforms as one: streams that do not depend on each other, and a check of what comes out."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, MapTransform, Randomizable, RandomizableTransform
from torch import Tensor

from medgan.errors import InputFault
from medgan.seeding import derive_seed

MAX_SEED = 2**31 - 1


class ArmTransform(Compose):
    """MONAI's ``Compose``, seeded by role: a transform's stream is a function of (seed, role, place in that role).

    With plain ``Compose`` a transform put first would shift the streams of all others, and two arms with the same
    classical part would differ in its draws.

    Args:
        named: role and transform, in order.
        check: whether what comes out must have the form of what went in (for transforms a user names).
    """

    def __init__(self, named: Sequence[tuple[str, Any]], *, check: bool = False) -> None:
        places: Counter[str] = Counter()
        self.streams: list[tuple[str, int]] = []
        for role, transform in named:
            self.streams.append((role, places[role]))
            places[role] += isinstance(transform, Randomizable)
        self.check = check
        super().__init__([transform for _, transform in named])

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> ArmTransform:
        """Seed every transform from ``seed`` and its role."""
        Randomizable.set_random_state(self, seed, state)
        root = int(self.R.randint(MAX_SEED)) if seed is None else int(seed)
        for stream, transform in zip(self.streams, self.transforms, strict=True):
            if isinstance(transform, Randomizable):
                transform.set_random_state(derive_seed(root, *stream) % 2**32)
        return self

    def __call__(self, input_: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the transformed sample.

        Raises:
            InputFault: a transform that a user named fails, or changes the sample's form.
        """
        if not self.check:
            return super().__call__(input_, *args, **kwargs)
        try:
            out = super().__call__(input_, *args, **kwargs)
        except Exception as error:
            cause = error.__cause__ or error
            reason = f"applying the arm's transforms failed ({type(cause).__name__}: {cause})"
            raise InputFault("transforms", "COMPONENT_FAILED", reason, "check their keywords") from error
        _require_form(input_, out)
        return out


class TorchIOd(RandomizableTransform, MapTransform):
    """A TorchIO transform in a MONAI pipeline: the image as ``ScalarImage``, label maps as ``LabelMap``.

    TorchIO draws from torch's global stream; here it draws from a copy of it, seeded from ``self.R``. Samples count as
    having voxels of 1 mm, so lengths in mm are lengths in voxels.

    Args:
        keys: the image first, then label maps.
        transform: a ``torchio.Transform``.
    """

    def __init__(self, keys: Sequence[str], transform: Any) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, 1.0)
        self.transform = transform
        self._seed = 0

    def randomize(self, data: Any = None) -> None:  # noqa: ARG002 - MONAI's signature
        """Draw the seed of the transform's stream."""
        super().randomize(None)
        self._seed = int(self.R.randint(MAX_SEED))

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Return the sample with ``keys`` transformed together, in the types they came in."""
        torchio: Any = importlib.import_module("torchio")
        self.randomize()
        sample = dict(data)
        image, *labels = self.keys
        images: dict[str, Any] = {str(image): torchio.ScalarImage(tensor=plain(sample[image]).float())}
        images |= {str(key): torchio.LabelMap(tensor=plain(sample[key])) for key in labels}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            out = self.transform(torchio.Subject(images))
        for key in self.keys:
            sample[key] = out[str(key)].data.to(sample[key].dtype)
        return sample


def plain(value: Any) -> Tensor:
    """Return a tensor without MONAI's metadata: networks are faster without it."""
    tensor: Tensor = value.as_tensor() if hasattr(value, "as_tensor") else value
    return tensor


def _require_form(before: Mapping[str, Any], after: Any) -> None:
    remedy = "leave out transforms that crop, resize, split or delete; samples stay on the study's grid"
    if not isinstance(after, Mapping):
        reason = f"the arm's transforms make a {type(after).__name__} of a sample"
        raise InputFault("transforms", "COMPONENT_OUTPUT", reason, remedy)
    for key in ("image", "label"):
        if key not in before:
            continue
        value = after.get(key)
        shape = None if value is None else tuple(value.shape)
        if shape != tuple(before[key].shape):
            reason = f"the arm's transforms change the {key} from {tuple(before[key].shape)} to {shape}"
            raise InputFault("transforms", "COMPONENT_OUTPUT", reason, remedy)
        tensor = torch.as_tensor(plain(value))
        if not bool(torch.isfinite(tensor).all()):
            reason = f"the arm's transforms make the {key} NaN or infinite"
            raise InputFault("transforms", "COMPONENT_OUTPUT", reason, "check their keywords")
        if key == "label" and not bool((tensor == tensor.round()).all()):
            reason = "the arm's transforms make label values that are no whole numbers"
            raise InputFault("transforms", "COMPONENT_OUTPUT", reason, "interpolate label maps by mode: nearest")
