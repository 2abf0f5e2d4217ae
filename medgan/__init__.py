"""Class-preserving GAN augmentation of 3-D CT and MRI.

``medgan.load(checkpoint)`` gives a sampler; ``medgan.transforms`` the MONAI transforms. Importing the package itself
does no work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medgan.sampler import Sampler, load

__version__ = "0.1.0"
__all__ = ["Sampler", "__version__", "load"]


def __getattr__(name: str) -> object:
    if name in ("Sampler", "load"):
        from medgan import sampler

        return getattr(sampler, name)
    raise AttributeError(f"module 'medgan' has no attribute {name!r}")
