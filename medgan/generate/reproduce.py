"""``medgan reproduce``: one synthetic volume again, bit for bit, from its sidecar."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medgan.checkpoint import make_output
from medgan.data.cohort import Case, Cohort
from medgan.data.dicom_headers import find_series
from medgan.data.nifti import NIFTI_SUFFIXES, write_nifti
from medgan.data.split import content_hash
from medgan.errors import InputFault
from medgan.generate.formats.base import Encoded, Format, Setting
from medgan.generate.job import FORMATS
from medgan.generate.making import Made, make_again
from medgan.generate.plan import Order
from medgan.generate.source import read_source
from medgan.generate.store import LocalStore
from medgan.sampler import Sampler, load
from medgan.threads import torch_threads

MEND = "give the .json beside a synthetic volume"


@dataclass(frozen=True)
class Recorded:
    """What a sidecar says of how its volume was made."""

    case: Case
    cohort: Cohort
    layout: Format
    drawn: dict[str, Any]
    content: str
    series: str | None
    digests: dict[str, list[str]]
    checkpoint: Path
    checkpoint_uri: str | None


def reproduce(sidecar_file: Path, output: Path, checkpoint: str | Path | None = None) -> bool:
    """Make one volume again from its sidecar; return whether image and label map equal the recorded ones bit for bit.

    Args:
        sidecar_file: written by :func:`~medgan.generate.batch.generate`.
        output: file to write, ``.nii`` or ``.nii.gz`` (several channels become its fourth axis); of a DICOM output any
            other name is a folder for the series.
        checkpoint: where the checkpoint lies now, if it was moved.

    Raises:
        InputFault: sidecar, source or checkpoint are missing or are not those of the sidecar.
    """
    recorded = read_sidecar(sidecar_file)
    as_nifti = output.name.endswith(NIFTI_SUFFIXES)
    if not as_nifti and recorded.layout.name != "dicom":
        raise InputFault(output, "OUTPUT_NAME", "not a NIfTI file's name", "end it in .nii.gz or .nii")
    if not as_nifti and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputFault(output, "OUTPUT_IN_USE", "it exists", "name a new folder")
    sampler = _load(recorded, checkpoint)
    made = _make(recorded, sampler)
    encoded = recorded.layout.encode(made, Setting(recorded.cohort, sampler.checkpoint, "class"))
    make_output(output.parent)
    if as_nifti:
        write_nifti(output, made.image, made.source.image)
    else:
        _write_series(encoded, output)
    digests = {kind: [piece.digest for piece in pieces] for kind, pieces in encoded.by_kind().items()}
    return all(digests.get(kind) == known for kind, known in recorded.digests.items())


def read_sidecar(path: Path) -> Recorded:
    """Read a sidecar.

    Raises:
        InputFault: it is missing or none.
    """
    if not path.is_file():
        raise InputFault(path, "MISSING_FILE", "there is no such sidecar", MEND)
    beside = path.resolve().parent
    try:
        sidecar = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputFault(path, "SIDECAR", "not a sidecar (no JSON)", MEND) from error
    try:
        drawn, source, files = sidecar["parameters"], sidecar["source"], sidecar["files"]
        images = tuple((beside / image).resolve() for image in source["images"])
        label = None if source["label"] is None else (beside / source["label"]).resolve()
        case = Case(
            str(source["case_id"]), str(source["patient_id"]), images, label, sidecar["class"],
            channels=int(source["channels"]), frame=None if source.get("frame") is None else int(source["frame"]),
        )  # fmt: skip
        names = {int(value): str(name) for value, name in source["label_names"].items()}
        return Recorded(
            case=case,
            cohort=Cohort((beside / source["cohort"]).resolve(), (case,), names, modality=source["modality"]),
            layout=FORMATS[sidecar["format"]](),
            drawn={key: drawn[key] for key in ("seed", "index", "strength", "class_name", "checkpoint")},
            content=str(source["content_sha256"]),
            series=source.get("series_sha256"),
            digests={kind: list(files[kind]["sha256"]) for kind in ("image", "label") if kind in files},
            checkpoint=(beside / sidecar["checkpoint"]["path"]).resolve(),
            checkpoint_uri=sidecar["checkpoint"]["uri"],
        )
    except KeyError as error:
        raise InputFault(path, "SIDECAR", f"not a sidecar of medgan (without {error})", MEND) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputFault(path, "SIDECAR", "not a sidecar of medgan (JSON of another form)", MEND) from error


def _load(recorded: Recorded, checkpoint: str | Path | None) -> Sampler:
    """Load the checkpoint: the one named, the one at the recorded path, or the registry's of the recorded name."""
    place: str | Path = checkpoint or recorded.checkpoint
    if checkpoint is None and recorded.checkpoint_uri and not recorded.checkpoint.is_dir():
        place = recorded.checkpoint_uri
    sampler = load(place)
    if sampler.checkpoint.digest != recorded.drawn["checkpoint"]:
        raise InputFault(place, "OTHER_CHECKPOINT", "not the checkpoint of the sidecar", "name it with --checkpoint")
    return sampler


def _make(recorded: Recorded, sampler: Sampler) -> Made:
    case, drawn = recorded.case, recorded.drawn
    for path in (*case.images, *([case.label] if case.label else [])):
        if not path.exists():
            raise InputFault(path, "MISSING_FILE", "the source is not there", "put it back where the sidecar says")
    if content_hash(case) != recorded.content:
        raise InputFault(case.images[0], "OTHER_SOURCE", "the source has changed since", "restore the original")
    if recorded.series is not None:
        case = replace(case, series=find_series(case.images[0], recorded.series))
    source = read_source(case, recorded.cohort.label_names, recorded.content)
    order = Order(case, drawn["index"], drawn["seed"], case.case_id)
    with torch_threads(1):  # as it was made
        return make_again(source, order, sampler, drawn["index"], drawn["strength"], drawn["class_name"])


def _write_series(encoded: Encoded, output: Path) -> None:
    """Write a DICOM sibling's series, one folder a channel where there are several."""
    store = LocalStore(output.parent if len(encoded.image) == 1 else output)
    for number, piece in enumerate(encoded.image):
        store.put(output.name if len(encoded.image) == 1 else f"{number:04d}", piece.content)
