"""The command line: one subcommand → one function. Nothing heavy is imported before a command runs.

Exit codes: 0 done; 2 the input or the configuration is at fault; 1 anything else. A fault is one line on stderr.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from medgan import __version__
from medgan.errors import InputFault, MedganError
from medgan.interrupts import Interrupted, raise_on_signals
from medgan.locks import only_writer
from medgan.logs import configure

app = typer.Typer(
    name="medgan",
    help="Class-preserving GAN augmentation of 3-D CT and MRI, and a study that says whether it helped.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML configuration, e.g. configs/hippocampus.yaml")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="override keys, e.g. data.root=../scans training.steps=500"),
]
CheckpointFolder = Annotated[
    Path,
    typer.Argument(metavar="CHECKPOINT", help="folder of a trained generator, or models:/NAME@ALIAS of a registry"),
]
Output = Annotated[Path, typer.Option("--output", help="folder to write")]
CohortPath = Annotated[
    Path,
    typer.Option(
        "--data", metavar="COHORT", help="CSV manifest, dataset.json, or folder of NIfTI files or DICOM series"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print machine-readable JSON")]


class Sources(StrEnum):
    """Which cases siblings are made of."""

    training = "training"
    all = "all"


class VolumeFormat(StrEnum):
    """How synthetic volumes are written."""

    nifti = "nifti"
    dicom = "dicom"
    nnunet = "nnunet"
    decathlon = "decathlon"


class Engine(StrEnum):
    """What runs a batch generation."""

    local = "local"
    ray = "ray"


class StudyEngine(StrEnum):
    """What runs a study."""

    local = "local"
    ray = "ray"


def _within(words: str, is_allowed: Callable[[float], bool]) -> Callable[[float | None], float | None]:
    """Return a check of an option's value that says in words what is allowed, of NaN too."""

    def check(value: float | None) -> float | None:
        if value is not None and not is_allowed(value):
            raise typer.BadParameter(f"{value:g} is not {words}")
        return value

    return check


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medgan {__version__}")
        raise typer.Exit


BELOW_ONE = _within("from 0 to below 1", lambda value: 0 <= value < 1)
STRENGTH = _within("from 0 to 2", lambda value: 0 <= value <= 2)
SOME_STRENGTH = _within("from 0.01 to 2", lambda value: 0.01 <= value <= 2)
ABOVE_ZERO = _within("above 0 and at most 1", lambda value: 0 < value <= 1)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="log what is done; -vv: all")] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="errors alone: no warnings, no progress bars")] = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="logs as one JSON object a line")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="say which version this is")
    ] = False,
) -> None:
    """Set up logging for every subcommand."""
    del version, debug  # the latter is looked up in sys.argv by main(), which also serves errors before this runs
    configure(-1 if quiet else verbose, as_json=log_json)
    if quiet:
        os.environ["MEDGAN_QUIET"] = "1"


@app.command()
def demo(output: Output = Path("demo-output")) -> None:
    """Run the main job on a built-in cohort, offline, in minutes on two CPU cores."""
    from medgan.demo.run import run_demo

    with only_writer(output):
        run_demo(output)


@app.command()
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


@app.command()
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


@app.command()
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
            callback=SOME_STRENGTH, help="of the siblings, 0.01 to 2; 1: what was learned; give that of their use"
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


