"""The control ``self-training``: pseudo-labels on unlabelled training scans, without a generator.

A generator that was trained on unlabelled scans has seen more than the labelled cases; a gain over an arm that has not
may come from those scans alone. So a teacher, trained as the arm is but for this part, labels them, and a student of
the same architecture, seed and steps is trained on the labelled and the pseudo-labelled cases together.

Source: Lee, Pseudo-Label, ICML workshop on challenges in representation learning 2013.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from medgan.comparison.scoring import Task
from medgan.data.loaders import Prepared

# A segmentation is kept whatever its confidence: leaving out hard patients would make the student's cases easier than
# those of the test. A class that is wrong, though, is wrong for the whole volume.
THRESHOLD = {"segmentation": 0.0, "classification": 0.9}


@torch.no_grad()
def pseudo_label(
    network: nn.Module, unlabelled: Sequence[Prepared], task: Task, *, threshold: float | None = None, batch: int = 8
) -> list[Prepared]:
    """Return the cases the network is sure of, with what it predicts as their label map or class.

    A class's confidence is its probability. A label map's is the mean probability of the predicted structure over the
    voxels predicted to belong to one (over all voxels, where none does): background is easy and would hide the rest.

    Args:
        network: the teacher, ``(B, C, *shape)`` to logits; put into evaluation mode and back.
        unlabelled: training cases; labels they may have are not looked at.
        task: names and values of what the network predicts.
        threshold: least confidence of a case that is kept, 0 to 1; by default 0 for segmentation (all cases) and 0.9
            for classification.
        batch: cases at a time.

    Returns:
        New cases: for segmentation with the ``label`` ``(1, *shape)`` uint8 of the cohort's label values, for
        classification with class index and the case's class name. The cases given are not changed.

    Raises:
        ValueError: the threshold is out of range.
    """
    least = THRESHOLD[task.kind] if threshold is None else threshold
    if not 0 <= least <= 1:
        raise ValueError(f"threshold must be in [0, 1], got {threshold}")
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    kept: list[Prepared] = []
    try:
        for start in range(0, len(unlabelled), batch):
            part = unlabelled[start : start + batch]
            logits = network(torch.stack([p.image for p in part]).to(device))
            probabilities = torch.softmax(logits.float(), dim=1).cpu()
            make = _with_label if task.kind == "segmentation" else _with_class
            labelled = [make(case, p, task) for case, p in zip(part, probabilities, strict=True)]
            kept += [case for case, confidence in labelled if confidence >= least]
    finally:
        network.train(training)
    return kept


def _with_label(case: Prepared, probabilities: Tensor, task: Task) -> tuple[Prepared, float]:
    """Return the case with its predicted label map, and the confidence; probabilities are ``(outputs, *shape)``."""
    highest, index = probabilities.max(dim=0)
    values = torch.tensor([0, *task.label_values], dtype=torch.uint8)
    inside = index > 0
    confidence = float(highest[inside].mean() if bool(inside.any()) else highest.mean())
    return replace(case, label=values[index][None]), confidence


def _with_class(case: Prepared, probabilities: Tensor, task: Task) -> tuple[Prepared, float]:
    """Return the case with its predicted class, and the confidence; probabilities are ``(K,)``."""
    highest, index = probabilities.max(dim=0)
    number = int(index)
    named = replace(case.case, class_name=task.class_names[number])
    return replace(case, case=named, class_index=number), float(highest)
