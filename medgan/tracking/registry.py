"""Models in an MLflow registry: how a version comes into it, and how its files come out again."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from medgan.errors import InputFault
from medgan.tracking.protocol import PackedModel
from medgan.tracking.store import DEFAULT_URI, first_contact, quieten, sqlite_file, without_password

SCHEME = "models:/"
DIGEST_TAG = "medgan.sha256"
# Where MLflow puts the files of a model within its folder.
DATA = "data"
EXAMPLE_VOXELS = 16
REFUSED = re.compile(r"[/:%\"']")


def is_model_uri(place: str | Path) -> bool:
    """Whether ``place`` names a model of a registry, ``models:/name@alias`` or ``models:/name/version``."""
    return _uri(place).startswith(SCHEME)


def resolve_model_uri(uri: str | Path, store: str | None = None) -> Path:
    """Return the local folder of a registered model's files, downloaded where it is not there yet.

    Versions do not change, so each is downloaded once: into ``medgan/models`` below ``XDG_CACHE_HOME``, which is
    ``~/.cache`` where it is not set.

    Args:
        uri: ``models:/name@alias`` or ``models:/name/version``.
        store: the registry; by default the environment's ``MLFLOW_REGISTRY_URI``, else its ``MLFLOW_TRACKING_URI``,
            else ``sqlite:///mlflow.db`` in the working directory.

    Raises:
        InputFault: not such a URI, no such model, alias or version, one that medgan has not registered, or a registry
            that cannot be reached.
    """
    uri = _uri(uri)
    name, alias, version = _parts(uri)
    store = store or os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    database = sqlite_file(store)
    if database is not None and not database.is_file():
        remedy = "set MLFLOW_TRACKING_URI to the store the model was registered in"
        raise InputFault(uri, "MODEL_REGISTRY", f"there is no store at {without_password(store)}", remedy)
    quieten()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        with first_contact():
            client = MlflowClient(tracking_uri=store, registry_uri=store)
            found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            raise _unknown(client, uri, name, alias or version) from error
        raise _unreachable(uri, store, error) from error
    except Exception as error:
        raise _unreachable(uri, store, error) from error
    if DIGEST_TAG not in found.tags:
        reason = f"version {found.version} is not a generator that medgan has registered"
        raise InputFault(uri, "NO_GENERATOR", reason, "name one that `medgan compare` or register_generator made")
    # The same name and number can exist in two stores, and again after a model was deleted.
    key = hashlib.sha256(f"{store}\n{found.source}\n{found.tags[DIGEST_TAG]}".encode()).hexdigest()[:16]
    folder = _cache() / f"{key_of_name(name)}-{found.version}-{key}"
    if not folder.is_dir():
        _download(f"{SCHEME}{name}/{found.version}", uri, store, folder)
    return folder


def register_model(client: Any, model: PackedModel, experiment: str, *, run_id: str, alias: str | None) -> str:
    """Log a model with signature and example, make it a version of a registered model and return the number.

    The model is files and the name of a module that reads them: nothing of it is pickled.

    Args:
        client: MLflow's, of the store.
        model: what to register.
        experiment: id of the experiment it is logged in.
        run_id: the run it comes from, or empty.
        alias: name to give to the version.
    """
    from mlflow.entities import LoggedModelOutput

    name = key_of_name(model.name)
    version = _known_version(client, name, model.digest)
    if version is None:
        tags = {DIGEST_TAG: model.digest, **model.tags}
        logged = client.create_logged_model(experiment, name=name, source_run_id=run_id or None, tags=dict(tags))
        with tempfile.TemporaryDirectory(prefix="medgan-model-") as scratch:
            folder = Path(scratch) / "model"
            _save(model, folder, run_id, logged.model_id)
            client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
        if run_id:
            client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
        # A server knows its own models; a database's registry would look them up in MLflow's global store.
        served = urlsplit(client.tracking_uri).scheme in ("http", "https")
        made = client.create_model_version(
            name,
            f"{SCHEME}{logged.model_id}" if served else logged.artifact_location,
            run_id=run_id or None,
            tags=tags,
            description=model.description,
            model_id=logged.model_id,
        )
        version = str(made.version)
    if alias is not None:
        client.set_registered_model_alias(name, alias, version)
    return version


def key_of_name(name: str) -> str:
    """Return ``name`` without the characters that a registered model's may not have."""
    return REFUSED.sub("_", name).strip() or "generator"


