"""The page's sections on fidelity, diversity and preservation: every figure, in plain words, beside its measure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medgan.evaluation.cells import MINUS, NONE, Row, interval, number, ordinal, percent, row, spanned

NEIGHBOURHOODS = {
    "precision": "Share of siblings that lie among the held-out volumes. Low: siblings look like no real volume.",
    "recall": "Share of held-out volumes that lie among the siblings. Low: some patients are out of reach.",
    "density": "How many held-out volumes a sibling lies close to, over the number expected; it may be above 1.",
    "coverage": "Share of held-out volumes that have a sibling close by. Low: siblings crowd in a few places.",
}
DISTANCES = {
    "frechet": (
        "Fréchet distance",
        "How far two sets of volumes lie apart in mean and spread (squared; Ledoit-Wolf covariances), in the feature "
        "space. It depends on the number of volumes, so compare the columns here, not with other papers.",
    ),
    "kernel": (
        "Kernel distance",
        "The same question without assuming a bell shape (unbiased squared MMD, cubic kernel, as in KID). 0 on average "
        "for two sets of one kind, so it may fall below 0.",
    ),
    "histogram": (
        "Grey values",
        "Root mean square difference of the mean quantiles, in units of the grid's range 0 to 1. Siblings are taken as "
        "they leave the generator, not normalised again.",
    ),
    "spectrum": (
        "Fine detail",
        "Root mean square difference of mean log10 power over 8 bands of spatial frequency. 0.3 is a factor of 2: "
        "blur or noise that real volumes do not have.",
    ),
}


def fidelity(report: Mapping[str, Any]) -> Row:
    """Return the section on distances to held-out volumes."""
    figures = report["fidelity"]
    rows = [] if figures is None else _distances(figures)
    lead = (
        "Siblings against held-out patients, beside the floor: the real training volumes against the same patients, at "
        "equal numbers. Lower is nearer; the floor is not 0, since no two groups of patients are alike. Real volumes "
        "are interpolated once, as siblings are, so that smoothness is not what is measured."
    )
    if figures is not None:
        lead += f" The feature space has {figures['dimensions']} dimensions: layout, grey values, edges and texture."
    return {
        "title": "Fidelity: do siblings look like other patients?",
        "lead": lead,
        "columns": ["Siblings", "Real (floor)", "Difference"],
        "rows": rows,
    }


def as_they_are(report: Mapping[str, Any]) -> Row:
    """Return the section that measures siblings against real volumes that were not interpolated."""
    raw = report["raw"]
    rows: list[Row] = []
    if raw is not None:
        near = raw["neighbourhoods"]
        rows = [{**one, "words": ""} for one in _distances(raw["fidelity"])] + [
            row(name.capitalize(), "", interval(near["siblings"][name]), interval(near["real"][name]), NONE)
            for name in NEIGHBOURHOODS
        ]
    return {
        "title": "The same, with real volumes as they come",
        "lead": "" if raw is None else f"{raw['note']} A network that is to read noise would see this difference too.",
        "columns": ["Siblings", "Real (floor)", "Difference"],
        "rows": rows,
    }


def _distances(figures: Mapping[str, Any]) -> list[Row]:
    return [
        row(name, words, *(interval(figures[key][column]) for column in ("siblings", "real", "difference")))
        for key, (name, words) in DISTANCES.items()
    ]


def diversity(report: Mapping[str, Any]) -> Row:
    """Return the section on reach and on the spread of siblings."""
    figures = report["diversity"]
    unit, similarity, volume = figures["unit"], figures["similarity"], figures["volume_spread"]
    rows = []
    near = figures["neighbourhoods"]
    if near is not None:
        for name, words in NEIGHBOURHOODS.items():
            of_siblings, of_real = near["siblings"][name], near["real"][name]
            rows.append(row(name.capitalize(), words, interval(of_siblings), interval(of_real)))
    rows += [
        row(
            "Displacement",
            "How far a voxel of a sibling lies from where it was in its source: root mean square over the grid.",
            spanned(figures["displacement"], f" {unit}"),
            NONE,
        ),
        row(
            "Spread of shape",
            "Root mean square distance between the deformations of two siblings of one source. 0: the noise changes "
            "no shape.",
            interval(figures["shape_spread"], f" {unit}"),
            NONE,
        ),
        row(
            "Spread of appearance",
            "The same for the change of grey values, in units of the range 0 to 1.",
            interval(figures["appearance_spread"]),
            NONE,
        ),
        row(
            "Spread of volumes",
            "Root mean square difference of the voxels of two siblings of one source; real: of two real volumes. A "
            f"source moved twice by less than a voxel differs by {number(volume['moved']['value'])}.",
            interval(volume["siblings"]),
            number(volume["real"]),
        ),
        row(
            "Similarity of siblings",
            f"{similarity['name']} (MONAI) of two siblings of one source; real: of two patients. 1: alike.",
            interval(similarity["siblings"]),
            number(similarity["real"]),
        ),
    ]
    lead = "Siblings should reach where unseen patients are, and those of one source should differ."
    if near is not None:
        lead += (
            f" The first figures use neighbourhoods up to the {ordinal(near['k'])} neighbour in the feature space; "
            "real: the training volumes in the siblings' place."
        )
    return {
        "title": "Diversity: does the noise matter?",
        "lead": lead,
        "columns": ["Siblings", "Real"],
        "rows": rows,
    }


def agreement(report: Mapping[str, Any]) -> Row:
    """Return the section on what independent networks find in siblings."""
    rows: list[Row] = []
    found = report["preservation"]["agreement"]
    for figures in found:
        mask = figures["kind"] == "segmentation"
        what = (
            "Dice of the structures that a network finds in a sibling with the label map deformed alike, mean over "
            "structures."
            if mask
            else "Share of siblings that a network gives their source's class, mean over the classes."
        )
        columns = (figures["siblings"], figures["real"], figures["difference"])
        rows.append(
            row(
                "Agreement with the mask" if mask else "Agreement with the class",
                f"{what} {figures['siblings_judged']} siblings of each of {figures['sources']} cases; "
                f"{figures['held_out_cases']} held-out cases.",
                *map(interval, columns),
            )
        )
        raw = figures["raw"]
        rows += [
            row(
                "… held-out volumes as they come",
                "Not interpolated, as siblings are.",
                interval(figures["siblings"]),
                interval(raw["real"]),
                interval(raw["difference"]),
            ),
            row(
                "… beside their own sources",
                "Real: the very volumes the siblings were made of, judged by the same network, which knows neither.",
                interval(figures["siblings"]),
                interval(figures["own_sources"]),
                interval(figures["difference_to_sources"]),
            ),
        ]
        rows += [
            row(
                f"… {DISTANCES[name][0]} in what the networks see",
                "Siblings, and beside them their own sources (the floor), against held-out volumes, in the networks' "
                "deepest features. Lower is nearer.",
                *(interval(distance[column]) for column in ("siblings", "real", "difference")),
            )
            for name, distance in (figures["fidelity"] or {}).items()
        ]
        rows += [
            row(
                f"… {part['name']}",
                "" if part["readable"] else "Not found in real volumes either: left out of the mean.",
                number(part["siblings"]),
                number(part["real"]),
                NONE,
            )
            for part in figures["parts"]
        ]
    lead = ""
    if found:
        lead = (
            f"MONAI networks fitted here, for {found[0]['steps']} steps, to real training cases alone. Patients are "
            f"parted into {found[0]['folds']} folds: siblings of a patient are judged by the network that was fitted "
            "to none of this patient's scans, held-out patients by all of them. A network fitted on few cases for few "
            f"steps is a modest reader, so read the difference: the target is not below {MINUS}0.01. Intervals are "
            "over patients, not over networks. Held-out volumes are interpolated once, as siblings are."
        )
    return {
        "title": "Class preservation: does an independent network see what was meant?",
        "lead": lead,
        "columns": ["Siblings", "Held-out real", "Difference"],
        "rows": rows,
    }


def preservation(report: Mapping[str, Any]) -> Row:
    """Return the section on folds and on what became of labels."""
    figures = report["preservation"]
    least, folds = figures["jacobian_min"], figures["fold_share"]
    rows = [
        row(
            "Least Jacobian determinant",
            "How much of the source a voxel of the sibling is filled with, where that is least: 1 keeps the volume, "
            "0.5 shows the spot at twice its size, 0 or less folds tissue over itself. Of the whole deformation, in "
            "every cell between voxels of the grid, at its corners.",
            spanned(least),
            (number(least["min"]), "the least of all"),
        ),
        row(
            "Siblings with a fold",
            "Any voxel that is a corner of a cell with a determinant of 0 or less there.",
            percent(figures["siblings_with_a_fold"]),
            (percent(folds["max"]), "of its voxels"),
        ),
    ]
    for label in figures["labels"]:
        ratio = label["volume_ratio"]
        rows += [
            row(
                f"Volume of {label['name']}",
                f"Voxels in the sibling over voxels in its source ({label['sources']} sources). "
                f"Lost altogether in {percent(label['lost_share'])} of the siblings.",
                spanned(ratio),
                (f"{number(ratio['min'])} and {number(ratio['max'])}", "least and most"),
            ),
            row(
                f"Pieces of {label['name']}",
                "Siblings in which the number of connected pieces (26 neighbours) is another than in the source. A "
                "deformation without folds tears nothing; a thin bridge may still fall between voxels.",
                percent(label["components_changed_share"]),
                (f"{label['components_before']:.2f} and {label['components_after']:.2f}", "mean before and after"),
            ),
        ]
    return {
        "title": "Preservation: is the anatomy whole?",
        "lead": "Label maps follow the deformation of the image.",
        "columns": ["Siblings", "Extreme"],
        "rows": rows,
    }
