"""Where files go: a folder of this machine, or any place fsspec can write to. A name appears only with its content.

On a disk: a temporary name, flushed, renamed. In an object store an upload is whole or not there at all.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import psutil

from medgan.checkpoint import make_output
from medgan.errors import InputFault

Content = bytes | Mapping[str, bytes]
"""Of a file, or of a folder's files by their names."""
ABANDONED_SECONDS = 86_400
"""Age at which another machine's temporary file is taken for abandoned."""


class Store(Protocol):
    """A place for files, named by paths relative to it with ``/`` between their parts."""

    @property
    def place(self) -> str:
        """Where it is, as the user named it."""

    def put(self, name: str, content: Content) -> None:
        """Write a file or a folder of files; it has its name only when it is complete."""

    def read(self, name: str) -> bytes:
        """Return a file's content."""

    def exists(self, name: str) -> bool:
        """Whether there is such a file or folder."""

    def size(self, name: str) -> int:
        """Return the bytes of a file, or of all files of a folder; -1 where there is none."""

    def names(self, folder: str = "") -> set[str]:
        """Return the names in a folder of it, by default at the top."""

    def open_text(self, name: str) -> contextlib.AbstractContextManager[IO[str]]:
        """Open a new text file that has its name only when it was closed without an error."""

    def link(self, name: str, target: Path) -> None:
        """Let ``name`` be a link to a file that stays where it is."""

    def fetch(self, name: str, folder: Path) -> Path:
        """Return the path of a file or folder on this machine, copied into ``folder`` if it is elsewhere."""

    def prepare(self) -> None:
        """Make the place, and remove what an interrupted call left half written."""


def open_store(place: str | Path) -> Store:
    """Return the store that ``place`` names: a folder, or a URL such as ``s3://bucket/folder``."""
    text = str(place)
    return RemoteStore(text) if "://" in text else LocalStore(Path(place))


class LocalStore:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def place(self) -> str:
        """The folder's path."""
        return str(self.folder)

    def prepare(self) -> None:
        """Make the folder, and remove temporary files of calls that are no more."""
        make_output(self.folder)
        for parent in (self.folder, *(path for path in self.folder.iterdir() if path.is_dir())):
            for entry in os.scandir(parent):
                if entry.name.startswith(".") and entry.name.endswith(".tmp") and _is_abandoned(entry):
                    _remove(Path(entry.path))

    def put(self, name: str, content: Content) -> None:
        """Write a file or a folder of files, flushed to the disk before it gets its name."""
        path = self.folder / name
        temporary = _temporary(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                _write(temporary, content)
            else:
                temporary.mkdir()
                for file, part in content.items():
                    _write(temporary / file, part)
                _flush(temporary)
                if path.is_dir():  # whole, but of an interrupted call: its sidecar is missing
                    shutil.rmtree(path)
            temporary.replace(path)
            _flush(path.parent)
        except OSError as error:
            raise self._fault(name, error) from error
        finally:
            _remove(temporary)

    @contextlib.contextmanager
    def open_text(self, name: str) -> Iterator[IO[str]]:
        """Open a new text file under a temporary name until it is closed."""
        path = self.folder / name
        temporary = _temporary(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except OSError as error:
            raise self._fault(name, error) from error
        finally:
            _remove(temporary)

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        return (self.folder / name).read_bytes()

    def exists(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        return (self.folder / name).exists()

    def size(self, name: str) -> int:
        """Return the bytes of a file, or of all files of a folder; -1 where there is none."""
        path = self.folder / name
        if path.is_dir():
            return sum(entry.stat().st_size for entry in os.scandir(path))
        return path.stat().st_size if path.is_file() else -1

    def names(self, folder: str = "") -> set[str]:
        """Return the names in a folder of it, by default at the top."""
        path = self.folder / folder
        return {entry.name for entry in path.iterdir()} if path.is_dir() else set()

    def link(self, name: str, target: Path) -> None:
        """Let ``name`` be a symbolic link."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        try:
            temporary.symlink_to(target.resolve())
            temporary.replace(path)
        except OSError as error:
            raise self._fault(name, error) from error
        finally:
            _remove(temporary)

    def fetch(self, name: str, folder: Path) -> Path:  # noqa: ARG002 - it is here already
        """Return the path."""
        return self.folder / name

    def _fault(self, name: str, error: OSError) -> InputFault:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return InputFault(
            self.folder,
            "DISK_FULL" if full else "NOT_WRITABLE",
            f"could not write {name} ({error.strerror})",
            "free space and run the same command again" if full else "choose another folder or change its rights",
        )


class RemoteStore:
    """A place that fsspec can write to; an upload is whole or not there."""

    def __init__(self, url: str) -> None:
        import fsspec

        self._url = url.rstrip("/")
        try:
            self._files, self._root = fsspec.core.url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            reason = f"fsspec cannot open it ({' '.join(str(error).split())})"
            raise InputFault(url, "NO_STORE", reason, "install what it names, or write to a folder") from error

    @property
    def place(self) -> str:
        """The URL."""
        return self._url

    def prepare(self) -> None:
        """Make the place, where it is one that has folders."""
        self._files.makedirs(self._root, exist_ok=True)

    def put(self, name: str, content: Content) -> None:
        """Upload a file or a folder's files."""
        if isinstance(content, bytes):
            self._files.pipe_file(self._path(name), content)
            return
        for file, part in content.items():
            self._files.pipe_file(f"{self._path(name)}/{file}", part)

    @contextlib.contextmanager
    def open_text(self, name: str) -> Iterator[IO[str]]:
        """Open a new text file."""
        with self._files.open(self._path(name), "w", encoding="utf-8", newline="") as stream:
            yield stream

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        return bytes(self._files.cat_file(self._path(name)))

    def exists(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        return bool(self._files.exists(self._path(name)))

    def size(self, name: str) -> int:
        """Return the bytes of a file, or of all files below a folder; -1 where there is none."""
        try:
            found = self._files.info(self._path(name))
            return int(found["size"]) if found["type"] == "file" else int(self._files.du(self._path(name)))
        except FileNotFoundError:
            return -1

    def names(self, folder: str = "") -> set[str]:
        """Return the names in a folder of it, by default at the top."""
        path = self._path(folder) if folder else self._root
        try:
            return {Path(entry).name for entry in self._files.ls(path, detail=False)}
        except FileNotFoundError:
            return set()
        finally:
            self._files.invalidate_cache()  # or what other machines write meanwhile would not be seen

    def link(self, name: str, target: Path) -> None:
        """Refuse: an object store has no links."""
        raise InputFault(self._url, "NO_LINKS", f"{target.name} cannot be linked as {name}", "write to a folder")

    def fetch(self, name: str, folder: Path) -> Path:
        """Download into ``folder``."""
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self._files.get(self._path(name), str(target), recursive=True)
        return target

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


def _temporary(path: Path) -> Path:
    """Return a hidden name beside ``path`` that tells who is writing, and is short however long the name is."""
    short = hashlib.sha256(path.name.encode()).hexdigest()[:16]
    return path.with_name(f".{short}.{_host()}.{os.getpid()}.{threading.get_ident()}.tmp")


def _host() -> str:
    return re.sub(r"[^\w-]", "-", socket.gethostname())[:40]


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    parts = entry.name.split(".")
    if len(parts) == 6 and parts[2] == _host() and parts[3].isdigit():
        return int(parts[3]) == os.getpid() or not psutil.pid_exists(int(parts[3]))
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > ABANDONED_SECONDS


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _flush(folder: Path) -> None:
    """Let the folder's entries outlast a power cut."""
    descriptor: Any = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
