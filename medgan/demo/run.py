"""The main job, end to end: check → train → evaluate → generate → compare → report, on a phantom cohort."""

from __future__ import annotations

import csv
import logging
import shutil
import time
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medgan.comparison.study import compare
from medgan.config import Config, load_config
from medgan.data.check import check
from medgan.data.phantom import build_phantom_cohort
from medgan.errors import InputFault
from medgan.evaluation.evaluate import evaluate
from medgan.generate.batch import generate
from medgan.training.loop import train

MARK = ".medgan-demo"
PHANTOM = (
    "This cohort is a phantom: one brain template, varied at random, with drawn-in lesions. The figures below show "
    "that the parts work together; they say nothing about any clinical task."
)
PATIENTS = 36
SYNTHETIC_VOLUMES = 12
# Where some of the evaluation's figures stand in report.json; "siblings" in a path has its counterpart "real".
FIGURES = {
    "Fréchet distance to held-out": "fidelity.frechet.siblings.value",
    "precision": "diversity.neighbourhoods.siblings.precision.value",
    "coverage": "diversity.neighbourhoods.siblings.coverage.value",
}
ALONE = {
    "spread of siblings' shape, voxels": "diversity.shape_spread.value",
    "smallest Jacobian determinant": "preservation.jacobian_min.min",
    "share of folded voxels": "preservation.fold_share.max",
    "linked back to their source": "privacy.linkage.share.value",
}
EVALUATED = 10  # cases of each kind; all would take minutes
TASK_STEPS = 60  # of the independent networks that judge siblings


def run_demo(output: Path) -> None:
    """Run the demo into ``output``, anew each time; results are printed at the end.

    Raises:
        InputFault: ``output`` holds something that is not an earlier demo.
    """
    console = Console(highlight=False, soft_wrap=True, markup=False)
    started = time.monotonic()
    _make_room(output)
    config = _config(output)

    _section(console, 1, f"a cohort of phantom patients in {output / 'cohort'}")
    console.print(PHANTOM)
    manifest = build_phantom_cohort(
        output / "cohort", patients=PATIENTS, shape=config.study_grid.shape, seed=config.seed
    )

    _section(console, 2, "check")
    findings = check(manifest, class_key=config.data.class_key)
    for finding in findings:
        console.print(f"{finding.path}: {finding.code}: {finding.message}")
    if any(finding.severity == "error" for finding in findings):
        raise InputFault(manifest, "PHANTOM", "the built-in cohort does not pass the gate", "report this as a bug")

    _section(console, 3, f"train a generator ({config.training.steps} steps)")
    generator = train(config, output / "generator")

    _section(console, 4, "evaluate it")
    report = evaluate(generator, manifest, output / "evaluation", siblings=2, limit=EVALUATED, task_steps=TASK_STEPS)
    _print_figures(console, report)

    _section(console, 5, f"generate {SYNTHETIC_VOLUMES} synthetic volumes with label maps")
    console.print(str(generate(generator, manifest, output / "synthetic", count=SYNTHETIC_VOLUMES)))

    arms, labelled = ", ".join(map(str, config.compare.arms)), config.data.labelled
    _section(
        console, 6, f"compare: segmentation with {labelled} annotated patients; {arms}; {config.compare.seeds} seeds"
    )
    compare(config, output / "study")
    _print_summary(console, output / "study" / "summary.csv")

    console.rule(f"done in {(time.monotonic() - started) / 60:.1f} minutes")
    console.print(PHANTOM)
    for what, path in {
        "siblings": output / "synthetic" / "contact_sheet.png",
        "evaluation": output / "evaluation" / "report.html",
        "study": output / "study" / "report.html",
        "scores": output / "study" / "results.csv",
    }.items():
        console.print(f"{what:<12} {path}")
    console.print(f"{'MLflow':<12} mlflow ui --backend-store-uri {config.tracking.uri}")


def _config(output: Path) -> Config:
    with resources.as_file(resources.files("medgan.demo") / "demo.yaml") as path:
        config = load_config(path)
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"root": output / "cohort"}),
            "compare": config.compare.model_copy(update={"checkpoint": str(output / "generator")}),
            "tracking": config.tracking.model_copy(update={"uri": f"sqlite:///{output / 'mlflow.db'}"}),
        }
    )


def _make_room(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise InputFault(output, "NOT_A_FOLDER", "--output is a file", "name a folder")
    if output.exists() and any(output.iterdir()):
        if not (output / MARK).exists():
            raise InputFault(
                output, "OUTPUT_IN_USE", "the folder is not empty and no earlier demo", "name another --output"
            )
        for path in output.iterdir():  # not the folder itself, which this run holds
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    output.mkdir(parents=True, exist_ok=True)
    (output / MARK).touch()
    logging.getLogger("medgan").setLevel(logging.INFO)


def _section(console: Console, number: int, title: str) -> None:
    console.rule(f"{number}/6  {title}", align="left")


def _print_figures(console: Console, report: Mapping[str, Any]) -> None:
    """Print a few of the report's figures, siblings beside real volumes; all of them stand in report.html."""
    table = Table("figure", "siblings", "real volumes", box=None, pad_edge=False)
    for name, path in FIGURES.items():
        table.add_row(name, _figure(report, path), _figure(report, path.replace("siblings", "real")))
    for name, path in ALONE.items():
        table.add_row(name, _figure(report, path), "")
    console.print(table)


def _figure(report: Mapping[str, Any], path: str) -> str:
    node: Any = report
    for key in path.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return f"{node:.3f}" if isinstance(node, int | float) else "not measured"


def _print_summary(console: Console, path: Path) -> None:
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    table = Table("arm", "Dice", "difference", "95 % interval", "shown", box=None, pad_edge=False)
    for row in rows:
        if (row["metric"], row["structure"], row["split"]) != ("dice", "", "test"):
            continue
        interval = f"{_short(row['difference_low'])} to {_short(row['difference_high'])}" if row["verdict"] else ""
        difference = _short(row["difference"]) if row["verdict"] else "baseline"
        table.add_row(row["arm"], _short(row["mean"]), difference, interval, row["verdict"])
    console.print(table)


def _short(value: str) -> str:
    try:
        return f"{float(value):.3f}" if "." in value else value
    except ValueError:
        return value
