"""One run of the downstream model: the same initialisation and data order for a seed in every arm."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medgan.comparison.results import CurvePoint, Score
from medgan.comparison.scoring import Task, classification_scores, headline, segmentation_scores
from medgan.config import CompareConfig
from medgan.data.cohort import Case
from medgan.data.loaders import Prepared
from medgan.errors import TrainingFailure
from medgan.seeding import derive_seed, numpy_generator

logger = logging.getLogger(__name__)

OnStep = Callable[[int, Mapping[str, float]], None]
WEIGHT_DECAY = 1e-4
GRADIENT_NORM = 5.0


@dataclass(frozen=True)
class DownstreamResult:
    """What a run gives.

    Attributes:
        scores: every figure of every validation case (after the last step) and test case.
        headline: the test's figures, by metric.
        curve: the validation's primary metric along the steps; empty without validation cases.
        seconds: training time, validations and test left out.
    """

    scores: tuple[Score, ...]
    headline: dict[str, float]
    curve: tuple[CurvePoint, ...]
    seconds: float


@dataclass(frozen=True)
class Cases:
    """The prepared cases a run sees."""

    training: Sequence[Prepared]
    validation: Sequence[Prepared]
    test: Sequence[Prepared]


def usable(cases: Sequence[Case], task: Task, part: str) -> list[Case]:
    """Return the cases with the label map or class that the task needs; how many are left out is logged."""
    segmentation = task.kind == "segmentation"
    kept = [c for c in cases if (c.label is not None if segmentation else c.class_name in task.class_names)]
    if len(kept) < len(cases):
        lacking = "label map" if segmentation else "class"
        logger.info("%s: %d of %d cases have no %s and are left out", part, len(cases) - len(kept), len(cases), lacking)
    return kept


def build_network(task: Task, channels: int, width: int, seed: int) -> nn.Module:
    """Return the downstream network; its weights are a function of ``seed`` alone.

    Segmentation: a residual U-Net of three levels (``width``, 2 ``width``, 4 ``width`` channels, instance norm).
    Classification: a DenseNet of three blocks of two layers (growth ``width``, batch norm), 0.2 million weights at
    width 16.

    Args:
        task: decides the architecture and the outputs.
        channels: of the image.
        width: channels of the first level.
        seed: of the initialisation.
    """
    from monai.networks.nets import DenseNet, UNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init"))
        if task.kind == "segmentation":
            return UNet(  # type: ignore[no-any-return]
                spatial_dims=3,
                in_channels=channels,
                out_channels=task.outputs,
                channels=(width, 2 * width, 4 * width),
                strides=(2, 2),
                num_res_units=2,
                norm="INSTANCE",
            )
        return DenseNet(  # type: ignore[no-any-return]
            spatial_dims=3,
            in_channels=channels,
            out_channels=task.outputs,
            init_features=2 * width,
            growth_rate=width,
            block_config=(2, 2, 2),
        )


def batch_indices(seed: int, step: int, cases: int, batch: int) -> list[int]:
    """Return which cases the batch of ``step`` holds: shuffled epochs, a function of (seed, step) alone."""
    positions = range(step * batch, (step + 1) * batch)
    orders = {
        epoch: numpy_generator(seed, "order", epoch).permutation(cases) for epoch in {p // cases for p in positions}
    }
    return [int(orders[p // cases][p % cases]) for p in positions]


def train_downstream(
    task: Task,
    cases: Cases,
    transform: Any,
    settings: CompareConfig,
    seed: int,
    *,
    arm: str = "",
    on_step: OnStep | None = None,
) -> DownstreamResult:
    """Train the downstream model on augmented training cases and score it on the test.

    Args:
        task: what to learn.
        cases: all with the label map or class that the task needs.
        transform: the arm's MONAI ``Compose``; seeded here from (seed, arm).
        settings: steps, batch, learning rate, width, validations.
        seed: of initialisation and order, which are the same in every arm.
        arm: its name.
        on_step: called after each update with its number from 1 and what is to be recorded.

    Raises:
        TrainingFailure: the loss became NaN or infinite.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_network(task, cases.training[0].image.shape[0], settings.width, seed).to(device)
    loss_of = _loss(task, cases.training, device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=WEIGHT_DECAY)
    # A single step has no cycle to go through.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=settings.learning_rate, total_steps=max(settings.steps, 2), pct_start=0.2
    )
    transform.set_random_state(derive_seed(seed, "augment", arm) % 2**32)
    samples = [_sample(p, task) for p in cases.training]
    points = {round(settings.steps * (i + 1) / settings.curve_points) for i in range(settings.curve_points)}

    curve: list[CurvePoint] = []
    scores: list[Score] = []
    seconds = 0.0
    for step in range(1, settings.steps + 1):
        started = time.perf_counter()
        network.train()
        chosen = batch_indices(seed, step - 1, len(samples), settings.batch)
        with _one_thread():
            augmented = [transform(dict(samples[i])) for i in chosen]
        images, targets = _collate(augmented, device)
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(network(images), targets)
        value = float(loss.detach())
        if not math.isfinite(value):
            reason = f"the downstream loss became {value} at step {step} (arm {arm}, seed {seed})"
            raise TrainingFailure(f"{reason}; lower compare.learning_rate (now {settings.learning_rate:g})")
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        rate = optimiser.param_groups[0]["lr"]
        optimiser.step()
        schedule.step()
        seconds += time.perf_counter() - started
        record = {"loss": value, "learning_rate": rate}
        if step in points and cases.validation:
            scores = score(network, cases.validation, task, "validation", device, distances=step == settings.steps)
            figures = headline(scores, task, "validation")
            curve.append(CurvePoint(step, task.metric, figures[task.metric]))
            record |= {f"validation/{name}": figure for name, figure in figures.items()}
        if on_step is not None:
            on_step(step, record)
    scores += score(network, cases.test, task, "test", device)
    return DownstreamResult(tuple(scores), headline(scores, task, "test"), tuple(curve), seconds)


@torch.no_grad()
def score(
    network: nn.Module,
    prepared: Sequence[Prepared],
    task: Task,
    split: str,
    device: torch.device,
    *,
    distances: bool = True,
    batch: int = 8,
) -> list[Score]:
    """Run the network on cases as they are and return their figures."""
    network.eval()
    scores: list[Score] = []
    name: Any = split
    for start in range(0, len(prepared), batch):
        part = prepared[start : start + batch]
        logits = network(torch.stack([p.image for p in part]).to(device))
        of = [p.case for p in part]
        if task.kind == "segmentation":
            labels = torch.stack([task.compact(p.label) for p in part if p.label is not None]).to(device)
            scores += segmentation_scores(logits, labels, of, task, name, distances=distances)
        else:
            scores += classification_scores(logits, [p.class_index for p in part], of, task, name)
    return scores


def _loss(task: Task, training: Sequence[Prepared], device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    if task.kind == "segmentation":
        from monai.losses import DiceCELoss

        return DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)  # type: ignore[no-any-return]
    # A rare class weighs as much as a common one, in every arm alike.
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
    images = torch.stack([_plain(s["image"]) for s in samples]).to(device)
    if "label" in samples[0]:
        return images, torch.stack([_plain(s["label"]) for s in samples]).to(device, torch.int64)
    return images, torch.tensor([s["target"] for s in samples], device=device)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Augment on one thread: on volumes this small, threads that wait for each other cost up to 30 times the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _plain(value: Any) -> Tensor:
    """Take MONAI's metadata off: networks are faster without it."""
    tensor: Tensor = value.as_tensor() if hasattr(value, "as_tensor") else value
    return tensor
