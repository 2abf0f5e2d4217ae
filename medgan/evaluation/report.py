"""``report.html``: every figure with the one it is to be read against, in plain words. One file, no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medgan.evaluation.gallery import Picture

TEMPLATE = Path(__file__).with_name("evaluation.html.j2")
MINUS, NONE, TIMES = "\u2212", "\u2013", " \u00d7 "

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

Row = dict[str, Any]
Cell = tuple[str, str]
"""A figure, and its interval or what it is of, in small."""


def render_page(report: Mapping[str, Any], pictures: Sequence[Picture]) -> str:
    """Return the page of a report (see :func:`medgan.evaluation.evaluate.evaluate`) and its pictures."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    shown = [
        {
            "title": picture.title,
            "caption": picture.caption,
            "source": "data:image/png;base64," + base64.b64encode(picture.png).decode(),
        }
        for picture in pictures
    ]
    sections = [_fidelity(report), _diversity(report), _preservation(report), _privacy(report)]
    return template.render(
        report=report,
        facts=_facts(report["generator"]),
        sections=[section for section in sections if section["rows"]],
        pictures=shown,
    )


def _facts(generator: Mapping[str, Any]) -> dict[str, str]:
    grid = TIMES.join(str(n) for n in generator["grid"])
    spacing = generator["spacing"]
    if generator["fit"] == "resize":
        spaced = "volumes stretched to fit"
    else:
        spaced = f"{TIMES.join(f'{v:g}' for v in spacing)} mm" if spacing else "each volume's own spacing"
    metrics = ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in generator["metrics"].items())
    return {
        "Trained on": f"{generator['training_cases']} cases of {generator['training_patients']} patients, "
        f"{generator['steps']} steps",
        "Channels": str(generator["channels"]),
        "Classes": ", ".join(generator["classes"]) or "none",
        "Labels": ", ".join(generator["labels"].values()) or "none",
        "Grid": f"{grid} voxels, {spaced}",
        "When chosen": metrics or "no validation figures",
    }


def _fidelity(report: Mapping[str, Any]) -> Row:
    figures = report["fidelity"]
    rows = []
    if figures is not None:
        rows = [
            _row(name, words, *(_interval(figures[key][column]) for column in ("siblings", "real", "difference")))
            for key, (name, words) in DISTANCES.items()
        ]
    lead = (
        "Siblings against held-out patients, beside the floor: the real training volumes against the same patients, at "
        "equal numbers. Lower is nearer; the floor is not 0, since no two groups of patients are alike."
    )
    if figures is not None:
        lead += f" The feature space has {figures['dimensions']} dimensions: layout, grey values, edges and texture."
    return {
        "title": "Fidelity: do siblings look like other patients?",
        "lead": lead,
        "columns": ["Siblings", "Real (floor)", "Difference"],
        "rows": rows,
    }


def _diversity(report: Mapping[str, Any]) -> Row:
    figures = report["diversity"]
    unit, similarity, volume = figures["unit"], figures["similarity"], figures["volume_spread"]
    rows = []
    near = figures["neighbourhoods"]
    if near is not None:
        for name, words in NEIGHBOURHOODS.items():
            rows.append(_row(name.capitalize(), words, _number(near["siblings"][name]), _number(near["real"][name])))
    rows += [
        _row(
            "Displacement",
            "How far a voxel of a sibling lies from where it was in its source: root mean square over the grid.",
            _spanned(figures["displacement"], f" {unit}"),
            NONE,
        ),
        _row(
            "Spread of shape",
            "Root mean square distance between the deformations of two siblings of one source. 0: the noise changes "
            "no shape.",
            _interval(figures["shape_spread"], f" {unit}"),
            NONE,
        ),
        _row(
            "Spread of appearance",
            "The same for the change of grey values, in units of the range 0 to 1.",
            _interval(figures["appearance_spread"]),
            NONE,
        ),
        _row(
            "Spread of volumes",
            "Root mean square difference of the voxels of two siblings of one source; real: of two real volumes.",
            _interval(volume["siblings"]),
            _number(volume["real"]),
        ),
        _row(
            "Similarity of siblings",
            f"{similarity['name']} (MONAI) of two siblings of one source; real: of two patients. 1: alike.",
            _interval(similarity["siblings"]),
            _number(similarity["real"]),
        ),
    ]
    lead = "Siblings should reach where unseen patients are, and those of one source should differ."
    if near is not None:
        lead += (
            f" The first figures use neighbourhoods up to the {_ordinal(near['k'])} neighbour in the feature space; "
            "real: the training volumes in the siblings' place."
        )
    return {
        "title": "Diversity: does the noise matter?",
        "lead": lead,
        "columns": ["Siblings", "Real"],
        "rows": rows,
    }


