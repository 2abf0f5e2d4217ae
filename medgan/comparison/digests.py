"""SHA-256 of what a study works on: of its cases, whose files are read once, and of all that is JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from medgan.checkpoint import file_digest
from medgan.data.cohort import Case
from medgan.data.split import content_hash
from medgan.errors import InputFault


class Digests:
    """SHA-256 of cases. Every file is read once.

    Args:
        known: what another process has found (:attr:`known`) that sees the same files; they are not read for it again.
    """

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        self._known = dict(known or {})

    @property
    def known(self) -> Mapping[str, str]:
        """SHA-256 of the files that were asked for so far, for another process that sees the same."""
        return self._known

    def image(self, case: Case) -> str:
        """Return the SHA-256 of a case's images."""
        return self._once("/".join(map(str, case.images)), lambda: content_hash(case))

    def case(self, case: Case) -> str:
        """Return the SHA-256 of a case's images, label map, class and patient, as they count in its block.

        Raises:
            InputFault: the label map cannot be read.
        """
        path = case.label
        label = "" if path is None else self._once(str(path), lambda: _label_digest(path))
        return digest_of([self.image(case), label, case.class_name, case.patient_id])

    def cases(self, cases: Iterable[Case]) -> str:
        """Return the SHA-256 of cases, whatever their order."""
        return digest_of(sorted(map(self.case, cases)))

    def _once(self, name: str, compute: Callable[[], str]) -> str:
        if name not in self._known:
            self._known[name] = compute()
        return self._known[name]


def digest_of(tree: Any) -> str:
    """Return the SHA-256 of the canonical JSON of a tree."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def _label_digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise InputFault(
            path, "UNREADABLE", f"it cannot be read ({error.strerror})", "check that it is there"
        ) from error
