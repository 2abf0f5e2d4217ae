"""The plan of a study: frozen and hashed before the first training step."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medgan.checkpoint import Checkpoint, make_output, write_atomically
from medgan.comparison.arms import Arm, is_check, is_reference
from medgan.comparison.design import TUNED
from medgan.comparison.digests import digest_of
from medgan.comparison.material import PARTS, Material, versions
from medgan.comparison.power import seeds_needed
from medgan.comparison.results import PLAN
from medgan.comparison.scoring import Task
from medgan.comparison.statistics import SEEDS_FOR_A_VERDICT
from medgan.data.cohort import Case
from medgan.data.loaders import Prepared
from medgan.errors import InputFault

logger = logging.getLogger(__name__)

PLAN_FORMAT = 2
# What an arm that is added later may change; everything else is another study.
ABOUT_ARMS = ("arms", "generators", "compare")


def make_plan(material: Material) -> dict[str, Any]:
    """Return all that decides the study's figures, and the numbers a reader wants to see, as JSON values.

    Paths are left out: a study that is moved, or data that are mounted elsewhere, make no other plan.
    """
    config, compare, task = material.config, material.config.compare, material.task
    replicates = compare.seeds * compare.splits
    # A study that tunes nothing has the plan that it had before there was tuning.
    untuned = set() if compare.tune.probability or compare.tune.strength else {"tune"}
    numbers = [
        {part: _numbers(getattr(split, part), material.block(*where).used[part], task) for part in PARTS}
        for where, split in material.splits.items()
    ]
    if material.external:
        cases = [p.case for p in material.external]
        numbers[0]["external"] = _numbers(cases, material.external, task)
    first = next(iter(material.splits))
    return {
        "format": PLAN_FORMAT,
        "name": config.name,
        "seed": config.seed,
        "task": task.kind,
        "metric": task.metric,
        "structures": dict(zip(map(str, task.label_values), task.structures, strict=True)),
        "classes": list(task.class_names) if task.kind == "classification" else [],
        "spacing": None if task.spacing is None else list(task.spacing),
        "compare": compare.model_dump(mode="json", exclude={"checkpoint", "generators", "test", "arms"} | untuned),
        "arms": [{**_arm(arm, material), "exploratory": False} for arm in material.arms.values()],
        "labelled": sorted({labelled for labelled, _ in material.splits}),
        "folds": config.data.folds,
        "splits": compare.splits,
        "data": config.data.model_dump(mode="json", exclude={"root", "download"}),
        "preprocess": config.study_grid.model_dump(mode="json"),
        "exploratory": replicates < SEEDS_FOR_A_VERDICT,
        "split_digests": [s.digest for (labelled, _), s in material.splits.items() if labelled == first[0]],
        "content_digest": material.content_digest,
        "external_digest": digest_of([material.digests.case(p.case) for p in material.external])
        if material.external
        else None,
        "function_sha256": material.function_digest,
        "generators": [
            _generator(name, labelled, fold, point) for (name, labelled, fold), point in material.checkpoints().items()
        ],
        "cohort": numbers[0],
        "cohort_folds": numbers,
        "flow": _flow(material),
        "versions": versions(),
        "machine": {"cores": os.cpu_count(), "device": _device(), "threads": compare.threads},
    }


def require_own_folder(output: Path) -> None:
    """Refuse a folder that something else than a study filled.

    Raises:
        InputFault: there are files, but no plan, which is the first that a study writes.
    """
    if not output.is_dir() or (output / PLAN).exists():
        return
    # Of a start that was interrupted while it wrote the plan, a temporary file may be left.
    if any(not (path.name.startswith(".") and path.name.endswith(".tmp")) for path in output.iterdir()):
        raise InputFault(output, "OUTPUT_IN_USE", f"the folder holds files, but no {PLAN} of a study", "name a new one")


def freeze(plan: dict[str, Any], output: Path) -> tuple[str, dict[str, Any]]:
    """Write ``plan.json``; return the plan's SHA-256 and the plan as it stands.

    An unfinished or finished study of the same plan is taken up. Arms may be added to a frozen plan: they are marked
    exploratory, and the digest before is kept beside the new one.

    Raises:
        InputFault: the folder holds a study of another plan, or something that is no study.
    """
    digest = digest_of(_decisive(plan))
    path = output / PLAN
    remedy = "give another --output, or remove the folder"
    if path.exists():
        try:
            frozen = json.loads(path.read_text(encoding="utf-8"))
            earlier = frozen["plan"]
            whole = frozen["sha256"] == digest_of(_decisive(earlier))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputFault(path, "OUTPUT_IN_USE", f"not a readable plan ({type(error).__name__})", remedy) from error
        if not whole:
            raise InputFault(path, "OUTPUT_IN_USE", "the plan was changed after it was frozen", remedy)
        if _without_marks(earlier) == _without_marks(plan):
            return str(frozen["sha256"]), dict(earlier)
        amended = _amended(plan, earlier)
        if amended is None:
            different = ", ".join(sorted(k for k in _decisive(plan) if plan[k] != earlier.get(k))) or "its content"
            reason = f"the folder holds a study of another plan (different: {different})"
            raise InputFault(output, "OUTPUT_IN_USE", reason, remedy)
        digest = digest_of(_decisive(amended))
        _write(path, {"sha256": digest, "plan": amended, "earlier": [*frozen.get("earlier", []), frozen["sha256"]]})
        return digest, amended
    require_own_folder(output)
    make_output(output)
    _write(path, {"sha256": digest, "plan": plan, "earlier": []})
    return digest, plan


def checks(material: Material) -> frozenset[str]:
    """Return the names of the arms that check the study's machinery and are no comparison."""
    baseline = material.arms[material.config.compare.baseline]
    return frozenset(name for name, arm in material.arms.items() if is_check(arm, baseline))


