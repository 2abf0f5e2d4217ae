"""The plan of a study: frozen and hashed before the first training step, and the checks that come before it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medgan.checkpoint import Checkpoint, library_versions, make_output, write_atomically
from medgan.comparison.arms import ARMS_WITH_GENERATOR
from medgan.comparison.results import PLAN, RUNS_FOLDER
from medgan.comparison.scoring import Task
from medgan.comparison.statistics import SEEDS_FOR_A_VERDICT
from medgan.config import Config
from medgan.data.cohort import Case
from medgan.data.split import Split, content_hash
from medgan.errors import InputFault

PARTS = ("training", "validation", "test")
PLAN_FORMAT = 1
# Of the libraries these decide the figures; another version is another plan.
DECISIVE = ("medgan", "torch", "monai")


def needs_generator(config: Config) -> bool:
    """Whether any arm of the study uses a generator."""
    return any(arm in ARMS_WITH_GENERATOR for arm in config.compare.arms)


def require_checkpoint(config: Config) -> Path:
    """Return the configured checkpoint's folder.

    Raises:
        InputFault: none is configured, or it is not there.
    """
    folder = config.compare.checkpoint
    remedy = "train a generator first (medgan train CONFIG --output DIR) and set compare.checkpoint=DIR"
    arms = ", ".join(arm for arm in config.compare.arms if arm in ARMS_WITH_GENERATOR)
    if folder is None:
        raise InputFault(
            "compare.checkpoint", "NO_CHECKPOINT", f"the arms {arms} need a generator, none is named", remedy
        )
    if not folder.is_dir():
        raise InputFault(folder, "NO_CHECKPOINT", f"the arms {arms} need a generator, the folder is not there", remedy)
    return folder


def content_hashes(split: Split) -> dict[str, list[str]]:
    """Return the SHA-256 of every case's files, by part of the split."""
    return {part: [content_hash(case) for case in getattr(split, part)] for part in PARTS}


def require_no_leak(
    split: Split, hashes: Mapping[str, Sequence[str]], source: Path, checkpoint: Checkpoint | None
) -> None:
    """Refuse a study in which something that was trained on is tested on.

    Raises:
        InputFault: a validation or test case is, by case id, patient id or content, one that the generator was trained
            with, or is byte for byte a training case. The message counts; it names no patient.
    """
    held_out: list[Case] = [*split.validation, *split.test]
    held_out_hashes = [*hashes["validation"], *hashes["test"]]
    copies = set(hashes["training"]) & set(held_out_hashes)
    if copies:
        reason = f"{len(copies)} validation or test cases are byte for byte training cases"
        raise InputFault(source, "LEAK", reason, "remove the copies or give them one patient id")
    if checkpoint is None:
        return
    seen = checkpoint.origin.training_cases
    found = {
        "by patient id": {str(c["patient_id"]) for c in seen} & {c.patient_id for c in held_out},
        "by case id": {str(c["case_id"]) for c in seen} & {c.case_id for c in held_out},
        "by content": {str(c["content_sha256"]) for c in seen} & set(held_out_hashes),
    }
    if any(found.values()):
        counts = ", ".join(f"{len(ids)} {how}" for how, ids in found.items())
        reason = f"the generator was trained with cases of this study's validation or test ({counts})"
        remedy = "train it with the same data section as the study, so that both split the patients alike"
        raise InputFault(checkpoint.folder, "LEAK", reason, remedy)


def require_enough(cases: Mapping[str, Sequence[Case]], task: Task, source: Path, batch: int) -> None:
    """Refuse a study that has too little to train or to test with.

    Raises:
        InputFault: fewer than two training cases with a label map or class, no test case, or, for classification,
            fewer than two classes or a batch of one (batch norm needs two).
    """
    need = "label map" if task.kind == "segmentation" else "class"
    if len(cases["training"]) < 2:
        reason = f"{len(cases['training'])} training cases with a {need}, at least 2 are needed"
        raise InputFault(source, "TOO_FEW_CASES", reason, "annotate more cases, or raise data.labelled")
    if not cases["test"]:
        raise InputFault(source, "NO_TEST", f"no test case has a {need}", "raise data.test or annotate more cases")
    if task.kind == "classification":
        if batch < 2:
            raise InputFault("compare.batch", "CONFIG_VALUE", f"a batch of {batch} is too small", "set at least 2")
        for part in ("training", "test"):
            if len({case.class_name for case in cases[part]}) < 2:
                reason = f"the {part} cases are all of one class"
                raise InputFault(source, "ONE_CLASS", reason, "add cases, or choose another data.split_seed")


