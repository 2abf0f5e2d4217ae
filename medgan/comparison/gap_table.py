"""The gap closed, in one block: which arm is held against which controls, and ``gap.csv``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from medgan.comparison.arms import FITTED_PART, LEARNED_PARTS, Arm, is_reference
from medgan.comparison.gap import gap_closed
from medgan.comparison.results import GAP, RunRecord, read_table
from medgan.comparison.statistics import Interval
from medgan.comparison.summary import Figure, Question


@dataclass(frozen=True)
class GapRow:
    """One arm between the best control and the reference, in one block; a row of ``gap.csv``.

    Attributes:
        labelled: the block; 0 for all training cases labelled.
        arm, metric: whose figure, and which (the primary one, on the test).
        mean: of the arm, over the runs that all arms compared here have.
        best, best_mean: the control with the highest mean.
        ceiling, ceiling_mean: the reference.
        difference, difference_low, difference_high: arm - best control, with the 95 % interval.
        room, room_low, room_high: ceiling - best control.
        closed, closed_low, closed_high: the former as a share of the latter; NaN where the room's interval reaches 0.
        replicates: seeds, or seeds x folds, that all have.
        patients: tested.
        exploratory: the arm, a control or the reference was added after the plan was frozen.
    """

    labelled: int
    arm: str
    metric: str
    mean: float
    best: str
    best_mean: float
    ceiling: str
    ceiling_mean: float
    difference: float
    difference_low: float
    difference_high: float
    room: float
    room_low: float
    room_high: float
    closed: float
    closed_low: float
    closed_high: float
    replicates: int
    patients: int
    exploratory: bool = False


GAP_COLUMNS = [f.name for f in fields(GapRow)]


@dataclass(frozen=True)
class Roles:
    """Who is who.

    Attributes:
        tested: the arms with something learned, and those with fitted scans alone.
        controls: the arms to beat. One with fitted scans is to be beaten by those with something learned, not by its
            like: what both are worth beside the others, and what learning adds to fits, can be told apart.
        fitted: those of ``controls`` with fitted scans.
        ceiling: the reference.
    """

    tested: tuple[str, ...]
    controls: tuple[str, ...]
    fitted: frozenset[str]
    ceiling: str

    def rivals(self, arm: str) -> tuple[str, ...]:
        """Return the controls that ``arm`` has to beat."""
        return tuple(name for name in self.controls if not (arm in self.fitted and name in self.fitted))


def roles_of(arms: Mapping[str, Arm], baseline: str) -> Roles | None:
    """Return who is compared with whom, ``None`` without a reference or without an arm to be tested.

    Every arm for which nothing was learned is one to beat: the baseline, the controls, and arms of one's own. Strength
    0 is left out: it is the same arm again. The ceiling is the baseline with all labels, else the first reference
    without a learned part.
    """

    def learns(arm: Arm) -> bool:
        return any(part in LEARNED_PARTS for part in arm.parts)

    plain = [arm for arm in arms.values() if not learns(arm)]
    references = [arm for arm in plain if is_reference(arm)]
    fitted = frozenset(arm.name for arm in plain if FITTED_PART in arm.parts)
    tested = tuple(a.name for a in arms.values() if (learns(a) or a.name in fitted) and not is_reference(a))
    controls = tuple(arm.name for arm in plain if arm not in references and "identity" not in arm.parts)
    if not references or not tested:
        return None
    known = set(arms[baseline].parts), arms[baseline].transforms
    of_baseline = [arm for arm in references if (set(arm.parts) - {"all-labels"}, arm.transforms) == known]
    return Roles(tested, controls, fitted, (of_baseline or references)[0].name)


def gap_rows(runs: Mapping[str, Sequence[RunRecord]], question: Question, arms: Mapping[str, Arm]) -> list[GapRow]:
    """Return a row for each arm that is tested in one block; none where nothing can be compared.

    Args:
        runs: each arm's finished runs; a seed and fold that one of the compared arms lacks is left out of all.
        question: task, settings and block.
        arms: by name.
    """
    roles = roles_of(arms, question.baseline)
    if roles is None:
        return []
    figure = Figure(question.task.metric, "", "test", question)
    rows = []
    for name in roles.tested:
        controls = [rival for rival in roles.rivals(name) if runs.get(rival)]
        compared = [name, roles.ceiling, *controls]
        of = {arm: {r.replicate: r for r in runs.get(arm, ())} for arm in compared}
        common = sorted(set.intersection(*(set(found) for found in of.values())))
        if not common or not controls:
            continue
        records = {arm: [found[replicate] for replicate in common] for arm, found in of.items()}
        arm, ceiling, *others = (figure.resampled(records[other]) for other in compared)
        gap = gap_closed(arm, others, ceiling)
        tested = {s.patient_id for r in records[name] for s in r.scores if s.split == "test"}
        rows.append(
            GapRow(
                question.labelled, name, question.task.metric,
                arm.mean, controls[gap.best], others[gap.best].mean, roles.ceiling, ceiling.mean,
                *_numbers(gap.difference), *_numbers(gap.room), *_numbers(gap.closed),
                replicates=len(common),
                patients=len(tested),
                exploratory=any(other in question.exploratory for other in compared),
            )
        )  # fmt: skip
    return rows


def read_gaps(folder: Path) -> list[GapRow]:
    """Return the rows of a study's ``gap.csv``; none where it has no such file.

    Raises:
        KeyError, ValueError: it is another table.
    """
    if not (folder / GAP).is_file():
        return []
    return [_typed(row) for row in read_table(folder / GAP)]


def _numbers(interval: Interval) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high


def _typed(row: Mapping[str, str]) -> GapRow:
    values: dict[str, Any] = {}
    for name in GAP_COLUMNS:
        text = row[name]
        if name in ("arm", "metric", "best", "ceiling"):
            values[name] = text
        elif name in ("labelled", "replicates", "patients"):
            values[name] = int(text)
        else:
            values[name] = text == "True" if name == "exploratory" else float(text)
    return GapRow(**values)
