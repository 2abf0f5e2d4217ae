"""The downstream network: the built-in ones, or any of ``monai.networks.nets`` that fits the task."""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from medgan.comparison.components import require_plain
from medgan.comparison.scoring import Task
from medgan.config import Triple
from medgan.errors import InputFault
from medgan.models.task_networks import task_network
from medgan.seeding import derive_seed

INPUTS = ("in_channels", "n_input_channels")
OUTPUTS = ("out_channels", "num_classes")
# Weights from elsewhere may come from the test's own scans, and a study does not reach into the network for them.
FOREIGN = ("pretrained", "pretrained_url", "weights", "path_or_repo_id")


@dataclass(frozen=True)
class NetworkSettings:
    """Which network.

    Attributes:
        width: channels of the built-in network's first level.
        name: class of ``monai.networks.nets``; ``None`` for the built-in network of the task.
        arguments: its keywords; dimensions, channels, outputs and grid are filled in where it takes them.
    """

    width: int = 16
    name: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


def build_network(
    task: Task, channels: int, settings: NetworkSettings, seed: int, shape: Triple | None = None
) -> nn.Module:
    """Return the downstream network; its weights are a function of ``seed`` alone.

    Built in is :func:`~medgan.models.task_networks.task_network`, 0.2 to 0.3 million weights at width 16.

    Args:
        task: decides the outputs and the built-in architecture.
        channels: of the image.
        settings: which network.
        seed: of the initialisation.
        shape: voxels of the grid, for networks that want to know it.

    Raises:
        InputFault: MONAI has no such network, or it does not take the keywords (``NETWORK_NAME``,
            ``NETWORK_ARGUMENTS``).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init"))
        if settings.name is not None:
            return _named(settings.name, settings.arguments, task, channels, shape)
        if settings.arguments:
            raise InputFault(
                "network", "NETWORK_ARGUMENTS", "the built-in network takes no arguments", "set the network's name"
            )
        return task_network(task.kind, channels, task.outputs, settings.width)


@torch.no_grad()
def require_fit(network: nn.Module, task: Task, channels: int, shape: Triple) -> None:
    """Refuse a network that does not turn volumes of the grid into the task's outputs.

    A copy is run on zeros, once as in training and once as in the test; the network and torch's stream stay as they
    are.

    Raises:
        InputFault: ``NETWORK_OUTPUT``.
    """
    name = type(network).__name__
    volumes = torch.zeros(2, channels, *shape)
    expected = (2, task.outputs, *shape) if task.kind == "segmentation" else (2, task.outputs)
    copied = copy.deepcopy(network).cpu()
    remedy = "choose another network, other arguments, or another grid (compare.preprocess)"
    for training in (True, False):
        try:
            with torch.random.fork_rng(devices=[]):
                out = copied.train(training)(volumes)
        except Exception as error:
            reason = f"{name} fails on {tuple(volumes.shape)} volumes ({type(error).__name__}: {str(error)[:200]})"
            raise InputFault("network", "NETWORK_OUTPUT", reason, remedy) from error
        found = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        if found != expected:
            when = "training" if training else "the test"
            reason = f"{name} makes {found} of {tuple(volumes.shape)} volumes in {when}, not {expected}"
            raise InputFault("network", "NETWORK_OUTPUT", reason, remedy)


def _named(name: str, arguments: Mapping[str, Any], task: Task, channels: int, shape: Triple | None) -> nn.Module:
    from monai.networks import nets

    known = {n: c for n, c in vars(nets).items() if isinstance(c, type) and issubclass(c, nn.Module)}
    found = known.get(name)
    if found is None or not found.__module__.startswith("monai.networks.nets."):
        raise InputFault(name, "NETWORK_NAME", "no network of monai.networks.nets", _nearest(name, list(known)))
    require_plain(arguments, name)
    parameters = _parameters(found)
    filled: dict[str, Any] = {"spatial_dims": 3, "img_size": shape, "pretrained": False}
    filled |= dict.fromkeys(INPUTS, channels) | dict.fromkeys(OUTPUTS, task.outputs)
    if not any(p in parameters for p in INPUTS) or not any(p in parameters for p in OUTPUTS):
        reason = "it has no number of input channels and of outputs to set"
        raise InputFault(name, "NETWORK_NAME", reason, "choose a network that maps volumes to label maps or classes")
    if any(p in parameters for p in FOREIGN if p != "pretrained") or any(arguments.get(p) for p in FOREIGN):
        reason = "weights from elsewhere could know the test cases"
        raise InputFault(name, "NETWORK_ARGUMENTS", reason, "train from the seed alone, without pretrained weights")
    for argument in arguments:
        if argument not in parameters:
            reason = f"it has no argument {argument!r}"
            raise InputFault(name, "NETWORK_ARGUMENTS", reason, _nearest(argument, parameters))
    given = {p: v for p, v in filled.items() if p in parameters and v is not None} | dict(arguments)
    try:
        network: nn.Module = found(**given)
    except Exception as error:
        reason = f"the arguments do not fit ({type(error).__name__}: {str(error)[:200]})"
        raise InputFault(name, "NETWORK_ARGUMENTS", reason, "see that network's documentation") from error
    return network


def _parameters(found: type) -> list[str]:
    """Return the keywords of a class, with those it hands on to the class it is derived from."""
    names: list[str] = []
    for ancestor in found.__mro__:
        if "__init__" not in vars(ancestor):
            continue
        parameters = list(inspect.signature(ancestor).parameters.values())
        names += [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.kind is not p.VAR_POSITIONAL]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known)[:12])}, …"
