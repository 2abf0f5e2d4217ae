"""``report.html``: what was compared, in words first; then the figures behind the words. One file, no network."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medgan.checkpoint import write_atomically
from medgan.comparison.figures import curve_figure, difference_figure, save_figure
from medgan.comparison.results import PLAN, REPORT, SUMMARY, RunRecord, read_runs, read_table
from medgan.comparison.scoring import Task
from medgan.comparison.summary import METRICS, patient_differences

TEMPLATE = Path(__file__).with_name("report.html.j2")
FIGURES = "figures"
NAMES = {
    "dice": "Dice",
    "hd95": "95th percentile Hausdorff distance",
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "brier": "Brier score",
}
MINUS, UNKNOWN = "\u2212", "\u2013"


def write_report(output: Path) -> Path:
    """Write ``report.html`` (and ``figures/``) from plan.json, results.csv, curve.csv and summary.csv.

    Args:
        output: folder of a finished study.

    Returns:
        The report's path.
    """
    import jinja2

    frozen = json.loads((output / PLAN).read_text(encoding="utf-8"))
    plan = frozen["plan"]
    summary = [_typed(row) for row in read_table(output / SUMMARY)]
    runs = read_runs(output)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(figure=_figure, signed=_signed, seconds=_seconds)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    primary = [row for row in summary if row["metric"] == plan["metric"]]
    page = template.render(
        plan=plan,
        sha256=frozen["sha256"],
        primary=primary,
        secondary=[_table(plan, summary, metric) for metric in METRICS[plan["task"]] if metric != plan["metric"]],
        metric=_metric_name(plan, plan["metric"]),
        sentences=[_sentence(row, plan) for row in primary if row["arm"] != plan["compare"]["baseline"]],
        figures=_figures(output, plan, primary, runs),
        cohort=[{"name": part, **numbers} for part, numbers in plan["cohort"].items()],
        limits=_limits(plan, primary),
    )
    write_atomically(output / REPORT, page.encode())
    return output / REPORT


def _typed(row: Mapping[str, str]) -> dict[str, Any]:
    words = ("arm", "metric", "verdict")
    return {key: value if key in words else float(value) for key, value in row.items()}


def _table(plan: Mapping[str, Any], summary: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    return {
        "name": _metric_name(plan, metric),
        "better": "higher is better" if METRICS[plan["task"]][metric] else "lower is better",
        "rows": [row for row in summary if row["metric"] == metric],
    }


def _metric_name(plan: Mapping[str, Any], metric: str) -> str:
    if metric != "hd95":
        return NAMES[metric]
    return f"{NAMES[metric]}, {'mm' if plan['spacing'] else 'voxels of the grid'}"


def _sentence(row: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, str]:
    """Say what one arm's difference shows; a reader in a hurry reads only this."""
    name, baseline = _metric_name(plan, plan["metric"]), plan["compare"]["baseline"]
    numbers = (
        f"{name} {_figure(row['mean'])}, {_signed(row['difference'])} against {baseline} "
        f"(95 % CI {_signed(row['difference_low'])} to {_signed(row['difference_high'])})"
    )
    return {"arm": str(row["arm"]), "verdict": str(row["verdict"]), "numbers": numbers}


def _figures(
    output: Path, plan: Mapping[str, Any], primary: Sequence[Mapping[str, Any]], runs: Mapping[str, Sequence[RunRecord]]
) -> list[dict[str, str]]:
    baseline = plan["compare"]["baseline"]
    name = _metric_name(plan, plan["metric"])
    runs = {arm: runs[arm] for arm in plan["compare"]["arms"]}
    figures: list[dict[str, str]] = []
    others = [row for row in primary if row["arm"] != baseline]
    if others:
        task = Task(plan["task"], class_names=tuple(plan["classes"]))
        differences = {row["arm"]: patient_differences(runs, row["arm"], baseline, task) for row in others}
        if plan["task"] == "segmentation":
            what, intervals = (
                name,
                {r["arm"]: (r["difference"], r["difference_low"], r["difference_high"]) for r in others},
            )
            marks = "the diamond is the mean, the bar its 95 % interval over patients and seeds"
        else:
            what, intervals, marks = "probability of the true class", {}, "the diamond is the mean"
        figure = difference_figure(differences, intervals, f"difference in {what} to {baseline}")
        path = save_figure(figure, output / FIGURES / "differences.png")
        caption = f"Each dot is a test patient: the difference in {what} to {baseline}, seeds averaged; {marks}."
        means = "; ".join(
            f"{arm}: mean {_signed(float(d.mean()))}, {len(d)} patients" for arm, d in differences.items()
        )
        figures.append(_embedded(path, "Differences by patient", caption, f"{caption} {means}."))
    if all(record.curve for records in runs.values() for record in records):
        path = save_figure(curve_figure(runs, baseline, f"validation {name}"), output / FIGURES / "curve.png")
        caption = f"{name} on the validation cases along the steps; thin lines are seeds, thick ones their mean."
        ends = "; ".join(
            f"{arm}: ends at {_figure(sum(r.curve[-1].value for r in records) / len(records))}"
            for arm, records in runs.items()
        )
        figures.append(_embedded(path, "Learning curves", caption, f"{caption} {ends}."))
    return figures


def _embedded(path: Path, title: str, caption: str, alt: str) -> dict[str, str]:
    source = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    return {"title": title, "caption": caption, "alt": alt, "source": source}


def _limits(plan: Mapping[str, Any], primary: Sequence[Mapping[str, Any]]) -> list[str]:
    compare = plan["compare"]
    limits = []
    if plan["exploratory"]:
        seeds = f"{compare['seeds']} paired seed{'s' if compare['seeds'] != 1 else ''}"
        limits.append(
            f"Exploratory: {seeds}. An exact sign-flip test cannot reach p < 0.05 with fewer than 6, and an interval "
            "over so few seeds is too narrow. Repeat with compare.seeds=10 before resting anything on a difference."
        )
    limits += [
        f"One split of one cohort, {int(primary[0]['patients'])} test patients; nothing here speaks for other "
        "scanners, hospitals or populations.",
        f"Every arm had the same {compare['steps']} steps. A curve that still rises at its end has not converged, "
        "and an arm that learns more slowly may be judged too early.",
        "No margin was set: a difference whose interval excludes 0 need not matter in practice.",
    ]
    missing = int(primary[0]["missing"])
    if missing:
        limits.append(f"Structures that a test case lacks ({missing} in all) are left out of the means.")
    generator = plan["generator"]
    if generator is not None:
        limits.append(
            f"The generator was trained before, on {generator['training_cases']} cases of "
            f"{generator['training_patients']} patients, none of them in validation or test; its cost is not in the "
            "times above."
        )
    return limits


def _figure(value: float, metric: str = "") -> str:
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:.{2 if metric == 'hd95' else 3}f}".replace("-", MINUS)


def _signed(value: float, metric: str = "") -> str:
    # A bound of -0.0001 stays "-0.000": it says why the interval does not exclude 0.
    text = _figure(value, metric)
    return text if text.startswith(MINUS) or text == UNKNOWN else f"+{text}"


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"
