"""What Linux says of this process's memory."""

from __future__ import annotations

from pathlib import Path

STATUS = Path("/proc/self/status")


def kilobytes(name: str) -> int:
    """Return a figure of ``/proc/self/status``: ``VmRSS`` for now, ``VmHWM`` for the peak.

    The peak is this process's own; that of ``getrusage`` includes the process it was started from.
    """
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(name))
