"""MONAI transforms that replace a volume by a learned sibling of the same class."""

from medgan.transforms.array import RandDAGAN
from medgan.transforms.balance import balanced_prob, balanced_weights
from medgan.transforms.dictionary import RandDAGAND, RandDAGANd, RandDAGANDict
from medgan.transforms.loader import SampleDataLoader

__all__ = [
    "RandDAGAN",
    "RandDAGAND",
    "RandDAGANDict",
    "RandDAGANd",
    "SampleDataLoader",
    "balanced_prob",
    "balanced_weights",
]
