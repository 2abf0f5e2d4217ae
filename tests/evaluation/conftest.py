from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from medgan.checkpoint import Origin, save_checkpoint
from medgan.config import Config
from medgan.data.cohort import Case
from medgan.data.loaders import Prepared
from medgan.models.generator import Generator
from medgan.sampler import Sampler, load

SHAPE = (16, 16, 16)


@pytest.fixture(scope="session")
def make_identity(tiny_config: Config) -> Callable[..., Path]:
    """Write a generator whose every sibling is its source."""

    def make(folder: Path, cases: list[dict[str, str]] | None = None, digest: str = "0") -> Path:
        generator = Generator(tiny_config.model, 1, 2, SHAPE)
        with torch.no_grad():
            for head in (generator.velocity, generator.appearance, generator.affine):
                head.weight.zero_()
        origin = Origin(("small", "large"), {1: "ball"}, 1, cases or [], digest)
        save_checkpoint(folder, generator.state_dict(), tiny_config, origin)
        return folder

    return make


@pytest.fixture(scope="session")
def identity(make_identity: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Sampler:
    return load(make_identity(tmp_path_factory.mktemp("identity")))


@pytest.fixture(scope="session")
def balls() -> Callable[[int, int], list[Prepared]]:
    """Make cases with a ball, by turns small and large (the class), at another place in each."""

    def make(count: int, first: int) -> list[Prepared]:
        prepared = []
        for i in range(first, first + count):
            rng = np.random.default_rng(i)
            grid = np.indices(SHAPE) - np.reshape(7.5 + rng.uniform(-2, 2, 3), (3, 1, 1, 1))
            mask = (grid**2).sum(axis=0) <= (5.5 if i % 2 else 3.0) ** 2
            image = torch.from_numpy(0.2 + 0.6 * mask + rng.normal(0, 0.02, SHAPE)).float()[None]
            label = torch.from_numpy(mask.astype(np.uint8))[None]
            name = ("small", "large")[i % 2]
            case = Case(f"case{i:03d}", f"patient{i:03d}", (Path("image.nii"),), class_name=name)
            prepared.append(Prepared(case, image, label, i % 2))
        return prepared

    return make
