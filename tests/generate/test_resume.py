"""Whatever interrupts a call, the next one ends with the very files an uninterrupted call would have made."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import fsspec
import pytest
from generated import files, rows, sidecars

from medgan.errors import InputFault
from medgan.generate import store as stores
from medgan.generate.batch import generate
from medgan.generate.making import Made
from medgan.sampler.quality import ATTEMPT_STRIDE, MAX_ATTEMPTS

COUNT = 12


def volumes(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in files(folder).items() if name.endswith((".gz", ".dcm", ".csv"))}


@pytest.fixture(scope="module")
def whole(seen_checkpoint: Path, cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted call with one worker makes."""
    output = tmp_path_factory.mktemp("whole") / "out"
    generate(seen_checkpoint, cohort_folder, output, count=COUNT, seed=5, workers=1)
    return output


def test_the_number_of_workers_does_not_matter(
    whole: Path, seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    generate(seen_checkpoint, cohort_folder, tmp_path, count=COUNT, seed=5, workers=3)
    assert volumes(tmp_path) == volumes(whole)


def test_a_killed_call_leaves_nothing_half_and_the_next_goes_on(
    whole: Path, seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "medgan.cli", "generate", str(seen_checkpoint), "--data", str(cohort_folder),
               "--output", str(output), "--count", str(COUNT), "--seed", "5"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(output.glob("images/*.json"))) < 2:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = volumes(output)
    assert all(volumes(whole)[name] == content for name, content in killed.items())
    stamps = {path: path.stat().st_mtime_ns for path in output.glob("images/*.json")}
    generate(seen_checkpoint, cohort_folder, output, count=COUNT, seed=5)
    assert volumes(output) == volumes(whole)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert not list(output.rglob(".*"))


def test_a_full_disk_is_said_and_the_next_call_goes_on(
    whole: Path, seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    write = stores._write

    def full(path: Path, content: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls > 7:
            path.write_bytes(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    monkeypatch.setattr(stores, "_write", full)
    with pytest.raises(InputFault, match="DISK_FULL"):
        generate(seen_checkpoint, cohort_folder, tmp_path, count=COUNT, seed=5)
    assert all(volumes(whole)[name] == content for name, content in volumes(tmp_path).items())
    monkeypatch.undo()
    generate(seen_checkpoint, cohort_folder, tmp_path, count=COUNT, seed=5)
    assert volumes(tmp_path) == volumes(whole)


def test_a_volume_cut_by_a_power_failure_is_made_again(
    whole: Path, seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    generate(seen_checkpoint, cohort_folder, tmp_path, count=COUNT, seed=5)
    path = tmp_path / rows(tmp_path)[3]["image"]
    path.write_bytes(path.read_bytes()[:100])
    (tmp_path / "images" / f"{rows(tmp_path)[5]['case_id']}.json").write_text("{")
    generate(seen_checkpoint, cohort_folder, tmp_path, count=COUNT, seed=5)
    assert volumes(tmp_path) == volumes(whole)


def test_shards_in_any_order_give_the_same_files(
    whole: Path, seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    for number in (3, 1):
        generate(seen_checkpoint, cohort_folder, tmp_path, count=COUNT, seed=5, shard=(number, 3))
    assert not (tmp_path / "manifest.csv").exists()
    generate(seen_checkpoint, cohort_folder, tmp_path, count=COUNT, seed=5)
    assert volumes(tmp_path) == volumes(whole)
    with pytest.raises(InputFault, match="SHARD"):
        generate(seen_checkpoint, cohort_folder, tmp_path, count=COUNT, seed=5, shard=(4, 3))


def test_an_object_store_holds_the_same_files(
    whole: Path, seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    url = f"memory://{uuid.uuid4().hex}/out"
    assert generate(seen_checkpoint, cohort_folder, url, count=COUNT, seed=5) == f"{url}/manifest.csv"
    memory, root = fsspec.core.url_to_fs(url)
    memory.get(root, str(tmp_path / "out"), recursive=True)
    assert volumes(tmp_path / "out") == volumes(whole)
    before = memory.modified(f"{root}/{rows(whole)[0]['image']}")
    generate(seen_checkpoint, cohort_folder, url, count=COUNT, seed=5)
    assert memory.modified(f"{root}/{rows(whole)[0]['image']}") == before


def test_a_summary_counts_what_was_made(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["count"] == COUNT
    assert sum(summary["by_class"].values()) == sum(summary["by_source"].values()) == COUNT
    assert summary["largest_share_of_a_patient"] == 2 / COUNT
    assert summary["rejected"] == 0
    quality = summary["quality"]["displacement_mm"]
    assert 0 < quality["min"] <= quality["p05"] <= quality["median"] <= quality["p95"] <= quality["max"]
    assert summary["bytes"] == sum(p.stat().st_size for p in whole.rglob("*.nii.gz"))


def unwanted(made: Made) -> str | None:
    """A gate that refuses every first attempt at two of the sources."""
    first = made.recipe.parameters.index < ATTEMPT_STRIDE
    return "looks odd" if first and made.source.case.case_id in ("case01", "case02") else None


def test_a_gate_refuses_and_another_is_made_and_logged(
    whole: Path, seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    generate(seen_checkpoint, cohort_folder, tmp_path, count=COUNT, seed=5, gate=unwanted)
    log = (tmp_path / "rejections.csv").read_text().splitlines()
    assert log[0] == "case_id,source_case,size,attempt,index,quality,reason,left_out"
    assert log[1:] == [
        f"{c}_sibling000{i},{c},{size},1,{i},,looks odd,"
        for c, size in (("case01", "large"), ("case02", "small"))
        for i in (0, 1)
    ]
    changed = {name for name, content in files(tmp_path).items() if files(whole).get(name) != content and "nii" in name}
    assert {Path(name).name[:6] for name in changed} == {"case01", "case02"}
    assert sidecars(tmp_path)["case01_sibling0001"]["parameters"]["index"] == ATTEMPT_STRIDE + 1
    assert json.loads((tmp_path / "summary.json").read_text())["rejected"] == 4
    before = files(tmp_path)
    generate(seen_checkpoint, cohort_folder, tmp_path, count=COUNT, seed=5, gate=unwanted)
    assert files(tmp_path) == before


def test_a_gate_that_refuses_all_is_a_fault(seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path) -> None:
    words = rf"REJECTED: all 1 volumes were refused in {MAX_ATTEMPTS} attempts each \(last: never\)"
    with pytest.raises(InputFault, match=words):
        generate(seen_checkpoint, cohort_folder, tmp_path, count=1, gate=lambda _: "never")
