"""An MLflow store: how it is opened, and what it is asked for."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from medgan.errors import InputFault

logger = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACT_FOLDER = "mlartifacts"
# MLflow's own limits of characters.
PARAM_CHARACTERS = 6000
KEY_CHARACTERS = 250
TAG_CHARACTERS = 8000
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
REMEDY = "set tracking.uri to e.g. sqlite:///mlflow.db in a writable folder, or tracking.kind=none"


def quieten() -> None:
    """Keep MLflow off the network and out of the user's terminal; what the user has set stays."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_DISABLE_AGENT_HINT": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def first_contact() -> Iterator[None]:
    """Let MLflow give up on a server soon; it retries for four minutes, which only a run in progress is worth."""
    if RETRIES in os.environ:
        yield
        return
    os.environ[RETRIES] = "1"
    try:
        yield
    finally:
        os.environ.pop(RETRIES, None)


def sqlite_file(uri: str) -> Path | None:
    """Return the absolute path of an SQLite URI's file, ``None`` for another store or one in memory."""
    scheme, separator, rest = uri.partition(":///")
    path = rest.partition("?")[0]
    if not separator or scheme.split("+")[0] != "sqlite" or not path or path == ":memory:":
        return None
    return Path(path).absolute()


def require_writable(database: Path, uri: str) -> None:
    """Make the folder of an SQLite file.

    Raises:
        InputFault: it cannot be made, or the file cannot be written.
    """
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise store_fault(uri, error) from error
    if not os.access(database if database.exists() else database.parent, os.W_OK):
        raise store_fault(uri, PermissionError("it is not writable"))


def experiment_id(client: Any, name: str, database: Path | None) -> str:
    """Return an experiment's id; it is made if it is not there, with its artifacts beside an SQLite file.

    Raises:
        InputFault: it has been deleted.
    """
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


def store_fault(uri: str, error: Exception) -> InputFault:
    """Return the fault of a store that cannot be used, in one line, without its password."""
    reason = re.split(r"[\n.] ", str(error) + " ", maxsplit=1)[0].strip() or type(error).__name__
    return InputFault(without_password(uri), "TRACKING_STORE", f"the MLflow store cannot be used ({reason})", REMEDY)


def without_password(uri: str) -> str:
    """Return the URI without user and password."""
    location = urlsplit(uri).netloc
    return uri.replace(location, location.rpartition("@")[2]) if "@" in location else uri


def attempt(what: str, send: Callable[[], object]) -> None:
    """Send something to the store; a store that fails in the middle of a run must not cost the run its hours."""
    try:
        send()
    except Exception as error:
        logger.warning("the tracking store refused %s (%s); the run goes on", what, str(error).partition("\n")[0])


def key_of(name: str) -> str:
    """Return ``name`` in the characters MLflow takes (letters, digits, ``_ - . : /`` and space), within its length."""
    allowed = re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_").replace("+", "-and-"))
    return re.sub(r"/+", "/", allowed).strip("/. ")[:KEY_CHARACTERS] or "unnamed"


def cut(value: object, characters: int = PARAM_CHARACTERS) -> str:
    """Return ``value`` as text within MLflow's limit."""
    text = f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)
    return text if len(text) <= characters else text[: characters - 1] + "…"
