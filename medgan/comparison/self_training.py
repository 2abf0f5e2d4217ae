"""Pseudo-labels on unlabelled training scans: the control ``self-training``, and the consensus of a scan's siblings.

A generator that was trained on unlabelled scans has seen more than the labelled cases; a gain over an arm that has not
may come from those scans alone. So a teacher, trained as the arm is but for this part, labels them, and a student of
the same architecture, seed and steps is trained on the labelled and the pseudo-labelled cases together.

``self-training`` takes what the teacher says of the scan itself. ``consensus`` asks it about siblings of the scan too,
brings each answer back to the scan by the inverse deformation, and takes the mean: errors that hang on how the scan
happens to lie and to look cancel. ``random-consensus`` is its control, with random fields of the generator's
magnitudes in place of siblings.

Source: Lee, Pseudo-Label, ICML workshop on challenges in representation learning 2013; Radosavovic et al., Data
distillation, CVPR 2018 (one teacher, several transformed copies).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from medgan.comparison.scoring import Task
from medgan.data.loaders import Prepared
from medgan.sampler import Recipe, render

Predict = Callable[[Sequence[Prepared]], Tensor]
"""Cases to ``(B, outputs, *shape)`` probabilities, or ``(B, K)`` for classification."""
Recipes = Callable[[Prepared], Sequence[Recipe]]
"""A case to the recipes of its siblings."""

# A segmentation is kept whatever its confidence: leaving out hard patients would make the student's cases easier than
# those of the test. A class that is wrong, though, is wrong for the whole volume.
THRESHOLD = {"segmentation": 0.0, "classification": 0.9}


def pseudo_label(
    predict: Predict, unlabelled: Sequence[Prepared], task: Task, *, threshold: float | None = None, batch: int = 8
) -> list[Prepared]:
    """Return the cases the teacher is sure of, with what it predicts as their label map or class.

    A class's confidence is its probability. A label map's is the mean probability of the predicted structure over the
    voxels predicted to belong to one (over all voxels, where none does): background is easy and would hide the rest.

    Args:
        predict: the teacher, :func:`plain_predictions` or :func:`consensus_predictions`.
        unlabelled: training cases; labels they may have are not looked at.
        task: names and values of what is predicted.
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
    make = _with_label if task.kind == "segmentation" else _with_class
    kept: list[Prepared] = []
    for start in range(0, len(unlabelled), batch):
        part = unlabelled[start : start + batch]
        labelled = [make(case, p, task) for case, p in zip(part, predict(part).cpu(), strict=True)]
        kept += [case for case, confidence in labelled if confidence >= least]
    return kept


def plain_predictions(network: nn.Module) -> Predict:
    """Return what a network says of cases as they are; it is put into evaluation mode for it, and back."""
    return lambda cases: _probabilities(network, [case.image for case in cases])


def consensus_predictions(network: nn.Module, recipes: Recipes, mode: str = "bilinear") -> Predict:
    """Return the mean of what a network says of a case and of its siblings, brought back by φ⁻¹.

    Args:
        network: as in :func:`plain_predictions`.
        recipes: makes the siblings of a case.
        mode: interpolation of the siblings, as in the arm's training.
    """

    def of_case(case: Prepared) -> Tensor:
        made = recipes(case)
        images = [case.image, *(render(recipe, case.image, mode) for recipe in made)]
        first, *others = _probabilities(network, images).cpu()
        if first.ndim > 1:
            others = [recipe.unwarp(p) for recipe, p in zip(made, others, strict=True)]
        return torch.stack([first, *others]).mean(dim=0)

    return lambda cases: torch.stack([of_case(case) for case in cases])


@torch.no_grad()
def _probabilities(network: nn.Module, images: Sequence[Tensor]) -> Tensor:
    training = network.training
    network.eval()
    try:
        logits = network(torch.stack(list(images)).to(next(network.parameters()).device))
    finally:
        network.train(training)
    return torch.softmax(logits.float(), dim=1)


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
