"""What can be recorded, and the tracker that records nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic_core import to_jsonable_python

from medgan.config import Config


@dataclass(frozen=True)
class Dataset:
    """Data a run used, as a digest and counts; neither ids nor paths.

    Attributes:
        name: shown in the store's UI.
        digest: SHA-256 that tells this data from other data.
        context: what it served for, e.g. ``training``.
        source: where it comes from, in words.
        counts: e.g. cases and patients; nested mappings allowed.
    """

    name: str
    digest: str
    context: str
    source: str = ""
    counts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class PackedModel:
    """A model to register: a folder of files, and the module that reads it.

    Attributes:
        name: of the registered model; its versions are numbered by the store.
        folder: files of the model; it is stored whole, so nothing in it may name a patient.
        loader: module with ``_load_pyfunc(folder)``, which returns an object with ``predict(volumes, params)``.
        channels: C of its volumes ``(B, C, D, H, W)`` float32.
        params: names and defaults of what ``predict`` takes besides.
        digest: SHA-256 of what the model was made of; the same one is registered once.
        requirements: what pip must install to run it.
        description: Markdown, shown with the version.
        tags: further labels of the version.
    """

    name: str
    folder: Path
    loader: str
    channels: int
    params: Mapping[str, int | float | str]
    digest: str
    requirements: Sequence[str] = ()
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


class Run(Protocol):
    """One run that is being recorded. The bodies here do nothing: a run that is not recorded is made of them."""

    @property
    def run_id(self) -> str:
        """The store's id of the run, empty where nothing is recorded."""
        ...

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record settings, nested mappings flattened with dots; one that is recorded cannot be changed."""
        ...

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record ``values`` at ``step``; sent in batches, at the latest when the run ends."""
        ...

    def log_picture(self, path: Path, folder: str = "") -> None:
        """Store an image file with the run, in ``folder``."""
        ...

    def log_file(self, path: Path, folder: str = "") -> None:
        """Store any file with the run, in ``folder``."""
        ...

    def log_text(self, text: str, name: str) -> None:
        """Store ``text`` with the run as a file of that name, e.g. ``notes/plan.md``."""
        ...

    def log_table(self, rows: Sequence[Mapping[str, object]], name: str) -> None:
        """Store rows with the same keys as a table, which the store's UI shows; ``name`` ends in ``.json``."""
        ...

    def log_dataset(self, dataset: Dataset) -> None:
        """Record data the run used."""
        ...

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set labels; one of the same name is replaced."""
        ...

    def describe(self, text: str) -> None:
        """Set the run's description, Markdown; it heads the run's page."""
        ...

    def fail(self, reason: str) -> None:
        """Let the run end FAILED, with the reason as the tag ``medgan.error``, although its block does not raise."""
        ...


class Tracker(Protocol):
    """Opens runs and registers models."""

    def run(
        self,
        name: str,
        params: Mapping[str, object],
        tags: Mapping[str, str] = {},
        *,
        nested: bool = False,
        parent: str | None = None,
    ) -> AbstractContextManager[Run]:
        """Record a run while the ``with`` block lasts; it ends FINISHED, or FAILED where the block raises.

        Args:
            name: shown in the store's UI.
            params: settings, nested mappings allowed (flattened with dots).
            tags: further labels.
            nested: make it a child of the run that encloses it, where one does.
            parent: make it a child of the run with this id. Such runs may overlap, in one thread or several; they
                enclose no others.
        """
        ...

    def register(self, model: PackedModel, *, run_id: str = "", alias: str | None = None) -> str | None:
        """Register a version of a model and return its number; ``None`` where nothing is registered.

        Args:
            model: what to register; the version of an equal digest is found again instead.
            run_id: the run it comes from.
            alias: name to give to this version; it is taken from the version that bore it.

        Raises:
            InputFault: the store refuses it.
        """
        ...


class NoTracker:
    """Records nothing."""

    @contextmanager
    def run(
        self,
        name: str,  # noqa: ARG002
        params: Mapping[str, object],  # noqa: ARG002
        tags: Mapping[str, str] = {},  # noqa: ARG002
        *,
        nested: bool = False,  # noqa: ARG002
        parent: str | None = None,  # noqa: ARG002
    ) -> Iterator[Run]:
        """See :meth:`Tracker.run`."""
        yield _NoRun()  # type: ignore[abstract]

    def register(self, model: PackedModel, *, run_id: str = "", alias: str | None = None) -> str | None:  # noqa: ARG002
        """Register nothing."""
        return None


class _NoRun(Run):
    """Drops everything, by the protocol's own bodies."""

    run_id = ""


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested mappings as one level with dotted keys: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def recordable(config: Config) -> dict[str, Any]:
    """Return the configuration's settings without any path and without the store, whose URI may hold a password."""
    # A generator is named by a folder or by a registry's URI, so its type is text.
    left_out: dict[str, Any] = {"tracking": True, "compare": {"checkpoint", "generators"}}
    settings: dict[str, Any] = to_jsonable_python(_without_paths(config.model_dump(exclude=left_out)))
    return settings


def _without_paths(tree: dict[str, Any]) -> dict[str, Any]:
    kept = {key: _without_paths(value) if isinstance(value, dict) else value for key, value in tree.items()}
    return {key: value for key, value in kept.items() if not _holds_path(value)}


def _holds_path(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_holds_path(item) for item in value)
    return isinstance(value, Path)
