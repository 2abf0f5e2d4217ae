"""Where runs and generators are recorded: an MLflow store, or nowhere. The only package that imports mlflow.

Runs go through :class:`mlflow.MlflowClient` by their id and never through MLflow's global "active run", so nested runs
stay apart, several may be open at once, and two studies in one process cannot write into each other's runs.

Nothing that is recorded names a patient, a case or the place of the data: :func:`recordable` says what of a
configuration may be.
"""

from medgan.tracking.protocol import Dataset, NoTracker, PackedModel, Run, Tracker, flatten, recordable
from medgan.tracking.registry import is_model_uri, resolve_model_uri
from medgan.tracking.runs import MLflowTracker, open_tracker

__all__ = [
    "Dataset",
    "MLflowTracker",
    "NoTracker",
    "PackedModel",
    "Run",
    "Tracker",
    "flatten",
    "is_model_uri",
    "open_tracker",
    "recordable",
    "resolve_model_uri",
]
