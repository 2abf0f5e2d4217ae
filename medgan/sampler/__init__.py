"""The one way to run a generator: (volume, condition, seed) → sibling volume, label map, parameters.

A sibling is a function of (checkpoint, volume, class, strength, seed, index) alone: volumes go through the network one
by one, so it is the same whatever else is made before, after or beside it.
"""

from medgan.sampler.quality import MAX_ATTEMPTS, Attempt, attempt_at, attempt_number, first_passing, require_gate
from medgan.sampler.recipe import Parameters, Recipe
from medgan.sampler.render import Part, channel_first, render, render_label, render_pair, render_parts
from medgan.sampler.run import Sampler, Sibling, known_affine, load
from medgan.sampler.view import View
from medgan.sampler.warp import to_dtype

__all__ = [
    "MAX_ATTEMPTS",
    "Attempt",
    "Parameters",
    "Part",
    "Recipe",
    "Sampler",
    "Sibling",
    "View",
    "attempt_at",
    "attempt_number",
    "channel_first",
    "first_passing",
    "known_affine",
    "load",
    "render",
    "render_label",
    "render_pair",
    "render_parts",
    "require_gate",
    "to_dtype",
]
