"""Does an independent network find in a sibling the class or the mask it was made with, as often as in real volumes?

A network knows the cases it was fitted to, and their siblings resemble them. So the patients are parted into folds: the
siblings of a patient are judged by the network that was fitted to none of this patient's scans, and held-out patients
by all of these networks alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgan.data.loaders import Prepared, stack_images
from medgan.evaluation.fidelity import Sets
from medgan.evaluation.intervals import Array, Rows, drawn_figures
from medgan.evaluation.judges import Task, Verdicts, case_means, fit_judge, judge
from medgan.evaluation.real import Real, interpolate_once, patients_of
from medgan.evaluation.siblings import make_sibling
from medgan.evaluation.task_space import task_fidelity
from medgan.progress import track
from medgan.sampler import Sampler
from medgan.seeding import derive_seed, numpy_generator

FOLDS = 3
LEAST_TRAINING = 4  # patients whose truth is known, of each class: two to fit, two to judge
LEAST_HELD_OUT = 2
JUDGED_SIBLINGS = 2  # of each source, made again
LEAST_DICE = 0.2  # in held-out real volumes, below which a network has not learned a structure
TARGET = -0.01


@dataclass(frozen=True, eq=False)
class Agreement:
    """The figures of one task.

    Attributes:
        figures: for the report.
        confidence: ``(N, n)`` over all sources and the siblings judged, NaN for those that were not.
        kind: of the task.
    """

    figures: dict[str, Any]
    confidence: Array
    kind: str


def tasks_for(
    real: Real, class_names: Sequence[str], labels: Mapping[int, str], values: Sequence[int]
) -> tuple[list[Task], list[dict[str, str]]]:
    """Return the tasks that the cases allow, and for the others what is left out and why.

    Args:
        real: the cases.
        class_names: of the generator.
        labels: names of label values.
        values: label values that are followed.
    """
    options: list[tuple[Task, int, str]] = []
    if values:
        names = tuple(labels.get(value, f"label {value}") for value in values)
        options.append((Task("segmentation", names, tuple(values)), 1, "label"))
    if class_names:
        options.append((Task("classification", tuple(class_names), tuple(range(len(class_names)))), 2, "class"))
    tasks, left_out = [], []
    for task, least, what in options:
        kept, reasons = [], []
        for place, (name, value) in enumerate(zip(task.names, task.values, strict=True)):
            counts = [_patients_with(task, value, part) for part in (real.training, real.held_out)]
            if counts[0] >= LEAST_TRAINING and counts[1] >= LEAST_HELD_OUT:
                kept.append(place)
                continue
            reasons.append(f"{counts[0]} training and {counts[1]} held-out patients with the {what} {name}")
        if len(kept) >= least:
            tasks.append(Task(task.kind, tuple(task.names[i] for i in kept), tuple(task.values[i] for i in kept)))
        if reasons:
            missed = [n for i, n in enumerate(task.names) if i not in kept or len(kept) < least]
            figures = f"agreement of an independent network with the {what} {', '.join(missed)}"
            reason = f"{'; '.join(reasons)}, where at least {LEAST_TRAINING} and {LEAST_HELD_OUT} are needed"
            left_out.append({"figures": figures, "reason": reason})
    return tasks, left_out


def measure_agreement(
    task: Task, sampler: Sampler, real: Real, *, siblings: int, steps: int, seed: int, strength: float = 1.0
) -> Agreement:
    """Fit a network a fold and let it judge the siblings of the patients it has not seen, and held-out volumes.

    Args:
        task: what to ask, one of :func:`tasks_for`.
        sampler: makes the siblings.
        real: with training and held-out cases whose truth is known.
        siblings: made of each source; of these at most the first :data:`JUDGED_SIBLINGS` are judged.
        steps: updates of each network.
        seed: of siblings, folds and networks.
        strength: of every sibling.

    Raises:
        ValueError: siblings have nothing left to be found.
    """
    count = min(siblings, JUDGED_SIBLINGS)
    rows = [row for row, p in enumerate(real.training) if task.truth(p) is not None]
    sources = [real.training[row] for row in rows]
    raw = [p for p in real.held_out if task.truth(p) is not None]
    held_out, moved_sources = (interpolate_once(part, seed) for part in (raw, sources))
    strata = [task.values.index(p.class_index) if task.kind == "classification" else 0 for p in sources]
    fold_of = draw_folds(patients_of(sources), strata, seed)
    of_siblings = np.full((len(sources), count, len(task.names)), np.nan)
    confidence = np.full((len(real.training), siblings), np.nan)
    of_sources = np.full((len(sources), len(task.names)), np.nan)
    of_held_out, of_raw, seen = [], [], []
    folds = int(fold_of.max()) + 1
    for fold in range(folds):
        network = fit_judge(
            task,
            [p for p, its in zip(sources, fold_of, strict=True) if its != fold],
            steps=steps,
            seed=derive_seed(seed, "judge", task.kind, fold),
            description=f"{task.kind} network {fold + 1} of {folds}",
        )
        places = np.flatnonzero(fold_of == fold).tolist()
        features: list[Array] = []
        own = _ask(network, task, [moved_sources[place] for place in places])
        of_sources[places] = own.scores
        for place in track(places, "judging siblings"):
            made = [make_sibling(sampler, sources[place], index, seed, strength) for index in range(count)]
            truths = [_truth_of(task, sources[place], sibling.label) for sibling in made]
            said = judge(network, task, torch.stack([sibling.image for sibling in made]), truths)
            of_siblings[place], confidence[rows[place], :count] = said.scores, said.confidence
            features.append(said.features)
        others = _ask(network, task, held_out)
        of_held_out.append(others.scores)
        of_raw.append(_ask(network, task, raw).scores)
        patients = [sources[place].case.patient_id for place in places]
        seen.append(Sets(np.stack(features), own.features, others.features, patients))
    scores = Scores(of_siblings, of_sources, np.mean(of_held_out, axis=0), np.mean(of_raw, axis=0))
    parts = _parts(task, scores)
    # By real volumes alone: what the networks cannot find there is no measure of siblings.
    readable = [number for number, part in enumerate(parts) if part["readable"]]
    found = agreement_figures(scores.only(readable), patients_of(sources), patients_of(raw), seed)
    figures = {
        "kind": task.kind,
        "metric": "Dice" if task.kind == "segmentation" else "share of volumes given their class",
        "steps": steps,
        "folds": folds,
        "sources": len(sources),
        "held_out_cases": len(raw),
        "siblings_judged": count,
        "target": TARGET,
        **found,
        "fidelity": task_fidelity(seen, patients_of(held_out), seed),
        "parts": parts,
        # Able to judge: a structure at least is found in real volumes, or classes are told apart better than by chance.
        "able": bool(readable) and (task.kind == "segmentation" or found["real"]["low"] > 1 / len(task.names)),
    }
    return Agreement(figures, confidence, task.kind)


@dataclass(frozen=True, eq=False)
class Scores:
    """What the networks said of S structures or classes, NaN where a case has none to find.

    Attributes:
        siblings: ``(N, n, S)`` by the network that has not seen the source's patient.
        sources: ``(N, S)`` of the sources themselves, interpolated once, by the same network.
        held_out: ``(M, S)`` mean over the networks, interpolated once.
        raw: ``(M, S)`` the same of the volumes as they are.
    """

    siblings: Array
    sources: Array
    held_out: Array
    raw: Array

    def only(self, numbers: Sequence[int]) -> Scores:
        """Return the scores of some structures; of all where there are none to choose."""
        kept = list(numbers) or slice(None)
        parts = (self.siblings, self.sources, self.held_out, self.raw)
        return Scores(*(part[..., kept] for part in parts))


def agreement_figures(
    scores: Scores, patients: Sequence[str], held_out_patients: Sequence[str], seed: int
) -> dict[str, Any]:
    """Compare siblings with held-out volumes, and with their own sources, with intervals over patients.

    Args:
        scores: of all volumes.
        patients, held_out_patients: of the N sources and of the M held-out cases.
        seed: of the resamples.
    """
    of_siblings = case_means(np.moveaxis(scores.siblings, 1, 2))  # over the n siblings: (N, S)

    def statistics(rows: Rows, others: Rows) -> dict[str, float]:
        made, own = balanced_mean(of_siblings[rows]), balanced_mean(scores.sources[rows])
        held_out, raw = balanced_mean(scores.held_out[others]), balanced_mean(scores.raw[others])
        return {
            "siblings": made,
            "real": held_out,
            "difference": made - held_out,
            "own_sources": own,
            "difference_to_sources": made - own,
            "raw_real": raw,
            "raw_difference": made - raw,
        }

    figures: dict[str, Any] = dict(drawn_figures(statistics, patients, held_out_patients, seed))
    raw = {"real": figures.pop("raw_real"), "difference": figures.pop("raw_difference")}
    return {**figures, "raw": raw}


def balanced_mean(scores: Array) -> float:
    """Return the mean over structures or classes of the mean over cases of ``(N, S)``, of what is a number.

    So every structure has an equal say, in how many cases ever it is found: a set of cases with more lesions is not
    for that a worse one.
    """
    return float(case_means(case_means(scores.T)))


def draw_folds(patients: Sequence[str], strata: Sequence[int], seed: int) -> NDArray[np.int64]:
    """Return the fold of each row: patients are drawn, those of a stratum spread evenly over the folds.

    There are :data:`FOLDS` folds, or two where a stratum has too few patients for that.
    """
    first = dict(zip(reversed(patients), reversed(strata), strict=True))
    names = sorted(first)
    fewest = min(sum(s == stratum for s in first.values()) for stratum in set(first.values()))
    folds = FOLDS if fewest >= 2 * FOLDS else 2
    order = numpy_generator(seed, "folds").permutation(len(names)).tolist()
    ordered = sorted((names[i] for i in order), key=lambda name: first[name])
    place = {name: number % folds for number, name in enumerate(ordered)}
    return np.array([place[patient] for patient in patients], dtype=np.int64)


def _parts(task: Task, scores: Scores) -> list[dict[str, Any]]:
    """Return the figures of each structure or class, and whether the networks find it in real volumes."""
    parts = []
    for number, name in enumerate(task.names):
        of_siblings, of_real = _mean(scores.siblings[..., number]), _mean(scores.held_out[..., number])
        readable = task.kind == "classification" or (of_real is not None and of_real >= LEAST_DICE)
        parts.append({"name": name, "siblings": of_siblings, "real": of_real, "readable": readable})
    return parts


def _mean(values: Array) -> float | None:
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _ask(network: torch.nn.Module, task: Task, prepared: Sequence[Prepared]) -> Verdicts:
    truths = [truth for p in prepared if (truth := task.truth(p)) is not None]
    return judge(network, task, stack_images(prepared), truths)


def _truth_of(task: Task, source: Prepared, label: Tensor | None) -> Tensor:
    """Return what a sibling is meant to show: the source's class, or the warped label map."""
    if task.kind == "segmentation" and label is not None:
        return task.compact(label)
    truth = task.truth(source)
    assert truth is not None
    return truth


def _patients_with(task: Task, value: int, part: Sequence[Prepared]) -> int:
    if task.kind == "classification":
        return len({p.case.patient_id for p in part if p.class_index == value})
    return len({p.case.patient_id for p in part if p.label is not None and bool((p.label == value).any())})