def _preservation(report: Mapping[str, Any]) -> Row:
    figures = report["preservation"]
    least, folds = figures["jacobian_min"], figures["fold_share"]
    rows = [
        _row(
            "Least Jacobian determinant",
            "How much of the source a voxel of the sibling is filled with, where that is least: 1 keeps the volume, "
            "0.5 shows the spot at twice its size, 0 or less folds tissue over itself. Of the whole deformation, at "
            "every voxel of the grid.",
            _spanned(least),
            (_number(least["min"]), "the least of all"),
        ),
        _row(
            "Siblings with a fold",
            "Any voxel with a determinant of 0 or less.",
            _percent(figures["siblings_with_a_fold"]),
            (_percent(folds["max"]), "of its voxels"),
        ),
    ]
    for label in figures["labels"]:
        ratio = label["volume_ratio"]
        rows += [
            _row(
                f"Volume of {label['name']}",
                f"Voxels in the sibling over voxels in its source ({label['sources']} sources). "
                f"Lost altogether in {_percent(label['lost_share'])} of the siblings.",
                _spanned(ratio),
                (f"{_number(ratio['min'])} and {_number(ratio['max'])}", "least and most"),
            ),
            _row(
                f"Pieces of {label['name']}",
                "Siblings in which the number of connected pieces (26 neighbours) is another than in the source. A "
                "deformation without folds tears nothing; a thin bridge may still fall between voxels.",
                _percent(label["components_changed_share"]),
                (f"{label['components_before']:.2f} and {label['components_after']:.2f}", "mean before and after"),
            ),
        ]
    return {
        "title": "Preservation: is the anatomy whole?",
        "lead": "Label maps follow the deformation of the image.",
        "columns": ["Siblings", "Extreme"],
        "rows": rows,
    }


def _privacy(report: Mapping[str, Any]) -> Row:
    figures = report["privacy"]
    copies, closest, ratio = figures["copies"], figures["closest_record"], figures["neighbour_ratio"]
    linkage, nearest = figures["linkage"], figures["nearest_correlation"]
    rows = [
        _row(
            "Linked to their source",
            "Siblings whose nearest real volume, of all that siblings were made of, is their own source (correlation "
            "of voxels). Whoever holds the real volumes can trace that many back.",
            _share(linkage["share"]),
            (_percent(linkage["chance"]), "by chance"),
        ),
        _row(
            "Correlation with the nearest",
            "Of a sibling with that nearest real volume; 1 is a copy up to brightness and contrast.",
            _spanned(nearest),
            NONE,
        ),
    ]
    if copies is not None:
        rows.append(
            _row(
                "Copies",
                "Siblings nearer to a training volume than 95 % of held-out patients are to theirs "
                f"(correlation above {_number(copies['threshold'])}).",
                _share(copies["share"]),
                (_percent(copies["held_out_share"]), "of held-out volumes"),
            )
        )
    if closest is not None:
        rows.append(
            _row(
                "Closer to training",
                "Siblings whose closest record, in the feature space, is a training volume and not a held-out one.",
                _share(closest["share"]),
                (_percent(closest["chance"]), "by chance"),
            )
        )
    if ratio is not None:
        rows.append(
            _row(
                "Nearest-neighbour ratio",
                "Distance to the nearest training volume over that to the second nearest, in the feature space. Near "
                "0: one patient stands out; near 1: none does.",
                _spanned(ratio["siblings"]),
                (_spanned(ratio["held_out"])[0], "median of held-out volumes"),
            )
        )
    return {
        "title": "Privacy: how much of a patient is in a sibling?",
        "lead": f"The statement that goes with every output: {report['statement']}",
        "columns": ["Siblings", "To compare"],
        "rows": rows,
    }


def _row(name: str, words: str, *cells: str | Cell) -> Row:
    return {"name": name, "words": words, "cells": [(cell, "") if isinstance(cell, str) else cell for cell in cells]}


def _number(value: float | None) -> str:
    if value is None:
        return NONE
    digits = 3 if abs(value) < 10 else 1
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.lstrip("-")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%" if 0 < share < 1 else f"{100 * share:.0f}\u00a0%"


def _interval(figure: Mapping[str, float], unit: str = "") -> Cell:
    return f"{_number(figure['value'])}{unit}", f"95 % CI {_number(figure['low'])} to {_number(figure['high'])}"


def _share(figure: Mapping[str, float]) -> Cell:
    return _percent(figure["value"]), f"95 % CI {_percent(figure['low'])} to {_percent(figure['high'])}"


def _spanned(figure: Mapping[str, float], unit: str = "") -> Cell:
    return f"{_number(figure['median'])}{unit}", f"90 % in {_number(figure['p5'])} to {_number(figure['p95'])}"


def _ordinal(number: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")
