"""Which charts a study has, each with its caption and with its figures in words for those who cannot see it."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medgan.comparison.report import figures
from medgan.comparison.report.derived import (
    Array,
    arm_reliability,
    patient_differences,
    replicate_differences,
    sweeps,
)
from medgan.comparison.report.figures import Estimate
from medgan.comparison.report.finished import FinishedStudy
from medgan.comparison.report.gap import share, share_interval
from medgan.comparison.report.tuning import chosen_words, tried, varied
from medgan.comparison.report.words import METRICS, SPACE, block_name, figure, listed, plural, signed
from medgan.comparison.summary import SummaryRow

FIGURES = "figures"
PARAMETERS = {"probability": "share of samples replaced", "strength": "1: as learned"}
LEVEL = f"95{SPACE}%"


@dataclass(frozen=True)
class Chart:
    """A chart of the report.

    Attributes:
        title: what it shows.
        caption: how to read it.
        alt: its figures in words.
        file: path within the study's folder.
        png: the file.
    """

    title: str
    caption: str
    alt: str
    file: str
    png: bytes

    @property
    def source(self) -> str:
        """The file as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


class Charts:
    """Draws a study's charts into ``figures/``."""

    def __init__(self, study: FinishedStudy, output: Path) -> None:
        self.study = study
        self.output = output
        self.metric = str(study.plan["metric"])
        self.name = METRICS[self.metric][0]
        self.styles = figures.arm_styles(study.arms, study.baseline)

    def differences(self, labelled: int) -> list[Chart]:
        """Differences to the baseline by patient and by replicate."""
        study = self.study
        rows = {row.arm: row for row in study.rows(labelled, self.metric) if row.arm != study.baseline}
        if not rows:
            return []
        estimates = {arm: Estimate(r.difference, r.difference_low, r.difference_high) for arm, r in rows.items()}
        margin = float(study.plan["compare"]["margin"])
        of_set = study.plan["task"] == "classification"
        what = "probability of the true class" if of_set else self.name
        by_patient = {arm: patient_differences(study, arm, labelled) for arm in rows}
        by_replicate = {arm: np.array(list(replicate_differences(study, arm, labelled).values())) for arm in rows}
        mark = "diamond: mean" + ("" if of_set else f"; bar: {LEVEL} interval over patients and seeds")
        dashed = "; dashed: margin" if margin else ""
        return [
            self._chart(
                f"differences-patients-{labelled}",
                "By patient",
                f"Each mark is a test patient: difference in {what} to {study.baseline}, replicates averaged; {mark}"
                f"{'' if of_set else dashed}.",
                [f"{arm}: {_spread(values, 'patient')}" for arm, values in by_patient.items()],
                figures.difference_figure(
                    by_patient,
                    {} if of_set else estimates,
                    self.styles,
                    f"difference in {what}\n(to {study.baseline})",
                    0.0 if of_set else margin,
                ),
            ),
            self._chart(
                f"differences-replicates-{labelled}",
                "By replicate",
                f"Each mark is a replicate ({'seed and fold' if study.plan['folds'] else 'seed'}): difference in "
                f"{self.name} to {study.baseline}; diamond and bar: mean and {LEVEL} interval{dashed}.",
                [f"{arm}: {_spread(values, 'replicate')}" for arm, values in by_replicate.items()],
                figures.difference_figure(
                    by_replicate, estimates, self.styles, f"difference in {self.name}\n(to {study.baseline})", margin
                ),
            ),
        ]

    def training(self, labelled: int) -> list[Chart]:
        """The validation along the steps."""
        study = self.study
        curves = {}
        for arm in study.arms:
            lines = [
                [point for point in study.curves.get(cell, ()) if point.metric == self.metric]
                for cell in study.cells(arm, labelled)
            ]
            runs = [
                (np.array([p.step for p in line], dtype=np.float64), np.array([p.value for p in line]))
                for line in lines
                if line
            ]
            if runs:
                curves[arm] = runs
        if not curves:
            return []
        ends = [
            f"{arm}: {figure(float(np.mean([values[-1] for _, values in runs])), self.metric)} at the last of "
            f"{plural(len(runs[0][0]), 'validation')}"
            for arm, runs in curves.items()
        ]
        drawn = figures.curve_figure(curves, self.styles, f"validation {self.name}")
        caption = (
            f"{self.name} on the validation cases during training: thin lines are runs, thick ones their mean. The "
            "learning rate falls towards the end, which levels every curve: whether an arm has converged, a study with "
            "more steps tells."
        )
        return [
            self._chart(
                f"training-{labelled}", self._title("Validation during training", labelled), caption, ends, drawn
            )
        ]

    def learning(self) -> list[Chart]:
        """The test metric by number of labelled training cases, where there are several."""
        study = self.study
        if len(study.blocks) < 2:
            return []
        everything = int(study.plan["cohort"]["training"]["used_cases"])
        lines: dict[str, list[tuple[float, Estimate]]] = {}
        for labelled in study.blocks:
            for row in study.rows(labelled, self.metric):
                point = (float(labelled or everything), Estimate(row.mean, row.low, row.high))
                lines.setdefault(row.arm, []).append(point)
        drawn = figures.line_figure(lines, self.styles, "labelled training cases", f"test {self.name}")
        words = [
            f"{arm}: " + ", ".join(f"{figure(e.mean, self.metric)} with {n:g}" for n, e in points)
            for arm, points in lines.items()
        ]
        whole = f" The largest number, {everything}, is all of them." if 0 in study.blocks else ""
        caption = f"{self.name} on the test by labelled training cases; bars: {LEVEL} intervals.{whole}"
        return [self._chart("learning", "By labelled training cases", caption, words, drawn)]

    def reliability(self, labelled: int) -> list[Chart]:
        """Predicted probabilities against what was so, for classification."""
        study = self.study
        if study.plan["task"] != "classification":
            return []
        curves = {arm: curve for arm in study.arms if (curve := arm_reliability(study, arm, labelled)) is not None}
        if not curves:
            return []
        classes = study.plan["classes"]
        label = f"predicted probability of {classes[1]}" if len(classes) == 2 else "probability of the predicted class"
        words = [
            f"{arm}: " + ", ".join(f"{o:.2f} at {p:.2f}" for p, o in zip(c.predicted, c.observed, strict=True))
            for arm, c in curves.items()
        ]
        bins = max(len(curve.counts) for curve in curves.values())
        caption = (
            f"Observed share against {label}, in {bins} bins of equal mass, replicates pooled; the dashed diagonal is "
            "perfect calibration, below it a model is too sure."
        )
        drawn = figures.reliability_figure(curves, self.styles, label)
        return [self._chart(f"reliability-{labelled}", self._title("Reliability", labelled), caption, words, drawn)]

    def gap(self, labelled: int) -> list[Chart]:
        """Where each tested arm lies between the best control and the reference, where there is a gap."""
        rows = [row for row in self.study.gaps if row.labelled == labelled and np.isfinite(row.closed)]
        if not rows:
            return []
        estimates = {row.arm: Estimate(row.closed, row.closed_low, row.closed_high) for row in rows}
        controls = sorted({row.best for row in rows})
        drawn = figures.gap_figure(
            estimates, self.styles, f"share of the gap in {self.name} closed\n(0: best control, 1: all labels)"
        )
        caption = (
            f"0 is the best control ({listed(controls)}), 1 the reference {rows[0].ceiling}; bars: {LEVEL} intervals, "
            "arrows where they go on beyond the axis."
        )
        words = [f"{row.arm}: {share(row.closed)}, {share_interval(row)}" for row in rows]
        return [self._chart(f"gap-{labelled}", self._title("Gap closed", labelled), caption, words, drawn)]

    def sweeps(self, labelled: int) -> list[Chart]:
        """Differences to the baseline along probability or strength."""
        rows = {row.arm: row for row in self.study.rows(labelled, self.metric)}
        charts = []
        for number, sweep in enumerate(sweeps(self.study.plan)):
            points = [(value, _difference(rows[arm])) for value, arm in sweep.arms if arm in rows]
            points = [(value, estimate) for value, estimate in points if np.isfinite(estimate.mean)]
            if len(points) < 2:
                continue
            style = {sweep.title: figures.Style(figures.COLOURS[0], "o")}
            drawn = figures.line_figure(
                {sweep.title: points},
                style,
                f"{sweep.parameter} ({PARAMETERS[sweep.parameter]})",
                f"difference in {self.name}",
                zero=True,
            )
            words = [f"{value:g}: {signed(estimate.mean, self.metric)}" for value, estimate in points]
            caption = f"Difference in {self.name} to {self.study.baseline}; bars: {LEVEL} intervals."
            title = self._title(f"{sweep.title}, by {sweep.parameter}", labelled)
            charts.append(self._chart(f"sweep-{number}-{labelled}", title, caption, words, drawn))
        return charts

    def tuning(self, labelled: int) -> list[Chart]:
        """The validation along what was tried for arms: strength, or else probability."""
        rows = [row for row in tried(self.study, labelled) if np.isfinite(row.mean)]
        along = varied(rows)
        if not along:
            return []
        parameter, other = along[-1], along[0] if len(along) > 1 else None
        lines: dict[str, list[tuple[float, Estimate]]] = {}
        rings: dict[str, list[float]] = {}
        for row in sorted(rows, key=lambda row: float(getattr(row, parameter))):
            name = row.arm + (f", {other} {getattr(row, other):g}" if other else "")
            name += f", fold {row.fold}" if self.study.plan["folds"] else ""
            value = float(getattr(row, parameter))
            lines.setdefault(name, []).append((value, Estimate(row.mean, row.low, row.high)))
            rings.setdefault(name, []).extend([value] if row.chosen else [])
        # An arm keeps its colour, where a line is an arm.
        styles = self.styles if set(lines) <= set(self.styles) else figures.arm_styles(list(lines), next(iter(lines)))
        drawn = figures.line_figure(
            lines, styles, f"{parameter} ({PARAMETERS[parameter]})", f"validation {self.name}", rings=rings
        )
        number = rows[0].trainings
        caption = (
            f"{self.name} on the validation cases by {listed(along)}, "
            f"{'one training each' if number == 1 else f'mean, lowest and highest of {number} trainings'}; ringed: "
            "what the arm took."
        )
        words = [
            f"{name}: " + ", ".join(f"{figure(e.mean, self.metric)} at {value:g}" for value, e in points)
            for name, points in lines.items()
        ]
        title = self._title("What was tried on validation cases", labelled)
        return [self._chart(f"tuning-{labelled}", title, caption, [*words, chosen_words(rows)], drawn)]

    def _title(self, title: str, labelled: int) -> str:
        return f"{title}, {block_name(labelled)}" if len(self.study.blocks) > 1 else title

    def _chart(self, stem: str, title: str, caption: str, words: Sequence[str], drawn: Any) -> Chart:
        file = f"{FIGURES}/{re.sub(r'[^a-z0-9-]', '', stem)}.png"
        png = figures.save_figure(drawn, self.output / file)
        return Chart(title, caption, f"{caption} {'; '.join(words)}.", file, png)


def _difference(row: SummaryRow) -> Estimate:
    return Estimate(row.difference, row.difference_low, row.difference_high)


def _spread(values: Array, noun: str) -> str:
    if not len(values):
        return f"no {noun} in common"
    higher = int((values > 0).sum())
    return f"mean {signed(float(values.mean()))}, {higher} of {plural(len(values), noun)} above 0"
