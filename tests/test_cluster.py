from __future__ import annotations

import sys

import pytest

from medgan.cluster import import_ray
from medgan.errors import InputFault


def test_a_missing_ray_is_a_fault_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputFault, match=r"--engine: RAY_MISSING: .*pip install .*--engine local"):
        import_ray()


def test_ray_is_given_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = object()
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert import_ray() is ray
