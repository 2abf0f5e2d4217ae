"""A checkpoint as a MONAI bundle: what MONAI's own tools load, verify and run.

The bundle follows MONAI's bundle specification (https://docs.monai.io/en/stable/mb_specification.html). It holds the
checkpoint without identifiers, the same weights once more where MONAI looks for them, a description of what goes in
and out, and a program that writes a sibling of every volume of a folder. Running it needs medgan installed.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medgan.checkpoint import Checkpoint, load_checkpoint, require_output, save_without_identifiers, write_atomically
from medgan.errors import InputFault
from medgan.models.fields import apply_on_grid, without_folds
from medgan.serving import STATEMENT, describe

SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"
VERSION = "0.1.0"
CHECKPOINT = "models/generator"
WEIGHTS = "models/model.pt"
METADATA = "configs/metadata.json"
INFERENCE = "configs/inference.json"
FORMATS = {"ct": "hounsfield", "mri": "magnitude", "mask": "segmentation"}
MODALITIES = {"ct": "CT", "mri": "MR", "mask": "SEG"}
KEYS = {"keys": ["image", "label"], "allow_missing_keys": True}
# What must be installed to run it, beside what every bundle names by itself (MONAI, PyTorch, NumPy).
REQUIRED = ("medgan", "nibabel", "safetensors")
LICENSE = """The configuration files of this bundle and medgan, which they call, are under the Apache License 2.0.

The weights derive from the scans that the generator was trained on. Whether they may be passed on, and on which terms,
is for those who hold these scans to say: put their decision here before you do.
"""


class SiblingNetwork(nn.Module):
    """The generator and what it says applied: volumes in, one sibling of each out.

    Args:
        checkpoint: folder of the generator.

    Raises:
        InputFault: no checkpoint there, or not a whole one.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        super().__init__()
        loaded = load_checkpoint(checkpoint)
        self.generator = loaded.generator
        self.class_names = loaded.origin.class_names

    @torch.no_grad()
    def forward(
        self,
        image: Tensor,
        z: Tensor | None = None,
        class_index: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor:
        """Return a sibling of each volume, ``(B, C, *grid)``, as it leaves the generator (not clipped to 0..1).

        Args:
            image: ``(B, C, *grid)``, preprocessed as ``models/generator/checkpoint.json`` says, 0..1.
            z: ``(B, latent)`` standard normal; by default drawn from torch's own stream.
            class_index: ``(B,)`` int64 in the order of ``class_names``, their number for "unknown", the default.
            strength: 0 for the identity to 1 for what was learned, and beyond.

        Raises:
            ValueError: volumes of another shape than the grid's.
        """
        generator = self.generator
        wanted = (generator.channels, *generator.shape)
        if tuple(image.shape[1:]) != wanted:
            raise ValueError(f"volumes have the shape (B, {', '.join(map(str, wanted))}), got {tuple(image.shape)}")
        count = len(image)
        if z is None:
            z = torch.randn(count, generator.config.latent, device=image.device)
        if class_index is None:
            class_index = torch.full((count,), generator.classes, dtype=torch.int64, device=image.device)
        fields, displacement = without_folds(generator(image, z, class_index).scaled(strength), generator.shape)
        return apply_on_grid(fields, image, displacement)[0]


def export_bundle(checkpoint: Checkpoint, output: Path) -> None:
    """Write a generator as a MONAI bundle.

    The folder appears whole or not at all. ``models/model.pt`` is the one file that is not a safetensors file: MONAI
    looks for it, and reads it as tensors alone (``weights_only=True``).

    Args:
        checkpoint: loaded and verified.
        output: folder of the bundle, which must not hold anything yet.

    Raises:
        InputFault: the folder holds files, or cannot be written.
    """
    require_output(output)
    if output.exists() and any(output.iterdir()):
        raise InputFault(output, "OUTPUT_IN_USE", "the folder holds files already", "name a new one")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
            bundle = Path(scratch) / "bundle"
            _write(checkpoint, bundle)
            if output.exists():
                output.rmdir()  # empty, see above
            bundle.rename(output)
    except OSError as error:
        reason = f"the bundle could not be written ({error.strerror or error})"
        raise InputFault(output, "NOT_WRITABLE", reason, "free space or choose another folder") from error


def _write(checkpoint: Checkpoint, bundle: Path) -> None:
    for folder in ("configs", "models", "docs"):
        (bundle / folder).mkdir(parents=True)
    save_without_identifiers(checkpoint, bundle / CHECKPOINT)
    weights = io.BytesIO()
    torch.save(SiblingNetwork(bundle / CHECKPOINT).state_dict(), weights)
    files = {
        WEIGHTS: weights.getvalue(),
        METADATA: _json(metadata(checkpoint)),
        INFERENCE: _json(inference()),
        "docs/README.md": readme(checkpoint).encode(),
        "LICENSE": LICENSE.encode(),
    }
    for path, content in files.items():
        write_atomically(bundle / path, content)


def metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what the bundle says of itself, by MONAI's schema."""
    config, origin = checkpoint.config, checkpoint.origin
    # A build's local label (``+cpu``) is on no index.
    versions = {name: version.partition("+")[0] for name, version in checkpoint.record["versions"].items()}
    volume = {
        "type": "image",
        "format": FORMATS[config.data.modality],
        "modality": MODALITIES[config.data.modality],
        "num_channels": origin.channels,
        "spatial_shape": list(config.preprocess.shape),
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {str(channel): f"image {channel}" for channel in range(origin.channels)},
    }
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "changelog": {VERSION: f"exported from the checkpoint {checkpoint.digest}"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {name: versions[name] for name in REQUIRED},
        "name": f"medgan {config.name}",
        "task": "A real volume and noise in, another volume of the same class out, for augmentation",
        "description": describe(checkpoint),
        "authors": "whoever trained the generator; medgan by its authors",
        "copyright": "see LICENSE",
        "data_type": "nibabel",
        "image_classes": f"{origin.channels} channel(s), intensity scaled to 0..1 ({config.preprocess.intensity.kind})",
        "label_classes": ", ".join(f"{value} {name}" for value, name in origin.label_names.items()) or "none",
        "pred_classes": "as the input: a sibling of the volume",
        "eval_metrics": dict(origin.metrics),
        "intended_use": f"Augmentation of training data. {STATEMENT}",
        "references": ["Antoniou et al. 2017, Data Augmentation Generative Adversarial Networks, arXiv:1711.04340"],
        "network_data_format": {
            "inputs": {"image": volume},
            "outputs": {"pred": {**volume, "value_range": []}},  # a gain may lead beyond 0..1
        },
    }


def inference() -> dict[str, Any]:
    """Return the program that writes a sibling of every NIfTI file of ``dataset_dir`` into ``output_dir``."""
    return {
        "imports": ["$from pathlib import Path"],
        "bundle_root": ".",
        "dataset_dir": "images",
        "output_dir": "siblings",
        "seed": 0,
        "strength": 1.0,
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "checkpoint": f"$str(Path(@bundle_root) / '{CHECKPOINT}')",
        "network_def": {"_target_": "medgan.export.SiblingNetwork", "checkpoint": "@checkpoint"},
        "datalist": "$[{'image': str(path)} for path in sorted(Path(@dataset_dir).glob('*.nii*'))]",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **KEYS, "ensure_channel_first": True},
                {
                    "_target_": "medgan.transforms.RandDAGANd",
                    **KEYS,
                    "checkpoint": "@checkpoint",
                    "prob": 1.0,
                    "strength": "@strength",
                },
                _save("image", "sibling"),
                _save("label", "sibling_label"),  # image and label map of a case often bear one name
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "initialize": ["$@preprocessing.set_random_state(@seed)"],
        "run": ["$[None for _ in @dataset]"],
    }


