"""Which siblings are made of which sources: decided before the first is made."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from medgan.checkpoint import Checkpoint
from medgan.data.cohort import Case, Cohort
from medgan.data.split import content_hash
from medgan.errors import InputFault
from medgan.seeding import derive_seed

logger = logging.getLogger(__name__)

SIBLING = re.compile(r"(.+)_sibling(\d{4,})", re.DOTALL)
"""Names of orders: the source's id and the sibling's number."""


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


def choose_sources(
    cohort: Cohort,
    checkpoint: Checkpoint,
    which: str,
    class_names: Collection[str] = (),
    *,
    labelled: bool = False,
    content: Callable[[Case], str] = content_hash,
) -> list[Case]:
    """Return the cases siblings are made of.

    Args:
        cohort: where from.
        checkpoint: knows the cases it was trained on.
        which: ``"training"`` – of a cohort the generator was trained on, only the cases it has seen (recognised by
            their bytes, whatever their names), so that no sibling of a validation or test patient slips into a
            training set; of any other cohort, all. ``"all"`` – all in any case.
        class_names: only cases of these classes; empty: of any and of none.
        labelled: only cases with a label map.
        content: returns a case's content hash.

    Raises:
        InputFault: no case is of such a class, or nothing is left.
    """
    cases = sorted(cohort.cases, key=lambda case: case.case_id)
    known_names = sorted({case.class_name for case in cases if case.class_name is not None})
    if unknown := [name for name in class_names if name not in known_names]:
        remedy = f"choose of {', '.join(known_names)}" if known_names else "leave it out: no case has a class"
        raise InputFault("--class", "UNKNOWN_CLASS", f"no case of the cohort is of the class {unknown[0]!r}", remedy)
    if which == "training":
        seen = {case["content_sha256"] for case in checkpoint.origin.training_cases}
        known = [case for case in cases if content(case) in seen]
        if not known:
            logger.info("sources: all %d cases; the generator was trained on none of them", len(cases))
        else:
            logger.info("sources: the %d of %d cases that the generator was trained on", len(known), len(cases))
            cases = known
    if class_names:
        cases = [case for case in cases if case.class_name in class_names]
    if labelled and (without := sum(case.label is None for case in cases)):
        logger.info("sources: %d cases without a label map are left out: the format needs one", without)
        cases = [case for case in cases if case.label is not None]
    if not cases:
        raise InputFault(
            cohort.source, "NO_SOURCES", "no case is left to make siblings of", "check --sources and --class"
        )
    return cases


@dataclass(frozen=True)
class Plan:
    """Which siblings are to be made; the orders themselves are made as they are asked for.

    Attributes:
        sources: in order of their ids.
        shares: number of siblings of each source.
        seed: the user's.
    """

    sources: tuple[Case, ...]
    shares: tuple[int, ...]
    seed: int

    def __len__(self) -> int:
        return sum(self.shares)

    def __iter__(self) -> Iterator[Order]:
        return self.orders()

    def orders(self, start: int = 0, stop: int | None = None) -> Iterator[Order]:
        """Yield the orders from number ``start`` to before ``stop``; siblings of one source are neighbours.

        A sibling's seed depends on the user's seed and its source alone: more siblings, other sources or another order
        never change it.
        """
        stop = len(self) if stop is None else stop
        first = 0
        for case, share in zip(self.sources, self.shares, strict=True):
            indices = range(max(0, start - first), min(share, stop - first))
            if indices:
                seed = derive_seed(self.seed, "generate", case.case_id)
                for index in indices:
                    yield Order(case, index, seed, f"{case.case_id}_sibling{index:04d}")
            first += share

    def shard(self, number: int, shards: int) -> tuple[int, int]:
        """Return where shard ``number`` of ``shards``, counted from 1, starts and stops."""
        total = len(self)
        return total * (number - 1) // shards, total * number // shards


def plan_orders(
    sources: Sequence[Case], count: int, seed: int, *, balance: bool = False, max_share: float | None = None
) -> Plan:
    """Spread ``count`` siblings evenly over the sources.

    Args:
        sources: the cases.
        count: number of siblings.
        seed: the user's.
        balance: as many of each class (give or take one); cases without class are left out.
        max_share: largest share of all siblings that may come from one patient, in (0, 1].

    Raises:
        InputFault: ``MAX_SHARE`` or ``BALANCE``: it cannot be done with these sources.
    """
    groups: list[list[int]] = [list(range(len(sources)))]
    if balance:
        names = sorted({case.class_name for case in sources if case.class_name is not None})
        if not names:
            raise InputFault("--balance", "BALANCE", "no source has a class", "leave it out or name a classed cohort")
        groups = [[i for i, case in enumerate(sources) if case.class_name == name] for name in names]
    limit = count if max_share is None else int(max_share * count + 1e-9)
    room = {case.patient_id: limit for case in sources}
    shares = [0] * len(sources)
    for number, group in enumerate(groups):
        need = count // len(groups) + (number < count % len(groups))
        _spread(sources, group, need, room, shares)
    if sum(shares) < count:
        patients = len({sources[i].patient_id for group in groups for i in group})
        reason = (
            f"only {sum(shares)} of {count} siblings are possible with at most {limit} from each of {patients} patients"
        )
        raise InputFault("--max-share", "MAX_SHARE", reason, "allow a larger share or more sources")
    return Plan(tuple(sources), tuple(shares), seed)


def _spread(sources: Sequence[Case], group: Sequence[int], need: int, room: dict[str, int], shares: list[int]) -> None:
    """Give ``need`` siblings to the cases of ``group``, evenly as long as their patients have room."""
    open_cases = list(group)
    while need and open_cases:
        cases_of = Counter(sources[i].patient_id for i in open_cases)
        # All rounds at once in which no patient runs out of room and every open case gets one.
        rounds = min(need // len(open_cases), *(room[patient] // n for patient, n in cases_of.items()))
        for i in open_cases:
            shares[i] += rounds
            room[sources[i].patient_id] -= rounds
        need -= rounds * len(open_cases)
        for i in open_cases:
            if need and room[sources[i].patient_id]:
                shares[i] += 1
                room[sources[i].patient_id] -= 1
                need -= 1
        open_cases = [i for i in open_cases if room[sources[i].patient_id]]
