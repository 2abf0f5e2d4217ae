from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from medgan.generate.pipeline import Pipeline


@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_passes_all_stages_once(workers: int) -> None:
    results = list(Pipeline(workers).run(range(50), lambda x: x + 1, lambda x: x * 2))
    assert sorted(results) == [2 * (x + 1) for x in range(50)]
    assert list(Pipeline(workers).run([], lambda x: x, lambda x: x)) == []


def test_stages_overlap() -> None:
    """Computing waits for an earlier item to be in the writer, and the writer for a later one to be computed."""
    second = threading.Event()

    def compute(x: int) -> int:
        if x == 1:
            second.set()
        return x

    def write(x: int) -> int:
        assert second.wait(5)
        return x

    assert sorted(Pipeline(1).run(range(3), compute, write)) == [0, 1, 2]


def test_little_is_in_memory_however_many_items_there_are() -> None:
    alive, most, lock = 0, 0, threading.Lock()

    def items() -> Iterator[int]:
        nonlocal alive, most
        for x in range(60):
            with lock:
                alive += 1
                most = max(most, alive)
            yield x

    def write(x: int) -> int:
        nonlocal alive
        time.sleep(0.001)
        with lock:
            alive -= 1
        return x

    assert len(list(Pipeline(2).run(items(), lambda x: x, write))) == 60
    assert most <= 10


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_the_first_error_of_any_stage_ends_all(stage: str) -> None:
    def fail(name: str, x: int) -> int:
        if name == stage and x == 7:
            raise ValueError(name)
        return x

    before = threading.active_count()
    with pytest.raises(ValueError, match=stage):
        list(
            Pipeline(2).run(
                (fail("read", x) for x in range(100)), lambda x: fail("compute", x), lambda x: fail("write", x)
            )
        )
    assert threading.active_count() == before


def test_who_stops_listening_stops_the_threads() -> None:
    before = threading.active_count()
    results = Pipeline(2).run(iter(int, 1), lambda x: x, lambda x: x)
    next(results)
    results.close()
    assert threading.active_count() == before