@app.command()
def generate(
    checkpoint: CheckpointFolder,
    data: CohortPath,
    output: Annotated[str, typer.Option("--output", help="folder to write, or a URL that fsspec knows (s3://...)")],
    count: Annotated[int, typer.Option(min=1, help="number of synthetic volumes")],
    seed: Annotated[int, typer.Option(min=0, help="seed of the noise")] = 0,
    strength: Annotated[
        float, typer.Option(callback=STRENGTH, help="0: the identity; 1: what was learned; at most 2")
    ] = 1.0,
    sources: Annotated[
        Sources, typer.Option(help="training: of a known cohort, only cases the generator has seen")
    ] = Sources.training,
    class_names: Annotated[
        list[str] | None, typer.Option("--class", help="only sources of this class; may be repeated")
    ] = None,
    balance: Annotated[bool, typer.Option("--balance", help="as many volumes of each class")] = False,
    max_share: Annotated[
        float | None,
        typer.Option(
            callback=ABOVE_ZERO,
            help="largest share of the volumes from any one patient, above 0 and at most 1, e.g. 0.1",
        ),
    ] = None,
    volume_format: Annotated[
        VolumeFormat, typer.Option("--format", help="how volumes are written")
    ] = VolumeFormat.nifti,
    real_share: Annotated[
        float,
        typer.Option(
            callback=BELOW_ONE,
            help="share of real training cases, linked, in the finished set, from 0 to below 1; not for dicom",
        ),
    ] = 0.0,
    level: Annotated[int, typer.Option(min=0, max=3, help="compression: 0 fastest, 2 mostly smallest, 3 slowest")] = 2,
    workers: Annotated[int | None, typer.Option(min=1, help="volumes at a time; by default one a core")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="make only part I of N; the call without it finishes the set")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="what runs the work; the files are the same")] = Engine.local,
    min_quality: Annotated[
        float,
        typer.Option(
            callback=BELOW_ONE,
            help="draw volumes again that score less, from 0 to below 1, e.g. 0.05: less usual than 5 % of real ones",
        ),
    ] = 0.0,
) -> None:
    """Make synthetic volumes with label maps and sidecars; continues where an interrupted call stopped."""
    from medgan.generate.batch import generate as run_generation

    # Parts of one set are written side by side, and a lock on object storage would hold nobody back.
    alone = shard is None and "://" not in str(output)
    with only_writer(Path(output)) if alone else nullcontext():
        manifest = run_generation(
            str(checkpoint),
            data,
            output,
            count=count,
            seed=seed,
            strength=strength,
            sources=sources.value,
            class_name=class_names,
            balance=balance,
            max_share=max_share,
            format_name=volume_format.value,
            real_share=real_share,
            level=level,
            workers=workers,
            shard=_part(shard),
            engine=engine.value,
            min_quality=min_quality,
        )
    typer.echo(manifest)


def _part(shard: str | None) -> tuple[int, int] | None:
    """Read ``I/N``."""
    if shard is None:
        return None
    number, _, of = shard.partition("/")
    if not (number.isdigit() and of.isdigit()):
        raise InputFault("--shard", "SHARD", f"{shard!r} is not a part such as 3/8", "give I/N")
    return int(number), int(of)


@app.command()
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


@app.command()
def reproduce(
    sidecar: Annotated[Path, typer.Argument(metavar="SIDECAR.json", help="the JSON beside a synthetic volume")],
    output: Annotated[
        Path, typer.Option("--output", help="file to write, .nii or .nii.gz; of a DICOM output also a folder")
    ],
    checkpoint: Annotated[
        str | None, typer.Option(help="the checkpoint, if it was moved: a folder or models:/NAME@ALIAS")
    ] = None,
) -> None:
    """Make one synthetic volume again, bit for bit, from its sidecar."""
    from medgan.generate.reproduce import reproduce as run_reproduction

    if not run_reproduction(sidecar, output, checkpoint):
        raise MedganError(
            f"{output}: DIFFERENT: not the recorded voxels, which needs the same hardware and library versions"
        )
    typer.echo(f"{output}: identical to the recorded volume")


@app.command()
def export(checkpoint: CheckpointFolder, output: Output) -> None:
    """Write a generator as a MONAI bundle, which MONAI's own tools load, verify and run."""
    from medgan.export import export_bundle
    from medgan.sampler import load

    with only_writer(output):
        export_bundle(load(checkpoint).checkpoint, output)
    typer.echo(str(output))


@app.command()
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


def main() -> None:
    """Run the command line and end with the right exit code."""
    debug = "--debug" in sys.argv[1:]
    # --debug is welcome anywhere on the line.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"] or ["--help"]
    raise_on_signals()
    try:
        sys.exit(app(args=arguments, prog_name="medgan", standalone_mode=False) or 0)
    except TyperException as error:
        command = (
            f" {arguments[0]}"
            if arguments[0] in {c.callback.__name__ for c in app.registered_commands if c.callback}
            else ""
        )
        reason = " ".join(error.format_message().split()).rstrip(".")
        typer.echo(f"medgan{command}: USAGE: {reason}, see `medgan{command} --help`", err=True)
        sys.exit(2)
    except InputFault as fault:
        _end(fault, str(fault), fault.exit_code, debug)
    except MedganError as error:
        _end(error, str(error), error.exit_code, debug)
    except Interrupted as interrupted:
        line = f"medgan: INTERRUPTED: stopped by {interrupted}, run the same command again to go on"
        _end(interrupted, line, interrupted.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("medgan: INTERRUPTED: stopped, run the same command again to go on", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        reason = " ".join(str(error).split())[:500]
        _end(error, f"medgan: {type(error).__name__}: {reason}, run again with --debug for the traceback", 1, debug)


def _end(error: BaseException, line: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    typer.echo(line, err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
