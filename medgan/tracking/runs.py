"""Runs in an MLflow store."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

from medgan.config import TrackingConfig
from medgan.errors import InputFault, MedganError
from medgan.tracking.protocol import Dataset, NoTracker, PackedModel, Run, Tracker, flatten
from medgan.tracking.registry import register_model
from medgan.tracking.store import (
    DEFAULT_URI,
    TAG_CHARACTERS,
    attempt,
    cut,
    experiment_id,
    first_contact,
    key_of,
    quieten,
    require_writable,
    sqlite_file,
    store_fault,
)
from medgan.tracking.system import watch_machine

# MLflow's own limits: a request carries at most 1,000 metrics and 100 parameters, a data set's digest 36 characters.
METRICS_PER_REQUEST = 1000
PARAMS_PER_REQUEST = 100
DIGEST_CHARACTERS = 36
# A request costs some milliseconds, whatever it carries; a watcher of the UI waits no longer than this.
FLUSH_SECONDS = 5.0


class MLflowTracker:
    """Records in an MLflow store.

    Args:
        uri: ``sqlite:///path`` (relative), ``sqlite:////path`` (absolute), ``http(s)://host``, or another database.
        experiment: made if it is not there. With SQLite its artifacts lie in ``mlartifacts`` beside the database.
        system_seconds: time between samples of the machine's processors, memory, disk, network and GPUs, which every
            open run records as ``system/...``; 0 for none.

    Raises:
        InputFault: the store cannot be opened or written.
    """

    def __init__(self, uri: str, experiment: str, *, system_seconds: float = 0) -> None:
        quieten()
        from mlflow import MlflowClient

        self.uri = uri
        self._system_seconds = system_seconds
        self._enclosing: ContextVar[str | None] = ContextVar("medgan_enclosing_run", default=None)
        database = sqlite_file(uri)
        if database is not None:
            require_writable(database, uri)
        try:
            with first_contact():
                self._client = MlflowClient(tracking_uri=uri)
                self.experiment_id = experiment_id(self._client, experiment, database)
        except InputFault:
            raise
        except Exception as error:
            raise store_fault(uri, error) from error

    @contextmanager
    def run(
        self,
        name: str,
        params: Mapping[str, object],
        tags: Mapping[str, str] = {},
        *,
        nested: bool = False,
        parent: str | None = None,
    ) -> Iterator[Run]:
        """See :meth:`Tracker.run`."""
        mother = parent or (self._enclosing.get() if nested else None)
        all_tags = {"mlflow.source.name": "medgan", "mlflow.source.type": "LOCAL", **tags}
        if mother:
            all_tags["mlflow.parentRunId"] = mother
        try:
            run_id = self._client.create_run(self.experiment_id, run_name=name, tags=all_tags).info.run_id
        except Exception as error:
            raise store_fault(self.uri, error) from error
        recorder = _MLflowRun(self._client, run_id)
        recorder.log_params(params)
        # Runs with a given parent may end in another order than they began, and so cannot enclose others.
        enclosing = None if parent else self._enclosing.set(run_id)
        try:
            with watch_machine(run_id, self.uri, self._system_seconds):
                yield recorder
        except BaseException as error:
            recorder.fail(reason_of(error))
            raise
        finally:
            if enclosing is not None:
                self._enclosing.reset(enclosing)
            recorder.end()

    def register(self, model: PackedModel, *, run_id: str = "", alias: str | None = None) -> str | None:
        """See :meth:`Tracker.register`."""
        try:
            return register_model(self._client, model, self.experiment_id, run_id=run_id, alias=alias)
        except Exception as error:
            raise store_fault(self.uri, error) from error


class _MLflowRun:
    """Buffers metrics: a thousand single ones take MLflow seconds, a batch of as many 0.1 s."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.run_id = run_id
        self._client = client
        self._status = "FINISHED"
        self._buffer: list[Any] = []
        self._lock = threading.Lock()
        self._flushed = time.monotonic()

    def log_params(self, params: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        flat = [Param(key_of(name), cut(value)) for name, value in flatten(params).items()]
        for start in range(0, len(flat), PARAMS_PER_REQUEST):
            chunk = flat[start : start + PARAMS_PER_REQUEST]
            attempt("parameters", partial(self._client.log_batch, self.run_id, params=chunk))

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with self._lock:
            self._buffer += [Metric(key_of(name), float(value), now, int(step)) for name, value in values.items()]
            due = len(self._buffer) >= METRICS_PER_REQUEST or time.monotonic() - self._flushed > FLUSH_SECONDS
        if due:
            self.flush()

    def flush(self) -> None:
        """Send what is buffered."""
        with self._lock:
            buffer, self._buffer = self._buffer, []
            self._flushed = time.monotonic()
        for start in range(0, len(buffer), METRICS_PER_REQUEST):
            chunk = buffer[start : start + METRICS_PER_REQUEST]
            attempt("metrics", partial(self._client.log_batch, self.run_id, metrics=chunk))

    def log_picture(self, path: Path, folder: str = "") -> None:
        self.log_file(path, folder)

    def log_file(self, path: Path, folder: str = "") -> None:
        attempt(path.name, lambda: self._client.log_artifact(self.run_id, str(path), folder or None))

    def log_text(self, text: str, name: str) -> None:
        attempt(name, lambda: self._client.log_text(self.run_id, text, name))

    def log_table(self, rows: Sequence[Mapping[str, object]], name: str) -> None:
        if rows:
            columns = {column: [row.get(column) for row in rows] for column in rows[0]}
            attempt(name, lambda: self._client.log_table(self.run_id, columns, name))

    def log_dataset(self, dataset: Dataset) -> None:
        attempt(dataset.name, lambda: self._client.log_inputs(self.run_id, [_dataset_input(dataset)]))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        labels = [RunTag(key_of(name), cut(value, TAG_CHARACTERS)) for name, value in tags.items()]
        attempt("tags", partial(self._client.log_batch, self.run_id, tags=labels))

    def describe(self, text: str) -> None:
        self.set_tags({"mlflow.note.content": text})

    def fail(self, reason: str) -> None:
        self._status = "FAILED"
        self.set_tags({"medgan.error": reason})

    def end(self) -> None:
        """Send what is buffered and close the run."""
        self.flush()
        attempt("the end of the run", lambda: self._client.set_terminated(self.run_id, self._status))


def open_tracker(config: TrackingConfig, *, default_uri: str | None = None) -> Tracker:
    """Return the configured tracker.

    The store is the configured URI, else the environment's ``MLFLOW_TRACKING_URI``, else ``default_uri``, else
    ``sqlite:///mlflow.db`` in the working directory.

    Raises:
        InputFault: the store cannot be used.
    """
    if config.kind == "none":
        return NoTracker()
    uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri or DEFAULT_URI
    return MLflowTracker(uri, config.experiment, system_seconds=config.system_seconds)


def reason_of(error: BaseException) -> str:
    """Return what a run may say of its failure: no message of others' exceptions, no path; these may name a patient."""
    if isinstance(error, InputFault):
        return error.code
    if isinstance(error, MedganError):
        return " ".join(re.sub(r"\S*[/\\]\S*", "…", str(error)).split())
    return type(error).__name__


def _dataset_input(dataset: Dataset) -> Any:
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import Dataset as DatasetEntity
    from mlflow.entities import DatasetInput, InputTag

    source = CodeDatasetSource({"medgan.source": dataset.source or "not named"})
    described = MetaDataset(source, dataset.name, dataset.digest[:DIGEST_CHARACTERS]).to_dict()
    # MLflow cuts digests; the profile has the whole one.
    described["profile"] = json.dumps({**flatten(dataset.counts), "sha256": dataset.digest})
    return DatasetInput(DatasetEntity.from_dictionary(described), [InputTag("mlflow.data.context", dataset.context)])
