from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

import pytest

from medgan.errors import InputFault
from medgan.generate import store as stores
from medgan.generate.store import LocalStore, Store, open_store


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    place = tmp_path / "out" if request.param == "folder" else f"memory://{uuid.uuid4().hex}/out"
    opened = open_store(place)
    opened.prepare()
    return opened


def test_what_is_put_is_there(store: Store, tmp_path: Path) -> None:
    store.put("images/a.bin", b"12345")
    store.put("images/b", {"1.dcm": b"12", "2.dcm": b"345"})
    with store.open_text("m.csv") as stream:
        stream.write("x\n")
    assert store.read("images/a.bin") == b"12345"
    assert store.read("images/b/2.dcm") == b"345"
    assert store.read("m.csv") == b"x\n"
    assert (store.size("images/a.bin"), store.size("images/b"), store.size("nothing")) == (5, 5, -1)
    assert store.names() == {"images", "m.csv"}
    assert store.exists("images/b")
    assert not store.exists("images/c")
    fetched = store.fetch("images/b", tmp_path / "scratch")
    assert sorted(path.name for path in fetched.iterdir()) == ["1.dcm", "2.dcm"]


def test_a_folder_without_its_mark_is_written_again(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("b", {"1": b"1", "2": b"2", "3": b"3"})
    store.put("b", {"1": b"9"})
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["1"]


@pytest.mark.parametrize("content", [b"12345", {"1": b"1", "2": b"2"}])
def test_a_full_disk_leaves_nothing_under_the_name(
    content: bytes | dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == (1 if isinstance(content, bytes) else 2):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = LocalStore(tmp_path)
    monkeypatch.setattr(stores.os, "fsync", full)
    with pytest.raises(InputFault, match="DISK_FULL: could not write x"):
        store.put("x", content)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_call_left_is_removed_and_another_calls_is_not(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / "images").mkdir()
    mine = stores._temporary(tmp_path / "images" / "x")
    parts = mine.name.split(".")
    dead, alive, elsewhere = (
        mine.with_name(".".join([*parts[:2], host, pid, *parts[4:]]))
        for host, pid in ((parts[2], "999999999"), (parts[2], str(os.getppid())), ("otherhost", "1"))
    )
    for path in (dead, alive, elsewhere):
        path.touch()
    (tmp_path / "images" / f"{dead.name[:-4]}9.tmp").mkdir()
    store.prepare()
    assert sorted((tmp_path / "images").iterdir()) == sorted([alive, elsewhere])


def test_a_link_points_at_the_original(tmp_path: Path) -> None:
    (tmp_path / "original").write_bytes(b"1")
    LocalStore(tmp_path / "out").link("images/x", tmp_path / "original")
    assert (tmp_path / "out" / "images" / "x").is_symlink()
    with pytest.raises(InputFault, match="NO_LINKS"):
        open_store("memory://somewhere").link("x", tmp_path / "original")


def test_a_place_nobody_knows_is_refused() -> None:
    with pytest.raises(InputFault, match="NO_STORE"):
        open_store("nosuch://bucket")
