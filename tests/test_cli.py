from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from medgan import __version__, cli

COMMANDS = ["demo", "check", "train", "evaluate", "generate", "compare", "reproduce", "export", "info"]


def medgan(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medgan.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def require_fault(result: subprocess.CompletedProcess[str], *mentions: str) -> None:
    """Exit 2, and the last thing on stderr is one line naming file, cause and remedy."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    line = result.stderr.strip().splitlines()[-1]
    for mention in mentions:
        assert mention in line
    assert ", " in line


@pytest.fixture
def config_file(tiny_tree: dict[str, object], cohort_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(cohort_folder, tmp_path / "cohort")
    tree = {**tiny_tree, "data": {**tiny_tree["data"], "root": str(tmp_path / "cohort")}}  # type: ignore[dict-item]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_answers_without_importing_torch(command: str | None) -> None:
    arguments = [command, "--help"] if command else ["--help"]
    code = (
        "import sys; sys.argv=['medgan', *sys.argv[1:]]\n"
        "import medgan.cli as c\n"
        "try: c.main()\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "heavy = {'torch', 'monai', 'mlflow', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Usage: medgan" in result.stdout


GENERATE = ["generate", "a", "--data", "b", "--output", "c"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--strength", "nan", "nan is not from 0 to 4"),
        ("--min-quality", "1", "1 is not from 0 to below 1"),
        ("--real-share", "1", "1 is not from 0 to below 1"),
        ("--max-share", "0", "0 is not above 0 and at most 1"),
        ("--max-share", "nan", "nan is not above 0 and at most 1"),
    ],
)
def test_a_value_out_of_an_options_range_is_said_in_words(option: str, value: str, said: str) -> None:
    result = CliRunner().invoke(cli.app, [*GENERATE, "--count", "1", option, value])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_the_version_is_told() -> None:
    result = CliRunner().invoke(cli.app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"medgan {__version__}\n")


def test_a_usage_error_is_one_line() -> None:
    for arguments in (
        ["nonsense"],
        ["train", "x.yaml"],
        [*GENERATE, "--count", "0"],
    ):
        result = medgan(*arguments)
        require_fault(result, "USAGE")
        assert len(result.stderr.strip().splitlines()) == 1


def test_a_missing_file(config_file: Path, tmp_path: Path) -> None:
    require_fault(medgan("train", tmp_path / "none.yaml", "--output", tmp_path / "o"), "none.yaml", "MISSING_FILE")
    elsewhere = medgan("train", config_file, "data.root=/nowhere", "--output", tmp_path / "o")
    require_fault(elsewhere, "/nowhere: MISSING_FILE", "set data.root=FOLDER")
    (tmp_path / "cohort" / "images" / "case03.nii.gz").unlink()
    require_fault(medgan("train", config_file, "--output", tmp_path / "o"), "case03.nii.gz", "MISSING_FILE")
    require_fault(medgan("info", tmp_path / "nowhere"), "nowhere", "MISSING_FILE")


def test_an_unknown_key(config_file: Path, tmp_path: Path) -> None:
    result = medgan("train", config_file, "training.stpes=5", "--output", tmp_path / "o")
    require_fault(result, "config.yaml", "CONFIG_UNKNOWN_KEY", "training.stpes", "did you mean training.steps?")
    assert not (tmp_path / "o").exists()


def test_a_truncated_volume(config_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cohort" / "images" / "case02.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    require_fault(medgan("train", config_file, "--output", tmp_path / "o"), "case02.nii.gz", "TRUNCATED")
    require_fault(
        medgan("compare", config_file, "compare.arms=[none]", "compare.baseline=none", "--output", tmp_path / "s"),
        "case02",
        "TRUNCATED",
    )
    result = medgan("check", tmp_path / "cohort")
    assert result.returncode == 2
    assert sum("TRUNCATED" in line for line in result.stdout.splitlines()) == 1


def test_a_label_of_another_geometry(config_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cohort" / "labels" / "case02.nii.gz"
    label = nibabel.load(path)
    moved = label.affine.copy()
    moved[0, 3] += 7
    nibabel.save(nibabel.Nifti1Image(np.asarray(label.dataobj), moved), path)
    require_fault(
        medgan("train", config_file, "--output", tmp_path / "o"), "case02.nii.gz", "GEOMETRY_MISMATCH", "7", "mm"
    )


def test_a_quality_gate_without_a_critic(checkpoint_folder: Path, cohort_folder: Path, tmp_path: Path) -> None:
    asked = ("--data", cohort_folder, "--output", tmp_path / "o", "--count", 1, "--min-quality", 0.05)
    result = medgan("generate", checkpoint_folder, *asked)
    require_fault(result, str(checkpoint_folder), "NO_CRITIC", "--min-quality", "train it again")
    assert not (tmp_path / "o" / "generation.json").exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = medgan("info", tmp_path / "nowhere", "--debug")
    assert result.returncode == 2
    assert "Traceback" in result.stderr


def test_check_says_what_there_is(cohort_folder: Path) -> None:
    result = medgan("check", cohort_folder, "--class-key", "size")
    assert result.returncode == 0, result.stdout
    assert "12 cases" in result.stdout
    findings = json.loads(medgan("check", cohort_folder, "--json").stdout)
    assert {"path", "code", "severity", "message"} <= set(findings[0])


def test_export_writes_a_bundle_and_refuses_what_is_no_checkpoint(checkpoint_folder: Path, tmp_path: Path) -> None:
    done = medgan("export", checkpoint_folder, "--output", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "bundle")
    assert (tmp_path / "bundle" / "configs" / "inference.json").is_file()
    require_fault(medgan("export", tmp_path / "none", "--output", tmp_path / "other"), "none", "MISSING_FILE")
    assert not (tmp_path / "other").exists()


def test_train_info_generate_reproduce(config_file: Path, tmp_path: Path) -> None:
    run, made = tmp_path / "run", tmp_path / "made"
    trained = medgan("train", config_file, "training.steps=2", "--output", run)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.strip() == str(run)
    assert "6 cases of 6 patients" in medgan("info", run).stdout
    assert json.loads(medgan("info", run, "--json").stdout)["steps"] == 2
    generated = medgan("generate", run, "--data", tmp_path / "cohort", "--output", made, "--count", 3)
    assert generated.returncode == 0, generated.stderr
    sidecar = sorted((made / "images").glob("*.json"))[0]
    again = medgan("reproduce", sidecar, "--output", tmp_path / "again.nii.gz")
    assert again.returncode == 0, again.stderr
    original = gzip.decompress((made / "images" / sidecar.name.replace(".json", ".nii.gz")).read_bytes())
    assert gzip.decompress((tmp_path / "again.nii.gz").read_bytes()) == original
