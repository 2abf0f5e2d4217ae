"""Where runs are recorded: an MLflow store, or nowhere. The only module that imports mlflow.

Runs go through :class:`mlflow.MlflowClient` by their id and never through MLflow's global "active run", so nested runs
stay apart and two studies in one process cannot write into each other's runs.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from medgan.config import TrackingConfig
from medgan.errors import InputFault

logger = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACT_FOLDER = "mlartifacts"
# MLflow's own limits: a request carries at most 1,000 metrics and 100 parameters, a parameter 6,000 characters.
METRICS_PER_REQUEST = 1000
PARAMS_PER_REQUEST = 100
PARAM_CHARACTERS = 6000
KEY_CHARACTERS = 250
# A request costs some milliseconds, whatever it carries; a watcher of the UI waits no longer than this.
FLUSH_SECONDS = 5.0


class Run(Protocol):
    """One run that is being recorded."""

    @property
    def run_id(self) -> str:
        """The store's id of the run, empty where nothing is recorded."""
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


class Tracker(Protocol):
    """Opens runs."""

    def run(
        self, name: str, params: Mapping[str, object], tags: Mapping[str, str] = {}, *, nested: bool = False
    ) -> AbstractContextManager[Run]:
        """Record a run while the ``with`` block lasts; it ends FINISHED, or FAILED where the block raises.

        Args:
            name: shown in the store's UI.
            params: settings, nested mappings allowed (flattened with dots).
            tags: further labels.
            nested: make it a child of the run that encloses it.
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
    ) -> Iterator[Run]:
        """See :meth:`Tracker.run`."""
        yield _NoRun()


class _NoRun:
    run_id = ""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Drop the values."""

    def log_picture(self, path: Path, folder: str = "") -> None:
        """Drop the picture."""

    def log_file(self, path: Path, folder: str = "") -> None:
        """Drop the file."""


class MLflowTracker:
    """Records in an MLflow store.

    Args:
        uri: ``sqlite:///path`` (relative), ``sqlite:////path`` (absolute), ``http(s)://host``, or another database.
        experiment: made if it is not there. With SQLite its artifacts lie in ``mlartifacts`` beside the database.

    Raises:
        InputFault: the store cannot be opened or written.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        _quieten()
        from mlflow import MlflowClient

        self.uri = uri
        self._enclosing: ContextVar[str | None] = ContextVar("medgan_enclosing_run", default=None)
        database = _sqlite_file(uri)
        if database is not None:
            _require_writable(database, uri)
        try:
            self._client = MlflowClient(tracking_uri=uri)
            self.experiment_id = _experiment_id(self._client, experiment, database)
        except InputFault:
            raise
        except Exception as error:
            raise _store_fault(uri, error) from error

    @contextmanager
    def run(
        self, name: str, params: Mapping[str, object], tags: Mapping[str, str] = {}, *, nested: bool = False
    ) -> Iterator[Run]:
        """See :meth:`Tracker.run`."""
        parent = self._enclosing.get() if nested else None
        all_tags = {"mlflow.source.name": "medgan", "mlflow.source.type": "LOCAL", **tags}
        if parent is not None:
            all_tags["mlflow.parentRunId"] = parent
        try:
            run_id = self._client.create_run(self.experiment_id, run_name=name, tags=all_tags).info.run_id
        except Exception as error:
            raise _store_fault(self.uri, error) from error
        recorder = _MLflowRun(self._client, run_id)
        recorder.log_params(params)
        enclosing = self._enclosing.set(run_id)
        status = "FAILED"
        try:
            yield recorder
            status = "FINISHED"
        finally:
            self._enclosing.reset(enclosing)
            recorder.flush()
            _attempt("the end of the run", lambda: self._client.set_terminated(run_id, status))


class _MLflowRun:
    """Buffers metrics: a thousand single ones take MLflow seconds, a batch of as many 0.1 s."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.run_id = run_id
        self._client = client
        self._buffer: list[Any] = []
        self._flushed = time.monotonic()

    def log_params(self, params: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        flat = [Param(_key(key), _cut(value)) for key, value in flatten(params).items()]
        for start in range(0, len(flat), PARAMS_PER_REQUEST):
            chunk = flat[start : start + PARAMS_PER_REQUEST]
            _attempt("parameters", partial(self._client.log_batch, self.run_id, params=chunk))

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._buffer += [Metric(_key(key), float(value), now, int(step)) for key, value in values.items()]
        if len(self._buffer) >= METRICS_PER_REQUEST or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what is buffered."""
        for start in range(0, len(self._buffer), METRICS_PER_REQUEST):
            chunk = self._buffer[start : start + METRICS_PER_REQUEST]
            _attempt("metrics", partial(self._client.log_batch, self.run_id, metrics=chunk))
        self._buffer = []
        self._flushed = time.monotonic()

    def log_picture(self, path: Path, folder: str = "") -> None:
        self.log_file(path, folder)

    def log_file(self, path: Path, folder: str = "") -> None:
        _attempt(path.name, lambda: self._client.log_artifact(self.run_id, str(path), folder or None))


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
    return MLflowTracker(uri, config.experiment)


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested mappings as one level with dotted keys: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _quieten() -> None:
    """Keep MLflow off the network and out of the user's terminal; what the user has set stays."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_DISABLE_AGENT_HINT": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _sqlite_file(uri: str) -> Path | None:
    """Return the absolute path of an SQLite URI's file, ``None`` for another store or one in memory."""
    scheme, separator, rest = uri.partition(":///")
    path = rest.partition("?")[0]
    if not separator or scheme.split("+")[0] != "sqlite" or not path or path == ":memory:":
        return None
    return Path(path).absolute()


def _require_writable(database: Path, uri: str) -> None:
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _store_fault(uri, error) from error
    if not os.access(database if database.exists() else database.parent, os.W_OK):
        raise _store_fault(uri, PermissionError("it is not writable"))


def _experiment_id(client: Any, name: str, database: Path | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        location = None if database is None else (database.parent / ARTIFACT_FOLDER).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except Exception:
            # Another process may have made it in between.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        reason = f"the experiment {name!r} has been deleted"
        raise InputFault(
            "tracking.experiment", "TRACKING_EXPERIMENT", reason, "restore it in MLflow or name another one"
        )
    return str(found.experiment_id)


def _store_fault(uri: str, error: Exception) -> InputFault:
    reason = re.split(r"[\n.] ", str(error) + " ", maxsplit=1)[0].strip() or type(error).__name__
    remedy = "set tracking.uri to e.g. sqlite:///mlflow.db in a writable folder, or tracking.kind=none"
    return InputFault(_without_password(uri), "TRACKING_STORE", f"the MLflow store cannot be used ({reason})", remedy)


def _without_password(uri: str) -> str:
    location = urlsplit(uri).netloc
    return uri.replace(location, location.rpartition("@")[2]) if "@" in location else uri


def _attempt(what: str, send: Callable[[], object]) -> None:
    """Send something to the store; a store that fails in the middle of a run must not cost the run its hours."""
    try:
        send()
    except Exception as error:
        logger.warning("the tracking store refused %s (%s); the run goes on", what, str(error).partition("\n")[0])


def _key(name: str) -> str:
    """Return ``name`` in the characters MLflow takes (letters, digits, ``_ - . : /`` and space), within its length."""
    allowed = re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"))
    return re.sub(r"/+", "/", allowed).strip("/. ")[:KEY_CHARACTERS] or "unnamed"


def _cut(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)
    return text if len(text) <= PARAM_CHARACTERS else text[: PARAM_CHARACTERS - 1] + "…"
