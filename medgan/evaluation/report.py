"""``report.html``: every figure with the one it is to be read against, in plain words. One file, no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medgan.evaluation import privacy_section, sections
from medgan.evaluation.cells import NONE, TIMES, Row, interval, number, row
from medgan.evaluation.gallery import Picture

TEMPLATE = Path(__file__).with_name("evaluation.html.j2")
MET = {None: "not measured", True: "reached", False: "missed"}


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
    tables = [
        _targets(report),
        sections.fidelity(report),
        sections.diversity(report),
        sections.agreement(report),
        sections.preservation(report),
        privacy_section.privacy(report),
        sections.as_they_are(report),
    ]
    return template.render(
        report=report,
        facts=_facts(report["generator"]),
        sections=[table for table in tables if table["rows"]],
        pictures=shown,
    )


def _facts(generator: Mapping[str, Any]) -> dict[str, str]:
    grid = TIMES.join(str(n) for n in generator["grid"])
    spacing = generator["spacing"]
    if generator["fit"] == "resize":
        spaced = "volumes stretched to fit"
    else:
        spaced = f"{TIMES.join(f'{v:g}' for v in spacing)} mm" if spacing else "each volume's own spacing"
    metrics = ", ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in generator["metrics"].items())
    return {
        "Trained on": f"{generator['training_cases']} cases of {generator['training_patients']} patients, "
        f"{generator['steps']} steps",
        "Channels": str(generator["channels"]),
        "Classes": ", ".join(generator["classes"]) or "none",
        "Labels": ", ".join(generator["labels"].values()) or "none",
        "Grid": f"{grid} voxels, {spaced}",
        "When chosen": metrics or "no validation figures",
    }


def _targets(report: Mapping[str, Any]) -> Row:
    rows = []
    for target in report["targets"]:
        figure, met = target["figure"], target["met"]
        exact = figure is not None and figure["low"] == figure["high"]
        shown = NONE if figure is None else number(figure["value"]) if exact else interval(figure)
        least = "" if target["least"] is None else f"at least {number(target['least'])}"
        doubt = "" if met is None or target["sure"] else "the interval reaches across"
        rows.append(row(target["words"], least, shown, (MET[met], doubt)))
    return {
        "title": "Targets",
        "lead": "What a generator ought to reach, and what this one did with these cases.",
        "columns": ["Found", "Target"],
        "rows": rows,
    }
