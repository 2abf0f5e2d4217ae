from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medgan.data.cohort import Case
from medgan.data.loaders import Prepared
from medgan.evaluation import gallery
from medgan.evaluation.agreement import Agreement
from medgan.evaluation.diversity import similarity_for
from medgan.evaluation.figures import Measurements
from medgan.evaluation.gallery import draw_gallery, usual_sibling, worst_siblings
from medgan.evaluation.privacy import linked
from medgan.evaluation.real import patients_of
from medgan.evaluation.siblings import Measured, OnGrid, case_seed, make_sibling, measure_siblings
from medgan.generate.plan import plan_orders
from medgan.sampler import Sampler, load

SHAPE = (16, 16, 16)


@pytest.fixture(scope="module")
def sources() -> list[Prepared]:
    rng = np.random.default_rng(0)
    prepared = []
    for i in range(5):
        label = np.zeros(SHAPE, dtype=np.uint8)
        label[4 : 9 + i % 2, 4:10, 5:11] = 1
        image = torch.from_numpy(0.2 + 0.5 * label + rng.normal(0, 0.05, SHAPE)).float()
        case = Case(f"case{i}", f"patient{i}", (Path("image.nii"),), class_name="small")
        prepared.append(Prepared(case, image[None], torch.from_numpy(label)[None] if i else None, 0))
    return prepared


def measured_of(sampler: Sampler, sources: list[Prepared]) -> Measured:
    return measure_siblings(sampler, sources, count=3, seed=0, labels=[1, 7], similarity=similarity_for(SHAPE))


def test_the_identity_has_no_spread_keeps_everything_and_is_always_linked(
    identity: Sampler, sources: list[Prepared]
) -> None:
    measured = measured_of(identity, sources)
    assert linked(measured.nearest, patients_of(sources)).all()
    assert measured.correlation == pytest.approx(np.ones((5, 3)))
    for spread in (measured.shape_spread, measured.appearance_spread, measured.volume_spread):
        assert spread == pytest.approx(np.zeros(5), abs=1e-5)
    assert measured.displacement == pytest.approx(np.zeros((5, 3)), abs=1e-5)
    assert measured.similarity == pytest.approx(np.ones(5), abs=1e-3)
    assert measured.jacobian_min == pytest.approx(np.ones((5, 3)), abs=1e-5)
    assert not measured.fold_share.any()
    assert np.isnan(measured.ratios[1][0]).all()
    assert (measured.ratios[1][1:] == 1).all()
    assert (measured.components_after[1][1:] == measured.components_before[1][1:, None]).all()
    assert np.isnan(measured.ratios[7]).all()


def test_a_generator_that_varies_has_spread_in_shape_and_appearance(
    checkpoint_folder: Path, sources: list[Prepared]
) -> None:
    measured = measured_of(load(checkpoint_folder), sources)
    assert (measured.shape_spread > 0.01).all()
    assert (measured.appearance_spread > 1e-4).all()
    assert (measured.displacement > 0).all()
    assert len(np.unique(measured.features.reshape(15, -1), axis=0)) == 15
    assert measured.jacobian_min.shape == measured.nearest.shape == (5, 3)


def test_a_sibling_is_the_one_of_generate_whatever_else_is_made(
    checkpoint_folder: Path, sources: list[Prepared]
) -> None:
    sampler = load(checkpoint_folder)
    assert case_seed(5, "case1") == next(plan_orders([sources[1].case], 1, 5).orders()).seed
    made = make_sibling(sampler, sources[1], 2, seed=5)
    expected = sampler.sample(
        sources[1].image, sources[1].label, n=3, seed=case_seed(5, "case1"), class_name="small", input_range=(0, 1)
    )[2]
    assert torch.equal(made.image, expected.volume)
    assert made.label is not None
    assert torch.equal(made.label, expected.label)
    assert not torch.equal(made.image, make_sibling(sampler, sources[1], 1, seed=5).image)


