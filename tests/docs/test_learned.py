from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    import learned

    return learned


def test_directions_are_those_that_change_most_with_their_shares(learned: ModuleType) -> None:
    z = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    changes = torch.cat([3 * z[:, 2:3], z[:, :1]], dim=1) + 7
    found = learned.directions(z, changes)
    assert found.linear == pytest.approx(1, abs=1e-4)
    assert found.shares[:2].tolist() == pytest.approx([0.9, 0.1], abs=1e-3)
    assert torch.allclose(found.vectors[:2], torch.eye(5)[[2, 0]], atol=1e-3)


def test_what_is_no_function_of_the_noise_is_not_linear_in_it(learned: ModuleType) -> None:
    rng = torch.Generator().manual_seed(0)
    found = learned.directions(torch.randn(400, 5, generator=rng), torch.randn(400, 30, generator=rng))
    assert found.linear < 0.1


def test_the_affine_share_of_a_motion(learned: ModuleType) -> None:
    inside = torch.ones(6, 6, 6, dtype=torch.bool)
    places = inside.nonzero().float()
    affine = (places @ torch.tensor([[0.1, 0, 0.2], [0, -0.3, 0], [0.1, 0, 0]]) + 2).T.reshape(1, -1)
    rest = torch.zeros(1, 3, 216)
    rest[0, 0] = (places[:, 0] - 2.5).square() - 35 / 12  # no affine map has a part of it
    patient = SimpleNamespace(inside=inside)
    assert learned.affine_share(affine, patient) == pytest.approx(1, abs=1e-4)
    assert learned.affine_share(rest.flatten(1), patient) == pytest.approx(0, abs=1e-4)


def test_the_script_draws_its_pictures_and_prints_its_figures(
    learned: ModuleType,
    cohort_folder: Path,
    checkpoint_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(learned, "SAMPLES", 24)
    monkeypatch.setattr(learned, "PAIRS", 4)
    arguments = ["learned.py", str(checkpoint_folder), str(tmp_path), "--cohort", str(cohort_folder)]
    monkeypatch.setattr(sys, "argv", arguments)
    learned.main()
    names = ["noise-arithmetic.png", "noise-walk.png", "shape-appearance.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        with Image.open(tmp_path / name) as picture:
            assert picture.width == 990
            assert len(np.unique(np.asarray(picture.convert("L")))) > 50
    printed = capsys.readouterr().out
    assert "% of it is affine" in printed
    assert printed.count("linear in the noise") == printed.count("is the sum of what each does") == 2
