"""Folders of finished studies with made-up scores, as ``medgan compare`` leaves them: what the report is tested on."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medgan.comparison.gap_table import GAP_COLUMNS, GapRow
from medgan.comparison.summary import COLUMNS

NAN = math.nan
CEILING = "classical+all-labels"
CLASSES = ("benign", "malignant")
LABELS = {"1": "anterior", "2": "posterior"}
VERSIONS = {"medgan": "0.1.0", "torch": "2.10.0", "monai": "1.6.1"}


@dataclass(frozen=True)
class Recipe:
    """What study to make up."""

    task: str = "segmentation"
    name: str = "Hippocampus, few labels"
    labelled: tuple[int, ...] = (0,)
    folds: int | None = None
    splits: int = 1
    seeds: int = 8
    patients: int = 24
    margin: float = 0.01
    external: bool = False
    gallery: bool = True
    failed: bool = False
    probabilities: tuple[float, ...] = (0.5,)
    verdicts: Mapping[str, str] = field(default_factory=dict)
    detectable: float = 0.012
    spacing: tuple[float, float, float] | None = (1.0, 1.0, 1.0)
    shape: tuple[int, int, int] = (32, 40, 32)
    classes: tuple[str, ...] = CLASSES
    baseline: str = "classical"
    reference: bool = False


def arms_of(recipe: Recipe) -> list[dict[str, Any]]:
    def arm(name: str, parts: Sequence[str], generator: str | None = None, probability: float = 0.5) -> dict[str, Any]:
        return {
            "name": name, "parts": list(parts), "generator": generator, "probability": probability,
            "strength": 1.0, "transforms": [], "exploratory": False,
        }  # fmt: skip

    gans = [
        arm("gan" if len(recipe.probabilities) == 1 else f"gan p={p:g}", ["gan"], "dagan", p)
        for p in recipe.probabilities
    ]
    return [
        arm(recipe.baseline, ["classical"]),
        arm("none", []),
        *gans,
        arm("classical+gan", ["classical", "gan"], "dagan"),
        arm("classical+random-deformation", ["classical", "random-deformation"], "dagan"),
        *([{**arm(CEILING, ["classical", "all-labels"]), "annotated_cases": [36]}] if recipe.reference else []),
    ]


EFFECTS = {
    "classical": 0.0,
    "none": -0.035,
    "gan": -0.004,
    "classical+gan": 0.022,
    "classical+random-deformation": 0.006,
    CEILING: 0.04,
}


def write_study(folder: Path, recipe: Recipe | None = None) -> Path:
    """Write the files of a finished study of made-up scores."""
    recipe = recipe or Recipe()
    folder.mkdir(parents=True, exist_ok=True)
    arms = arms_of(recipe)
    plan = plan_of(recipe, arms)
    (folder / "plan.json").write_text(json.dumps({"sha256": "5f" * 32, "plan": plan}), encoding="utf-8")
    rng = np.random.default_rng(7)
    splits = ["validation", "test", *(["external"] if recipe.external else [])]
    scores, curves, runs, means = [], [], [], {}
    for labelled in recipe.labelled:
        less = 0.0 if labelled == 0 else 0.25 / math.sqrt(labelled)
        base = rng.normal(0.82, 0.05, recipe.patients)
        for fold in range(recipe.splits):
            for seed in range(recipe.seeds):
                seeded = rng.normal(0, 0.004)
                for a in arms:
                    cell = (a["name"], labelled, fold, seed)
                    broken = recipe.failed and a["name"] == "classical+gan" and (fold, seed) == (0, 1)
                    error = "CUDA out of memory <b>12 GiB</b>" if broken else ""
                    status = "failed" if broken else "finished"
                    seconds = rng.uniform(40, 50)
                    runs.append([*cell, status, seconds, NAN, error])
                    if broken:
                        continue
                    shift = EFFECTS.get(a["name"], 0.004) - less + seeded + rng.normal(0, 0.003)
                    for split in splits:
                        tested = [p for p in range(recipe.patients) if recipe.splits == 1 or p % recipe.splits == fold]
                        rows = score_rows(recipe, split, tested, base, shift, rng)
                        scores += [[*cell, *row] for row in rows]
                    for point in range(1, 7):
                        value = 0.8 + shift - 0.3 * math.exp(-point / 1.5) + rng.normal(0, 0.004)
                        curves.append([*cell, point * 100, plan["metric"], value])
                    means.setdefault((labelled, a["name"]), []).append(0.82 + shift)
    write_csv(folder / "results.csv", "arm,labelled,fold,seed,case_id,patient_id,split,metric,structure,value", scores)
    write_csv(folder / "curve.csv", "arm,labelled,fold,seed,step,metric,value", curves)
    write_csv(folder / "runs.csv", "arm,labelled,fold,seed,status,seconds,teacher_seconds,error", runs)
    rows = [row for labelled in recipe.labelled for row in summary_rows(recipe, plan, labelled, means, splits)]
    write_csv(folder / "summary.csv", ",".join(COLUMNS), [[row[c] for c in COLUMNS] for row in rows])
    if recipe.reference:
        gaps = [row for labelled in recipe.labelled for row in gaps_of(recipe, plan, labelled)]
        write_csv(folder / "gap.csv", ",".join(GAP_COLUMNS), [[getattr(row, c) for c in GAP_COLUMNS] for row in gaps])
    if recipe.gallery:
        write_gallery(folder, recipe, [a["name"] for a in arms])
    return folder


def write_csv(path: Path, columns: str, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns.split(","))
        writer.writerows(rows)


def score_rows(
    recipe: Recipe, split: str, tested: Sequence[int], base: np.ndarray, shift: float, rng: np.random.Generator
) -> list[list[object]]:
    rows: list[list[object]] = []
    for p in tested:
        who = [f"secret-case-{split}-{p}", f"secret-patient-{split}-{p}", split]
        if recipe.task == "segmentation":
            for i, structure in enumerate(LABELS.values()):
                lacks = p == 3 and i == 1
                dice = NAN if lacks else float(np.clip(base[p] + shift + 0.01 * i + rng.normal(0, 0.01), 0, 1))
                rows += [[*who, "dice", structure, dice], [*who, "hd95", structure, NAN if lacks else 12 * (1 - dice)]]
                rows.append([*who, "assd", structure, NAN if lacks else 4 * (1 - dice)])
        else:
            k = p % len(recipe.classes)
            logits = rng.normal(0, 1, len(recipe.classes))
            logits[k] += 1.5 + 10 * shift
            given = np.exp(logits) / np.exp(logits).sum()
            rows += [[*who, "probability", name, given[i]] for i, name in enumerate(recipe.classes)]
            rows.append([*who, "true_class", recipe.classes[k], 1.0])
            rows.append([*who, "brier", "", float(((given - np.eye(len(given))[k]) ** 2).sum())])
    return rows


def summary_rows(
    recipe: Recipe,
    plan: Mapping[str, Any],
    labelled: int,
    means: Mapping[tuple[int, str], list[float]],
    splits: list[str],
) -> list[dict[str, object]]:
    if recipe.task == "segmentation":
        metrics = {"dice": 1.0, "hd95": -12.0, "assd": -4.0}
        structures = list(LABELS.values())
    else:
        metrics = {
            "auc": 1.0,
            "balanced_accuracy": 1.0,
            "sensitivity": 1.0,
            "specificity": 1.0,
            "brier": -1.0,
            "ece": -0.5,
        }
        structures = list(recipe.classes)
    base = means[labelled, recipe.baseline]
    rows = []
    for split in splits[1:]:
        for metric, scale in metrics.items():
            for arm in plan["arms"]:
                name = arm["name"]
                own = means[labelled, name]
                mean = sum(own) / len(own)
                d = mean - sum(base) / len(base)
                offset = 0.0 if scale > 0 else -scale
                is_base = name == recipe.baseline
                untested = is_base or name == CEILING
                p = 0.0078 if abs(d) > 0.015 else 0.31
                verdict = ""
                if metric == plan["metric"] and split == "test" and not is_base:
                    if plan["exploratory"]:
                        verdict = "exploratory: no verdict under 6 seeds"
                    else:
                        verdict = "gain" if d > 0.015 else "loss" if d < -0.015 else "no gain shown"
                    verdict = "reference: all labels" if name == CEILING else recipe.verdicts.get(name, verdict)
                own_mean = offset + scale * mean
                step = NAN if is_base else scale * d
                row: dict[str, object] = {
                    "labelled": labelled, "split": split, "arm": name, "metric": metric, "structure": "",
                    "mean": own_mean, "low": own_mean - 0.02, "high": own_mean + 0.02,
                    "difference": step, "difference_low": step - 0.008,
                    "difference_high": step + 0.008,
                    "p": NAN if untested else p, "p_holm": NAN if untested else min(1.0, 4 * p),
                    "p_wilcoxon": NAN if untested else p / 3,
                    "p_corrected": 2 * p if recipe.folds and not untested else NAN,
                    "verdict": verdict, "replicates": len(own), "patients": recipe.patients,
                    "missing": 1 if recipe.task == "segmentation" else 0, "seconds": 45.0,
                    "detectable": NAN if untested else recipe.detectable, "exploratory": plan["exploratory"],
                }  # fmt: skip
                rows.append(row)
                parts = structures if split == "test" and metric in ("dice", "hd95", "assd", "auc") else []
                rows += [{**row, "structure": s, "verdict": "", "detectable": NAN} for s in parts]
    return rows


def plan_of(recipe: Recipe, arms: list[dict[str, Any]]) -> dict[str, Any]:
    segmentation = recipe.task == "segmentation"

    def part(patients: int) -> dict[str, Any]:
        half = patients // len(recipe.classes)
        counts = dict.fromkeys(recipe.classes, half)
        numbers = {"cases": patients + 2, "patients": patients + 1, "used_cases": patients, "used_patients": patients}
        return {**numbers, "classes": {} if segmentation else counts}

    cohort = {"training": part(36), "validation": part(12), "test": part(recipe.patients)}
    if recipe.external:
        cohort["external"] = part(18)
    generator = {
        "name": "dagan", "fold": 0, "labelled": 0, "sha256": "c0ffee" * 10 + "c0de", "config_name": "hippocampus",
        "steps": 2000, "training_cases": 36, "training_patients": 36, "seconds": 1840.0,
    }  # fmt: skip
    return {
        "format": 2,
        "name": recipe.name,
        "seed": 0,
        "task": recipe.task,
        "metric": "dice" if segmentation else "auc",
        "structures": LABELS if segmentation else {},
        "classes": [] if segmentation else list(recipe.classes),
        "spacing": None if recipe.spacing is None else list(recipe.spacing),
        "compare": {
            "baseline": recipe.baseline, "seeds": recipe.seeds, "steps": 600, "batch": 8, "learning_rate": 0.002,
            "width": 16, "margin": recipe.margin, "bootstrap": 2000, "sensitivity": 0.9, "network": None,
            "function": None, "splits": recipe.splits, "curve_points": 6, "pictures": recipe.gallery,
        },
        "arms": arms,
        "labelled": list(recipe.labelled),
        "folds": recipe.folds,
        "splits": recipe.splits,
        "data": {"modality": "mri", "split_seed": 0},
        "preprocess": {
            "shape": list(recipe.shape), "spacing": None if recipe.spacing is None else list(recipe.spacing),
            "fit": "crop", "intensity": {"kind": "robust", "lower": 0.5, "upper": 99.5, "window": [-160.0, 240.0]},
        },
        "exploratory": recipe.seeds * recipe.splits < 6,
        "split_digests": [f"{i:02x}" * 32 for i in range(recipe.splits)],
        "content_digest": "ab" * 32,
        "external_digest": "ef" * 32 if recipe.external else None,
        "generators": [{**generator, "fold": i} for i in range(recipe.splits)],
        "cohort": cohort,
        "cohort_folds": [cohort] * recipe.splits,
        "flow": {
            "found": {"cases": 85, "patients": 80},
            "excluded": [{"reason": "unreadable", "cases": 2}, {"reason": "no volume", "cases": 1}],
            "without_annotation": 7,
        },
        "versions": VERSIONS,
        "machine": {"cores": 2, "device": "CPU", "threads": 2},
    }  # fmt: skip


def gaps_of(recipe: Recipe, plan: Mapping[str, Any], labelled: int) -> list[GapRow]:
    """One arm goes most of the way, the next lies below the best control, and the block of few labels has no gap."""
    found = []
    for name, closed in (("classical+gan", 0.47), ("gan", -0.29)):
        if name not in [arm["name"] for arm in plan["arms"]]:
            continue
        known = (closed, closed - 0.2, closed + 0.22) if labelled != 4 else (NAN, NAN, NAN)
        room = (0.034, 0.02 if labelled != 4 else -0.004, 0.046)
        found.append(
            GapRow(
                labelled, name, plan["metric"], 0.826 + closed * 0.034, "classical+random-deformation", 0.826, CEILING,
                0.86, closed * 0.034, closed * 0.034 - 0.007, closed * 0.034 + 0.007, *room, *known, recipe.seeds,
                recipe.patients,
            )
        )  # fmt: skip
    return found


def phantom(shape: tuple[int, int, int], rng: np.random.Generator, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A head-like blob with two structures."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    head = (grid**2 / np.array([0.8, 0.9, 0.85])[:, None, None, None] ** 2).sum(0) < 1
    image = np.where(head, 90 + 30 * np.sin(5 * grid[0] + 3 * grid[1] + shift), 6) + rng.normal(0, 6, shape)
    label = np.zeros(shape, np.uint8)
    for value, centre in ((1, 0.3), (2, -0.3)):
        offset = grid - np.array([0.1 + shift, centre, shift])[:, None, None, None]
        label[(offset**2 / np.array([0.3, 0.26, 0.35])[:, None, None, None] ** 2).sum(0) < 1] = value
    image[label > 0] += 60
    return np.clip(image, 0, 255).astype(np.uint8), label


def write_gallery(folder: Path, recipe: Recipe, arms: Sequence[str]) -> None:
    rng = np.random.default_rng(3)
    arrays: dict[str, np.ndarray] = {}
    cases, sources = [], []
    for number in range(3):
        image, truth = phantom(recipe.shape, rng, 0.04 * number)
        arrays[f"case{number}/image"] = image
        scores = {arm: 0.6 + 0.05 * i + 0.02 * number for i, arm in enumerate(arms)}
        if recipe.task == "segmentation":
            arrays[f"case{number}/truth"] = truth
            for i, arm in enumerate(arms):
                arrays[f"case{number}/prediction/{arm}"] = np.roll(truth, 3 - i, axis=number % 3)
        cases.append(
            {"key": f"case{number}", "number": 5 + number, "block": recipe.labelled[-1], "scores": scores,
             "why": f"worst of {arms[number]}"}
        )  # fmt: skip
    for number in range(2):
        image, label = phantom(recipe.shape, rng, 0.1 * number)
        kind = recipe.classes[number] if recipe.task == "classification" else None
        sources.append({"key": f"source{number}", "class": kind, "siblings": 4, "generator": "dagan"})
        arrays[f"source{number}/image"], arrays[f"source{number}/label"] = image, label
        for sibling in range(4):
            place = f"source{number}/sibling{sibling}"
            arrays[f"{place}/image"], arrays[f"{place}/label"] = phantom(
                recipe.shape, rng, 0.1 * number + 0.05 * sibling
            )
    if recipe.task == "classification":
        arrays = {name: array for name, array in arrays.items() if not name.endswith("label")}
    np.savez_compressed(folder / "gallery.npz", **arrays)
    (folder / "gallery.json").write_text(json.dumps({"cases": cases, "sources": sources, "labels": LABELS}))
