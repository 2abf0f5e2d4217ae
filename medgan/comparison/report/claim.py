"""Where the report answers the items of CLAIM, and what remains for the authors.

Source: Tejani et al., Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update, Radiology:
Artificial Intelligence 2024;6(4):e240300. Items are numbered as there and worded briefly here; the checklist itself is
to be filled in from the publication.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AUTHORS = "For the authors to state."


@dataclass(frozen=True)
class Item:
    """An item of the checklist.

    Attributes:
        number: 1 to 44.
        part: section of the checklist.
        text: what it asks for.
        answer: what the report says of it, or whose task it is.
        anchor: id of the report's section with the answer; empty where it is the authors' to answer.
    """

    number: int
    part: str
    text: str
    answer: str
    anchor: str = ""


def claim_items(plan: Mapping[str, Any], *, pictures: bool) -> list[Item]:
    """Return the 44 items with where this study's report answers them.

    Args:
        plan: the frozen plan.
        pictures: whether the report shows failed cases.
    """
    external, task = plan["external_digest"], plan["task"]
    power = "The difference that this study could have seen is reported; a size planned beforehand is the authors'."
    no_external = "Not done: no external cohort was configured. The authors justify the omission."
    failures = "The worst cases of every arm, with pictures, and failed runs." if pictures else "Failed runs only."
    subset = "Block sizes of the learning curve." if any(plan["labelled"]) else "No subset was drawn."
    further = "per class" if task == "classification" else "per structure"
    counts = "Class counts of each partition; demographics are the authors'."
    characteristics = (counts, "flow") if task == "classification" else (AUTHORS, "")
    diagnostic = "AUC, operating point, calibration." if task == "classification" else "Dice and surface distances."
    rows: list[tuple[str, str, str, str]] = [
        ("Title and abstract", "Names the AI method and its category", AUTHORS, ""),
        ("Title and abstract", "Structured summary of design, methods, results, conclusions", AUTHORS, ""),
        ("Introduction", "Background, intended use and clinical role", AUTHORS, ""),
        (
            "Introduction",
            "Aims, objectives, hypotheses",
            "The comparison and its margin; the aim is the authors'.",
            "verdict",
        ),
        ("Study design", "Prospective or retrospective", AUTHORS, ""),
        ("Study design", "Goal of the study", "Comparison of augmentations against a fixed baseline.", "verdict"),
        ("Data", "Data sources", "Counts and content hashes; origin and links are the authors'.", "flow"),
        (
            "Data",
            "Inclusion and exclusion criteria",
            "Exclusions with reasons; clinical criteria are the authors'.",
            "flow",
        ),
        ("Data", "Preprocessing", "Grid, spacing, intensities.", "methods"),
        ("Data", "Selection of data subsets", subset, "methods"),
        (
            "Data",
            "De-identification",
            "The report holds no identifiers; how scans were de-identified is the authors'.",
            "privacy",
        ),
        ("Data", "Missing data", "Cases without annotation and structures that a case lacks.", "limits"),
        ("Data", "Image acquisition protocol", AUTHORS, ""),
        ("Reference standard", "How the reference standard was obtained", AUTHORS, ""),
        ("Reference standard", "Why this reference standard", AUTHORS, ""),
        ("Reference standard", "Source of annotations, annotators' qualification", AUTHORS, ""),
        ("Reference standard", "Annotation of the test set", AUTHORS, ""),
        ("Reference standard", "Variability between and within annotators", AUTHORS, ""),
        ("Data partitions", "How data were assigned to partitions", "By patient; counts, classes and hashes.", "flow"),
        ("Data partitions", "Level at which partitions are disjoint", "Patient; also checked by content.", "flow"),
        ("Testing data", "Intended sample size", power, "verdict"),
        ("Model", "Description of the model", "Downstream network and generator.", "methods"),
        ("Model", "Software, frameworks, versions", "All versions.", "reproducibility"),
        ("Model", "Initialisation of parameters", "Random, the same for a seed in every arm.", "methods"),
        (
            "Training",
            "Training procedure, augmentation, hyperparameters",
            "Arms, what was tuned, steps, batch, rate, curves.",
            "methods",
        ),
        ("Training", "Selection of the final model", "The last step's model; none was chosen by its score.", "methods"),
        ("Training", "Ensembling", "None.", "methods"),
        ("Evaluation", "Performance metrics", "Primary metric, fixed beforehand, and further metrics.", "metrics"),
        ("Evaluation", "Significance and uncertainty", "Intervals, tests and adjustment by name.", "methods"),
        ("Evaluation", "Robustness or sensitivity analysis", "Paired seeds, controls, sweeps, learning curve.", "arms"),
        ("Evaluation", "Explainability or interpretability", "None was applied.", ""),
        ("Evaluation", "Evaluation on internal data", "Held-out test patients.", "arms"),
        (
            "Evaluation",
            "Testing on external data",
            *(("A separate cohort.", "external") if external else (no_external, "")),
        ),
        ("Evaluation", "Registration of a clinical trial", AUTHORS, ""),
        ("Results: data", "Numbers included and excluded, as a flow diagram", "Data flow.", "flow"),
        ("Results: data", "Demographic and clinical characteristics", *characteristics),
        ("Results: model", "Performance with uncertainty", f"Overall and {further}, with 95 % intervals.", "arms"),
        ("Results: model", "Diagnostic performance and its precision", diagnostic, "metrics"),
        ("Results: model", "Failure analysis", failures, "failures"),
        ("Discussion", "Limitations", "Those the study itself knows.", "limits"),
        ("Discussion", "Implications for practice", AUTHORS, ""),
        ("Other information", "Full protocol or technical details", "plan.json, by its hash.", "reproducibility"),
        (
            "Other information",
            "Availability of software, model and data",
            "Software and model by version and hash; access is the authors' to state.",
            "reproducibility",
        ),
        ("Other information", "Funding and the funders' role", AUTHORS, ""),
    ]
    return [Item(number, *row) for number, row in enumerate(rows, start=1)]
