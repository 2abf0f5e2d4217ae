"""``min_quality``: what the critic scores too low is drawn again, the same whoever draws it, or the sample stays real.

At strength 0.3 the tiny generator's siblings of small balls pass 0.11 now and then, those of large ones never do.
"""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import LoadImage

from medgan.errors import InputFault
from medgan.sampler import Sampler, load
from medgan.sampler.quality import ATTEMPT_STRIDE, sibling_quality
from medgan.transforms import RandDAGAN, RandDAGANd
from medgan.transforms.handle import SamplerHandle
from medgan.transforms.rejections import FIRST_REPORT, RejectionCount

GATE = 0.11


def first(batch: list[dict[str, Any]]) -> dict[str, Any]:
    return batch[0]


@pytest.fixture(scope="module")
def samples(cohort_folder: Path) -> list[dict[str, Any]]:
    read = LoadImage(ensure_channel_first=True)
    names = [f"case{i:02d}" for i in range(1, 6)]
    return [
        {key: read(cohort_folder / f"{key}s" / f"{name}.nii.gz") for key in ("image", "label")} | {"case": name}
        for name in names
    ]


@pytest.fixture
def make(judged_checkpoint: Path) -> Callable[..., RandDAGANd]:
    def transform(**arguments: Any) -> RandDAGANd:
        given = {"prob": 1.0, "strength": 0.3, "seed": 4, "min_quality": GATE, **arguments}
        return RandDAGANd(["image", "label"], judged_checkpoint, **given)

    return transform


def index_of(out: dict[str, Any]) -> int | None:
    operation = out["image"].applied_operations[-1]
    return operation["extra_info"]["index"] if operation["do_transforms"] else None


def score(checkpoint: Path, image: MetaTensor, record: dict[str, Any]) -> float:
    sampler = load(checkpoint)
    critic = sampler.checkpoint.critic
    assert critic is not None
    view = sampler.view(image.as_tensor(), np.asarray(image.affine))
    return sibling_quality(critic, view, sampler.predict(view, sampler.draw(record["seed"], record["index"], 0.3)))


def test_what_comes_out_passes_or_is_the_real_sample(
    make: Callable[..., RandDAGANd], samples: Sequence[dict[str, Any]], judged_checkpoint: Path
) -> None:
    transform, redrawn, real = make(), 0, 0
    for sample in [*samples] * 3:
        out = transform(sample)
        index = index_of(out)
        if index is None:
            real += 1
            assert torch.equal(out["image"], sample["image"])
            assert torch.equal(out["label"], sample["label"])
        else:
            redrawn += index >= ATTEMPT_STRIDE
            record = out["image"].applied_operations[-1]["extra_info"]
            assert score(judged_checkpoint, sample["image"], record) >= GATE
    assert redrawn
    assert real >= 6  # the large balls, at least


