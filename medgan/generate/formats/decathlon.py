"""A data set in the Medical Segmentation Decathlon's form: Antonelli et al., Nature Communications 2022."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

from medgan.generate.formats.base import Encoded, Setting, channel_names, nifti_piece
from medgan.generate.formats.nifti import Nifti
from medgan.generate.making import Made
from medgan.generate.store import Store


class Decathlon(Nifti):
    """``imagesTr/NAME.nii.gz`` (channels as the fourth axis), ``labelsTr/NAME.nii.gz``, ``dataset.json``."""

    name = "decathlon"
    folders: tuple[str, ...] = ("imagesTr", "labelsTr")
    needs_label = False

    def encode(self, made: Made, setting: Setting) -> Encoded:  # noqa: ARG002 - as for NIfTI
        """Return one file for all channels; the label map has the image's very geometry."""
        (path,), label_path = self.real_paths(made.order.name, 1)
        source = made.source
        image = (nifti_piece(path, made.image, source.image),)
        if source.label is None or made.label is None:
            return Encoded(image)
        like = replace(source.label, affine=source.image.affine)
        return Encoded(image, (nifti_piece(label_path, made.label, like),))

    def image_paths(self, name: str, channels: int) -> list[str]:  # noqa: ARG002 - all are in one file
        """Return the one file of all channels."""
        return [f"imagesTr/{name}.nii.gz"]

    def write_index(self, rows: Iterable[Mapping[str, str]], setting: Setting, store: Store) -> None:
        """Write ``dataset.json``, entry by entry: there may be a million."""
        entries = iter(rows)
        count = 0
        with store.open_text("dataset.json") as stream:
            names = {"0": "background"} | {str(k): v for k, v in sorted(setting.cohort.label_names.items())}
            head = {
                "name": setting.checkpoint.config.name,
                "description": "synthetic volumes by medgan (manifest.csv says which); not for diagnosis",
                "tensorImageSize": "3D" if setting.checkpoint.origin.channels == 1 else "4D",
                "modality": channel_names(setting, setting.checkpoint.origin.channels),
                "labels": names,
            }
            stream.write(json.dumps(head, indent=1).removesuffix("\n}") + ',\n "training": [')
            for row in entries:
                stream.write((",\n  " if count else "\n  ") + json.dumps(self._entry(row, setting)))
                count += 1
            stream.write(f'\n ],\n "numTraining": {count},\n "numTest": 0,\n "test": []\n}}\n')

    def _entry(self, row: Mapping[str, str], setting: Setting) -> dict[str, str]:
        entry = {"image": f"./{row['image']}"}
        if row["label"]:
            entry["label"] = f"./{row['label']}"
        kept = ("case_id", "patient_id", setting.class_column, "synthetic")
        return entry | {key: row[key] for key in kept if row.get(key)}
