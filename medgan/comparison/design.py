"""What a study consists of: arms (also repeated for generators and sweeps), blocks, folds, seeds – and so its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from medgan.comparison.arms import Arm, is_reference, parse_parts
from medgan.config import ArmConfig, CompareConfig, Config
from medgan.errors import InputFault

ALL_LABELLED = 0  # a block in which every annotated training case keeps its annotation
SWEPT_PARTS = ("gan", "random-deformation")
# What tuning chooses, and the parts for which it means anything.
TUNED_PARTS = {"probability": (*SWEPT_PARTS, "duplicate"), "strength": SWEPT_PARTS}
TUNED = tuple(TUNED_PARTS)


@dataclass(frozen=True, order=True)
class Cell:
    """The coordinates of one run.

    Attributes:
        labelled: training cases that keep label and class; 0 for all.
        fold: of the cross-validation; 0 where the split is fixed.
        seed: number of the paired seed.
        arm: its name, or that of a trial.
        choice: name of the trial whose probability and strength the arm takes; empty for its own. Not a coordinate.
    """

    labelled: int
    fold: int
    seed: int
    arm: str
    choice: str = field(default="", compare=False)

    @property
    def coordinates(self) -> dict[str, Any]:
        """The coordinates by name, in the order of the tables' columns."""
        return {"arm": self.arm, "labelled": self.labelled, "fold": self.fold, "seed": self.seed}


