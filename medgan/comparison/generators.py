"""The generators of a study: every arm's for every block, found by its name, loaded and fit for the study."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from medgan.comparison.arms import Arm
from medgan.comparison.leaks import require_same_grid
from medgan.config import Config
from medgan.errors import InputFault
from medgan.sampler import Sampler, load, require_gate
from medgan.tracking import is_model_uri


def load_generators(
    config: Config, arms: Collection[Arm], blocks: Collection[tuple[int, int]], channels: int
) -> dict[tuple[str, int, int], Sampler]:
    """Load each arm's generator for each block.

    Args:
        config: of the study.
        arms: all of it.
        blocks: each a number of labelled cases and a fold.
        channels: of the study's volumes.

    Returns:
        by name, labelled and fold.

    Raises:
        InputFault: a generator is not there or no whole checkpoint, takes the study's samples for something else, or
            lacks the critic that an arm asks for.
    """
    found: dict[tuple[str, int, int], Sampler] = {}
    compare = config.compare
    patterns: Mapping[str, str | None] = compare.generators or {config.name: compare.checkpoint}
    names = sorted({str(arm.generator) for arm in arms if arm.needs_generator})
    for name in names:
        pattern = patterns.get(name)
        for labelled, fold in blocks:
            sampler = load(_folder(pattern, labelled, fold, arms))
            require_same_grid(sampler.checkpoint, config, channels)
            for arm in arms:
                if arm.generator == name and "gan" in arm.parts:
                    require_gate(sampler.checkpoint, arm.min_quality, f"min_quality of arm {arm.name!r}")
            found[name, labelled, fold] = sampler
    return found


def _folder(pattern: str | None, labelled: int, fold: int, arms: Collection[Arm]) -> str:
    remedy = "train a generator first (medgan train CONFIG --output DIR) and set compare.checkpoint=DIR"
    users = ", ".join(arm.name for arm in arms if arm.needs_generator)
    if pattern is None:
        reason = f"the arms {users} need a generator, none is named"
        raise InputFault("compare.checkpoint", "NO_CHECKPOINT", reason, remedy)
    folder = pattern.replace("{labelled}", str(labelled)).replace("{fold}", str(fold))
    if not is_model_uri(folder) and not Path(folder).is_dir():
        raise InputFault(folder, "NO_CHECKPOINT", f"the arms {users} need a generator, the folder is not there", remedy)
    return folder
