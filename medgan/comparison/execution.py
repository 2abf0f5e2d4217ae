"""One run of a study: from its coordinates to its record, whatever process or machine it happens on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medgan.comparison.arms import FITTED_PART, Arm, build_transform, image_mode, is_reference, teacher_of
from medgan.comparison.atlas import atlas_predictions
from medgan.comparison.design import Cell
from medgan.comparison.downstream import (
    OnStep,
    Trained,
    new_network,
    predict,
    score,
    score_logits,
    train_downstream,
)
from medgan.comparison.kept import KeptModel
from medgan.comparison.material import Block, Material
from medgan.comparison.results import RunRecord, Score, Split
from medgan.comparison.scoring import headline
from medgan.comparison.self_training import Predict, consensus_predictions, plain_predictions, pseudo_label
from medgan.data.loaders import Prepared
from medgan.sampler import Recipe
from medgan.seeding import derive_seed
from medgan.threads import torch_threads


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run gives.

    Attributes:
        record: figures of every case.
        predictions: ``(N, *shape)`` uint8 label maps of the test cases; ``None`` where pictures need none.
        recalled: nothing was trained: a trial with the chosen values was there.
    """

    record: RunRecord
    predictions: NDArray[np.uint8] | None = None
    recalled: bool = False


def execute(material: Material, cell: Cell, key: str, on_step: OnStep | None = None) -> Outcome:
    """Run one arm with one seed in one block and fold.

    Args:
        material: cases and generators.
        cell: which run.
        key: of the run, see :meth:`Material.key`.
        on_step: called after each update of the model that is tested.

    Raises:
        TrainingFailure: the loss became NaN or infinite.
        InputFault: the researcher's own function, network or transforms are at fault.
    """
    config, task = material.config, material.task
    arm, block = material.arm(cell), material.block(cell.labelled, cell.fold, cell.seed)
    seed = derive_seed(config.seed, "compare", cell.seed)
    trial = material.is_trial(cell)
    first = cell.seed == 0 and cell.fold == 0
    pictured = config.compare.pictures and task.kind == "segmentation" and first and not trial
    with torch_threads(config.compare.threads):  # the same number on every machine: it decides the last digits
        # Who chooses does not look at the test.
        held_out = {} if trial else {"test": block.used["test"], "external": material.external}
        if config.compare.function is not None:
            training, pseudo, teacher_seconds = _training_cases(material, arm, block, cell, seed)
            transform = _transform(material, arm, cell)
            scores, seconds, maps = _own(material, arm, transform, training, pseudo, block, held_out, seed)
            curve: tuple[Any, ...] = ()
            recalled = False
        else:
            model, recalled = _model(material, cell, key, block, seed, on_step)
            trained, teacher_seconds = model.trained, model.teacher_seconds
            curve, seconds = trained.curve, trained.seconds
            scores = score(trained.network, block.used["validation"], task, "validation")
            for split, cases in held_out.items():
                scores += score(trained.network, cases, task, _split(split))
            maps = [_label_maps(part) for part in predict(trained.network, block.used["test"])] if pictured else []
    record = RunRecord(
        key, cell.arm, cell.labelled, cell.fold, cell.seed, seconds, teacher_seconds,
        headline(scores, task, "validation" if trial else "test"), curve, tuple(scores),
    )  # fmt: skip
    return Outcome(record, np.concatenate(maps) if pictured and maps else None, recalled)


def _model(
    material: Material, cell: Cell, key: str, block: Block, seed: int, on_step: OnStep | None
) -> tuple[KeptModel, bool]:
    """Return the model of a run, and whether it is that of the trial whose values were chosen for it."""
    task, settings = material.task, material.config.compare
    if cell.choice:
        tried = material.kept.recall(key, new_network(task, block.used["training"], settings, seed))
        # Without its steps it was trained as a teacher, which is not validated along the way.
        if tried is not None and tried.steps:
            if on_step is not None:
                for step, values in tried.steps:
                    on_step(step, values)
            return tried, True
    arm = material.arm(cell)
    training, pseudo, teacher_seconds = _training_cases(material, arm, block, cell, seed)
    steps: list[tuple[int, dict[str, float]]] = []

    def listen(step: int, values: Mapping[str, float]) -> None:
        steps.append((step, {name: float(value) for name, value in values.items()}))
        if on_step is not None:
            on_step(step, values)

    trained = train_downstream(
        task, training, block.used["validation"], arm, _transform(material, arm, cell), settings, seed, listen, pseudo
    )
    model = KeptModel(trained, teacher_seconds, tuple(steps))
    if material.is_needed_again(cell, key):
        material.kept.keep(key, model)
    return model, False


def _transform(material: Material, arm: Arm, cell: Cell) -> Any:
    return build_transform(
        arm,
        task=material.task.kind,
        modality=material.config.data.modality,
        shape=material.config.study_grid.shape,
        sampler=material.sampler(arm, cell.labelled, cell.fold),
        magnitudes=material.magnitudes(arm, cell.labelled, cell.fold),
    )


