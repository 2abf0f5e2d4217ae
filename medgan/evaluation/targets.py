"""What a generator ought to reach, and whether this one does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medgan.evaluation.agreement import TARGET

COVERAGE = 0.9
Target = dict[str, Any]


def targets(report: Mapping[str, Any]) -> list[Target]:
    """Return each target with the figure that is held against it.

    ``met`` is whether the figure reaches the target, ``None`` where it was not measured; ``sure`` is whether its whole
    95 % interval lies on the same side.

    Args:
        report: the figures, see :func:`medgan.evaluation.figures.measure`.
    """
    found = [_agreement(figures) for figures in report["preservation"]["agreement"]]
    folds = report["preservation"]["fold_share"]["max"]
    near = report["diversity"]["neighbourhoods"]
    spread = report["diversity"]["volume_spread"]
    return [
        *(found or [_unmeasured("class_agreement", "An independent network agrees with siblings")]),
        {
            "name": "folds",
            "words": "No voxel of any sibling is folded",
            "least": None,
            "figure": {"value": folds, "low": folds, "high": folds},
            "met": folds == 0,
            "sure": True,
        },
        _unmeasured("coverage", "Siblings cover unseen patients as well as real volumes do")
        if near is None
        else _at_least(
            "coverage",
            f"Coverage is at least {COVERAGE:g} of that of real volumes",
            near["ratio"]["coverage"],
            COVERAGE,
        ),
        _at_least(
            "visible_noise",
            "Two siblings of one source differ more than the source does under a motion of less than a voxel",
            spread["beyond_moved"],
            0.0,
        ),
    ]


def _agreement(figures: Mapping[str, Any]) -> Target:
    mask = figures["kind"] == "segmentation"
    words = (
        "An independent network's Dice with the warped label maps is at most a point below that of held-out volumes"
        if mask
        else "An independent network agrees with the class at most a point less often than for held-out volumes"
    )
    name = f"{'mask' if mask else 'class'}_agreement"
    # A network that fails with real volumes too cannot tell good siblings from bad ones.
    return _at_least(name, words, figures["difference"], TARGET) if figures["able"] else _unmeasured(name, words)


def _at_least(name: str, words: str, figure: Mapping[str, float], least: float) -> Target:
    met = figure["value"] >= least
    sure = figure["low"] >= least if met else figure["high"] < least
    return {"name": name, "words": words, "least": least, "figure": dict(figure), "met": met, "sure": sure}


def _unmeasured(name: str, words: str) -> Target:
    return {"name": name, "words": words, "least": None, "figure": None, "met": None, "sure": False}
