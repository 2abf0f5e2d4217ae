"""The subcommands that make synthetic volumes: ``generate`` and ``reproduce``."""

from __future__ import annotations

from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medgan.cli.arguments import ABOVE_ZERO, BELOW_ONE, STRENGTH, CheckpointFolder, CohortPath
from medgan.errors import InputFault, MedganError
from medgan.limits import MAX_STRENGTH
from medgan.locks import only_writer


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


def generate(
    checkpoint: CheckpointFolder,
    data: CohortPath,
    output: Annotated[str, typer.Option("--output", help="folder to write, or a URL that fsspec knows (s3://...)")],
    count: Annotated[int, typer.Option(min=1, help="number of synthetic volumes")],
    seed: Annotated[int, typer.Option(min=0, help="seed of the noise")] = 0,
    strength: Annotated[
        float, typer.Option(callback=STRENGTH, help=f"0: the identity; 1: what was learned; at most {MAX_STRENGTH:g}")
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


def _part(shard: str | None) -> tuple[int, int] | None:
    """Read ``I/N``."""
    if shard is None:
        return None
    number, _, of = shard.partition("/")
    if not (number.isdigit() and of.isdigit()):
        raise InputFault("--shard", "SHARD", f"{shard!r} is not a part such as 3/8", "give I/N")
    return int(number), int(of)
