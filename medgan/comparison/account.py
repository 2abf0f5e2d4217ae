"""What the run of a study says of itself in the tracking store: description, verdict, data sets, parameters.

Counts and digests only: no patient, no case.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from medgan.comparison.arms import LEARNED_PARTS, REFERENCE_PART
from medgan.comparison.design import redrawn_in_words, tuned_in
from medgan.comparison.gap_table import GapRow
from medgan.comparison.results import REPORT
from medgan.tracking import Dataset

Row = Mapping[str, Any]
PARTS = ("training", "validation", "test", "external")
# What of the plan is neither a setting nor read well as a parameter: it stands in tags, data sets and the description.
NOT_PARAMS = ("arms", "cohort", "cohort_folds", "flow", "generators", "split_digests", "machine", "name")


def champion_of(rows: Sequence[Row], arms: Sequence[Row]) -> str | None:
    """Return the generator whose arm has shown a gain, ``None`` where none has.

    An exploratory gain is none, and neither is one of an arm that has shown a loss in another block. Of several
    generators the one with the largest difference on the test is named.

    Args:
        rows: of summary.csv.
        arms: of the plan, with ``name``, ``parts``, ``generator`` and ``exploratory``.
    """
    # A control made with the generator (random deformation) that gains shows that the learning did not matter.
    planned = [arm for arm in arms if arm.get("generator") and not arm.get("exploratory")]
    learned = [arm for arm in planned if any(part in LEARNED_PARTS for part in arm["parts"])]
    generator = {arm["name"]: arm["generator"] for arm in learned}
    judged = [row for row in _judged(rows) if row["arm"] in generator]
    lost = {row["arm"] for row in judged if str(row["verdict"]).startswith("loss")}
    gains = [row for row in judged if row["verdict"] == "gain" and row["arm"] not in lost]
    if not gains:
        return None
    return str(generator[max(gains, key=lambda row: float(row["difference"]))["arm"]])


def verdict_line(rows: Sequence[Row]) -> str:
    """Return the verdicts in one line: ``gain: gan; no gain shown: none, classical+gan``."""
    arms: dict[str, list[str]] = {}
    blocks = {row["labelled"] for row in rows}
    for row in _judged(rows):
        name = f"{row['arm']} ({_block(row)})" if len(blocks) > 1 else str(row["arm"])
        arms.setdefault(str(row["verdict"]), []).append(name)
    return "; ".join(f"{words}: {', '.join(names)}" for words, names in sorted(arms.items())) or "no comparison"


def heading(plan: Mapping[str, Any]) -> str:
    """Return what the study asks, in one sentence of Markdown."""
    compare = plan["compare"]
    what = "segmentation, Dice" if plan["task"] == "segmentation" else "classification, AUC"
    folds = f" x {plan['splits']} folds" if plan["splits"] > 1 else ""
    blocks = f" x {len(plan['labelled'])} numbers of labelled cases" if len(plan["labelled"]) > 1 else ""
    references = [str(arm["name"]) for arm in plan["arms"] if REFERENCE_PART in arm["parts"]]
    size = f"{len(plan['arms']) - len(references)} arms x {compare['seeds']} seeds{folds}{blocks}"
    size += redrawn_in_words(compare)
    against = f"each arm against `{compare['baseline']}`"
    ceiling = f"; reference, with all labels: {', '.join(f'`{name}`' for name in references)}" if references else ""
    return f"**Does augmentation help?** {size}; {what}; {against}{ceiling}."


def describe(plan: Mapping[str, Any], digest: str, rows: Sequence[Row], gaps: Sequence[GapRow] = ()) -> str:
    """Return the finished study's description in Markdown: verdict, table of arms, gaps, cohort, where to read on."""
    lines = [heading(plan), "", f"**Verdict.** {verdict_line(rows)}."]
    if plan["exploratory"]:
        lines[-1] += " Fewer than six replicates: exploratory, whatever it says."
    lines += ["", f"| arm | labelled | {plan['metric']} (95 % CI) | difference (95 % CI) | p (Holm) | verdict |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        if (row["split"], row["metric"], row["structure"]) != ("test", plan["metric"], ""):
            continue
        own = f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        difference = p = ""
        if math.isfinite(row["difference"]):
            difference = f"{row['difference']:+.3f} ({row['difference_low']:+.3f} to {row['difference_high']:+.3f})"
            p = f"{row['p_holm']:.3f}" if math.isfinite(row["p_holm"]) else ""
        verdict = row["verdict"] or "baseline"
        lines.append(f"| {row['arm']} | {row['labelled'] or 'all'} | {own} | {difference} | {p} | {verdict} |")
    if gaps:
        lines += ["", f"**Gap closed.** {'; '.join(_gap(row, len(plan['labelled']) > 1) for row in gaps)}."]
    cohort = plan["cohort"]
    counts = [f"{part} {_count(cohort[part])}" for part in PARTS if part in cohort]
    lines += ["", f"**Cohort.** {'; '.join(counts)}."]
    lines += ["", f"**Read on.** Artifacts: `{REPORT}`, `tables/summary.json`. Plan SHA-256 `{digest[:16]}`."]
    return "\n".join(lines)


def datasets(plan: Mapping[str, Any]) -> list[Dataset]:
    """Return the study's data by part, of the first fold; a digest follows from the split's and the content's."""
    found = []
    for part in PARTS:
        if part not in plan["cohort"]:
            continue
        digest = plan.get("external_digest") if part == "external" else None
        if digest is None:
            text = f"{plan['content_digest']} {plan['split_digests'][0]} {part}"
            digest = hashlib.sha256(text.encode()).hexdigest()
        source = f"{part} of the {'external cohort' if part == 'external' else 'cohort'} of {plan['name']}, by patient"
        found.append(Dataset(f"{plan['name']} {part}", str(digest), part, source, plan["cohort"][part]))
    return found


def plan_params(plan: Mapping[str, Any]) -> dict[str, object]:
    """Return the plan's settings as parameters; an arm's are ``arm.<name>. ...``."""
    params: dict[str, object] = {key: value for key, value in plan.items() if key not in NOT_PARAMS}
    # The arms' own entry has them all; "compare.arms" would say them twice.
    params["compare"] = {key: value for key, value in plan["compare"].items() if key != "arms"}
    params["arm"] = {
        arm["name"]: {k: v for k, v in arm.items() if k != "name" and v and k not in tuned_in(arm)}
        for arm in plan["arms"]
    }
    return params


def _judged(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["split"] == "test" and row["structure"] == "" and row["verdict"]]


def _gap(row: GapRow, several: bool) -> str:
    where = f" ({row.labelled or 'all'} labelled)" if several else ""
    if not math.isfinite(row.closed):
        return f"{row.arm}{where}: none, {row.ceiling} is not reliably above {row.best}"
    low, high = (f"{end:.2f}" if math.isfinite(end) else "no bound" for end in (row.closed_low, row.closed_high))
    return f"{row.arm}{where}: {row.closed:.2f} ({low} to {high}) of the way from {row.best} to {row.ceiling}"


def _block(row: Row) -> str:
    return f"{row['labelled']} labelled" if row["labelled"] else "all labelled"


def _count(numbers: Row) -> str:
    cases, patients = numbers["used_cases"], numbers["used_patients"]
    return f"{cases} case{'s' * (cases != 1)} of {patients} patient{'s' * (patients != 1)}"