def test_sources_compared_in_portions_are_the_same_as_at_once(
    checkpoint_folder: Path, sources: list[Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measured_of(load(checkpoint_folder), sources)
    monkeypatch.setattr("medgan.evaluation.siblings.COMPARED_AT_ONCE", 4)
    monkeypatch.setattr("medgan.evaluation.siblings.SIMILARITY_PAIRS", 3)
    parts = measured_of(load(checkpoint_folder), sources)
    assert parts.correlation == pytest.approx(whole.correlation)
    assert np.array_equal(parts.nearest, whole.nearest)
    assert np.isfinite(parts.similarity).tolist() == [True, False, True, False, True]


def make_measured(**changed: object) -> Measured:
    empty = np.zeros((2, 2))
    names = Measured.__dataclass_fields__
    return Measured(**{name: changed.get(name, {} if "dict" in str(f.type) else empty) for name, f in names.items()})


def test_the_worst_siblings_are_found_and_named() -> None:
    ratios = {1: np.array([[1.0, 0.4], [1.1, 1.2]]), 2: np.array([[np.nan, np.nan], [1.0, 1.9]])}
    measured = make_measured(jacobian_min=np.array([[0.5, 0.6], [0.2, 0.3]]), ratios=ratios)
    worst = worst_siblings(Measurements(measured), {1: "head", 2: "tail"})
    assert list(worst) == [(1, 0), (0, 1), (1, 1)]
    assert "0.20" in worst[1, 0][0]
    assert "head: 0.40" in worst[0, 1][0]
    assert "tail: 1.90" in worst[1, 1][0]


def test_a_sibling_that_is_worst_twice_is_shown_once() -> None:
    measured = make_measured(jacobian_min=np.array([[0.5, 0.1]]), ratios={1: np.array([[1.0, 0.4]])})
    assert [len(reasons) for reasons in worst_siblings(Measurements(measured), {}).values()] == [2, 1]


def test_without_labels_only_the_jacobian_has_a_worst() -> None:
    assert list(worst_siblings(Measurements(make_measured(jacobian_min=np.array([[0.5, 0.1]]))), {})) == [(0, 1)]


def test_siblings_that_a_network_disbelieves_and_that_lie_far_away_come_first() -> None:
    measured = make_measured(jacobian_min=np.array([[0.5, 0.6], [0.2, 0.3]]))
    doubts = (
        Agreement({}, np.array([[0.9, np.nan], [0.4, 0.8]]), "segmentation"),
        Agreement({}, np.array([[0.1, 0.9], [np.nan, np.nan]]), "classification"),
    )
    worst = worst_siblings(Measurements(measured, doubts, np.array([[1.0, 7.0], [2.0, 3.0]])), {})
    assert list(worst) == [(1, 0), (0, 0), (0, 1)]
    assert "Dice 0.40" in worst[1, 0][0]
    assert "Jacobian" in worst[1, 0][1]
    assert "probability 0.10" in worst[0, 0][0]
    assert "farthest" in worst[0, 1][0]


def test_the_gallery_shows_the_worst_siblings_first_then_a_usual_one(
    identity: Sampler, sources: list[Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def remember(sampler: Sampler, source: Prepared, index: int, seed: int, strength: float) -> OnGrid:
        drawn.append(f"{source.case.case_id}, sibling {index + 1}")
        return make_sibling(sampler, source, index, seed, strength)

    monkeypatch.setattr(gallery, "make_sibling", remember)
    monkeypatch.setattr(gallery, "_png", lambda *_: b"")
    measured = make_measured(
        jacobian_min=np.array([[0.5, 0.6], [0.7, 0.1]]),
        ratios={1: np.array([[1.0, 0.4], [1.1, 1.2]])},
        displacement=np.array([[2.0, 3.0], [4.0, 1.0]]),
    )
    doubt = Agreement({}, np.array([[0.9, 0.8], [0.3, 0.9]]), "classification")
    pictures = draw_gallery(
        identity, sources[:2], Measurements(measured, (doubt,)), {1: "ball"}, siblings=2, seed=0, strength=1.0
    )
    starts = [
        ("Class least believed", "case1, sibling 1"),
        ("Lowest Jacobian", "case1, sibling 2"),
        ("Most shrunken label", "case0, sibling 2"),
        ("A usual deformation", "case0, sibling 1"),
        ("Sources and their siblings", ""),
        ("Source and sibling in one board", ""),
    ]
    assert len(pictures) == len(starts)
    for picture, (start, shown) in zip(pictures, starts, strict=True):
        assert picture.title.startswith(start)
        assert shown in picture.title
    assert drawn[:4] == [shown for _, shown in starts[:4]]


def test_other_volumes_are_correlated_with_and_are_no_sources(identity: Sampler, sources: list[Prepared]) -> None:
    measured = measure_siblings(
        identity, sources[:3], count=2, seed=0, labels=[], similarity=similarity_for(SHAPE), others=sources[3:]
    )
    assert measured.correlations.shape == (3, 2, 5)
    assert measured.nearest.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert measured.correlations[:, :, 3:].max() < 1


def test_the_usual_sibling_has_the_median_displacement() -> None:
    assert usual_sibling(make_measured(displacement=np.array([[9.0, 1.0, 5.0], [4.0, 7.0, 6.0]]))) == (0, 2)
