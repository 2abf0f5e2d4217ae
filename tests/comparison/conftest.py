from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cubes import study_tree, write_cohort

from medgan.comparison.engines import attempts
from medgan.config import Config, parse_config


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cubes"))


@pytest.fixture(scope="session")
def config(manifest: Path) -> Callable[..., Config]:
    """The configuration of a study of cubes, with changes of its ``data`` (a mapping) and ``compare`` (by name)."""
    tree: Callable[..., dict[str, Any]] = partial(study_tree, manifest)
    return lambda data=None, **changes: parse_config(tree(data, **changes))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arms of the runs that this process makes, as they begin."""
    arms: list[str] = []
    run = attempts.execute

    def count(material: Any, cell: Any, *rest: Any) -> Any:
        arms.append(cell.arm)
        return run(material, cell, *rest)

    monkeypatch.setattr(attempts, "execute", count)
    return arms
