"""One writer an output folder: two runs that share one would overwrite each other in silence.

The lock is the kernel's, on the folder itself: nothing is left behind, and a run that is killed holds nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medgan.errors import InputFault

logger = logging.getLogger(__name__)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process alone; a folder made for that is removed again if nothing was put in.

    Where the file system has no locks (some network drives) this is said in the log and the work goes on.

    Raises:
        InputFault: ``FOLDER_IN_USE``: another process holds it; ``NOT_A_FOLDER`` or ``NOT_WRITABLE``.
    """
    made = _made(folder)
    descriptor = _held(folder)
    try:
        yield
    finally:
        for path in made:  # still locked, so nobody else counts on it
            with contextlib.suppress(OSError):
                path.rmdir()
        if descriptor is not None:
            os.close(descriptor)


def _made(folder: Path) -> list[Path]:
    """Create ``folder``; return what was missing, the innermost first."""
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InputFault(folder, "NOT_A_FOLDER", "--output is a file", "name a folder") from error
    except (OSError, ValueError) as error:
        reason = f"it cannot be created ({getattr(error, 'strerror', None) or error})"
        raise InputFault(_printable(folder), "NOT_WRITABLE", reason, "choose another folder") from error
    return missing


def _held(folder: Path) -> int | None:
    try:
        import fcntl
    except ImportError:  # Windows
        logger.info("%s: this system has no folder locks; see that no other run writes here", folder)
        return None
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError as error:
            reason = f"it cannot be opened ({error.strerror})"
            raise InputFault(folder, "NOT_WRITABLE", reason, "choose another or change its rights") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            reason = "another medgan run writes to this folder"
            raise InputFault(folder, "FOLDER_IN_USE", reason, "wait for it or name another --output") from error
        except OSError as error:
            os.close(descriptor)
            logger.info("%s: no lock here (%s); see that no other run writes here", folder, error.strerror)
            return None
        if _is_still(folder, descriptor):
            return descriptor
        os.close(descriptor)  # its former holder removed it in between


def _is_still(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _printable(path: Path) -> str:
    text = str(path)
    return text if text.isprintable() else text.encode("unicode_escape", "surrogateescape").decode()
