"""Reading, computing and writing at the same time, with few volumes in memory at any moment."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

_END = object()
_POLL_SECONDS = 0.2


@dataclass
class _Stage:
    """Threads of a stage still at work; the last of them tells each thread of the next that nothing more comes."""

    threads: int
    ends: int


class Pipeline:
    """Three stages on threads of one process, joined by short queues.

    The heavy parts – the network, warping, compression, the disk – let other threads run meanwhile. What is made does
    not depend on the number of threads: each item is a function of itself.

    Args:
        workers: threads that compute, and as many that write.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._stop = threading.Event()
        self._error: list[BaseException] = []
        self._lock = threading.Lock()

    def run(self, items: Iterable[A], compute: Callable[[A], B], write: Callable[[B], C]) -> Iterator[C]:
        """Yield what ``write`` returns, in the order in which it is done.

        Args:
            items: made by iterating, which is the reading: on a thread of its own, as far ahead as there are workers.
            compute: called on several threads.
            write: called on several threads.

        Raises:
            BaseException: the first that any stage raised; what was being written is finished.
        """
        n = self.workers
        read: queue.Queue[Any] = queue.Queue(n)
        computed: queue.Queue[Any] = queue.Queue(n)
        done: queue.Queue[Any] = queue.Queue()
        computing, writing = _Stage(n, ends=n), _Stage(n, ends=1)
        threads = [self._thread(self._feed, items, read)]
        threads += [self._thread(self._work, compute, read, computed, computing) for _ in range(n)]
        threads += [self._thread(self._work, write, computed, done, writing) for _ in range(n)]
        for thread in threads:
            thread.start()
        try:
            while (result := self._get(done)) is not _END:
                yield result
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self._error:
            raise self._error[0]

    def _thread(self, target: Callable[..., None], *arguments: Any) -> threading.Thread:
        return threading.Thread(target=self._guarded, args=(target, *arguments), daemon=True)

    def _guarded(self, target: Callable[..., None], *arguments: Any) -> None:
        try:
            target(*arguments)
        except BaseException as error:
            with self._lock:
                self._error.append(error)
            self._stop.set()

    def _feed(self, items: Iterable[A], read: queue.Queue[Any]) -> None:
        for item in items:
            if not self._put(read, item):
                return
        for _ in range(self.workers):
            self._put(read, _END)

    def _work(
        self, step: Callable[[Any], Any], source: queue.Queue[Any], target: queue.Queue[Any], stage: _Stage
    ) -> None:
        while (item := self._get(source)) is not _END:
            result = step(item)
            del item
            if not self._put(target, result):
                return
            del result
        with self._lock:
            stage.threads -= 1
            ends = 0 if stage.threads else stage.ends
        for _ in range(ends):
            self._put(target, _END)

    def _put(self, target: queue.Queue[Any], item: Any) -> bool:
        while not self._stop.is_set():
            try:
                target.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def _get(self, source: queue.Queue[Any]) -> Any:
        while not self._stop.is_set():
            try:
                return source.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
        return _END
