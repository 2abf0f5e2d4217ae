"""Which siblings are made of which sources: decided before the first is made."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from medgan.checkpoint import Checkpoint
from medgan.data.cohort import Case, Cohort
from medgan.data.split import content_hash
from medgan.errors import InputFault
from medgan.seeding import derive_seed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """One sibling to make.

    Attributes:
        case: the source.
        index: number of the sibling of that source.
        seed: of the source's noise, a function of the user's seed and the case.
        name: file name without ending.
    """

    case: Case
    index: int
    seed: int
    name: str


def choose_sources(cohort: Cohort, checkpoint: Checkpoint, which: str, class_name: str | None = None) -> list[Case]:
    """Return the cases siblings are made of.

    Args:
        cohort: where from.
        checkpoint: knows the cases it was trained on.
        which: ``"training"`` – of a cohort the generator was trained on, only the cases it has seen (recognised by
            their bytes, whatever their names), so that no sibling of a validation or test patient slips into a
            training set; of any other cohort, all. ``"all"`` – all in any case.
        class_name: only cases of this class.

    Raises:
        InputFault: nothing is left.
    """
    cases = sorted(cohort.cases, key=lambda case: case.case_id)
    if which == "training":
        seen = {case["content_sha256"] for case in checkpoint.origin.training_cases}
        known = [case for case in cases if content_hash(case) in seen]
        if not known:
            logger.info("sources: all %d cases; the generator was trained on none of them", len(cases))
        else:
            logger.info("sources: the %d of %d cases that the generator was trained on", len(known), len(cases))
            cases = known
    if class_name is not None:
        cases = [case for case in cases if case.class_name == class_name]
    if not cases:
        raise InputFault(
            cohort.source, "NO_SOURCES", "no case is left to make siblings of", "check --sources and --class"
        )
    return cases


def plan_orders(sources: Sequence[Case], count: int, seed: int) -> list[Order]:
    """Spread ``count`` siblings evenly over the sources; siblings of one source are neighbours.

    A sibling's seed depends on the user's seed and its source alone: more siblings, other sources or another order
    never change it.
    """
    orders = []
    for position, case in enumerate(sources):
        share = count // len(sources) + (position < count % len(sources))
        case_seed = derive_seed(seed, "generate", case.case_id)
        orders += [Order(case, index, case_seed, f"{case.case_id}_sibling{index:04d}") for index in range(share)]
    return orders