def warn_of_few_seeds(material: Material, added: Collection[str] = ()) -> None:
    """Say so where no verdict is possible, however large a difference is.

    Args:
        material: of the study.
        added: arms that were added to a frozen plan.
    """
    compare = material.config.compare
    comparisons = len(set(material.arms) - {compare.baseline, *material.references, *added} - checks(material))
    needed = seeds_needed(max(comparisons, 1))
    if compare.splits == 1 and compare.seeds < needed:
        logger.warning(
            "compare.seeds is %d: with %d comparisons no difference can be shown under %d seeds, however large",
            compare.seeds, comparisons, needed,
        )  # fmt: skip


def _write(path: Path, tree: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(tree, indent=1, allow_nan=False).encode())


def _decisive(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan without what does not decide its figures: the machine may change between two parts of a study."""
    return {k: v for k, v in plan.items() if k != "machine"}


def _without_marks(plan: Mapping[str, Any]) -> dict[str, Any]:
    arms = [{**arm, "exploratory": False} for arm in plan["arms"]]
    return {**_decisive(plan), "arms": arms}


def _amended(plan: dict[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the plan with its new arms marked, ``None`` where more than arms were added."""
    kept = {k: v for k, v in _decisive(plan).items() if k not in ABOUT_ARMS}
    known = {arm["name"]: arm for arm in earlier["arms"]}
    arms = {arm["name"]: arm for arm in plan["arms"]}
    if kept != {k: v for k, v in _decisive(earlier).items() if k not in ABOUT_ARMS}:
        return None
    if plan["compare"] != earlier["compare"] or any(g not in plan["generators"] for g in earlier["generators"]):
        return None
    if any({**arm, "exploratory": False} != arms.get(name) for name, arm in known.items()):
        return None
    marked = [known.get(name) or {**arm, "exploratory": True} for name, arm in arms.items()]
    return {**plan, "arms": marked}


def _plain(tree: Any) -> Any:
    """Return JSON values: a plan that was read back must equal the one that was written."""
    return json.loads(json.dumps(tree))


def _arm(arm: Arm, material: Material) -> dict[str, Any]:
    """Return an arm; one that is tuned with the values tried, a reference with how many cases it is trained on.

    The latter in the order of ``cohort_folds``; with the arm and not with the cohort, as it may be added to a frozen
    plan, whose cohort may not change.
    """
    tree: dict[str, Any] = _plain(asdict(arm))
    if arm.name in material.trials:
        tree["tuned"] = [{name: getattr(trial, name) for name in TUNED} for trial in material.trials[arm.name]]
    if is_reference(arm):
        blocks = [material.block(*where) for where in material.splits]
        tree["annotated_cases"] = [len(block.annotated) for block in blocks]
    return tree


def _generator(name: str, labelled: int, fold: int, checkpoint: Checkpoint) -> dict[str, Any]:
    cases = checkpoint.origin.training_cases
    return {
        "name": name,
        "labelled": labelled,
        "fold": fold,
        "sha256": checkpoint.digest,
        "config_name": checkpoint.config.name,
        "steps": checkpoint.origin.steps,
        "training_cases": len(cases),
        "training_patients": len({str(c["patient_id"]) for c in cases}),
        "seconds": checkpoint.origin.metrics.get("seconds"),
    }


def _numbers(cases: Sequence[Case], used: Sequence[Prepared], task: Task) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "cases": len(cases),
        "patients": len({c.patient_id for c in cases}),
        "used_cases": len(used),
        "used_patients": len({p.case.patient_id for p in used}),
    }
    counts = Counter(p.case.class_name for p in used)
    numbers["classes"] = {name: counts[name] for name in task.class_names}  # none for segmentation
    return numbers


def _flow(material: Material) -> dict[str, Any]:
    cases = material.cohort.cases
    segmentation = material.task.kind == "segmentation"
    annotated = [c for c in cases if (c.label is not None if segmentation else c.class_name is not None)]
    return {
        "found": {"cases": len(cases), "patients": len({c.patient_id for c in cases})},
        "without_annotation": len(cases) - len(annotated),
        "excluded": [],
    }


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