def _save(model: PackedModel, folder: Path, run_id: str, model_id: str) -> None:
    import numpy as np
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    volumes = Schema([TensorSpec(np.dtype(np.float32), (-1, model.channels, -1, -1, -1))])
    types = {int: DataType.long, float: DataType.double, str: DataType.string}
    params = ParamSchema([ParamSpec(name, types[type(value)], value) for name, value in model.params.items()])
    example = np.linspace(0, 1, EXAMPLE_VOXELS, dtype=np.float32)[:, None, None] * np.ones(
        (1, model.channels, 1, EXAMPLE_VOXELS, EXAMPLE_VOXELS), np.float32
    )
    pyfunc.save_model(
        str(folder),
        loader_module=model.loader,
        data_path=str(model.folder),
        mlflow_model=Model(artifact_path="model", run_id=run_id or None, model_id=model_id),
        signature=ModelSignature(inputs=volumes, outputs=volumes, params=params),
        input_example=(example, dict(model.params)),
        pip_requirements=list(model.requirements),
    )


def _known_version(client: Any, name: str, digest: str) -> str | None:
    """Return the version with this digest; the registered model is made if it is not there."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}'")
    same = [int(v.version) for v in versions if v.tags.get(DIGEST_TAG) == digest]
    return str(max(same)) if same else None


def _download(version: str, uri: str, store: str, folder: Path) -> None:
    from mlflow import artifacts

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder.parent) as scratch:
        try:
            got = Path(artifacts.download_artifacts(artifact_uri=version, dst_path=scratch, tracking_uri=store))
        except Exception as error:
            raise _unreachable(uri, store, error) from error
        inner = [path for path in (got / DATA).glob("*") if path.is_dir()]
        if len(inner) != 1:
            raise InputFault(uri, "NO_GENERATOR", "its files are not there", "register the generator again")
        try:
            shutil.move(str(inner[0]), folder)
        except OSError:
            # Another process may have been quicker.
            if not folder.is_dir():
                raise


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "medgan" / "models"


def _uri(place: str | Path) -> str:
    return place.as_posix() if isinstance(place, Path) else place


def _parts(uri: str) -> tuple[str, str, str]:
    """Return name, alias and version; one of the latter two is empty."""
    match = re.fullmatch(r"models:/+([^/@]+)(?:@([^/@]+)|/(\d+))", uri)
    if match is None:
        raise InputFault(
            uri, "MODEL_URI", "neither an alias nor a version", "write models:/name@alias or models:/name/1"
        )
    return match[1], match[2] or "", match[3] or ""


def _unknown(client: Any, uri: str, name: str, wanted: str) -> InputFault:
    try:
        model = client.get_registered_model(name)
        aliases = [f"@{alias}" for alias in sorted(model.aliases)]
        versions = sorted((str(v.version) for v in client.search_model_versions(f"name = '{name}'")), key=int)
        known = ", ".join([*aliases, *versions]) or "none"
        return InputFault(uri, "UNKNOWN_MODEL", f"the model has no version {wanted!r}", f"it has: {known}")
    except Exception:
        known = ", ".join(sorted(m.name for m in client.search_registered_models(max_results=20))) or "none"
        return InputFault(uri, "UNKNOWN_MODEL", f"no model {name!r} is registered", f"the store has: {known}")


def _unreachable(uri: str, store: str, error: Exception) -> InputFault:
    reason = re.split(r"[\n.] ", str(error) + " ", maxsplit=1)[0].strip() or type(error).__name__
    remedy = "start the server or set MLFLOW_TRACKING_URI to the store the model was registered in"
    place = without_password(store)
    return InputFault(uri, "MODEL_REGISTRY", f"the registry {place} cannot be used ({reason[:200]})", remedy)
