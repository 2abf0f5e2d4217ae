"""A data loader that says which sample a worker process died over.

Of a worker that is killed – for want of memory, most often – torch knows the process, not what it was reading. Shared
memory outlives a process: each worker notes in it the sample it begins.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from monai.data import DataLoader
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from medgan.errors import MedganError
from medgan.transforms.draws import file_name

NOTHING = -1


class WorkerLost(MedganError):
    """A worker process of a loader died; the message names the sample."""


class SampleDataLoader(DataLoader):
    """MONAI's ``DataLoader``, which names the sample when a worker process dies, or fails, over it.

    Args:
        dataset: map-style.
        num_workers: processes that read.
        **kwargs: of ``monai.data.DataLoader``.

    Raises:
        ValueError: an iterable data set, whose samples have no number.
        WorkerLost: while iterating, or anywhere in the main thread in the meantime: a worker died. Its cause is
            torch's own error.

    Example:
        >>> loader = SampleDataLoader([{"image": 1}, {"image": 2}], batch_size=2)
        >>> [batch["image"].tolist() for batch in loader]
        [[1, 2]]
    """

    def __init__(self, dataset: Any, num_workers: int = 0, **kwargs: Any) -> None:
        if isinstance(dataset, IterableDataset):
            raise ValueError("the samples of an iterable data set have no number: give a map-style one")
        # By worker: its process, and the sample it is at.
        self._at = torch.full((max(num_workers, 1), 2), NOTHING, dtype=torch.int64)
        self._at.share_memory_()  # type: ignore[no-untyped-call]
        super().__init__(_Noting(dataset, self._at), num_workers, **kwargs)
        if num_workers:
            _loaders.add(self)

    def __iter__(self) -> Iterator[Any]:
        """Go through the batches."""
        self._at.fill_(NOTHING)  # of workers that were sent away in the middle of a sample
        batches = super().__iter__()
        if self.num_workers:
            _listen()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                self._explain(error)
                raise
            yield batch

    def _explain(self, error: RuntimeError) -> None:
        """Raise what is known of a worker that died, if one did.

        Raises:
            WorkerLost: with the sample.
        """
        reason = " ".join(str(error).split())
        if "DataLoader worker (pid" not in reason:
            return
        for pid, index in self._at.tolist():
            if index != NOTHING and re.search(rf"\b{pid}\b", reason):
                sample = _described(self.dataset, index)
                raise WorkerLost(
                    f"{sample}: WORKER_DIED: a worker of the data loader ended over this sample ({reason}), check its "
                    "size, use fewer workers or more memory"
                ) from error


class _Noting(Dataset):  # type: ignore[type-arg]
    """A data set whose worker notes which sample it is at."""

    def __init__(self, dataset: Any, at: torch.Tensor) -> None:
        self.dataset = dataset
        self.at = at

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        worker = get_worker_info()
        if worker is None:
            return self.dataset[index]
        row = self.at[worker.id]
        row[0], row[1] = os.getpid(), int(index)
        try:
            sample = self.dataset[index]
        except Exception as error:
            error.add_note(f"medgan: over {_described(self, int(index))}")
            raise
        row[1] = NOTHING
        return sample

    def __getattr__(self, name: str) -> Any:
        # torch would ask the data set for a whole batch at once, past the noting.
        if name.startswith("__") or "dataset" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.__dict__["dataset"], name)


_loaders: weakref.WeakSet[SampleDataLoader] = weakref.WeakSet()
_before: list[Any] = []


def _listen() -> None:
    """Hear of a worker's death as torch does: by SIGCHLD, in the main thread, whatever that is at."""
    # Once a process, as torch: a handler put in between would else be called by, and call, this one for ever.
    if not _before and threading.current_thread() is threading.main_thread():
        _before.append(signal.signal(signal.SIGCHLD, _on_child))


def _on_child(number: int, frame: FrameType | None) -> None:
    try:
        for handler in filter(callable, _before):
            handler(number, frame)
    except RuntimeError as error:
        for loader in list(_loaders):
            loader._explain(error)
        raise


def _described(dataset: _Noting, index: int) -> str:
    """Return the number of a sample and the files that it is made of, as far as its data set tells."""
    data = getattr(dataset, "data", dataset.dataset)
    # Anything but a list might read the sample, and end this process too.
    item = data[index] if isinstance(data, list | tuple) and index < len(data) else {}
    values = item if isinstance(item, Mapping) else {"image": item}
    named = {key: str(v) if isinstance(v, str | Path) else file_name(v) for key, v in values.items()}
    return ", ".join([f"sample {index}", *(f"{key} {name}" for key, name in named.items() if name)])
