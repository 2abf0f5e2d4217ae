from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from medgan.comparison.arms import PARTS, Arm, batch_indices, build_transform, choose_indices, parse_parts
from medgan.comparison.magnitudes import measure_magnitudes
from medgan.sampler import Sampler, load

SHAPE = (16, 16, 16)
CLASSES = [0] * 9 + [1] * 3


@pytest.fixture(scope="module")
def sampler(checkpoint_folder: Path) -> Sampler:
    return load(checkpoint_folder)


def sample(class_name: str | None = "small") -> dict[str, Any]:
    image = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(3))
    label = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    label[:, 4:12, 5:12, 4:8] = 1
    return {"image": image, "label": label, "class": class_name}


def outputs(parts: str, count: int = 12, seed: int = 0, **kwargs: Any) -> list[dict[str, torch.Tensor]]:
    changes = {k: kwargs.pop(k) for k in ("probability", "strength", "min_quality", "transforms") if k in kwargs}
    arm = Arm(parts, parse_parts(parts), **changes)
    transform = build_transform(arm, task="segmentation", modality="mri", shape=SHAPE, **kwargs)
    transform.set_random_state(seed)
    made = [transform(sample()) for _ in range(count)]
    return [{key: torch.as_tensor(out[key]) for key in ("image", "label")} for out in made]


def same(first: list[dict[str, torch.Tensor]], second: list[dict[str, torch.Tensor]]) -> list[bool]:
    return [all(torch.equal(a[k], b[k]) for k in ("image", "label")) for a, b in zip(first, second, strict=True)]


def test_parts_are_read_in_the_order_written() -> None:
    assert parse_parts("classical+gan") == ("classical", "gan")
    assert parse_parts("random-deformation + classical") == ("random-deformation", "classical")
    assert all(parse_parts(part) == (part,) for part in PARTS)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("mixup", "'mixup'; known: none, classical"),
        ("classical+", "''"),
        ("", "''"),
        ("none+gan", "none stands alone"),
        ("gan+gan", "each part once"),
        ("self-training+consensus", "one teacher"),
        ("all-labels+self-training", "nothing is left for a teacher"),
    ],
)
def test_parts_that_are_none_are_refused(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        parse_parts(text)


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"probability": 1.5}, "probability"), ({"strength": -1}, "strength"), ({"parts": ("x",)}, "x")],
)
def test_an_arm_out_of_range_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Arm(**{"name": "a", "parts": ("gan",), **changes})


def test_only_generator_parts_need_a_generator() -> None:
    expected = {"gan", "identity", "random-deformation", "consensus", "random-consensus"}
    assert {part for part in PARTS if Arm(part, (part,)).needs_generator} == expected


@pytest.mark.parametrize("parts", ["none", "duplicate", "self-training", "consensus"])
def test_arms_without_transforms_leave_samples_alone(parts: str) -> None:
    assert all(same(outputs(parts), [{k: v for k, v in sample().items() if k != "class"}] * 12))


@pytest.mark.parametrize("others", ["", "classical"])
def test_identity_gives_bit_for_bit_what_the_arm_without_it_gives(others: str, sampler: Sampler) -> None:
    with_identity = outputs(f"{others}+identity".strip("+"), sampler=sampler, probability=0.7)
    without = outputs(others or "none")
    assert all(same(with_identity, without))
    if others:
        assert sum(not torch.equal(out["image"], sample()["image"]) for out in without) > 6


def test_a_sibling_replaces_its_share_of_samples(sampler: Sampler) -> None:
    made = outputs("gan", 60, sampler=sampler, probability=0.3)
    replaced = sum(not torch.equal(out["image"], sample()["image"]) for out in made)
    assert 8 <= replaced <= 28
    assert all(set(out["label"].unique().tolist()) <= {0, 1} for out in made)


def test_siblings_come_before_the_classical_transforms_which_draw_as_without_them(sampler: Sampler) -> None:
    # Where no sibling was made, the sample is that of the classical arm.
    both = outputs("classical+gan", 12, sampler=sampler)
    alike = same(both, outputs("classical", 12))
    replaced = [not torch.equal(out["image"], sample()["image"]) for out in outputs("gan", 12, sampler=sampler)]
    assert alike == [not r for r in replaced]
    assert 0 < sum(replaced) < 12


def test_the_random_control_replaces_the_samples_the_generator_replaces(sampler: Sampler) -> None:
    magnitudes = measure_magnitudes(sampler, sample()["image"][None], ["small"], 3, 0)
    control = same(outputs("random-deformation", magnitudes=magnitudes), outputs("none"))
    assert control == same(outputs("gan", sampler=sampler), outputs("none"))
    assert len(set(control)) == 2


def test_a_class_that_the_generator_does_not_know_is_unknown_to_it(sampler: Sampler) -> None:
    arm = Arm("gan", ("gan",), probability=1.0)
    transform = build_transform(arm, task="segmentation", modality="mri", shape=SHAPE, sampler=sampler)
    made = []
    for name in ("medium", None, "small"):
        transform.set_random_state(0)
        made.append(torch.as_tensor(transform(sample(name))["image"]))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_siblings_that_fall_short_of_the_arms_quality_are_not_let_pass(judged_checkpoint: Path) -> None:
    judged = load(judged_checkpoint)
    free, gated = (outputs("gan", 6, sampler=judged, probability=1.0, min_quality=least) for least in (0.0, 0.99))
    assert not any(same(free, outputs("none", 6)))
    assert all(same(gated, outputs("none", 6)))