def _save(key: str, postfix: str) -> dict[str, Any]:
    return {
        "_target_": "SaveImaged",
        "keys": key,
        "allow_missing_keys": True,
        "output_dir": "@output_dir",
        "output_postfix": postfix,
        "separate_folder": False,
        "resample": False,
        "print_log": False,
    }


def readme(checkpoint: Checkpoint) -> str:
    """Return the bundle's model card."""
    return f"""# medgan {checkpoint.config.name}

{describe(checkpoint)}

## Running it

With medgan installed (from its repository: `pip install .`), in this folder:

```python
from monai.bundle import run

run(config_file="configs/inference.json", meta_file="configs/metadata.json",
    bundle_root=".", dataset_dir="/scans", output_dir="/siblings", seed=0, strength=1.0)
```

writes a sibling of every NIfTI file of `/scans`, on the file's own grid and in its own units; the noise is drawn anew
for each, from `seed`. Cases with label maps are given as `datalist=[{{"image": ..., "label": ...}}, ...]`, and the maps
are bent along. Files come from MONAI's writer as float32; `medgan generate models/generator` keeps the source's data
type and writes beside each volume where it comes from. MONAI runs what a bundle's configuration says: run one only from
a source you trust.
The network alone, on its own grid, in this folder too:

```python
from monai.bundle import load

network = load("NAME_OF_THIS_FOLDER", bundle_dir="..", workflow_type="inference")
sibling = network(volumes)  # (B, C, *grid) in 0..1; z, class_index and strength may be given
```

`models/generator` is the checkpoint without identifiers: `medgan info models/generator` says more, and `RandDAGANd`,
`medgan generate` and `medgan.load` take it as it is.
"""


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=4, allow_nan=False) + "\n").encode()
