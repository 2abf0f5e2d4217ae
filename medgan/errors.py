"""Faults a user can mend. Each is one line: where, which, why, and what to do."""

from __future__ import annotations

from pathlib import Path


class MedganError(Exception):
    """Anything medgan raises on purpose. The command line ends with exit code 1."""

    exit_code = 1


class InputFault(MedganError):
    """The input or the configuration is at fault. The command line ends with exit code 2.

    Args:
        path: the file or folder at fault (shown as given).
        code: a short upper-case name of the fault, e.g. ``TRUNCATED``, stable across releases.
        reason: what is wrong, with the offending value.
        remedy: what to do about it.
    """

    exit_code = 2

    def __init__(self, path: str | Path, code: str, reason: str, remedy: str) -> None:
        super().__init__(path, code, reason, remedy)
        self.path = str(path)
        self.code = code
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        line = f"{self.path}: {self.code}: {self.reason}, {self.remedy}"
        line = " ".join(line.split())
        if line.isprintable():
            return line
        # What a file brings along must not steer the terminal it is shown on.
        return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)


class TrainingFailure(MedganError):
    """Training could not go on (a loss became NaN, a generator collapsed); the last good state is kept."""