@pytest.mark.parametrize("parts", ["gan", "random-deformation"])
def test_binary_shapes_stay_binary(parts: str, sampler: Sampler) -> None:
    magnitudes = measure_magnitudes(sampler, sample()["image"][None], ["small"], 2, 0)
    arm = Arm(parts, parse_parts(parts), probability=1.0)
    transform = build_transform(
        arm, task="classification", modality="mask", shape=SHAPE, sampler=sampler, magnitudes=magnitudes
    )
    (replace,) = [t for t in transform.transforms if hasattr(t, "mode")]
    assert replace.mode == ("label",)


def test_further_transforms_come_last_and_leave_the_streams_alone() -> None:
    flip = {"_target_": "monai.transforms.Flipd", "keys": ["image", "label"], "spatial_axis": 0}
    flipped = outputs("classical", transforms=(flip,))
    assert all(torch.equal(f["image"], o["image"].flip(1)) for f, o in zip(flipped, outputs("classical"), strict=True))


@pytest.mark.parametrize(
    ("parts", "word"), [("gan", "generator"), ("identity", "generator"), ("random-deformation", "magn")]
)
def test_an_arm_that_needs_a_generator_says_so(parts: str, word: str) -> None:
    with pytest.raises(ValueError, match=f"needs a {word}|needs a generator's {word}"):
        outputs(parts)


def test_oversample_needs_classes() -> None:
    with pytest.raises(ValueError, match="oversample needs classes"):
        outputs("oversample")


def test_order_goes_through_every_case_once_an_epoch() -> None:
    epoch = [i for step in range(3) for i in batch_indices(0, step, 6, 2)]
    assert sorted(epoch) == list(range(6))
    assert batch_indices(0, 4, 6, 2) == batch_indices(0, 4, 6, 2)
    assert sorted(batch_indices(0, 0, 3, 7)[:3]) == [0, 1, 2]
    assert batch_indices(0, 0, 50, 10) != batch_indices(1, 0, 50, 10)


@pytest.mark.parametrize("parts", ["none", "classical", "gan", "self-training"])
def test_other_arms_choose_in_the_plain_order(parts: str) -> None:
    arm = Arm(parts, (parts,))
    assert all(choose_indices(arm, 3, step, CLASSES, 5) == batch_indices(3, step, 12, 5) for step in range(9))


def test_duplicate_puts_another_case_of_the_class_in_a_share_of_places() -> None:
    arm = Arm("duplicate", ("duplicate",), probability=0.3)
    places = [
        (plain, chosen)
        for step in range(100)
        for plain, chosen in zip(batch_indices(3, step, 12, 5), choose_indices(arm, 3, step, CLASSES, 5), strict=True)
    ]
    assert all(CLASSES[plain] == CLASSES[chosen] for plain, chosen in places)
    share = sum(plain != chosen for plain, chosen in places) / len(places)
    assert 0.24 < share < 0.36
    assert choose_indices(arm, 3, 7, CLASSES, 5) == choose_indices(arm, 3, 7, CLASSES, 5)


def test_a_case_alone_in_its_class_stands_for_itself() -> None:
    arm = Arm("duplicate", ("duplicate",), probability=1.0)
    assert choose_indices(arm, 0, 0, [0, 1, 2], 3) == batch_indices(0, 0, 3, 3)


def test_oversample_draws_each_class_equally_often() -> None:
    arm = Arm("oversample", ("oversample",))
    chosen = [i for step in range(200) for i in choose_indices(arm, 1, step, CLASSES, 5)]
    assert Counter(CLASSES[i] for i in chosen)[1] == pytest.approx(500, abs=60)
    assert set(chosen) == set(range(12))
    both = Arm("both", ("oversample", "duplicate"), probability=1.0)
    mixed = [i for step in range(200) for i in choose_indices(both, 1, step, CLASSES, 5)]
    assert [CLASSES[i] for i in mixed] == [CLASSES[i] for i in chosen]
    assert all(a != b for a, b in zip(mixed, chosen, strict=True))


def test_no_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="no training cases"):
        choose_indices(Arm("none", ()), 0, 0, [], 4)


def test_pseudo_labelled_cases_get_their_share_of_every_batch() -> None:
    arm = Arm("taught", ("self-training",))
    batches = [choose_indices(arm, 0, step, [0] * 100, 8, pseudo=92, share=0.25) for step in range(46)]
    assert all(sum(i >= 8 for i in batch) == 2 for batch in batches)
    assert {i for batch in batches for i in batch} == set(range(100))
    assert all(i < 8 for i in choose_indices(arm, 0, 0, [0] * 100, 8, pseudo=92, share=0.0))
    assert choose_indices(arm, 0, 3, [0] * 8, 8) == batch_indices(0, 3, 8, 8)
