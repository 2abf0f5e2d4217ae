"""The page's section on privacy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medgan.evaluation.cells import NONE, Row, interval, number, percent, row, share, spanned

SPACES = {"voxels": "correlation of voxels", "features": "distance in the feature space"}


def privacy(report: Mapping[str, Any]) -> Row:
    """Return the section on copies, links to the source and attacks."""
    figures = report["privacy"]
    copies, closest, ratio = figures["copies"], figures["closest_record"], figures["neighbour_ratio"]
    linkage, nearest = figures["linkage"], figures["nearest_correlation"]
    rows = [
        row(
            "Linked to their source",
            "Siblings whose nearest real volume, of all that siblings were made of, is of their own patient "
            f"({SPACES[linkage['by']]}{_other_link(linkage)}). Whoever holds the real volumes can trace that many "
            "back.",
            share(linkage["share"]),
            (percent(linkage["chance"]), "by chance"),
        ),
        row(
            "Correlation with the nearest",
            "Of a sibling with that nearest real volume; 1 is a copy up to brightness and contrast.",
            spanned(nearest),
            NONE,
        ),
    ]
    if copies is not None:
        rows.append(
            row(
                "Copies",
                "Siblings nearer to a training volume than 95 % of held-out patients are to theirs "
                f"(correlation above {number(copies['threshold'])}; held-out volumes interpolated once).",
                share(copies["share"]),
                (percent(copies["held_out_share"]), "of held-out volumes"),
            )
        )
    if closest is not None:
        rows.append(
            row(
                "Closer to training",
                "Siblings whose closest record, in the feature space, is a training volume and not a held-out one.",
                share(closest["share"]),
                (percent(closest["chance"]), "by chance"),
            )
        )
    if ratio is not None:
        rows.append(
            row(
                "Nearest-neighbour ratio",
                "Distance to the nearest training patient over that to the second nearest, in the feature space. Near "
                "0: one patient stands out; near 1: none does.",
                spanned(ratio["siblings"]),
                (spanned(ratio["held_out"])[0], "median of held-out volumes"),
            )
        )
    rows += _adversarial(figures["adversarial"])
    for space, attack in figures["membership"].items():
        rows += _membership(SPACES[space], attack)
    return {
        "title": "Privacy: how much of a patient is in a sibling?",
        "lead": f"The statement that goes with every output: {report['statement']}",
        "columns": ["Siblings", "To compare"],
        "rows": rows,
    }


def _other_link(linkage: Mapping[str, Any]) -> str:
    """Say what the less telling of the two spaces finds, where both were measured."""
    if linkage["features"] is None:
        return ""
    other = "voxels" if linkage["by"] == "features" else "features"
    return f"; by {SPACES[other]}: {percent(linkage[other]['value'])}"


def _adversarial(figures: Mapping[str, Any] | None) -> list[Row]:
    if figures is None:
        return []
    return [
        row(
            "Adversarial accuracy",
            "How often a volume's nearest neighbour is of its own kind, siblings among training volumes (Yale et al. "
            f"2020; sets of {figures['size']}). 0.5: not to be told apart; near 0: each sibling clings to a training "
            "volume; near 1: siblings lie elsewhere.",
            interval(figures["training"]),
            (number(figures["held_out"]["value"]), "among held-out volumes"),
        ),
        row(
            "… and its loss",
            "Accuracy among held-out volumes minus that among training volumes. Above 0, siblings lie nearer to the "
            "volumes of training than such volumes in general.",
            interval(figures["loss"]),
            (number(figures["real"]["value"]), "accuracy, training among held-out"),
        ),
    ]


def _membership(space: str, attack: Mapping[str, Any]) -> list[Row]:
    return [
        row(
            f"Membership attack, {space}",
            f"Area under the ROC curve of an attacker who holds {attack['members']} training and {attack['unseen']} "
            "unseen volumes and calls those nearest to a sibling trained on. 0.5: nothing is learned; 1: all. To "
            "compare: the same between two halves of the training cases, 0.5 by construction; its range shows how far "
            "from 0.5 so few volumes come by chance.",
            interval(attack["auc"]),
            (number(attack["control"]["value"]), f"control, 95 % in {_between(attack['control'])}"),
        ),
        row(
            "… found at 1\u00a0% false alarms",
            f"Training volumes found where at most 1\u00a0% of the unseen are mistaken: here "
            f"{attack['mistakes_allowed']} of {attack['unseen']}.",
            share(attack["sensitivity"]),
            (percent(attack["blind_sensitivity"]), "by chance, with so few unseen"),
        ),
        row(
            "… if their siblings are withheld",
            "Area under the curve for training cases of which no sibling is released: what the generator's weights "
            "alone carry from one patient into another's siblings. Range over random halves.",
            (number(attack["weights"]["value"]), f"95 % in {_between(attack['weights'])}"),
            (number(0.5), "by chance"),
        ),
    ]


def _between(figure: Mapping[str, float]) -> str:
    return f"{number(figure['low'])} to {number(figure['high'])}"
