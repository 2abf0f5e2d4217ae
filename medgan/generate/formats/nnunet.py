"""An nnU-Net (version 2) raw data set: Isensee et al., Nature Methods 2021, and nnU-Net's ``dataset_format.md``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

from medgan.errors import InputFault
from medgan.generate.formats.base import Encoded, Setting, channel_names
from medgan.generate.formats.nifti import Nifti, encode_channels
from medgan.generate.making import Made
from medgan.generate.store import Store


class NnUNet(Nifti):
    """``imagesTr/NAME_0000.nii.gz``, ``labelsTr/NAME.nii.gz``, ``dataset.json``."""

    name = "nnunet"
    folders: tuple[str, ...] = ("imagesTr", "labelsTr")
    needs_label = True

    def check(self, setting: Setting) -> None:
        """Refuse label values nnU-Net refuses."""
        values = sorted(setting.cohort.label_names)
        if values != list(range(1, len(values) + 1)) or not values:
            shown = ", ".join(map(str, values[:12])) or "not declared"
            raise InputFault(
                setting.cohort.source, "LABEL_VALUES", f"nnU-Net wants the label values 1, 2, 3, ...; here: {shown}",
                "renumber the label maps, or declare the values in data.labels or a dataset.json",
            )  # fmt: skip

    def encode(self, made: Made, setting: Setting) -> Encoded:  # noqa: ARG002 - as for NIfTI
        """Return one file a channel; the label map has the image's very geometry, as nnU-Net checks."""
        source = made.source
        if source.label is not None:
            label = replace(source.label, affine=source.image.affine)
            made = replace(made, source=replace(source, label=label))
        return encode_channels(made, self)

    def image_paths(self, name: str, channels: int) -> list[str]:
        """Return one name a channel, numbered also where there is only one."""
        return [f"imagesTr/{name}_{channel:04d}.nii.gz" for channel in range(channels)]

    def write_index(self, rows: Iterable[Mapping[str, str]], setting: Setting, store: Store) -> None:
        """Write ``dataset.json``."""
        tree = {
            "channel_names": channel_names(setting, setting.checkpoint.origin.channels),
            "labels": {"background": 0} | {name: value for value, name in sorted(setting.cohort.label_names.items())},
            "numTraining": sum(1 for _ in rows),
            "file_ending": ".nii.gz",
            "name": setting.checkpoint.config.name,
            "description": "synthetic volumes by medgan (manifest.csv says which); not for diagnosis",
        }
        store.put("dataset.json", json.dumps(tree, indent=1).encode())
