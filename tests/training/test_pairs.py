from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from medgan.data.cohort import Case
from medgan.data.loaders import Prepared
from medgan.errors import InputFault
from medgan.models.resampling import resample_slightly
from medgan.training.augmentation import augment_pair
from medgan.training.pairs import PairSampler

IMAGE = torch.zeros(1, 2, 2, 2)


def prepared(*rows: tuple[str, int]) -> list[Prepared]:
    return [
        Prepared(Case(f"c{i}", patient, (Path("x"),)), IMAGE, None, group) for i, (patient, group) in enumerate(rows)
    ]


def test_partners_are_other_patients_of_the_class_and_strangers_of_another_class() -> None:
    cases = prepared(("a", 0), ("a", 0), ("b", 0), ("c", 1), ("d", 1), ("e", -1), ("f", -1))
    pairs = PairSampler(cases, ["x", "y"], "cohort").draw(400, torch.Generator().manual_seed(0))
    rows = zip(
        pairs.source.tolist(), pairs.partner.tolist(), pairs.stranger.tolist(), pairs.has_stranger.tolist(), strict=True
    )
    for source, partner, stranger, has_stranger in rows:
        assert cases[source].case.patient_id != cases[partner].case.patient_id
        assert cases[source].class_index == cases[partner].class_index
        assert has_stranger == (cases[source].class_index >= 0)
        assert not has_stranger or cases[stranger].class_index == 1 - cases[source].class_index
    assert set(pairs.source.tolist()) == set(range(7))


def test_a_class_of_one_patient_is_left_out_by_name(caplog: pytest.LogCaptureFixture) -> None:
    cases = prepared(("a", 0), ("b", 0), ("c", 1), ("c", 1))
    with caplog.at_level(logging.WARNING):
        sampler = PairSampler(cases, ["x", "rare"], "cohort")
    assert "rare" in caplog.text
    assert set(sampler.draw(50, torch.Generator().manual_seed(0)).source.tolist()) == {0, 1}


def test_no_pair_at_all_is_refused() -> None:
    with pytest.raises(InputFault, match="NO_PAIRS"):
        PairSampler(prepared(("a", 0), ("b", 1)), ["x", "y"], "cohort")


def test_both_members_of_a_pair_are_augmented_alike() -> None:
    volume = torch.rand(3, 1, 8, 8, 8)
    a, b = augment_pair(volume, volume, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(a, b)
    assert (a - volume).abs().mean() > 0.01
    assert all(torch.equal(v, volume) for v in augment_pair(volume, volume, 0.0, torch.Generator().manual_seed(0)))


def test_the_augmentation_lets_the_gradient_through() -> None:
    volume = torch.rand(2, 1, 8, 8, 8, requires_grad=True)
    _, seen = augment_pair(volume.detach(), volume, 1.0, torch.Generator().manual_seed(0))
    seen.sum().backward()
    assert volume.grad is not None
    assert volume.grad.abs().sum() > 0


def test_reals_are_blurred_as_an_interpolation_blurs() -> None:
    noise = torch.randn(4, 1, 16, 16, 16)
    assert resample_slightly(noise, torch.Generator().manual_seed(0)).std() < 0.9 * noise.std()
