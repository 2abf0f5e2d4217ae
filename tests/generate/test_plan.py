from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from medgan.data.cohort import Case
from medgan.errors import InputFault
from medgan.generate.plan import Plan, plan_orders


def case(name: str, patient: str, class_name: str | None = None) -> Case:
    return Case(name, patient, (Path(name),), class_name=class_name)


CASES = [
    case("a1", "a", "small"),
    case("a2", "a", "small"),
    case("b", "b", "small"),
    case("c", "c", "small"),
    case("d", "d", "large"),
    case("e", "e"),
]


def by(plan: Plan, what: str) -> Counter[str | None]:
    counts: Counter[str | None] = Counter()
    for source, share in zip(plan.sources, plan.shares, strict=True):
        counts[getattr(source, what)] += share
    return counts


def test_siblings_are_spread_evenly_over_the_sources() -> None:
    assert plan_orders(CASES, 14, 0).shares == (3, 3, 2, 2, 2, 2)


def test_balance_makes_as_many_of_each_class_and_none_of_no_class() -> None:
    plan = plan_orders(CASES, 11, 0, balance=True)
    assert by(plan, "class_name") == {"small": 5, "large": 6, None: 0}
    assert len(plan) == 11


def test_no_patient_has_more_than_the_largest_share() -> None:
    plan = plan_orders(CASES, 100, 0, max_share=0.2)
    assert by(plan, "patient_id") == {"a": 20, "b": 20, "c": 20, "d": 20, "e": 20}
    assert plan.shares[:2] == (10, 10)


def test_balance_and_largest_share_hold_together() -> None:
    cases = [*CASES, case("f", "f", "large"), case("g", "g", "large")]
    plan = plan_orders(cases, 60, 0, balance=True, max_share=0.2)
    assert by(plan, "class_name") == {"small": 30, "large": 30, None: 0}
    assert max(by(plan, "patient_id").values()) <= 12


def test_a_share_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(InputFault, match="MAX_SHARE: only 50 of 100"):
        plan_orders(CASES, 100, 0, max_share=0.1)
    with pytest.raises(InputFault, match="BALANCE"):
        plan_orders([CASES[-1]], 2, 0, balance=True)


def test_an_order_is_the_same_in_every_plan() -> None:
    few = {order.name: order for order in plan_orders(CASES, 6, 3)}
    many = {order.name: order for order in plan_orders(CASES, 60, 3, max_share=0.2)}
    assert all(many[name] == order for name, order in few.items())


def test_shards_are_the_plan_and_do_not_overlap() -> None:
    plan = plan_orders(CASES, 23, 0)
    parts = [order.name for number in range(1, 6) for order in plan.orders(*plan.shard(number, 5))]
    assert parts == [order.name for order in plan]
    assert len(set(parts)) == 23


def test_a_plan_of_a_million_is_not_held_in_memory() -> None:
    plan = plan_orders(CASES, 1_000_000, 0)
    assert len(plan) == 1_000_000
    assert next(plan.orders(999_999)).name == "e_sibling166665"
