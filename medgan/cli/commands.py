"""The subcommands, but for those that make synthetic volumes. Nothing heavy is imported before one runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medgan.cli.arguments import SOME_STRENGTH, AsJson, CheckpointFolder, CohortPath, ConfigFile, Output, Overrides
from medgan.limits import MAX_STRENGTH
from medgan.locks import only_writer


class StudyEngine(StrEnum):
    """What runs a study."""

    local = "local"
    ray = "ray"


def demo(output: Output = Path("demo-output")) -> None:
    """Run the main job on a built-in cohort, offline, in minutes on two CPU cores."""
    from medgan.demo.run import run_demo

    with only_writer(output):
        run_demo(output)


def check(
    path: Annotated[Path, typer.Argument(help="cohort, volume or DICOM folder")],
    class_key: Annotated[str | None, typer.Option(help="manifest column that holds the class")] = None,
    frame: Annotated[int | None, typer.Option(min=0, help="which frame of a 4-D volume, from 0")] = None,
    series: Annotated[str | None, typer.Option(metavar="UID", help="which series of a DICOM folder")] = None,
    as_json: AsJson = False,
) -> None:
    """Validate a cohort, a volume or a DICOM folder; one line per finding."""
    from medgan.data.check import check as run_check

    findings = run_check(path, class_key=class_key, frame=frame, series=series)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], default=str, indent=1))
    else:
        for finding in findings:
            typer.echo(f"{finding.path}: {finding.code}: {finding.message}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(2)


def train(
    config: ConfigFile,
    output: Output,
    overrides: Overrides = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="start over instead of resuming")] = False,
) -> None:
    """Train a generator; resumes when the output folder holds an unfinished run."""
    from medgan.config import load_config

    settings = load_config(config, overrides or [])
    from medgan.training.loop import train as run_training

    with only_writer(output):
        typer.echo(str(run_training(settings, output, fresh=fresh)))


def evaluate(
    checkpoint: CheckpointFolder,
    data: CohortPath,
    output: Output,
    siblings: Annotated[int, typer.Option(min=2, help="siblings of each training case")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="seed of the noise")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="at most so many training cases and so many held-out ones, drawn")
    ] = None,
    task_steps: Annotated[
        int, typer.Option(min=0, help="steps of each independent task network; 0: do without its figures")
    ] = 200,
    strength: Annotated[
        float,
        typer.Option(
            callback=SOME_STRENGTH,
            help=f"of the siblings, 0.01 to {MAX_STRENGTH:g}; 1: what was learned; give that of their use",
        ),
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Measure fidelity, diversity, preservation and privacy: report.json and report.html."""
    from medgan.evaluation.evaluate import evaluate as run_evaluation

    with only_writer(output):
        report = run_evaluation(
            checkpoint,
            data,
            output,
            siblings=siblings,
            seed=seed,
            limit=limit,
            task_steps=task_steps,
            strength=strength,
        )
    typer.echo(json.dumps(report, indent=1) if as_json else str(output / "report.html"))


def compare(
    config: ConfigFile,
    output: Output,
    overrides: Overrides = None,
    engine: Annotated[
        StudyEngine, typer.Option(help="what runs the runs; the results are the same")
    ] = StudyEngine.local,
    workers: Annotated[
        int | None, typer.Option(min=1, help="runs at a time; by default cores over compare.threads")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the plan and what it will cost, write nothing")
    ] = False,
) -> None:
    """Run the study: arms × seeds of a downstream model, MLflow, results.csv, report.html."""
    from medgan.config import load_config

    settings = load_config(config, overrides or [])
    from medgan.comparison.cost import describe
    from medgan.comparison.study import compare as run_study

    if dry_run:
        typer.echo(describe(settings, workers=workers))
        return
    with only_writer(output):
        run_study(settings, output, engine=engine.value, workers=workers)
    typer.echo(str(output / "report.html"))


def export(checkpoint: CheckpointFolder, output: Output) -> None:
    """Write a generator as a MONAI bundle, which MONAI's own tools load, verify and run."""
    from medgan.export import export_bundle
    from medgan.sampler import load

    with only_writer(output):
        export_bundle(load(checkpoint).checkpoint, output)
    typer.echo(str(output))


def info(checkpoint: CheckpointFolder, as_json: AsJson = False) -> None:
    """Say what a generator was trained on, how, when and with which code; its SHA-256 is verified."""
    from medgan.sampler import load

    loaded = load(checkpoint).checkpoint
    judged_by = 0 if loaded.critic is None else len(loaded.critic.rarest)
    record = dict(loaded.record) | {"digest": loaded.digest, "critic_volumes": judged_by}
    if as_json:
        typer.echo(json.dumps(record, indent=1))
        return
    origin = loaded.origin
    lines = {
        "name": loaded.config.name,
        "created": record["created"],
        "sha256": f"{loaded.digest} (files verified)",
        "trained on": f"{len(origin.training_cases)} cases of {origin.training_patients} patients, "
        f"{origin.channels} channel(s)",
        "classes": ", ".join(origin.class_names) or "none",
        "labels": ", ".join(f"{k} {v}" for k, v in origin.label_names.items()) or "none",
        "grid": f"{loaded.config.preprocess.shape}, {loaded.config.preprocess.intensity.kind} intensities",
        "steps": origin.steps,
        "critic": f"of {judged_by} real volumes" if judged_by else "none",
        "validation": ", ".join(f"{k} {v:.3f}" for k, v in origin.metrics.items()) or "none",
        "versions": ", ".join(f"{k} {v}" for k, v in record["versions"].items()),
    }
    for name, value in lines.items():
        typer.echo(f"{name:<12} {value}")
