"""``medgan evaluate``: what a generator's siblings are like, next to what real volumes are like among themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medgan.checkpoint import Checkpoint, library_versions, make_output, require_output, write_atomically
from medgan.data.cohort import read_cohort
from medgan.data.loaders import prepare
from medgan.errors import InputFault
from medgan.evaluation.cases import part_cases
from medgan.evaluation.figures import measure
from medgan.evaluation.gallery import draw_gallery
from medgan.evaluation.intervals import RESAMPLES
from medgan.evaluation.privacy import STATEMENT
from medgan.evaluation.real import Real, patients_of
from medgan.evaluation.report import render_page
from medgan.limits import MAX_STRENGTH
from medgan.sampler import load

FORMAT_VERSION = 2
TASK_STEPS = 200


def evaluate(
    checkpoint: str | Path,
    data: Path,
    output: Path,
    *,
    siblings: int = 4,
    seed: int = 0,
    limit: int | None = None,
    task_steps: int = TASK_STEPS,
    strength: float = 1.0,
) -> dict[str, Any]:
    """Measure fidelity, diversity, preservation and privacy; write ``report.json`` and ``report.html``.

    Siblings are made of the cases the generator was trained on, and compared with those it has not seen. Figures that
    need what the cohort does not have are left out, by name.

    Args:
        checkpoint: folder of the generator.
        data: cohort with its training cases and, for most figures, held-out ones.
        output: folder to write.
        siblings: of each training case, at least 2.
        seed: of all noise and resamples.
        limit: at most so many training cases and so many held-out ones; ``None`` for all.
        task_steps: updates of each independent task network; 0 leaves their figures out.
        strength: of every sibling: 1 is what was learned; that at which the siblings are to be used.

    Returns:
        The report, as in ``report.json``.

    Raises:
        InputFault: an input is missing or damaged, or an argument is out of range.
    """
    if siblings < 2:
        raise InputFault(output, "SIBLINGS", f"--siblings is {siblings}", "ask for at least 2 of each case")
    if limit is not None and limit < 1:
        raise InputFault(output, "LIMIT", f"the limit is {limit}", "allow at least 1 case of each kind")
    if task_steps < 0:
        raise InputFault(output, "TASK_STEPS", f"--task-steps is {task_steps}", "allow 0 (no task network) or more")
    if not 0 < strength <= MAX_STRENGTH:
        raise InputFault(
            output, "STRENGTH", f"--strength is {strength}", f"give more than 0 and at most {MAX_STRENGTH:g}"
        )
    require_output(output)
    sampler = load(checkpoint)
    loaded = sampler.checkpoint
    cohort = read_cohort(
        data,
        class_key=loaded.config.data.class_key,
        classes=sampler.class_names,
        labels=dict(loaded.origin.label_names),
        class_optional=True,
    )
    parts = part_cases(cohort, loaded, seed=seed, limit=limit)
    if not parts.training and not parts.held_out:
        reason = "every case is of a training patient, yet none of them was trained on"
        raise InputFault(cohort.source, "NO_SOURCES", reason, "give the cohort of training, or other patients")
    real = Real(
        prepare(parts.training, cohort, sampler.preprocessing, "reading training cases"),
        prepare(parts.held_out, cohort, sampler.preprocessing, "reading held-out cases"),
    )
    figures, measurements = measure(
        sampler,
        real,
        labels=cohort.label_names,
        siblings=siblings,
        seed=seed,
        task_steps=task_steps,
        strength=strength,
    )
    report = {
        "format_version": FORMAT_VERSION,
        "statement": STATEMENT,
        "generator": describe_generator(loaded),
        "cohort": describe_cohort(real),
        "settings": {
            "siblings": siblings,
            "seed": seed,
            "strength": strength,
            "limit": limit,
            "task_steps": task_steps,
            "resamples": RESAMPLES,
        },
        "notes": list(parts.notes) + figures.pop("notes"),
        **figures,
        "versions": library_versions(),
    }
    pictures = draw_gallery(
        sampler, real.sources, measurements, cohort.label_names, siblings=siblings, seed=seed, strength=strength
    )
    make_output(output)
    write_atomically(output / "report.html", render_page(report, pictures).encode())
    write_atomically(output / "report.json", json.dumps(report, indent=1, allow_nan=False).encode())
    return report


def describe_generator(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a reader must know of the generator."""
    origin, config = checkpoint.origin, checkpoint.config
    return {
        "name": config.name,
        "sha256": checkpoint.digest,
        "created": checkpoint.record.get("created"),
        "steps": origin.steps,
        "training_cases": len(origin.training_cases),
        "training_patients": origin.training_patients,
        "classes": list(origin.class_names),
        "labels": {str(value): name for value, name in origin.label_names.items()},
        "channels": origin.channels,
        "grid": list(config.preprocess.shape),
        "spacing": None if config.preprocess.spacing is None else list(config.preprocess.spacing),
        "fit": config.preprocess.fit,
        "metrics": dict(origin.metrics),
    }


def describe_cohort(real: Real) -> dict[str, Any]:
    """Return the numbers of cases, patients and label maps, and what siblings were made of."""
    parts = {"training": real.training, "held_out": real.held_out}
    counts: dict[str, Any] = {
        name: {
            "cases": len(part),
            "patients": len(set(patients_of(part))),
            "label_maps": sum(p.label is not None for p in part),
        }
        for name, part in parts.items()
    }
    return counts | {"sources": "training" if real.training else "held_out"}
