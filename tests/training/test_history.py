from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from medgan.data.loaders import Prepared
from medgan.training.history import PastFakes, with_past
from medgan.training.pairs import PairSampler

SOURCES, BATCH, CAPACITY, WARM_UP = 120, 6, 32, 20


def fakes_of(sources: list[int], step: int) -> Tensor:
    """Siblings that say of whom and when they are: ``(B, 1, 1, 1, 2)``."""
    return torch.tensor([[s, step] for s in sources], dtype=torch.float32).reshape(-1, 1, 1, 1, 2)


@pytest.fixture(scope="module")
def sampler(balls: Callable[[int, int], list[Prepared]]) -> PairSampler:
    return PairSampler(balls(SOURCES, 0), ("small", "large"), "here")


def meetings(sampler: PairSampler, steps: int, pool: PastFakes, start: int = 0) -> list[tuple[int, int, int]]:
    """Return (step, source, step of the past fake) of every row that met one."""
    met = []
    for step in range(start, start + steps):
        rng = torch.Generator().manual_seed(step)
        pairs = sampler.draw(BATCH, rng)
        mixed, past = with_past(pairs, pool, sampler, rng)
        if past is None:
            assert mixed is pairs
        else:
            assert torch.equal(mixed.source[~past.rows], pairs.source[~past.rows])
            assert torch.equal(mixed.partner[~past.rows], pairs.partner[~past.rows])
            for row in past.rows.nonzero().flatten().tolist():
                source, made = past.fakes[row].flatten().int().tolist()
                assert source == mixed.source[row]
                met.append((step, source, made))
            for source, partner, stranger in zip(mixed.source, mixed.partner, mixed.stranger, strict=True):
                assert sampler.classes[source] == sampler.classes[partner] != sampler.classes[stranger]
                assert sampler.patients[source] != sampler.patients[partner]
        pool.admit(pairs.source.tolist(), fakes_of(pairs.source.tolist(), step), CAPACITY, rng)
        assert len(pool.fakes) == len(pool.sources) <= CAPACITY
    return met


def test_half_of_the_rows_meet_fakes_of_many_earlier_steps_and_sources(sampler: PairSampler) -> None:
    steps = 300
    met = [m for m in meetings(sampler, steps, PastFakes()) if m[0] >= WARM_UP]
    assert len(met) / (BATCH * (steps - WARM_UP)) == pytest.approx(0.5, abs=0.05)
    ages = [step - made for step, _, made in met]
    assert min(ages) >= 1
    assert sum(ages) / len(ages) > 5
    assert max(ages) > 30
    # Not only those of the first steps, nor only a few.
    assert len({source for _, source, _ in met}) > 0.9 * SOURCES
    assert max(made for _, _, made in met) > steps - 10


def test_no_row_of_a_batch_meets_the_fake_of_another() -> None:
    pool = PastFakes()
    pool.admit([3, 4, 5], fakes_of([3, 4, 5], 0), CAPACITY, torch.Generator())
    for seed in range(20):
        rows, places = pool.draw(BATCH, torch.Generator().manual_seed(seed))
        assert len(set(places)) == len(places) == int(rows.sum()) <= len(pool.fakes) == 2


def test_a_pool_goes_on_where_it_was_left(sampler: PairSampler) -> None:
    whole, first, second = PastFakes(), PastFakes(), PastFakes()
    expected = meetings(sampler, 60, whole)
    met = meetings(sampler, 30, first)
    second.restore(first.tensors())
    assert met + meetings(sampler, 30, second, start=30) == expected
    assert PastFakes().tensors() == {}
    second.restore({})
    assert second.fakes == second.sources == []
