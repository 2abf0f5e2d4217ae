from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medgan.errors import InputFault
from medgan.locks import only_writer

HOLDER = """
import pathlib, sys
from medgan.locks import only_writer
with only_writer(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


def test_a_folder_made_for_the_lock_is_removed_if_nothing_was_put_in(tmp_path: Path) -> None:
    with only_writer(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()


def test_what_was_put_in_stays_and_nothing_else_is_there(tmp_path: Path) -> None:
    with only_writer(tmp_path / "a"):
        (tmp_path / "a" / "result").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]


def test_an_empty_folder_of_the_user_stays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with only_writer(tmp_path / "a"):
        pass
    assert (tmp_path / "a").is_dir()


@pytest.mark.parametrize("name", ["out", "with space", "ümlaut-日本", "x" * 200])
def test_a_second_process_is_refused_until_the_first_ends_or_is_killed(tmp_path: Path, name: str) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(InputFault, match="FOLDER_IN_USE"), only_writer(tmp_path / name):
        pass
    holder.kill()
    holder.communicate()
    with only_writer(tmp_path / name):
        pass


def test_a_link_to_the_folder_is_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with only_writer(tmp_path / "a"), pytest.raises(InputFault, match="FOLDER_IN_USE"), only_writer(tmp_path / "link"):
        pass


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300, "nul\0byte"])
def test_what_cannot_be_a_folder_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputFault, match=r"NOT_A_FOLDER|NOT_WRITABLE") as caught, only_writer(tmp_path / name):
        pass
    assert str(caught.value).isprintable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_place_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputFault, match="NOT_WRITABLE"), only_writer(tmp_path / "a"):
        pass
    tmp_path.chmod(0o700)


def test_a_file_system_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with caplog.at_level("INFO", "medgan"), only_writer(tmp_path):
        assert "no lock here" in caplog.text
