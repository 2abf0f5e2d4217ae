from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medgan.checkpoint import Origin, save_checkpoint
from medgan.config import Config
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
