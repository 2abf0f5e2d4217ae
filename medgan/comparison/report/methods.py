"""The methods of a study in words, ready for a paper: every figure is the frozen plan's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from medgan.comparison.design import redrawn_in_words
from medgan.comparison.report.finished import FinishedStudy
from medgan.comparison.report.gap import gap_methods
from medgan.comparison.report.tuning import doses, tuning_methods
from medgan.comparison.report.words import (
    DISTANCES,
    METRICS,
    PARTS,
    TIMES,
    figure,
    listed,
    plural,
    seconds,
)

Paragraph = tuple[str, str]


def methods(study: FinishedStudy) -> list[Paragraph]:
    """Return (heading, text) of each paragraph."""
    plan = study.plan
    paragraphs = [
        ("Data", _data(plan)),
        ("Preprocessing", _preprocessing(plan)),
        ("Arms", _arms(study)),
        ("Tuning", tuning_methods(study)),
        ("Generator", _generator(plan)),
        ("Downstream model", _network(plan)),
        ("Evaluation", _evaluation(study)),
        ("Statistics", _statistics(study)),
        ("Software", _software(plan)),
    ]
    return [(heading, text) for heading, text in paragraphs if text]


def _data(plan: Mapping[str, Any]) -> str:
    flow, cohort, compare = plan["flow"], plan["cohort"], plan["compare"]
    found = flow["found"]
    scans = {"mri": "MRI scans", "ct": "CT scans", "mask": "binary shapes"}[plan["data"]["modality"]]
    excluded = sum(int(part["cases"]) for part in flow["excluded"])
    words = [
        f"The cohort held {plural(found['cases'], 'case')} ({scans}) of {plural(found['patients'], 'patient')}; "
        f"{plural(excluded, 'case was', 'cases were')} excluded."
    ]
    if flow["without_annotation"]:
        words.append(
            f"{plural(flow['without_annotation'], 'case')} had no "
            f"{'label map' if plan['task'] == 'segmentation' else 'class'} and took no part in supervised training."
        )
    parts = ", ".join(
        f"{name} {plural(cohort[name]['used_patients'], 'patient')} ({plural(cohort[name]['used_cases'], 'case')})"
        for name in ("training", "validation", "test")
    )
    if plan["folds"]:
        words.append(
            f"Patients, not images, were split by {plan['folds']}-fold cross-validation ({plan['splits']} folds run), "
            f"so that no patient was in two parts of a fold; in the first fold: {parts}."
        )
    else:
        words.append(f"Patients, not images, were split, so that no patient was in two parts: {parts}.")
    sizes = [int(n) for n in plan["labelled"] if n]
    if sizes:
        everything = " and with all of them" if 0 in plan["labelled"] else ""
        words.append(f"The study was run with {listed([str(n) for n in sizes])} labelled training cases{everything}.")
    if plan["external_digest"]:
        external = cohort["external"]
        words.append(
            f"Every finished model was also applied, unchanged, to an external cohort of "
            f"{plural(external['used_patients'], 'patient')} ({plural(external['used_cases'], 'case')})."
        )
    words.append(
        f"The plan, with arms, metric, margin, seeds and split, was written and hashed before the first training step; "
        f"the baseline was {compare['baseline']}."
    )
    return " ".join(words)


def _preprocessing(plan: Mapping[str, Any]) -> str:
    grid = plan["preprocess"]
    intensity = grid["intensity"]
    scaled = {
        "robust": f"the {intensity['lower']:g}th and {intensity['upper']:g}th percentiles of each volume were mapped "
        "to 0 and 1 and values beyond clipped",
        "window": f"values from {intensity['window'][0]:g} to {intensity['window'][1]:g} HU were mapped to 0 to 1 and "
        "values beyond clipped",
        "unit": "intensities were taken as they were (0 to 1)",
    }[intensity["kind"]]
    shape = TIMES.join(str(n) for n in grid["shape"])
    if grid["fit"] == "resize":
        fitted = f"stretched to a grid of {shape} voxels"
    elif grid["spacing"]:
        spacing = TIMES.join(f"{mm:g}" for mm in grid["spacing"])
        fitted = f"resampled to {spacing} mm and cropped or padded about the centre to {shape} voxels"
    else:
        fitted = f"cropped or padded about the centre to {shape} voxels at their own spacing"
    return f"Volumes were {fitted}; {scaled}."


def _arms(study: FinishedStudy) -> str:
    words, references = [], []
    for arm in study.plan["arms"]:
        parts = listed([PARTS.get(part, part) for part in arm["parts"]]) or PARTS["none"]
        extra = doses(arm)
        if "gan" in arm["parts"] and arm.get("min_quality"):  # studies of earlier versions know of none
            extra.append(f"siblings below quality {arm['min_quality']:g} drawn again")
        if arm["generator"]:
            extra.append(f"generator {arm['generator']}")
        if arm["transforms"]:
            names = [str(t.get("_target_", t)) if isinstance(t, Mapping) else str(t) for t in arm["transforms"]]
            extra.append(f"further transforms {listed(names)}")
        role = ", baseline" if arm["name"] == study.baseline else ""
        named = f"{arm['name']}{role} ({parts}{'; ' + ', '.join(extra) if extra else ''})"
        if "all-labels" in arm["parts"]:
            cases = _range([int(count) for count in arm["annotated_cases"]])
            references.append(f"{named}, trained with the annotations of all {cases} annotated training cases")
        else:
            words.append(named)
    reference = (
        f" As a reference, a ceiling that is not compared and in no adjustment: {'; '.join(references)}."
        if references
        else ""
    )
    return (
        f"{plural(len(words), 'arm was', 'arms were')} compared: {'; '.join(words)}.{reference} Augmentation changed "
        "training samples only, on the fly; validation and test cases were never augmented."
    )


def _generator(plan: Mapping[str, Any]) -> str:
    if not plan["generators"]:
        return ""
    named: dict[str, list[Mapping[str, Any]]] = {}
    for generator in plan["generators"]:
        named.setdefault(generator["name"], []).append(generator)
    words = [
        "The generator is a conditional GAN for data augmentation (after DAGAN, Antoniou et al. 2017): from a real "
        "volume, its class and noise it predicts a smooth deformation (affine and stationary velocity field) and a "
        "smooth change of intensity; a label map follows the same deformation. It saw training patients only; the "
        "study refuses a generator whose training cases meet validation or test by id or by content."
    ]
    for name, rows in named.items():
        cases = _range([int(row["training_cases"]) for row in rows])
        patients = _range([int(row["training_patients"]) for row in rows])
        steps = _range([int(row["steps"]) for row in rows])
        each = f" ({plural(len(rows), 'checkpoint')}, one for each fold or block)" if len(rows) > 1 else ""
        words.append(
            f"{name}{each}: {steps} steps on {cases} training cases of {patients} patients"
            + _cost([row["seconds"] for row in rows])
            + "."
        )
    return " ".join(words)


def _cost(times: Sequence[float | None]) -> str:
    known = [float(t) for t in times if t is not None]
    return f", {seconds(sum(known))} of training{' in all' if len(known) > 1 else ''}" if known else ""


def _network(plan: Mapping[str, Any]) -> str:
    compare = plan["compare"]
    if compare["function"]:
        return (
            f"The downstream model was trained by the function {compare['function']}, given to the study by its "
            f"authors, with {compare['steps']} steps in every arm; architecture and optimiser are for them to state."
        )
    if compare["network"]:
        arguments = ", ".join(f"{key}={value}" for key, value in compare["network"]["arguments"].items())
        network = f"MONAI's {compare['network']['name']}" + (f" ({arguments})" if arguments else "")
    elif plan["task"] == "segmentation":
        network = f"a residual 3-D U-Net of width {compare['width']}"
    else:
        network = f"a 3-D DenseNet of width {compare['width']}"
    return (
        f"The downstream model was {network}, the same in every arm, trained from random initialisation for "
        f"{compare['steps']} steps of {compare['batch']} samples with AdamW under a one-cycle schedule (peak learning "
        f"rate {compare['learning_rate']:g}). The last model was tested; no step was chosen by its score. "
        f"Seeds were paired: seed i gives the same initialisation and data order in every arm "
        f"({plural(int(compare['seeds']), 'seed')}{redrawn_in_words(compare)}, master seed {plan['seed']})."
    )


def _evaluation(study: FinishedStudy) -> str:
    plan, compare = study.plan, study.plan["compare"]
    shown = [metric for metric in METRICS if study.rows(study.blocks[-1], metric)]
    further = [METRICS[metric][0] for metric in shown if metric != plan["metric"]]
    words = [f"The primary metric was {METRICS[plan['metric']][0]}; further metrics: {listed(further) or 'none'}."]
    if plan["task"] == "segmentation":
        words.append(
            "Structures were averaged within a case and cases within a patient; a structure that the reference lacks "
            "was left out, one that the prediction lacks counted as Dice 0."
        )
        if set(DISTANCES) & set(shown):
            words.append(
                "Surface distances were measured in "
                + ("mm" if plan["spacing"] else "voxels of the grid")
                + "; a structure missing from the prediction counted as the diagonal of the grid."
            )
    else:
        if "sensitivity" in shown:
            words.append(
                f"Sensitivity and specificity were taken at the threshold that reached a sensitivity of "
                f"{compare['sensitivity']:g} on the validation cases, fixed before the test."
            )
        words.append("Calibration was measured by Brier score and expected calibration error.")
    return " ".join(words)


def _primary_test(plan: Mapping[str, Any]) -> str:
    if plan["splits"] > 1:
        return "two-sided corrected resampled t-test over folds and seeds (Nadeau and Bengio 2003)"
    return "two-sided exact sign-flip permutation test over seeds"


def _comparisons(study: FinishedStudy) -> int:
    """Return how many arms of the frozen plan are compared; checks and arms added later are not among them."""
    planned = {arm["name"] for arm in study.plan["arms"] if not arm["exploratory"]}
    rows = study.rows(study.blocks[0], study.plan["metric"])
    return sum(row.arm in planned and math.isfinite(row.p_holm) for row in rows)


def _statistics(study: FinishedStudy) -> str:
    plan, compare = study.plan, study.plan["compare"]
    margin = float(compare["margin"])
    tests = [
        f"Differences to the baseline were paired by patient and replicate. 95 % confidence intervals: percentile "
        f"bootstrap with {compare['bootstrap']} resamples, patients and seeds resampled independently (Owen 2007).",
        f"Primary test: {_primary_test(plan)}, adjusted for {plural(_comparisons(study), 'comparison')} by Holm's "
        "method (1979).",
        "Secondary: Wilcoxon signed-rank test over patients.",
    ]
    reach = f", and the difference reached {figure(margin, plan['metric'])}" if margin else ""
    tests.append(
        "A gain was declared only where the interval, at 95 % for all comparisons together (Bonferroni), excluded 0 "
        f"and the adjusted p was below 0.05{reach}; with fewer "
        "than 6 replicates no verdict was given."
    )
    tests.append(
        "The detectable difference is the one that this decision rule would find with 80 % power, given the variance "
        "seen between patients and seeds."
    )
    gap = gap_methods(study.gaps, plan)
    return " ".join([*tests, gap] if gap else tests)


def _software(plan: Mapping[str, Any]) -> str:
    versions = listed([f"{name} {version}" for name, version in plan["versions"].items()])
    machine = plan["machine"]
    return f"{versions}; {machine['device']}, {plural(int(machine['cores']), 'CPU core')}."


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