def expand_arms(compare: CompareConfig, name: str = "generator") -> tuple[Arm, ...]:
    """Return the study's arms: those listed, repeated for every generator and every value of the sweep.

    Args:
        compare: the study's section.
        name: of the generator, where there is only one and it has none.

    Raises:
        InputFault: an unknown part or generator, or a baseline that a sweep or several generators multiply or that is
            a reference.
    """
    arms: list[Arm] = []
    for entry in compare.arms:
        try:
            arms += _own(entry, compare, name) if isinstance(entry, ArmConfig) else _listed(entry, compare, name)
        except ValueError as error:
            raise InputFault("compare.arms", "CONFIG_VALUE", str(error), "mend the list of arms") from error
    names = [arm.name for arm in arms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputFault("compare.arms", "CONFIG_VALUE", f"the arm {twice[0]!r} stands twice", "give each its own name")
    if compare.baseline not in names:
        reason = f"the baseline {compare.baseline!r} is repeated for several generators or the sweep"
        raise InputFault("compare.baseline", "CONFIG_VALUE", reason, "choose an arm without a generator")
    if is_reference(next(arm for arm in arms if arm.name == compare.baseline)):
        reason = f"the baseline {compare.baseline!r} has labels that the other arms lack"
        raise InputFault("compare.baseline", "CONFIG_VALUE", reason, "choose an arm without all-labels")
    return tuple(arms)


def expand_trials(compare: CompareConfig, name: str = "generator") -> dict[str, tuple[Arm, ...]]:
    """Return by arm the variants of it among which validation cases are to choose; none where nothing is tuned.

    An arm is tuned in what it does not give itself and what means anything for its parts. Every arm has the same values
    to choose from, so that none is tuned more than another.

    Args:
        compare: the study's section.
        name: of the generator, where there is only one and it has none.

    Raises:
        InputFault: an arm has the name of a trial.
    """
    trials: dict[str, tuple[Arm, ...]] = {}
    for entry in compare.arms:
        for arm in _listed(entry, compare, name) if isinstance(entry, str) else _own(entry, compare, name):
            open_to = {
                parameter: getattr(compare.tune, parameter)
                for parameter, parts in TUNED_PARTS.items()
                if set(parts) & set(arm.parts) and (isinstance(entry, str) or getattr(entry, parameter) is None)
            }
            variants = [arm]
            for parameter, values in open_to.items():
                if values:
                    variants = [replace(a, **{parameter: v}) for a in variants for v in values]
            if len(variants) > 1:
                trials[arm.name] = tuple(replace(a, name=_trial_name(a, open_to)) for a in variants)
    names = [variant.name for variants in trials.values() for variant in variants]
    taken = {arm.name for arm in expand_arms(compare, name)} & set(names)
    if taken:
        reason = f"{min(taken)!r} is also the name of values that are tried for another arm"
        raise InputFault("compare.arms", "CONFIG_VALUE", reason, "give the arm another name")
    return trials


def tuned_in(arm: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what of a plan's arm is tuned: the parameters that differ among the values it has to choose from."""
    tried = arm.get("tuned", ())  # studies of earlier versions know of none
    return tuple(parameter for parameter in TUNED if len({values[parameter] for values in tried}) > 1)


def _trial_name(arm: Arm, open_to: Mapping[str, Sequence[float]]) -> str:
    values = [f"{parameter[0]}={getattr(arm, parameter)!r}" for parameter, tried in open_to.items() if tried]
    return " ".join([f"{arm.name} tried", *values])


def _own(entry: ArmConfig, compare: CompareConfig, name: str) -> list[Arm]:
    """Return the arm of a mapping."""
    if entry.generator is not None and entry.generator not in compare.generators:
        known = ", ".join(compare.generators) or "none"
        raise ValueError(f"arm {entry.name!r}: no generator {entry.generator!r} in compare.generators (known: {known})")
    arm = Arm(
        entry.name,
        parse_parts(entry.use),
        entry.generator,
        compare.gan.probability if entry.probability is None else entry.probability,
        compare.gan.strength if entry.strength is None else entry.strength,
        compare.gan.min_quality if entry.min_quality is None else entry.min_quality,
        entry.transforms,
    )
    if arm.needs_generator and arm.generator is None and len(compare.generators) > 1:
        raise ValueError(f"arm {arm.name!r}: say which generator of {', '.join(compare.generators)}")
    return [replace(arm, generator=_only(compare, name))] if arm.needs_generator and arm.generator is None else [arm]


def _listed(text: str, compare: CompareConfig, name: str) -> list[Arm]:
    """Return the arms that a plain name stands for."""
    gan = compare.gan
    arms = [Arm(text, parse_parts(text), None, gan.probability, gan.strength, gan.min_quality)]
    if arms[0].needs_generator:
        names = list(compare.generators) or [_only(compare, name)]
        several = len(names) > 1
        arms = [replace(a, name=f"{a.name} [{n}]" if several else a.name, generator=n) for a in arms for n in names]
    if any(part in SWEPT_PARTS for part in arms[0].parts):
        if compare.sweep.probability:
            arms = [
                replace(a, name=f"{a.name} p={p:g}", probability=p) for a in arms for p in compare.sweep.probability
            ]
        if compare.sweep.strength:
            arms = [replace(a, name=f"{a.name} s={s:g}", strength=s) for a in arms for s in compare.sweep.strength]
    return arms


def _only(compare: CompareConfig, name: str) -> str:
    return next(iter(compare.generators), name)


def blocks(config: Config) -> tuple[int, ...]:
    """Return the numbers of labelled cases, ascending; 0 (all) last.

    Raises:
        InputFault: other cases are to keep their annotation under every seed, but all keep it.
    """
    numbers = config.compare.labelled or (config.data.labelled or ALL_LABELLED,)
    if config.compare.redraw and ALL_LABELLED in numbers:
        reason = "compare.redraw keeps the annotation of other cases under every seed, but all keep it"
        raise InputFault("compare.redraw", "CONFIG_VALUE", reason, "set data.labelled or compare.labelled")
    return tuple(sorted(set(numbers), key=lambda n: (n == ALL_LABELLED, n)))


def folds(config: Config) -> range:
    """Return the folds to run; one, of any number, where the split is fixed.

    Raises:
        InputFault: several splits without cross-validation.
    """
    if config.data.folds is None and config.compare.splits > 1:
        reason = f"compare.splits is {config.compare.splits}, but the split is fixed"
        raise InputFault("compare.splits", "CONFIG_VALUE", reason, "set data.folds=K for cross-validation")
    if config.data.folds is not None and config.data.fold:
        reason = f"data.fold is {config.data.fold}, but a study runs the folds from 0 to compare.splits - 1"
        remedy = "leave data.fold out; name the generators by {fold} in compare.checkpoint"
        raise InputFault("data.fold", "CONFIG_VALUE", reason, remedy)
    return range(config.compare.splits)


def all_cells(config: Config, arms: Sequence[Arm], seeds: int | None = None) -> list[Cell]:
    """Return every run, seed by seed, so that what is there of an interrupted study is paired.

    Args:
        config: of the study.
        arms: which arms.
        seeds: how many; by default the study's own number.
    """
    return [
        Cell(labelled, fold, seed, arm.name)
        for seed in range(config.compare.seeds if seeds is None else seeds)
        for labelled in blocks(config)
        for fold in folds(config)
        for arm in arms
    ]


def trial_cells(config: Config, trials: Mapping[str, Sequence[Arm]]) -> list[Cell]:
    """Return the trainings that tuning needs, seed by seed; each block and fold chooses for itself."""
    return all_cells(
        config, [variant for variants in trials.values() for variant in variants], config.compare.tune.seeds
    )


def redrawn_in_words(compare: Mapping[str, Any]) -> str:
    """Return what to add to the number of seeds of a plan's ``compare``, where they differ in more than their draws."""
    return ", each with other labelled cases" if compare.get("redraw") else ""
