from __future__ import annotations

from pathlib import Path

import pytest

from medgan.config import Config
from medgan.demo import run
from medgan.errors import InputFault


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo at a size for a test: the same steps, fewer and smaller of everything."""
    real = run._config

    def config(output: Path) -> Config:
        full = real(output)
        return full.model_copy(
            update={
                "preprocess": full.preprocess.model_copy(update={"shape": (16, 16, 16)}),
                "training": full.training.model_copy(update={"steps": 3, "validate_every": 3, "batch": 2}),
                "compare": full.compare.model_copy(
                    update={
                        "steps": 2,
                        "seeds": 1,
                        "batch": 2,
                        "curve_points": 1,
                        "preprocess": full.study_grid.model_copy(update={"shape": (24, 24, 24)}),
                    }
                ),
            }
        )

    monkeypatch.setattr(run, "_config", config)
    monkeypatch.setattr(run, "PATIENTS", 24)
    monkeypatch.setattr(run, "SYNTHETIC_VOLUMES", 3)
    monkeypatch.setattr(run, "EVALUATED", 4)
    monkeypatch.setattr(run, "TASK_STEPS", 2)


@pytest.mark.usefixtures("small")
def test_the_demo_runs_end_to_end_says_it_is_a_phantom_and_runs_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "demo"
    run.run_demo(output)
    said = capsys.readouterr().out
    assert "phantom" in said
    assert "not measured" not in said
    assert "mlflow ui --backend-store-uri sqlite:///" in said
    for name in (
        "cohort/manifest.csv",
        "generator/checkpoint.json",
        "evaluation/report.html",
        "synthetic/manifest.csv",
        "synthetic/contact_sheet.png",
        "study/report.html",
        "study/results.csv",
        "mlflow.db",
    ):
        assert (output / name).is_file(), name
    (output / "stale").touch()
    run._make_room(output)
    assert not (output / "stale").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(InputFault, match="OUTPUT_IN_USE"):
        run.run_demo(tmp_path)
    assert (tmp_path / "thesis.docx").exists()
