"""Training of the downstream model: the same initialisation and data order for a seed in every arm."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medgan.comparison.arms import AUGMENTATION_THREADS, Arm, choose_indices
from medgan.comparison.networks import NetworkSettings, build_network
from medgan.comparison.results import CurvePoint, Score, Split
from medgan.comparison.scoring import Task, classification_scores, headline, segmentation_scores
from medgan.config import CompareConfig
from medgan.data.loaders import Prepared
from medgan.errors import TrainingFailure
from medgan.seeding import derive_seed
from medgan.threads import torch_threads

OnStep = Callable[[int, Mapping[str, float]], None]
WEIGHT_DECAY = 1e-4
GRADIENT_NORM = 5.0
# Channels last: on a CPU the backward pass of convolutions with few channels takes a third of the time.
LAYOUT = torch.channels_last_3d


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained downstream model.

    Attributes:
        network: on the device it was trained on.
        curve: the validation's primary metric along the steps; empty without validation cases.
        seconds: training time, validations left out.
    """

    network: nn.Module
    curve: tuple[CurvePoint, ...]
    seconds: float


def train_downstream(
    task: Task,
    training: Sequence[Prepared],
    validation: Sequence[Prepared],
    arm: Arm,
    transform: Any,
    settings: CompareConfig,
    seed: int,
    on_step: OnStep | None = None,
    pseudo: int = 0,
) -> Trained:
    """Train the downstream model on augmented training cases.

    Args:
        task: what to learn.
        training: cases with the label map or class that the task needs.
        validation: of the curve; they decide nothing.
        arm: decides which cases a batch holds.
        transform: the arm's MONAI ``Compose``; seeded here from the seed.
        settings: steps, batch, learning rate, network, validations.
        seed: of initialisation, order and augmentation: the same in every arm.
        on_step: called after each update with its number from 1 and what is to be recorded.
        pseudo: how many of the training cases, the last ones, have pseudo-labels.

    Raises:
        TrainingFailure: the loss became NaN or infinite.
    """
    network = new_network(task, training, settings, seed)
    device = next(network.parameters()).device
    loss_of = _loss(task, training, arm, device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=WEIGHT_DECAY)
    # A single step has no cycle to go through.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=settings.learning_rate, total_steps=max(settings.steps, 2), pct_start=0.2
    )
    transform.set_random_state(derive_seed(seed, "augment") % 2**32)
    samples = [_sample(p, task) for p in training]
    classes = [p.class_index if task.kind == "classification" else 0 for p in training]
    points = {round(settings.steps * (i + 1) / settings.curve_points) for i in range(settings.curve_points)}

    curve: list[CurvePoint] = []
    seconds = 0.0
    # Dropout and the like draw from torch's own stream: it too is a function of the seed.
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "training"))
        for step in range(1, settings.steps + 1):
            started = time.perf_counter()
            network.train()
            chosen = choose_indices(arm, seed, step - 1, classes, settings.batch, pseudo, settings.pseudo_share)
            with torch_threads(AUGMENTATION_THREADS):
                augmented = [transform(dict(samples[i])) for i in chosen]
            images, targets = _collate(augmented, device)
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(network(images), targets)
            value = float(loss.detach())
            if not math.isfinite(value):
                reason = f"the downstream loss became {value} at step {step} (arm {arm.name})"
                raise TrainingFailure(f"{reason}; lower compare.learning_rate (now {settings.learning_rate:g})")
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
            rate = optimiser.param_groups[0]["lr"]
            optimiser.step()
            schedule.step()
            seconds += time.perf_counter() - started
            record = {"loss": value, "learning_rate": rate}
            if step in points and validation:
                figures = headline(score(network, validation, task, "validation", distances=False), task, "validation")
                curve.append(CurvePoint(step, task.metric, figures[task.metric]))
                record |= {f"validation/{name}": figure for name, figure in figures.items()}
            if on_step is not None:
                on_step(step, record)
    return Trained(network, tuple(curve), seconds)


def new_network(task: Task, training: Sequence[Prepared], settings: CompareConfig, seed: int) -> nn.Module:
    """Return the downstream model before its training, on the device it is trained on."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    channels, *shape = training[0].image.shape
    network = build_network(task, channels, network_settings(settings), seed, (shape[0], shape[1], shape[2]))
    return network.to(device).to(memory_format=LAYOUT)  # type: ignore[call-overload, no-any-return]


def network_settings(settings: CompareConfig) -> NetworkSettings:
    """Return which network the configuration asks for."""
    if settings.network is None:
        return NetworkSettings(settings.width)
    return NetworkSettings(settings.width, settings.network.name, settings.network.arguments)


@torch.no_grad()
def predict(network: nn.Module, prepared: Sequence[Prepared], batch: int = 8) -> Iterator[Tensor]:
    """Yield the network's logits of cases as they are, ``(B, ...)`` a batch."""
    network.eval()
    device = next(network.parameters()).device
    for start in range(0, len(prepared), batch):
        images = torch.stack([p.image for p in prepared[start : start + batch]])
        yield network(images.to(device=device, memory_format=LAYOUT))


def score(
    network: nn.Module, prepared: Sequence[Prepared], task: Task, split: Split, *, distances: bool = True
) -> list[Score]:
    """Run the network on cases and return their figures."""
    scores: list[Score] = []
    start = 0
    for logits in predict(network, prepared):
        scores += score_logits(logits, prepared[start : start + len(logits)], task, split, distances=distances)
        start += len(logits)
    return scores


def score_logits(
    logits: Tensor, prepared: Sequence[Prepared], task: Task, split: Split, *, distances: bool = True
) -> list[Score]:
    """Return the figures of cases whose logits are known, ``(N, outputs, *shape)`` or ``(N, K)``."""
    of = [p.case for p in prepared]
    if task.kind == "classification":
        return classification_scores(logits, [p.class_index for p in prepared], of, task, split)
    labels = torch.stack([task.compact(p.label) for p in prepared if p.label is not None]).to(logits.device)
    return segmentation_scores(logits, labels, of, task, split, distances=distances)


def _loss(
    task: Task, training: Sequence[Prepared], arm: Arm, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    if task.kind == "segmentation":
        from monai.losses import DiceCELoss

        return DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)  # type: ignore[no-any-return]
    if "oversample" in arm.parts:
        return nn.CrossEntropyLoss()  # its batches hold every class equally often
    # A rare class weighs as much as a common one, in every other arm alike.
    counts = np.bincount([p.class_index for p in training], minlength=task.outputs)
    present = counts > 0
    weights = np.where(present, len(training) / (present.sum() * np.maximum(counts, 1)), 0.0)
    return nn.CrossEntropyLoss(weight=torch.tensor(weights, dtype=torch.float32, device=device))


def _sample(prepared: Prepared, task: Task) -> dict[str, Any]:
    sample: dict[str, Any] = {"image": prepared.image, "class": prepared.case.class_name}
    if task.kind == "segmentation":
        assert prepared.label is not None
        return {**sample, "label": task.compact(prepared.label)}
    return {**sample, "target": prepared.class_index}


def _collate(samples: Sequence[Mapping[str, Any]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ``(B, C, D, H, W)`` images and ``(B, 1, D, H, W)`` label maps or ``(B,)`` classes, plain tensors."""
    from medgan.comparison.composition import plain

    images = torch.stack([plain(s["image"]) for s in samples]).to(device=device, memory_format=LAYOUT)
    if "label" in samples[0]:
        return images, torch.stack([plain(s["label"]) for s in samples]).to(device, torch.int64)
    return images, torch.tensor([s["target"] for s in samples], device=device)