def _training_cases(
    material: Material, arm: Arm, block: Block, cell: Cell, seed: int
) -> tuple[list[Prepared], int, float]:
    """Return the cases to train on, how many of them, the last, a teacher has labelled, and what that teacher cost."""
    labelled = list(block.used["training"])
    if is_reference(arm):
        return list(block.annotated), 0, 0.0
    teaching = teacher_of(arm)
    if teaching is None or not block.unlabelled:
        return labelled, 0, 0.0
    settings = material.config.compare
    if FITTED_PART in arm.parts:
        # Before the clock starts: it is not this run's alone.
        material.atlas(cell.labelled, cell.fold, cell.seed).fit_all()
    teacher = _teacher(material, teaching, labelled, cell, seed)
    started = time.perf_counter()
    if FITTED_PART in arm.parts:
        teacher_says = plain_predictions(teacher.network)
        atlas = material.atlas(cell.labelled, cell.fold, cell.seed)
        predict = atlas_predictions(atlas, teacher_says, labelled, block.unlabelled, material.task.label_values)
    else:
        predict = _predictions(material, arm, cell, teacher.network, seed)
    threshold = settings.confidence if material.task.kind == "classification" else None
    further = pseudo_label(predict, block.unlabelled, material.task, threshold=threshold)
    return labelled + further, len(further), teacher.seconds + time.perf_counter() - started


def _teacher(material: Material, arm: Arm, labelled: Sequence[Prepared], cell: Cell, seed: int) -> Trained:
    """Return the teacher of a run, trained as ``arm``; the one that was kept where it has been trained before."""
    key = material.key(cell, arm)
    kept = material.kept.recall(key, new_network(material.task, labelled, material.config.compare, seed))
    if kept is not None:
        return kept.trained
    transform = _transform(material, arm, cell)
    trained = train_downstream(material.task, labelled, (), arm, transform, material.config.compare, seed)
    material.kept.keep(key, KeptModel(trained))
    return trained


def _predictions(material: Material, arm: Arm, cell: Cell, teacher: nn.Module, seed: int) -> Predict:
    """Return how the arm's teacher labels a scan: by the scan, its siblings, or randomly deformed copies."""
    if "self-training" in arm.parts:
        return plain_predictions(teacher)
    count = material.config.compare.consensus
    sampler = material.sampler(arm, cell.labelled, cell.fold)
    magnitudes = material.magnitudes(arm, cell.labelled, cell.fold)

    def recipes(case: Prepared) -> list[Recipe]:
        noise = derive_seed(seed, "consensus", case.case.case_id)
        if "random-consensus" in arm.parts:
            assert magnitudes is not None
            return [magnitudes.recipe(case.image, derive_seed(noise, i), arm.strength) for i in range(count)]
        assert sampler is not None
        drawn = (sampler.draw(noise, i, arm.strength) for i in range(count))
        return [sampler.recipe(case.image, parameters, None, (0.0, 1.0)) for parameters in drawn]

    return consensus_predictions(teacher, recipes, image_mode(material.config.data.modality))


def _own(
    material: Material,
    arm: Arm,
    transform: Any,
    training: Sequence[Prepared],
    pseudo: int,
    block: Block,
    held_out: Mapping[str, Sequence[Prepared]],
    seed: int,
) -> tuple[list[Score], float, list[NDArray[np.uint8]]]:
    """Let the researcher's own function train and predict."""
    from medgan.comparison.own_function import TrainingSamples, load_function, run_own_function

    task, settings = material.task, material.config.compare
    # A function is always given scans to predict; a trial, which tests nobody, shows it the validation cases twice.
    tested = [case for cases in held_out.values() for case in cases] or list(block.used["validation"])
    samples = TrainingSamples(training, arm, transform, task, seed, pseudo, settings.pseudo_share)
    logits = run_own_function(
        load_function(str(settings.function)), samples, block.used["validation"], tested, task,
        seed=seed, steps=settings.steps,
    )  # fmt: skip
    scores: list[Score] = []
    if block.used["validation"]:
        scores += score_logits(logits.validation, block.used["validation"], task, "validation")
    start = 0
    for split, cases in held_out.items():
        if cases:
            scores += score_logits(logits.test[start : start + len(cases)], cases, task, _split(split))
        start += len(cases)
    tests = len(held_out.get("test", ()))
    maps = [_label_maps(logits.test[:tests])] if tests and task.kind == "segmentation" else []
    return scores, logits.seconds, maps


def _label_maps(logits: Tensor) -> NDArray[np.uint8]:
    maps: NDArray[np.uint8] = logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
    return maps


def _split(name: str) -> Split:
    return "external" if name == "external" else "test"