def make_plan(
    config: Config,
    split: Split,
    *,
    hashes: Mapping[str, Sequence[str]],
    cases: Mapping[str, Sequence[Case]],
    task: Task,
    checkpoint: Checkpoint | None,
) -> dict[str, Any]:
    """Return all that decides the study's figures, and the numbers a reader wants to see, as JSON values.

    Paths are left out: a study that is moved, or data that are mounted elsewhere, make no other plan.
    """
    compare = config.compare
    versions = library_versions()
    everything = hashlib.sha256("\n".join(sorted(h for part in PARTS for h in hashes[part])).encode()).hexdigest()
    return {
        "format": PLAN_FORMAT,
        "name": config.name,
        "seed": config.seed,
        "task": task.kind,
        "metric": task.metric,
        "structures": dict(zip(map(str, task.label_values), task.structures, strict=True)),
        "classes": list(task.class_names) if task.kind == "classification" else [],
        "spacing": None if task.spacing is None else list(task.spacing),
        "compare": compare.model_dump(mode="json", exclude={"checkpoint"}),
        "data": config.data.model_dump(mode="json", exclude={"root", "download"}),
        "preprocess": config.study_grid.model_dump(mode="json"),
        "exploratory": compare.seeds < SEEDS_FOR_A_VERDICT,
        "split_digest": split.digest,
        "content_digest": everything,
        "checkpoint_sha256": None if checkpoint is None else checkpoint.digest,
        "generator": None if checkpoint is None else _generator(checkpoint),
        "cohort": {part: _numbers(getattr(split, part), cases[part], task) for part in PARTS},
        "versions": {name: versions[name] for name in DECISIVE},
    }


def freeze(plan: dict[str, Any], output: Path) -> str:
    """Write ``plan.json`` and return the plan's SHA-256; an unfinished or finished study of the same plan is taken up.

    Raises:
        InputFault: the folder holds a study of another plan, or something that is no study.
    """
    digest = plan_digest(plan)
    path = output / PLAN
    remedy = "give another --output, or remove the folder"
    if path.exists():
        try:
            frozen = json.loads(path.read_text(encoding="utf-8"))
            same = frozen["sha256"] == digest == plan_digest(frozen["plan"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputFault(path, "OUTPUT_IN_USE", f"not a readable plan ({type(error).__name__})", remedy) from error
        if not same:
            different = ", ".join(sorted(k for k in plan if plan[k] != frozen["plan"].get(k))) or "its content"
            reason = f"the folder holds a study of another plan (different: {different})"
            raise InputFault(output, "OUTPUT_IN_USE", reason, remedy)
        return digest
    if (output / RUNS_FOLDER).exists():
        raise InputFault(output, "OUTPUT_IN_USE", f"the folder holds {RUNS_FOLDER}/ but no {PLAN}", remedy)
    make_output(output)
    write_atomically(path, json.dumps({"sha256": digest, "plan": plan}, indent=1, allow_nan=False).encode())
    return digest


def plan_digest(plan: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a plan's canonical JSON."""
    canonical = json.dumps(plan, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _generator(checkpoint: Checkpoint) -> dict[str, Any]:
    cases = checkpoint.origin.training_cases
    return {
        "name": checkpoint.config.name,
        "steps": checkpoint.origin.steps,
        "training_cases": len(cases),
        "training_patients": len({str(c["patient_id"]) for c in cases}),
    }


def _numbers(cases: Sequence[Case], used: Sequence[Case], task: Task) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "cases": len(cases),
        "patients": len({c.patient_id for c in cases}),
        "used_cases": len(used),
        "used_patients": len({c.patient_id for c in used}),
    }
    if task.kind == "classification":
        counts = Counter(c.class_name for c in used)
        numbers["classes"] = {name: counts[name] for name in task.class_names}
    return numbers
