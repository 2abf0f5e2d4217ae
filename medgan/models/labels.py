"""Label maps under a deformation: each label's share is interpolated, and the largest wins.

Nearest neighbour takes over every stair of the voxel grid and, where the deformation stretches, tears thin parts into
crumbs. Interpolating what is a share, not a number, and deciding afterwards keeps outlines smooth and makes no value
that was not there. It is how nnU-Net resamples segmentations (Isensee et al., Nature Methods 2021).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def sample_labels(label: Tensor, sample: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a label map sampled elsewhere, in the dtype it came in.

    Args:
        label: ``(C, X, Y, Z)``, any number type; every channel a map of its own.
        sample: samples float volumes ``(C, X, Y, Z)``, linearly.

    Returns:
        what ``sample`` gives a shape to; where two labels have the same share, the lower value.
    """
    values = torch.unique(label)
    if len(values) == 1:
        like = sample(label.to(torch.float32))
        return torch.full(like.shape, values[0].item(), dtype=label.dtype, device=label.device)
    largest: Tensor | None = None
    winner = torch.empty(0)
    for value in values:
        share = sample((label == value).to(torch.float32))
        if largest is None:
            largest, winner = share, torch.full(share.shape, value.item(), dtype=label.dtype, device=label.device)
            continue
        # A hair's breadth: rounding must not decide between two halves.
        more = share > largest + 1e-6
        winner = torch.where(more, value, winner)
        largest = torch.maximum(largest, share)
    return winner
