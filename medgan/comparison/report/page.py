"""From a finished study's files to ``report.html`` and ``report.md``."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgan.checkpoint import write_atomically
from medgan.comparison.report import tuning, words
from medgan.comparison.report.charts import Charts
from medgan.comparison.report.claim import claim_items
from medgan.comparison.report.finished import FinishedStudy, read_study
from medgan.comparison.report.gap import EXPLANATION, LEAD, gap_words, share, share_interval
from medgan.comparison.report.methods import methods
from medgan.comparison.report.record import runs_table, times
from medgan.comparison.report.tuning import tried
from medgan.comparison.report.viewer import Pictures, read_pictures
from medgan.comparison.results import REPORT
from medgan.comparison.summary import SummaryRow

TEMPLATES = Path(__file__).with_name("templates")
MARKDOWN = "report.md"
# Characters of the page; what does not fit is left out and said.
MAX_PAGE = 5_900_000
CHARACTERS_OF_A_VIEWER = 12_000
# Characters that mean something in Markdown or in the HTML that it may hold.
MARKDOWN_MARKS = re.compile(r"([\\`*_\[\]<>|#])")


def write_report(output: Path) -> Path:
    """Write ``report.html``, ``report.md`` and ``figures/`` of a finished study.

    The page is one file without a network. Pictures of patients are in the page alone, never in ``figures/``.

    Args:
        output: folder with plan.json, results.csv, curve.csv, runs.csv, summary.csv, gap.csv where there is a reference
            and, where pictures are wanted, gallery.json with gallery.npz.

    Returns:
        The path of ``report.html``.

    Raises:
        InputFault: the folder is not that of a finished study, or cannot be written to.
    """
    output = Path(output)
    study = read_study(output)
    context = _context(study, Charts(study, output))
    # First without pictures: what is left of the page is theirs.
    bare = _page(study, context, Pictures())
    entries = 8
    budget = MAX_PAGE - len(bare.encode()) - entries * CHARACTERS_OF_A_VIEWER
    page = _page(study, context, read_pictures(study, output, budget))
    markdown = _markdown(study, context)
    write_atomically(output / REPORT, page.encode())
    write_atomically(output / MARKDOWN, markdown.encode())
    return output / REPORT


def _context(study: FinishedStudy, charts: Charts) -> dict[str, Any]:
    plan = study.plan
    return {
        "study": study,
        "plan": plan,
        "sha256": study.sha256,
        "metric": words.metric_name(plan, plan["metric"]),
        "replicates": words.replicates_planned(plan),
        "blocks": [_block(study, charts, labelled) for labelled in study.blocks],
        "learning": charts.learning(),
        "methods": methods(study),
        "limits": words.limits(study),
        "arms": plan["arms"],
        "parts": words.PARTS,
        "failed": [run for run in study.runs if run.status != "finished"],
        "runs": runs_table(study),
        "overview": _overview(study),
        "times": times(study),
        "generators": _generators(plan),
        "cohorts": _cohorts(plan),
        "not_anonymous": words.NOT_ANONYMOUS,
        "gap_lead": LEAD,
        "gap_explanation": EXPLANATION,
        "tuning_lead": tuning.LEAD,
    }


def _block(study: FinishedStudy, charts: Charts, labelled: int) -> dict[str, Any]:
    plan = study.plan
    metric = str(plan["metric"])
    rows = study.rows(labelled, metric)
    findings = [words.finding(row, plan) for row in rows if row.arm != study.baseline]
    return {
        "labelled": labelled,
        "name": words.block_name(labelled),
        "headline": words.headline(findings, study.baseline),
        "findings": findings,
        "rows": rows,
        "detectable": words.detectable([row for row in rows if row.arm != study.baseline]),
        "scale": _scale(rows, float(plan["compare"]["margin"])),
        "differences": charts.differences(labelled),
        "training": charts.training(labelled),
        "reliability": charts.reliability(labelled),
        "sweeps": charts.sweeps(labelled),
        "further": _table(study, labelled, "test", but=metric),
        "parts": _table(study, labelled, "test", structure=None),
        "external": _table(study, labelled, "external"),
        "gaps": [(row, gap_words(row, plan)) for row in study.gaps if row.labelled == labelled],
        "gap_charts": charts.gap(labelled),
        "tried": tried(study, labelled),
        "tuning_charts": charts.tuning(labelled),
    }


@dataclass(frozen=True)
class Table:
    """Metrics beside each other: rows are (structure or class, arm, its line for each metric, None where missing)."""

    metrics: Sequence[tuple[str, str, str]]
    rows: Sequence[tuple[str, str, Sequence[SummaryRow | None]]]


def _table(
    study: FinishedStudy, labelled: int, split: str, *, structure: str | None = "", but: str = ""
) -> Table | None:
    """Return the metrics that a block has of a split; None where it has none."""
    found = {metric: study.rows(labelled, metric, split, structure) for metric in words.METRICS if metric != but}
    found = {metric: rows for metric, rows in found.items() if rows}
    if not found:
        return None
    places: dict[tuple[str, str], dict[str, SummaryRow]] = {}
    for metric, rows in found.items():
        for row in rows:
            places.setdefault((row.structure, row.arm), {})[metric] = row
    order = {name: i for i, name in enumerate([*study.plan["structures"].values(), *study.plan["classes"]])}
    ranked = sorted(places, key=lambda place: order.get(place[0], len(order)))
    return Table(
        metrics=[(metric, words.metric_name(study.plan, metric), words.better(metric)) for metric in found],
        rows=[(*place, [places[place].get(metric) for metric in found]) for place in ranked],
    )


def _overview(study: FinishedStudy) -> list[tuple[str, list[tuple[words.Finding, SummaryRow] | None]]]:
    """Each arm's finding in each block, where there are several blocks."""
    if len(study.blocks) < 2:
        return []
    found = {
        (row.arm, labelled): (words.finding(row, study.plan), row)
        for labelled in study.blocks
        for row in study.rows(labelled, str(study.plan["metric"]))
    }
    return [(arm, [found.get((arm, labelled)) for labelled in study.blocks]) for arm in study.others]


