"""Independent task networks: fitted to real cases alone, they say what a sibling shows.

No such network had a part in training the generator. Fitted on few cases for few steps it is a modest reader; it is
as modest with held-out real volumes, beside which it is always shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from medgan.data.loaders import Prepared
from medgan.errors import TrainingFailure
from medgan.evaluation.intervals import Array
from medgan.models.resampling import resample, small_affine
from medgan.models.task_networks import task_network
from medgan.progress import track
from medgan.seeding import derive_seed, torch_generator

WIDTH = 8
BATCH = 4
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-4
GRADIENT_NORM = 5.0
# Augmentation of what a network is fitted to; a deformed hippocampus is one it ought to know.
MOVED_SHARE = 0.8
ROTATION = 0.15  # rad
SCALE = 0.1  # log
SHIFT = 0.1  # share of half the axis
GAIN = 0.1  # log
OFFSET = 0.03  # of the 0..1 range


@dataclass(frozen=True)
class Task:
    """What a network is asked.

    Attributes:
        kind: to find structures, or to name the class.
        names: of the structures, or of the classes.
        values: of the structures in label maps, or the classes' indices.
    """

    kind: Literal["segmentation", "classification"]
    names: tuple[str, ...]
    values: tuple[int, ...]

    def truth(self, prepared: Prepared) -> Tensor | None:
        """Return what is true of a case: ``(1, *shape)`` structures numbered from 1, or the class's place, ``()``.

        ``None`` where that is not known.
        """
        if self.kind == "segmentation":
            return None if prepared.label is None else self.compact(prepared.label)
        known = prepared.class_index in self.values
        return torch.tensor(self.values.index(prepared.class_index)) if known else None

    def compact(self, label: Tensor) -> Tensor:
        """Return a label map with the structures numbered 1, 2, ...; any other value becomes background."""
        compact = torch.zeros_like(label, dtype=torch.int64)
        for number, value in enumerate(self.values, start=1):
            compact[label == value] = number
        return compact


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What a network says of B volumes.

    Attributes:
        scores: ``(B, structures)`` Dice, NaN where the truth lacks the structure; or ``(B, classes)`` 1 or 0 for the
            true class, if it was named or not, and NaN for the others.
        confidence: ``(B,)`` mean Dice, or the probability given to the true class.
        features: ``(B, F)`` what the network sees at its deepest, see :func:`run_and_describe`.
    """

    scores: Array
    confidence: Array
    features: Array


def fit_judge(task: Task, cases: Sequence[Prepared], *, steps: int, seed: int, description: str) -> nn.Module:
    """Fit a small network, of :func:`~medgan.models.task_networks.task_network`, to real cases.

    Args:
        task: what to ask.
        cases: of all of which the truth is known.
        steps: updates.
        seed: of initialisation, order and augmentation.
        description: of the progress bar.

    Raises:
        TrainingFailure: the loss became NaN or infinite.
    """
    truths = [task.truth(case) for case in cases]
    classes = np.array([int(truth) if truth is not None and truth.ndim == 0 else 0 for truth in truths])
    # Every class equally often, so that the rare one is not the one that is never named.
    weights = torch.from_numpy(1.0 / np.bincount(classes)[classes])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init"))
        outputs = len(task.names) + (task.kind == "segmentation")  # and background
        network = task_network(task.kind, cases[0].image.shape[0], outputs, WIDTH)
        loss_of = _loss(task)
        optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=LEARNING_RATE, total_steps=max(steps, 2), pct_start=0.2
        )
        rng = torch_generator(seed, "batches")
        network.train()
        for step in track(range(steps), description):
            rows = torch.multinomial(weights, BATCH, replacement=True, generator=rng).tolist()
            images = torch.stack([cases[row].image for row in rows])
            targets = torch.stack([truth for row in rows if (truth := truths[row]) is not None])
            images, targets = _augment(images, targets, rng)
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(network(images), targets)
            if not math.isfinite(float(loss.detach())):
                raise TrainingFailure(f"the task network's loss became {float(loss.detach())} at step {step + 1}")
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
            optimiser.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def judge(network: nn.Module, task: Task, images: Tensor, truths: Sequence[Tensor]) -> Verdicts:
    """Ask a network about volumes.

    Args:
        network: from :func:`fit_judge`.
        task: the same as there.
        images: ``(B, C, D, H, W)``.
        truths: B truths as of :meth:`Task.truth`.
    """
    logits, features = run_and_describe(network, images)
    if task.kind == "classification":
        true = torch.stack(list(truths))
        named = nn.functional.one_hot(logits.argmax(dim=1), len(task.names)).double()
        of_class = nn.functional.one_hot(true, len(task.names)).bool()
        given = logits.softmax(dim=1).gather(1, true[:, None])[:, 0]
        return Verdicts(_array(named.masked_fill(~of_class, math.nan)), _array(given), features)
    from monai.metrics import compute_dice
    from monai.networks.utils import one_hot

    outputs = len(task.names) + 1
    predicted = one_hot(logits.argmax(dim=1, keepdim=True), outputs)
    dice = compute_dice(predicted, one_hot(torch.stack(list(truths)), outputs), include_background=False)
    scores = _array(dice)
    return Verdicts(scores, case_means(scores), features)


def run_and_describe(network: nn.Module, images: Tensor) -> tuple[Tensor, Array]:
    """Run a network on volumes; return its logits, and what it makes of them at its deepest.

    The deepest layer is the last one whose output has the fewest voxels: what the upward path of a U-Net starts from,
    the pooled features before a classifier.

    Args:
        network: any that takes volumes and keeps them five-dimensional up to there.
        images: ``(B, C, D, H, W)``.

    Returns:
        logits, and ``(B, features)``: the deepest layer's means over space.
    """
    deepest: list[Tensor] = []

    def look(_: nn.Module, __: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim != 5:
            return
        if not deepest or output[0, 0].numel() <= deepest[0][0, 0].numel():
            deepest[:] = [output]

    hooks = [module.register_forward_hook(look) for module in network.modules()]
    logits, features = [], []
    try:
        for part in torch.split(images, BATCH):
            deepest.clear()
            logits.append(network(part))
            features.append(deepest[0].mean(dim=(2, 3, 4)))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(logits), _array(torch.cat(features))


def case_means(scores: Array) -> Array:
    """Return the mean over the last axis, of what is a number; NaN where nothing is."""
    found = np.isfinite(scores)
    total, count = np.where(found, scores, 0.0).sum(axis=-1), found.sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _loss(task: Task) -> Any:
    if task.kind == "classification":
        return nn.CrossEntropyLoss()
    from monai.losses import DiceCELoss

    return DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)


def _augment(images: Tensor, targets: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    batch = len(images)
    chosen = (torch.rand(batch, generator=rng) < MOVED_SHARE).float()
    theta = small_affine(batch, rng, ROTATION, SCALE, torch.full((3,), SHIFT), chosen)
    gain = torch.exp(torch.randn(batch, 1, 1, 1, 1, generator=rng) * GAIN)
    offset = torch.randn(batch, 1, 1, 1, 1, generator=rng) * OFFSET
    moved = resample(images, theta)
    # What is not to be moved is not to be interpolated either.
    images = torch.where(chosen.reshape(-1, 1, 1, 1, 1) > 0, moved, images) * gain + offset
    if targets.ndim > 1:
        targets = resample(targets.float(), theta, mode="nearest").to(targets.dtype)
    return images, targets


def _array(values: Tensor) -> Array:
    return np.asarray(values.double().numpy(), dtype=np.float64)
