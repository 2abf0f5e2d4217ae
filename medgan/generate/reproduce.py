"""``medgan reproduce``: one synthetic volume again, bit for bit, from its sidecar."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from medgan.checkpoint import make_output
from medgan.data.cohort import Case
from medgan.data.nifti import NIFTI_SUFFIXES, write_nifti
from medgan.data.split import content_hash
from medgan.errors import InputFault
from medgan.generate.batch import read_source, sibling_image
from medgan.generate.sidecar import voxels_digest
from medgan.sampler import load

MEND = "give the .json beside a synthetic volume"


def reproduce(sidecar_file: Path, output: Path, checkpoint: Path | None = None) -> bool:
    """Make one volume again from its sidecar; return whether it equals the recorded one bit for bit.

    Args:
        sidecar_file: written by :func:`~medgan.generate.batch.generate`.
        output: file to write, ``.nii`` or ``.nii.gz``; several channels become its fourth axis.
        checkpoint: where the checkpoint lies now, if it was moved.

    Raises:
        InputFault: sidecar, source or checkpoint are missing or are not those of the sidecar.
    """
    if not sidecar_file.is_file():
        raise InputFault(sidecar_file, "MISSING_FILE", "there is no such sidecar", MEND)
    if not output.name.endswith(NIFTI_SUFFIXES):
        raise InputFault(output, "OUTPUT_NAME", "not a NIfTI file's name", "end it in .nii.gz or .nii")
    try:
        sidecar = json.loads(sidecar_file.read_text())
        drawn, source = sidecar["parameters"], sidecar["source"]
        wanted = {key: drawn[key] for key in ("seed", "index", "strength", "class_name", "checkpoint")}
        images = tuple((sidecar_file.resolve().parent / path).resolve() for path in source["images"])
        case = Case(str(source["case_id"]), "", images, channels=int(source["channels"]))
        recorded, content = list(sidecar["files"]["image"]["sha256"]), source["content_sha256"]
        folder = checkpoint or (sidecar_file.resolve().parent / sidecar["checkpoint"]["path"]).resolve()
    except (ValueError, KeyError, TypeError) as error:
        raise InputFault(sidecar_file, "SIDECAR", f"not a sidecar of medgan ({error!r})", MEND) from error
    sampler = load(folder)
    if sampler.checkpoint.digest != wanted["checkpoint"]:
        raise InputFault(folder, "OTHER_CHECKPOINT", "not the checkpoint of the sidecar", "name it with --checkpoint")
    missing = [path for path in images if not path.exists()]
    if missing:
        raise InputFault(missing[0], "MISSING_FILE", "the source is not there", "put it back where the sidecar says")
    if content_hash(case) != content:
        raise InputFault(images[0], "OTHER_SOURCE", "the source has changed since", "restore the original")
    loaded = read_source(case, {})
    parameters = sampler.draw(wanted["seed"], wanted["index"], wanted["strength"], wanted["class_name"])
    image = sibling_image(sampler.recipe(loaded.tensor, parameters, loaded.image.affine), loaded)
    make_output(output.parent)
    write_nifti(output, image, loaded.image)
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        digests = []
        for channel in range(image.shape[0]):
            path = Path(scratch) / f"{channel}.nii.gz"
            write_nifti(path, image[channel : channel + 1], loaded.image)
            digests.append(voxels_digest(path))
    return digests == recorded
