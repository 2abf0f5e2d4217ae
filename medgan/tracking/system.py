"""The machine's load while a run is open: processors, memory, disk, network and GPUs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

# A store that no longer answers must not hold the end of a run.
STOP_SECONDS = 10.0


@contextmanager
def watch_machine(run_id: str, uri: str, seconds: float) -> Iterator[None]:
    """Record ``system/...`` metrics of a run in a thread of its own, by MLflow's monitor.

    Args:
        run_id: the run.
        uri: its store.
        seconds: between samples; 0 for none. A run that is shorter has none.
    """
    monitor = None
    if seconds > 0:
        try:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            monitor = SystemMetricsMonitor(run_id, sampling_interval=seconds, tracking_uri=uri)
            monitor.start()
        except Exception as error:  # no psutil, no driver: the run matters more
            logger.info("the machine's load is not recorded (%s)", type(error).__name__)
            monitor = None
    try:
        yield
    finally:
        if monitor is not None:
            stopping = threading.Thread(target=monitor.finish, name="stop-system-metrics", daemon=True)
            stopping.start()
            stopping.join(STOP_SECONDS)
