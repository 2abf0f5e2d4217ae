"""Past one machine: the same files from actors of a Ray cluster, also when one of them is killed at work."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from generated import files

from medgan.errors import InputFault
from medgan.generate.batch import generate
from medgan.generate.making import Made

COUNT = 12
ray = pytest.importorskip("ray", reason="Ray is absent (pip install '.[ray]')")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two worker processes on this machine."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield ray
    ray.shutdown()


def volumes(folder: Path) -> dict[str, bytes]:
    return {
        name: content for name, content in files(folder).items() if name.endswith((".gz", ".csv", "generation.json"))
    }


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_changes_nothing(seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path) -> None:
    mark = str(tmp_path / "killed")

    def killer(made: Made) -> None:
        """Kill this very process, once, in the middle of the work."""
        if made.order.name == "case03_sibling0001" and not os.path.exists(mark):  # noqa: PTH110
            open(mark, "w").close()  # noqa: PTH123
            os.kill(os.getpid(), signal.SIGKILL)

    generate(seen_checkpoint, cohort_folder, tmp_path / "local", count=COUNT, seed=5)
    generate(seen_checkpoint, cohort_folder, tmp_path / "ray", count=COUNT, seed=5, engine="ray", gate=killer)
    assert Path(mark).exists()
    assert volumes(tmp_path / "ray") == volumes(tmp_path / "local")


@pytest.mark.usefixtures("cluster")
def test_what_a_quality_gate_refuses_does_not_depend_on_the_engine(
    judged_checkpoint: Path, cohort_folder: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"count": 6, "seed": 3, "strength": 0.3, "min_quality": 0.11}
    for engine in ("local", "ray"):
        generate(judged_checkpoint, cohort_folder, tmp_path / engine, engine=engine, **asked)
    assert volumes(tmp_path / "ray") == volumes(tmp_path / "local")
    assert {p.name for p in (tmp_path / "ray").glob("left_out/*")} == {
        p.name for p in (tmp_path / "local").glob("left_out/*")
    }
    assert len(list((tmp_path / "ray").glob("left_out/*"))) == 3


@pytest.mark.usefixtures("cluster")
def test_a_fault_in_a_worker_is_the_callers(seen_checkpoint: Path, cohort_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("case_id,image\na,bad.nii.gz\n")
    (tmp_path / "bad.nii.gz").write_bytes(b"no volume")
    with pytest.raises(InputFault, match=r"bad\.nii\.gz"):
        generate(seen_checkpoint, tmp_path / "m.csv", tmp_path / "out", count=1, engine="ray", sources="all")
