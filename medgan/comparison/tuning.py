"""Tuning: what each arm does with its samples is chosen on validation cases, before anything is tested."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from medgan.comparison.design import TUNED, Cell, trial_cells
from medgan.comparison.engines import EngineName
from medgan.comparison.material import Material
from medgan.comparison.results import RunRecord, Trial, read_trials, write_trials
from medgan.comparison.running import Listener, Ran, run_all
from medgan.errors import TrainingFailure

logger = logging.getLogger(__name__)

FOLDER = "tuning"

Place = tuple[str, int, int]  # arm, labelled, fold


def tune(
    material: Material, output: Path, *, engine: EngineName = "local", workers: int | None = None
) -> dict[Place, str]:
    """Train every arm that is tuned with each of its values, and choose those that are best on validation cases.

    The mean over ``compare.tune.seeds`` trainings decides; of equals the first. The test cases are not looked at.
    Trials that are there already are not made again; all are written to ``tuning.csv``. What was chosen once stays: by
    a later start of the study its test figures may be known.

    Args:
        material: of the study.
        output: the study's folder.
        engine: what runs the trials, see :func:`~medgan.comparison.engines.run_cells`.
        workers: how many at a time.

    Returns:
        name of the chosen trial by arm, labelled cases and fold.

    Raises:
        TrainingFailure: no values of an arm came through all their trainings, or a process died.
    """
    cells = trial_cells(material.config, material.trials)
    if not cells:
        return {}
    earlier = _chosen_before(material, output)
    ran = run_all(material, cells, output, FOLDER, Listener(), engine=engine, workers=workers, title="tuning")
    choices = {**choose(material, cells, ran.records), **earlier}
    write_trials(output, _rows(material, cells, ran, choices))
    of_trial = _arms_of_trials(material)
    for place in dict.fromkeys((of_trial[cell.arm], cell.labelled, cell.fold) for cell in cells):
        if place not in choices:
            why = next(
                (f.error for f in ran.failed if of_trial[f.arm] == place[0]), "no figure on the validation cases"
            )
            reason = f"{place[0]}: FAILED_RUNS: with each of the values tried a training failed, the first by: {why}"
            raise TrainingFailure(f"{reason}; see tuning.csv, or leave compare.tune out, in a new folder")
        logger.info("%s, %s labelled, fold %d: %s", place[0], place[1] or "all", place[2], choices[place])
    return choices


def choose(material: Material, cells: Sequence[Cell], records: Mapping[Cell, RunRecord]) -> dict[Place, str]:
    """Return the name of the best trial by arm, labelled cases and fold; none where each lost a training."""
    of_trial = _arms_of_trials(material)
    values: dict[Place, dict[str, list[float]]] = {}
    for cell in cells:
        place = of_trial[cell.arm], cell.labelled, cell.fold
        values.setdefault(place, {}).setdefault(cell.arm, []).append(_value(material, records.get(cell)))
    choices: dict[Place, str] = {}
    for place, tried in values.items():
        means = {name: fmean(found) for name, found in tried.items()}
        whole = {name: mean for name, mean in means.items() if math.isfinite(mean)}
        if whole:
            choices[place] = max(whole, key=lambda name: whole[name])
    return choices


def with_choices(cells: Sequence[Cell], choices: Mapping[Place, str]) -> list[Cell]:
    """Return the study's cells, those of tuned arms with what was chosen."""
    return [replace(cell, choice=choices.get((cell.arm, cell.labelled, cell.fold), "")) for cell in cells]


def _chosen_before(material: Material, output: Path) -> dict[Place, str]:
    """Return what an earlier start of the study has chosen."""
    try:
        taken = [trial for trial in read_trials(output) if trial.chosen]
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # a table nobody can read: it is written anew
    found: dict[Place, str] = {}
    for trial in taken:
        for variant in material.trials.get(trial.arm, ()):
            if all(getattr(variant, parameter) == getattr(trial, parameter) for parameter in TUNED):
                found[trial.arm, trial.labelled, trial.fold] = variant.name
    return found


def _rows(material: Material, cells: Sequence[Cell], ran: Ran, choices: Mapping[Place, str]) -> list[Trial]:
    of_trial = _arms_of_trials(material)
    errors = {Cell(f.labelled, f.fold, f.seed, f.arm): f.error for f in ran.failed}
    rows = []
    for cell in cells:
        variant, record, name = material.arm(cell), ran.records.get(cell), of_trial[cell.arm]
        rows.append(
            Trial(
                arm=name,
                labelled=cell.labelled,
                fold=cell.fold,
                seed=cell.seed,
                probability=variant.probability,
                strength=variant.strength,
                metric=material.task.metric,
                value=_value(material, record),
                seconds=math.nan if record is None else record.seconds,
                teacher_seconds=math.nan if record is None else record.teacher_seconds,
                chosen=choices.get((name, cell.labelled, cell.fold)) == cell.arm,
                error=errors.get(cell, ""),
            )
        )
    return rows


def _value(material: Material, record: RunRecord | None) -> float:
    return math.nan if record is None else record.headline.get(material.task.metric, math.nan)


def _arms_of_trials(material: Material) -> dict[str, str]:
    return {variant.name: name for name, variants in material.trials.items() for variant in variants}
