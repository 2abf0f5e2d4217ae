"""A checkpoint is a folder: ``generator.safetensors`` and ``checkpoint.json``; no pickle, every file hashed.

Beside the generator's weights the tensors hold its critic (:mod:`medgan.measures.critic`), where it has one.

``checkpoint.json`` says what the generator was trained on, how, when and with which code, and holds the SHA-256 of the
weights. Its own SHA-256 is the checkpoint's digest, which every synthetic volume carries.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from medgan.atomic import atomic_file
from medgan.config import Config, parse_config
from medgan.data.preprocess import Preprocessing
from medgan.errors import InputFault
from medgan.measures.critic import Critic, critic_of
from medgan.models.generator import Generator
from medgan.tracking import recordable

FORMAT_VERSION = 1
WEIGHTS = "generator.safetensors"
RECORD = "checkpoint.json"
NEW = ".new"
MAX_RECORD_BYTES = 64_000_000
CRITIC = "critic/"
MAX_CRITIC_VALUES = 10_000_000
LIBRARIES = ("medgan", "torch", "monai", "numpy", "nibabel", "SimpleITK", "pydicom", "lightning-fabric", "safetensors")


@dataclass(frozen=True)
class Origin:
    """What a generator came from.

    Attributes:
        class_names: classes in index order.
        label_names: label values and names, background left out.
        channels: image channels.
        training_cases: ``{"case_id", "patient_id", "content_sha256"}`` of every case the generator has seen.
        split_digest: SHA-256 of the split by patient.
        steps: generator updates behind the weights.
        metrics: validation figures of the weights.
    """

    class_names: tuple[str, ...]
    label_names: Mapping[int, str]
    channels: int
    training_cases: Sequence[Mapping[str, str]]
    split_digest: str
    steps: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def training_patients(self) -> int:
        """How many patients the training cases are of."""
        return len({case["patient_id"] for case in self.training_cases})


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded and verified checkpoint; ``critic`` is ``None`` where there were too few real volumes for one."""

    folder: Path
    generator: Generator
    config: Config
    origin: Origin
    record: Mapping[str, Any]
    digest: str
    critic: Critic | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """The grid and intensities the generator works on."""
        return Preprocessing(self.config.preprocess)

    @property
    def identifiers_withheld(self) -> bool:
        """Whether this is a copy by :func:`save_without_identifiers`: training cases are known by content alone."""
        return "original_digest" in self.record


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file of an output folder whole or not at all.

    Raises:
        InputFault: the folder has no room or cannot be written.
    """
    try:
        with atomic_file(path) as stream:
            stream.write(content)
    except OSError as error:
        raise InputFault(
            path.parent,
            "NOT_WRITABLE",
            f"could not write {len(content)} bytes ({error.strerror})",
            "free space or choose another folder",
        ) from error


def require_output(folder: Path) -> None:
    """Check, before the work begins, that a command can write to ``folder``; it is made only when there is a result.

    Raises:
        InputFault: it is a file, or cannot be created or written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputFault(folder, "NOT_A_FOLDER", "--output is a file", "name a folder")
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise InputFault(folder, "NOT_WRITABLE", f"{nearest.name} on its way is a file", "choose another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputFault(folder, "NOT_WRITABLE", "the folder cannot be written", "choose another or change its rights")


def make_output(folder: Path) -> None:
    """Create the folder a command writes to.

    Raises:
        InputFault: it is a file, or cannot be created or written.
    """
    require_output(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"it cannot be created ({error.strerror})"
        raise InputFault(folder, "NOT_WRITABLE", reason, "choose another") from error


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide what comes out."""
    return {"python": platform.python_version(), **{name: _version_of(name) for name in LIBRARIES}}


@functools.cache  # every sidecar names them, and looking one up parses a file
def _version_of(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def save_checkpoint(
    folder: Path, weights: Mapping[str, Tensor], config: Config, origin: Origin, critic: Critic | None = None
) -> str:
    """Write a checkpoint and return its digest.

    Both files are written whole under a new name first; only then are they renamed, and a reader that finds the pair
    half renamed completes it. A crash at any moment leaves the old checkpoint or the new one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    if critic is not None:
        tensors |= {CRITIC + name: torch.from_numpy(value).contiguous() for name, value in critic.arrays().items()}
    blob = save(tensors)
    record = {
        "format_version": FORMAT_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": config.model_dump(mode="json"),
        "preprocessing": config.preprocess.model_dump(mode="json"),
        "class_names": list(origin.class_names),
        "label_names": {str(k): v for k, v in origin.label_names.items()},
        "channels": origin.channels,
        "training_cases": [dict(case) for case in origin.training_cases],
        "split_digest": origin.split_digest,
        "steps": origin.steps,
        "metrics": dict(origin.metrics),
        "versions": library_versions(),
        "sha256": {WEIGHTS: hashlib.sha256(blob).hexdigest()},
    }
    text = json.dumps(record, indent=1, allow_nan=False).encode()
    write_atomically(folder / (WEIGHTS + NEW), blob)
    write_atomically(folder / (RECORD + NEW), text)
    _complete(folder)
    return hashlib.sha256(text).hexdigest()


def save_without_identifiers(checkpoint: Checkpoint, folder: Path) -> str:
    """Write a copy that names no patient, case or path, and return its digest, which differs from the original's.

    Training cases and patients are numbered instead; they can still be recognised by the SHA-256 of their files. The
    weights are the same, byte for byte, and ``original_digest`` of the record is the original's digest.

    Args:
        checkpoint: the original, or such a copy.
        folder: to write.
    """
    record = json.loads(json.dumps(dict(checkpoint.record)))
    record["config"] = {k: v for k, v in recordable(checkpoint.config).items() if k != "compare"}
    patients: dict[str, str] = {}
    for number, case in enumerate(record["training_cases"], 1):
        case["case_id"] = f"withheld case {number}"
        case["patient_id"] = patients.setdefault(case["patient_id"], f"withheld patient {len(patients) + 1}")
    record.setdefault("original_digest", checkpoint.digest)
    text = json.dumps(record, indent=1, allow_nan=False).encode()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(checkpoint.folder / WEIGHTS, folder / (WEIGHTS + NEW))
    write_atomically(folder / (RECORD + NEW), text)
    _complete(folder)
    return hashlib.sha256(text).hexdigest()


def _complete(folder: Path) -> None:
    """Rename what a save has written whole: weights first, record last."""
    weights, record = folder / (WEIGHTS + NEW), folder / (RECORD + NEW)
    if weights.exists() and record.exists():
        weights.replace(folder / WEIGHTS)
    if record.exists() and not weights.exists():
        record.replace(folder / RECORD)


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read and verify a checkpoint; nothing in it is executed.

    Raises:
        InputFault: no checkpoint there, another format version, a hash that does not match, or weights of other shapes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputFault(
            folder,
            "MISSING_FILE",
            "there is no such checkpoint folder",
            "train one with `medgan train` or mend the path",
        )
    if (folder / (RECORD + NEW)).exists() and os.access(folder, os.W_OK):
        _complete(folder)
    record_path = folder / RECORD
    if not record_path.is_file():
        raise InputFault(
            folder, "NO_CHECKPOINT", f"the folder holds no {RECORD}", "finish the training or mend the path"
        )
    if record_path.stat().st_size > MAX_RECORD_BYTES:
        raise InputFault(
            record_path, "CHECKPOINT_SIZE", f"larger than {MAX_RECORD_BYTES} bytes", "get the checkpoint again"
        )
    text = record_path.read_bytes()
    try:
        record = json.loads(text)
        version = record["format_version"]
        if version != FORMAT_VERSION:
            raise InputFault(
                record_path,
                "FORMAT_VERSION",
                f"format {str(version)[:20]}, this medgan reads {FORMAT_VERSION}",
                "use a matching version",
            )
        config = parse_config(record["config"], source=record_path)
        origin = Origin(
            class_names=tuple(str(name) for name in record["class_names"]),
            label_names={int(k): str(v) for k, v in record["label_names"].items()},
            channels=int(record["channels"]),
            training_cases=[{str(k): str(v) for k, v in case.items()} for case in record["training_cases"]],
            split_digest=str(record["split_digest"]),
            steps=int(record["steps"]),
            metrics={str(k): float(v) for k, v in record["metrics"].items()},
        )
        expected, _created, _versions = record["sha256"][WEIGHTS], record["created"], dict(record["versions"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputFault(
            record_path, "CHECKPOINT_RECORD", f"not a checkpoint record ({error!r})", "get the checkpoint again"
        ) from error
    if record.get("preprocessing") != record["config"].get("preprocess", {}):
        reason = "its preprocessing is not that of its configuration"
        raise InputFault(record_path, "CHECKPOINT_RECORD", reason, "get the checkpoint again")
    if not 1 <= origin.channels <= 64:
        raise InputFault(record_path, "CHECKPOINT_RECORD", f"{origin.channels} channels", "get the checkpoint again")
    with torch.device("meta"):  # no memory until the weights on disk are known to be of these shapes
        generator = Generator(config.model, origin.channels, len(origin.class_names), config.preprocess.shape)
    critic = _load_weights(folder / WEIGHTS, generator, expected)
    generator.eval().requires_grad_(False)
    return Checkpoint(folder, generator, config, origin, record, hashlib.sha256(text).hexdigest(), critic)


def _load_weights(path: Path, generator: Generator, expected_digest: str) -> Critic | None:
    """Fill the generator's weights and return the critic."""
    if not path.is_file():
        raise InputFault(path, "MISSING_FILE", "the weights are not there", "get the checkpoint again")
    wanted = generator.state_dict()
    try:
        with safe_open(path, framework="pt") as weights:
            # Shapes first: they stand in the header, so tensors that are too large are refused before they are read.
            shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
            of_critic = {name: shape for name, shape in shapes.items() if name.startswith(CRITIC)}
            fits = shapes == of_critic | {name: tuple(value.shape) for name, value in wanted.items()}
            if not fits or sum(math.prod(shape) for shape in of_critic.values()) > MAX_CRITIC_VALUES:
                raise InputFault(
                    path,
                    "CHECKPOINT_SHAPES",
                    "the weights do not fit the recorded configuration",
                    "get the checkpoint again",
                )
            if file_digest(path) != expected_digest:
                raise InputFault(
                    path, "CHECKPOINT_HASH", "SHA-256 differs from the recorded one", "get the checkpoint again"
                )
            generator.load_state_dict({name: weights.get_tensor(name) for name in wanted}, assign=True)
            arrays = {name.removeprefix(CRITIC): weights.get_tensor(name).double().numpy() for name in of_critic}
            return critic_of(arrays) if arrays else None
    except ValueError as error:
        raise InputFault(path, "CHECKPOINT_SHAPES", str(error), "get the checkpoint again") from error
    except SafetensorError as error:
        raise InputFault(
            path, "CHECKPOINT_WEIGHTS", f"not a safetensors file ({error})", "get the checkpoint again"
        ) from error
