"""The validation score a checkpoint is chosen by: how well siblings reach patients the generator has not seen."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

from medgan.measures.distances import kernel_distance, prdc
from medgan.measures.features import FeatureSpace, volume_features
from medgan.models.deformation import corner_jacobians
from medgan.models.fields import apply_on_grid
from medgan.models.generator import Generator
from medgan.models.resampling import resample_slightly
from medgan.seeding import torch_generator

SIBLINGS = 96
BATCH = 8
NEIGHBOURS = 3
SECOND_DRAWS = 16
"""Sources that meet a second noise."""
NOISE_SHARE = 0.1
"""Of the distance of two patients: siblings of one source that lie closer together are one sibling."""


class Validator:
    """Scores a generator on held-out patients.

    The score is ``reach + change + coverage + precision``, each 0 to about 1 in an offline feature space fitted to
    the training volumes:

    * reach – by how much siblings bring the nearest training neighbour closer to a held-out volume (what a downstream
      model gains from them: training data nearer to the unseen); 0 for copies;
    * change – how far a sibling is from its source, next to how far another patient of its class is, at most 1. Without
      it a generator that does next to nothing scores best: it covers and stays precise;
    * coverage – share of held-out volumes that have a sibling in their neighbourhood (Naeem et al. 2020);
    * precision – share of siblings inside the real volumes' manifold (Kynkäänniemi et al. 2019).

    It is 0 where the noise is ignored, whatever else holds: where two siblings of one source lie apart, on average over
    16 sources, by less than a tenth (:data:`NOISE_SHARE`) of what lies between two patients of a class (``noise`` is
    that share). A generator that knows one plausible sibling of each volume would score as one that knows many.

    Real volumes are interpolated once, as siblings are, so that blur is not what is measured.

    Args:
        train: ``(N, C, *shape)`` training volumes.
        train_class: ``(N,)``.
        held_out: ``(M, C, *shape)`` validation volumes.
        seed: of the noise and of the sources' order: the same for every validation of a run.

    Raises:
        ValueError: fewer than three training volumes, or all alike: they span no feature space.
    """

    def __init__(self, train: Tensor, train_class: Tensor, held_out: Tensor, seed: int) -> None:
        self.train = train
        self.train_class = train_class
        self.seed = seed
        rng = torch_generator(seed, "validation", "blur")
        features = volume_features(resample_slightly(train.cpu(), rng))
        self.space = FeatureSpace().fit(features)
        self.real = self.space.transform(features)
        self.held = self.space.transform(volume_features(resample_slightly(held_out.cpu(), rng)))
        self.apart = _distance_of_patients(self.real, train_class.cpu().numpy())

    @torch.no_grad()
    def __call__(self, generator: Generator) -> dict[str, float]:
        """Return the figures; ``score`` is the one to maximise."""
        siblings, sources, folds = self._siblings(generator)
        fake = self.space.transform(volume_features(siblings))
        fake, second = fake[: len(sources)], fake[len(sources) :]
        real, held = self.real, self.held
        k = min(NEIGHBOURS, len(held) - 1, len(fake) - 1)
        figures = prdc(held, fake, k=k) if k >= 1 else {"coverage": 0.0}
        precision = prdc(real, fake, k=min(NEIGHBOURS, len(real) - 1))["precision"]
        reach = _reach(real, held, fake)
        change = min(1.0, float(np.linalg.norm(fake - real[sources], axis=1).mean()) / self.apart)
        noise = float(np.linalg.norm(fake[: len(second)] - second, axis=1).mean()) / self.apart
        return {
            "score": reach + change + figures["coverage"] + precision if noise >= NOISE_SHARE else 0.0,
            "reach": reach,
            "change": change,
            "coverage": figures["coverage"],
            "precision": precision,
            "noise": noise,
            "kernel_distance": kernel_distance(np.concatenate([real, held]), fake, kernel="rbf"),
            "fold_share": folds,
        }

    def _siblings(self, generator: Generator) -> tuple[Tensor, NDArray[np.int64], float]:
        """Return siblings, the training volumes they were made of, and the share of folded voxels.

        More siblings than sources are returned: the first sources' of a second noise follow the others.
        """
        rng = torch_generator(self.seed, "validation")
        count = min(SIBLINGS, 4 * len(self.train))
        sources = torch.randperm(len(self.train), generator=rng).repeat(-(-count // len(self.train)))[:count]
        second = min(SECOND_DRAWS, count)
        z = torch.cat([torch.randn(n, generator.config.latent, generator=rng) for n in (count, second)])
        again = torch.cat([sources, sources[:second]])
        parts, folded = [], []
        for rows in torch.split(torch.arange(count + second), BATCH):
            unit = self.train[again[rows]]
            fields = generator(unit, z[rows].to(unit.device), self.train_class[again[rows]])
            fake, displacement = apply_on_grid(fields, unit)
            parts.append(fake.cpu())
            folded.append((corner_jacobians(displacement) <= 0).float().mean().cpu())
        return torch.cat(parts), sources.numpy(), float(torch.stack(folded).mean())


def _reach(train: NDArray[np.float64], held_out: NDArray[np.float64], siblings: NDArray[np.float64]) -> float:
    """Return the mean relative shortening of a held-out volume's distance to its nearest neighbour."""
    before = cdist(held_out, train).min(axis=1)
    after = np.minimum(before, cdist(held_out, siblings).min(axis=1))
    return float(np.mean(1 - after / np.maximum(before, 1e-12)))


def _distance_of_patients(real: NDArray[np.float64], classes: NDArray[np.int64]) -> float:
    """Return the mean distance of two volumes of one class; of any two, where no class has two."""
    distances = cdist(real, real)
    others = ~np.eye(len(real), dtype=bool)
    alike = others & (classes[:, None] == classes[None, :])
    return max(float(distances[alike if alike.any() else others].mean()), 1e-12)


def interpolated_features(volumes: Tensor, seed: int) -> NDArray[np.float64]:
    """Return the features of real volumes ``(N, C, *shape)``, interpolated once as siblings are."""
    return volume_features(resample_slightly(volumes.cpu(), torch_generator(seed, "critic")))
