"""``medgan compare --dry-run``: the plan of a study in words, and what it will cost."""

from __future__ import annotations

import time
from dataclasses import replace

from medgan.comparison.arms import FITTED_PART, teacher_of
from medgan.comparison.design import Cell, all_cells, redrawn_in_words, trial_cells
from medgan.comparison.engines import default_workers
from medgan.comparison.execution import execute
from medgan.comparison.material import Material
from medgan.comparison.plan import make_plan, warn_of_few_seeds
from medgan.comparison.summary import REFERENCE
from medgan.config import Config
from medgan.threads import torch_threads

TIMED_STEPS = 4


def describe(config: Config, *, workers: int | None = None) -> str:
    """Return the plan of a study in words, with what it will cost, by timing a few steps of every arm.

    Nothing is written. See :func:`compare` for the errors.
    """
    material = Material(config)
    cells = all_cells(config, list(material.arms.values()))
    number = workers or default_workers(config)
    plan = make_plan(material)
    warn_of_few_seeds(material)
    redrawn = redrawn_in_words(plan["compare"])
    lines = [
        f"{config.name}: {plan['task']}, {plan['metric']}, baseline {config.compare.baseline}",
        *(f"  arm {name}{f' ({REFERENCE})' if name in material.references else ''}" for name in material.arms),
        "  " + ", ".join(f"{part} {n['used_cases']} of {n['cases']} cases" for part, n in plan["cohort"].items()),
        f"  numbers of labelled {len(plan['labelled'])}, splits {config.compare.splits}, seeds {config.compare.seeds}"
        f"{redrawn}: {len(cells)} runs of {config.compare.steps} steps, {number} at a time",
    ]
    total = 0.0
    firsts = {name: next(cell for cell in cells if cell.arm == name) for name in material.arms}
    # By the key of the run: an arm's teacher may be an arm of its own, but not one that one's own function trains.
    trained: set[str | None] = set() if config.compare.function else {material.key(cell) for cell in firsts.values()}
    for name, first in firsts.items():
        teacher = teacher_of(material.arms[name])
        key = None if teacher is None else material.key(first, teacher)
        seconds = _cost(material, first, taught=key in trained)
        trained.add(key)
        tried = {variant.name for variant in material.trials.get(name, ())}
        trials = sum(cell.arm in tried for cell in trial_cells(config, material.trials))
        # A trial with the chosen values is the arm's own run, tested; not with one's own function, which keeps none.
        further = trials - (trials // len(tried) if tried and not config.compare.function else 0)
        total += seconds * (further + sum(cell.arm == name for cell in cells))
        tuning = f", and {further} more to choose among {len(tried)} values on validation cases" if tried else ""
        lines.append(f"  {name}: about {seconds / 60:.1f} min a run{tuning}")
    if any(FITTED_PART in arm.parts for arm in material.arms.values()):
        seconds = sum(_fitting_cost(material, labelled, fold) for labelled, fold in material.splits)
        # Under every seed of other scans; every process makes all fits, and those that tune make theirs.
        draws, tried_draws = (config.compare.seeds, config.compare.tune.seeds) if config.compare.redraw else (1, 1)
        tuned = any(FITTED_PART in arm.parts for variants in material.trials.values() for arm in variants)
        total += seconds * number * (draws + tried_draws * tuned)
        seconds *= draws
        lines.append(f"  fitting scans to scans: about {seconds / 60:.1f} min in each process")
    lines.append(f"  in all about {total / number / 60:.0f} min on this machine")
    return "\n".join(lines)


def _cost(material: Material, cell: Cell, *, taught: bool) -> float:
    """Return the seconds of one run: its steps by a few that are timed, its test as it is.

    Args:
        material: of the study.
        cell: which run.
        taught: its teacher has been trained before.
    """
    compare = material.config.compare
    short = material.config.model_copy(
        update={"compare": compare.model_copy(update={"steps": TIMED_STEPS, "curve_points": 1, "pictures": False})}
    )
    before, material.config = material.config, short
    arm = material.arms[cell.arm]
    # Fits are made once and counted apart; without them an arm costs what self-training does.
    parts = tuple("self-training" if part == FITTED_PART else part for part in arm.parts)
    material.arms[cell.arm] = replace(arm, parts=parts)
    try:
        started = time.perf_counter()
        outcome = execute(material, cell, "")
        whole = time.perf_counter() - started
    finally:
        material.config, material.arms[cell.arm] = before, arm
    own, teacher = outcome.record.seconds, outcome.record.teacher_seconds
    training = own if taught else own + teacher
    return training / TIMED_STEPS * compare.steps + whole - own - teacher


def _fitting_cost(material: Material, labelled: int, fold: int) -> float:
    """Return the seconds of all fits of a block, by one that is timed."""
    atlas = material.atlas(labelled, fold)
    with torch_threads(material.config.compare.threads):
        started = time.perf_counter()
        atlas.fit(atlas.labelled)
    return (time.perf_counter() - started) * len(material.block(labelled, fold).unlabelled)