def test_rejections_are_counted(make: Callable[..., RandDAGANd], samples: Sequence[dict[str, Any]]) -> None:
    transform = make()
    assert transform.rejections.rate == 0
    indices = [index_of(transform(sample)) for sample in samples]
    counted = transform.rejections
    left_real = indices.count(None)
    refused = sum(20 if index is None else index // ATTEMPT_STRIDE for index in indices)
    assert (counted.samples, counted.left_real, counted.rejected) == (len(samples), left_real, refused)
    assert counted.tries == refused + len(samples) - left_real
    assert counted.rate == refused / counted.tries


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_draw_alike_and_count_together(
    start: str, make: Callable[..., RandDAGANd], samples: Sequence[dict[str, Any]]
) -> None:
    def epoch(workers: int) -> tuple[dict[str, Any], Any]:
        transform = make()
        context = start if workers else None
        loader = DataLoader(
            Dataset(samples, transform), num_workers=workers, collate_fn=first, multiprocessing_context=context
        )
        return {out["case"]: (index_of(out), float(out["image"].sum())) for out in loader}, transform.rejections

    alone, counted = epoch(0)
    together, sums = epoch(2 if start == "fork" else 1)
    assert {case: index for case, (index, _) in alone.items()} == {case: index for case, (index, _) in together.items()}
    assert all(together[case][1] == pytest.approx(total) for case, (_, total) in alone.items())
    assert sums == counted
    assert counted.rejected > 0


def test_without_a_gate_or_with_one_that_is_passed_the_sibling_is_the_same(
    make: Callable[..., RandDAGANd], samples: Sequence[dict[str, Any]]
) -> None:
    pairs = [(make()(sample), make(min_quality=0.0)(sample)) for sample in samples]
    passed = [(gated, free) for gated, free in pairs if index_of(gated) == 0]
    assert passed
    assert all(torch.equal(gated["image"], free["image"]) for gated, free in passed)


def test_replay_and_inverse_need_no_critic(
    make: Callable[..., RandDAGANd], samples: Sequence[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    transform = make()
    for _ in range(20):
        out = transform(samples[1])
        if (index_of(out) or 0) >= ATTEMPT_STRIDE:
            break
    record = out["image"].applied_operations[-1]["extra_info"]
    assert record["index"] >= ATTEMPT_STRIDE
    monkeypatch.setattr("medgan.sampler.run.sibling_quality", lambda *_: pytest.fail("judged again"))
    plain = make(min_quality=0.0)
    again = plain.replay(samples[1], record)
    assert torch.equal(again["image"], out["image"])
    assert torch.equal(again["label"], out["label"])
    back = transform.inverse(out)["label"]
    mask, returned = samples[1]["label"] > 0, back > 0
    assert 2 * (mask & returned).sum() / (mask.sum() + returned.sum()) > 0.95


def test_prepared_siblings_pass_the_gate_once(
    make: Callable[..., RandDAGANd], samples: Sequence[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    transform = make(cache_fields=2)
    outputs = [transform(samples[k]) for k in (0, 1) for _ in range(12)]
    assert {index_of(out) for out in outputs[:12]} == {None}  # a large ball
    assert len({index_of(out) for out in outputs[12:]}) <= 2
    judged = transform.rejections.tries
    monkeypatch.setattr(Sampler, "predict", lambda *_: pytest.fail("predicted again"))
    for k in (0, 1):
        transform(samples[k])
    assert transform.rejections.tries == judged


def test_the_array_version_has_a_gate_too(judged_checkpoint: Path, samples: Sequence[dict[str, Any]]) -> None:
    transform = RandDAGAN(judged_checkpoint, prob=1.0, strength=0.3, seed=4, min_quality=0.9)
    assert torch.equal(transform(samples[0]["image"]), samples[0]["image"])
    assert transform.rejections.left_real == 1
    assert not transform._do_transform


def test_a_sample_that_never_passes_cannot_be_explained(
    make: Callable[..., RandDAGANd], samples: Sequence[dict[str, Any]]
) -> None:
    with pytest.raises(ValueError, match=r"no sibling of this sample passes min_quality = 0\.9"):
        make(min_quality=0.9).explain(samples[0])


def test_a_checkpoint_without_a_critic_is_refused(checkpoint_folder: Path, judged_checkpoint: Path) -> None:
    for checkpoints in (checkpoint_folder, [judged_checkpoint, checkpoint_folder]):
        with pytest.raises(InputFault, match=r"NO_CRITIC.*no min_quality, train it again"):
            RandDAGANd("image", checkpoints, min_quality=0.05)


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_a_gate_out_of_range_is_named(value: float, judged_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="min_quality must be in"):
        RandDAGAN(judged_checkpoint, min_quality=value)


def test_a_gate_that_refuses_most_is_said_ever_more_rarely(caplog: pytest.LogCaptureFixture) -> None:
    count = RejectionCount()
    with caplog.at_level(logging.INFO, "medgan.transforms.rejections"):
        for _ in range(4 * FIRST_REPORT):
            count.add(20, passed=False)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert f"of {FIRST_REPORT} samples left real" in caplog.records[0].message
    assert count.total().samples == 4 * FIRST_REPORT
    for other in (copy.deepcopy(count), pickle.loads(pickle.dumps(count))):
        assert other.total().samples == 0


def test_the_handle_knows_of_the_critic_after_a_pickle(judged_checkpoint: Path) -> None:
    handle = pickle.loads(pickle.dumps(SamplerHandle(judged_checkpoint)))
    assert handle.sampler.checkpoint.critic is not None
