"""``medgan generate``: siblings of a cohort, each with a sidecar; continued where an interrupted call stopped."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from medgan.errors import InputFault
from medgan.generate.engines import EngineName, run_orders
from medgan.generate.finish import finish
from medgan.generate.formats.base import LEVEL
from medgan.generate.job import FormatName, Job, claim, open_job, require_all_planned
from medgan.generate.making import Gate
from medgan.generate.real import choose_real
from medgan.progress import progress_bar

logger = logging.getLogger(__name__)


def generate(
    checkpoint: str | Path,
    data: Path,
    output: str | Path,
    *,
    count: int,
    seed: int = 0,
    strength: float = 1.0,
    sources: str = "training",
    class_name: str | Sequence[str] | None = None,
    balance: bool = False,
    max_share: float | None = None,
    format_name: FormatName = "nifti",
    real_share: float = 0.0,
    level: int = LEVEL,
    workers: int | None = None,
    shard: tuple[int, int] | None = None,
    engine: EngineName = "local",
    min_quality: float = 0.0,
    gate: Gate | None = None,
) -> str:
    """Make ``count`` siblings of a cohort; return where their manifest lies (for a shard, where the output is).

    ``output`` becomes a cohort itself: volumes, label maps, ``manifest.csv`` (patient ids are the sources'), a sidecar
    beside each volume, ``summary.json``, ``rejections.csv`` and ``contact_sheet.png``. Siblings already there are
    kept, so an interrupted call continues.

    Args:
        checkpoint: folder of the generator, or ``models:/NAME@ALIAS``.
        data: cohort of the sources.
        output: folder to write, or a URL that fsspec knows.
        count: number of siblings, spread evenly over the sources.
        seed: of all noise.
        strength: 0 is the identity, exactly; 1 what was learned.
        sources: see :func:`~medgan.generate.plan.choose_sources`.
        class_name: only sources of this class, or of these.
        balance: as many siblings of each class.
        max_share: largest share of the siblings from any one patient, in (0, 1].
        format_name: ``nifti``, ``dicom``, ``nnunet`` or ``decathlon``.
        real_share: share of real cases in the finished output, in [0, 1); not for DICOM.
        level: of compression, 0 to 3.
        workers: siblings made at a time; by default one a core. What is made does not depend on it.
        shard: make only part ``(number, of)``, counted from 1; the call without it writes manifest and summary.
        engine: ``local``, or ``ray``: a cluster whose machines see the same paths; the files are the same.
        min_quality: from 0 to below 1; a sibling of a lower score (:func:`~medgan.sampler.quality.sibling_quality`) is
            drawn again with other noise, up to ``MAX_ATTEMPTS`` times in all. If none passes, it is left out.
        gate: judges siblings, too, before they are written; what it refuses is drawn again likewise.

    Label maps are moved along as ``data`` has them, also those that the training was not shown.

    Raises:
        InputFault: an input is missing or damaged, ``output`` holds siblings made otherwise or others
            than are asked for, the checkpoint has no
            critic for ``min_quality``, or no sibling at all was let pass.
    """
    names = (class_name,) if isinstance(class_name, str) else tuple(class_name or ())
    job = Job(
        str(checkpoint), Path(data), str(output), count, seed, strength, sources, names, balance, max_share,
        format_name, real_share, level, min_quality,
    )  # fmt: skip
    if shard and not 1 <= shard[0] <= shard[1]:
        raise InputFault("--shard", "SHARD", f"there is no part {shard[0]} of {shard[1]}", "count from 1, e.g. 3/8")
    workshop = open_job(job, gate)
    real = choose_real(workshop.plan.sources, count, real_share, seed, workshop.layout)
    require_all_planned(workshop, real)
    claim(workshop)
    start, stop = workshop.plan.shard(*shard) if shard else (0, len(workshop.plan))
    with progress_bar() as bar:
        task = bar.add_task("generating", total=stop - start, note="")
        for done in run_orders(workshop, start, stop, engine=engine, workers=workers):
            bar.update(task, completed=done)
    if shard:
        logger.info("part %d of %d is made; the same call without --shard writes manifest and summary", *shard)
        return workshop.store.place
    return f"{workshop.store.place}/{finish(workshop)}"
