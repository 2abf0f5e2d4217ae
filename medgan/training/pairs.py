"""Which volumes meet: pairs of one class and two patients, and mismatched pairs of two classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medgan.data.loaders import Prepared
from medgan.errors import InputFault

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Indices into the training volumes, ``(B,)`` each.

    Attributes:
        source: x_i.
        partner: x_j of the same class and another patient.
        stranger: x_k of another class; equal to ``partner`` where ``has_stranger`` is false.
        has_stranger: bool; false for a source without a class, or where there is one class only.
    """

    source: Tensor
    partner: Tensor
    stranger: Tensor
    has_stranger: Tensor


class PairSampler:
    """Draws pairs. Cases without a class form a group of their own ("unknown") and only meet each other.

    Args:
        prepared: the training cases.
        class_names: class names; a class with a single patient is left out, with a warning that names it.
        source: the cohort, for the message.

    Raises:
        InputFault: no class has two patients.
    """

    def __init__(self, prepared: Sequence[Prepared], class_names: Sequence[str], source: str) -> None:
        self.patients = [p.case.patient_id for p in prepared]
        self.classes = [p.class_index for p in prepared]
        groups: dict[int, list[int]] = {}
        for index, group in enumerate(self.classes):
            groups.setdefault(group, []).append(index)
        self.groups = {}
        for group, members in groups.items():
            if len({self.patients[m] for m in members}) > 1:
                self.groups[group] = members
            else:
                name = class_names[group] if group >= 0 else "cases without a class"
                logger.warning("left out of training: %s has one patient, a pair needs two", name)
        if not self.groups:
            raise InputFault(source, "NO_PAIRS", "no class has two training patients", "add patients or merge classes")
        self.members = [m for group in self.groups.values() for m in group]

    def draw(self, batch: int, generator: torch.Generator) -> PairBatch:
        """Draw ``batch`` pairs; every training volume is equally likely to be the source."""

        return _batch([self._company(_pick(self.members, generator), generator) for _ in range(batch)])

    def draw_for(self, sources: Sequence[int], generator: torch.Generator) -> PairBatch:
        """Draw company for given sources, one at least, each of which :meth:`draw` can give."""
        return _batch([self._company(source, generator) for source in sources])

    def _company(self, source: int, generator: torch.Generator) -> tuple[int, int, int, bool]:
        group = self.classes[source]
        partner = _pick([m for m in self.groups[group] if self.patients[m] != self.patients[source]], generator)
        others = [g for g in self.groups if g >= 0 and g != group] if group >= 0 else []
        # The other class first, then its member: a rare class is as good a negative as a frequent one.
        stranger = _pick(self.groups[_pick(others, generator)], generator) if others else partner
        return source, partner, stranger, bool(others)


def _pick(candidates: list[int], generator: torch.Generator) -> int:
    return candidates[int(torch.randint(len(candidates), (1,), generator=generator))]


def _batch(rows: Sequence[tuple[int, int, int, bool]]) -> PairBatch:
    sources, partners, strangers, flags = zip(*rows, strict=True)
    return PairBatch(torch.tensor(sources), torch.tensor(partners), torch.tensor(strangers), torch.tensor(flags))
