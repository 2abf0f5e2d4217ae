"""Randomness as a function of names: the same (seed, purpose, index) always gives the same stream.

Nothing here touches a global generator, so a stream does not depend on what was drawn before it.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def derive_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed that is a function of ``seed`` and ``names`` alone.

    Args:
        seed: the user's seed.
        names: what the stream is for, e.g. ``("step", 12)`` or ``("patient", "p07")``; compared by ``str``.
    """
    text = "\x1f".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def torch_generator(seed: int, *names: object) -> torch.Generator:
    """Return a CPU ``torch.Generator`` for the stream ``(seed, *names)``."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


def numpy_generator(seed: int, *names: object) -> np.random.Generator:
    """Return a NumPy generator for the stream ``(seed, *names)``."""
    return np.random.default_rng(derive_seed(seed, *names))
