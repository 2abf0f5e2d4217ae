"""Whether the networks and transforms of a study can be built, which is tried once before its first step."""

from __future__ import annotations

from collections.abc import Iterable

from medgan.comparison.arms import FITTED_PART, Arm
from medgan.comparison.components import build_components
from medgan.comparison.downstream import network_settings
from medgan.comparison.networks import build_network, require_fit
from medgan.comparison.own_function import load_function
from medgan.comparison.scoring import Task
from medgan.config import Config
from medgan.errors import InputFault


def require_buildable(config: Config, arms: Iterable[Arm], task: Task, channels: int) -> None:
    """Build the network and every arm's transforms once, so that a name or keyword is refused before the start.

    Args:
        config: of the study.
        arms: all of it.
        task: of its models.
        channels: of its volumes.

    Raises:
        InputFault: a network, function or transform is not known or not built so, or a part of an arm needs another
            task.
    """
    compare, shape = config.compare, config.study_grid.shape
    if compare.function is None:
        network = build_network(task, channels, network_settings(compare), 0, shape)
        require_fit(network, task, channels, shape)
    else:
        load_function(compare.function)
    for arm in arms:
        keys = ["image", "label"] if task.kind == "segmentation" else ["image"]
        build_components(arm.transforms, keys)
        if "oversample" in arm.parts and task.kind != "classification":
            reason = f"arm {arm.name!r}: oversample needs classes, the task is {task.kind}"
            raise InputFault("compare.arms", "CONFIG_VALUE", reason, "leave oversample out")
        if FITTED_PART in arm.parts and task.kind != "segmentation":
            reason = f"arm {arm.name!r}: atlas carries label maps over, the task is {task.kind}"
            raise InputFault("compare.arms", "CONFIG_VALUE", reason, "leave atlas out")
