"""NIfTI volumes and label maps, with ``manifest.csv`` as their index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from medgan.generate.formats.base import Encoded, Setting, nifti_piece
from medgan.generate.making import Made
from medgan.generate.store import Store


class Nifti:
    """``images/NAME.nii.gz`` (``NAME_0000``, ``NAME_0001``, ... for several channels) and ``labels/NAME.nii.gz``."""

    name = "nifti"
    folders: tuple[str, ...] = ("images", "labels")
    needs_label = False
    takes_real = True

    def check(self, setting: Setting) -> None:
        """Take any cohort."""

    def encode(self, made: Made, setting: Setting) -> Encoded:  # noqa: ARG002 - all is said by the sibling
        """Return one file a channel, and the label map."""
        return encode_channels(made, self)

    def real_paths(self, case_id: str, channels: int) -> tuple[list[str], str]:
        """Return the names a sibling would have."""
        return self.image_paths(case_id, channels), f"{self.folders[1]}/{case_id}.nii.gz"

    def image_paths(self, name: str, channels: int) -> list[str]:
        """Return one name a channel."""
        suffixes = [""] if channels == 1 else [f"_{channel:04d}" for channel in range(channels)]
        return [f"{self.folders[0]}/{name}{suffix}.nii.gz" for suffix in suffixes]

    def write_index(self, rows: Iterable[Mapping[str, str]], setting: Setting, store: Store) -> None:
        """Write nothing: the manifest is the index."""


def encode_channels(made: Made, layout: Nifti) -> Encoded:
    """Return one ``.nii.gz`` a channel and one for the label map, named by the layout."""
    images, label = layout.real_paths(made.order.name, made.image.shape[0])
    source = made.source
    parts = [nifti_piece(path, made.image[channel : channel + 1], source.image) for channel, path in enumerate(images)]
    if source.label is None or made.label is None:
        return Encoded(tuple(parts))
    return Encoded(tuple(parts), (nifti_piece(label, made.label, source.label),))
