"""Past fakes: a pool of siblings of earlier steps that the discriminator meets again (Shrivastava et al. 2017).

A discriminator that sees the latest siblings alone forgets what it knew of earlier ones, and the generator can come
back to them. As in arXiv:1612.07828, about half of a batch is taken from the pool, and half of the siblings just made
go into it, each in the place of a random one once it is full; so it holds siblings of many steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from medgan.training.pairs import PairBatch, PairSampler
from medgan.training.steps import PastRows


@dataclass(eq=False)
class PastFakes:
    """The pool: siblings with the training cases that they were made of. It is part of the training's state.

    Attributes:
        sources: index of the training case, and by it the class, for each sibling.
        fakes: ``(C, D, H, W)`` each, float32 on the CPU.
    """

    sources: list[int] = field(default_factory=list)
    fakes: list[Tensor] = field(default_factory=list)

    def draw(self, batch: int, rng: torch.Generator) -> tuple[Tensor, list[int]]:
        """Draw which rows of a batch meet a past fake, and which one: half of the rows on average, none twice.

        Returns:
            ``(batch,)`` bool, and the place in the pool for each of its true rows.
        """
        rows = torch.rand(batch, generator=rng) < 0.5
        places = torch.randperm(len(self.fakes), generator=rng)[: int(rows.sum())].tolist()
        rows &= rows.cumsum(0) <= len(places)  # a pool that has just begun holds fewer than are wanted
        return rows, places

    def admit(self, sources: Sequence[int], fakes: Tensor, capacity: int, rng: torch.Generator) -> None:
        """Take in the first half of the siblings just made.

        Args:
            sources: training case of each.
            fakes: ``(B, C, D, H, W)``.
            capacity: siblings that the pool holds at most.
            rng: draws whom they replace.
        """
        half = (len(fakes) + 1) // 2
        for source, fake in zip(sources[:half], fakes[:half].float().cpu(), strict=True):
            if len(self.fakes) < capacity:
                self.sources.append(source)
                self.fakes.append(fake)
            else:
                place = int(torch.randint(capacity, (1,), generator=rng))
                self.sources[place], self.fakes[place] = source, fake

    def tensors(self) -> dict[str, Tensor]:
        """Return what :meth:`restore` takes; nothing for an empty pool."""
        return {"sources": torch.tensor(self.sources), "fakes": torch.stack(self.fakes)} if self.fakes else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Become the pool that gave these tensors."""
        self.sources = tensors["sources"].tolist() if tensors else []
        self.fakes = list(tensors["fakes"]) if tensors else []


def with_past(
    pairs: PairBatch, pool: PastFakes, sampler: PairSampler, rng: torch.Generator
) -> tuple[PairBatch, PastRows | None]:
    """Put past fakes, with their sources and new company for these, into some rows of a batch.

    Returns:
        the pairs that the discriminator meets, and the past fakes among them; ``None`` where there is none.
    """
    rows, places = pool.draw(len(pairs.source), rng)
    if not places:
        return pairs, None
    company = sampler.draw_for([pool.sources[place] for place in places], rng)
    mixed = {part.name: getattr(pairs, part.name).clone() for part in fields(pairs)}
    for name, values in mixed.items():
        values[rows] = getattr(company, name)
    chosen = torch.stack([pool.fakes[place] for place in places])
    fakes = chosen.new_zeros(len(rows), *chosen.shape[1:])
    fakes[rows] = chosen
    return PairBatch(**mixed), PastRows(rows, fakes)