def _scale(rows: Sequence[SummaryRow], margin: float) -> Callable[[float], float] | None:
    """Return the place of a difference on the axis of a block's intervals, in percent; None where there is none."""
    ends = [
        end for row in rows for end in (row.difference_low, row.difference_high, row.difference) if math.isfinite(end)
    ]
    if not ends:
        return None
    low, high = min(0.0, *ends), max(0.0, margin, *ends)
    width = (high - low) or 1.0
    return lambda value: round(4 + 92 * (value - low) / width, 2)


def _generators(plan: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    named: dict[str, list[Mapping[str, Any]]] = {}
    for generator in plan["generators"]:
        named.setdefault(str(generator["name"]), []).append(generator)
    return named


def _cohorts(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Counts of each part, by fold."""
    folds = plan.get("cohort_folds") or [plan["cohort"]]
    return [
        {"fold": fold, "part": part, **numbers, "classes": numbers.get("classes") or {}}
        for fold, cohort in enumerate(folds)
        for part, numbers in cohort.items()
    ]


def _contents(study: FinishedStudy, context: Mapping[str, Any], pictures: Pictures) -> list[tuple[str, str]]:
    """(id, title) of the page's sections."""
    task = study.plan["task"]
    calibrated = any(block["reliability"] for block in context["blocks"])
    sections = [
        ("verdict", "Verdict", True),
        ("arms", "Arms compared", True),
        ("gap", "Gap closed", bool(study.gaps)),
        ("tuning", "Tuning", bool(study.trials)),
        ("curves", "Curves", True),
        ("metrics", "Further metrics", True),
        ("calibration", "Calibration", task == "classification" and calibrated),
        ("external", "External cohort", bool(study.plan["external_digest"])),
        ("failures", "Failures", True),
        ("siblings", "Siblings", bool(pictures.siblings)),
        ("methods", "Methods", True),
        ("flow", "Data flow", True),
        ("generators", "Generators", bool(study.plan["generators"])),
        ("reproducibility", "Reproducibility", True),
        ("privacy", "Privacy", True),
        ("limits", "Limits", True),
        ("claim", "CLAIM 2024", True),
    ]
    return [(anchor, title) for anchor, title, there in sections if there]


def _page(study: FinishedStudy, context: Mapping[str, Any], pictures: Pictures) -> str:
    import jinja2
    from markupsafe import Markup

    environment = _environment(autoescape=True)
    environment.loader = jinja2.FileSystemLoader(TEMPLATES)
    # Markup: both are the project's own files, without a word of the study's.
    script = Markup((TEMPLATES / "viewer.js").read_text(encoding="utf-8"))
    style = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    page: str = environment.get_template("report.html.j2").render(
        **context,
        contents=_contents(study, context, pictures),
        pictures=pictures,
        claim=claim_items(study.plan, pictures=bool(pictures.failures)),
        script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=style,
    )
    return page


def _markdown(study: FinishedStudy, context: Mapping[str, Any]) -> str:
    environment = _environment(autoescape=False, finalize=_markdown_text)
    template = environment.from_string((TEMPLATES / "report.md.j2").read_text(encoding="utf-8"))
    text = template.render(**context, claim=claim_items(study.plan, pictures=False))
    return re.sub(r"\n{3,}", "\n\n", text)


def _environment(**options: Any) -> Any:
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options)
    environment.filters.update(
        figure=words.figure,
        signed=words.signed,
        share=share,
        p=words.p_value,
        seconds=words.seconds,
        plural=words.plural,
        doses=tuning.doses,
        listed=words.listed,
        first_upper=lambda text: text[:1].upper() + text[1:],
        breakable=_breakable,
    )
    environment.globals.update(interval=words.interval, share_interval=share_interval, block_name=words.block_name)
    return environment


def _breakable(name: str) -> Any:
    """A name that may go on in the next line after a joint: ``classical+`` ``gan``."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(?<=[+_/])", "<wbr>", str(escape(name))))


def _markdown_text(value: object) -> object:
    """Names are shown as they are, and stay on their line."""
    return MARKDOWN_MARKS.sub(r"\\\1", " ".join(value.split())) if isinstance(value, str) else value
