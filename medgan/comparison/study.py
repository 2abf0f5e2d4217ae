"""The study: arms × paired seeds of a downstream model, every run kept, a verdict at the end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medgan.comparison.arms import build_arm
from medgan.comparison.downstream import Cases, train_downstream, usable
from medgan.comparison.plan import (
    PARTS,
    content_hashes,
    freeze,
    make_plan,
    needs_generator,
    require_checkpoint,
    require_enough,
    require_no_leak,
)
from medgan.comparison.report import write_report
from medgan.comparison.results import RUNS_FOLDER, SUMMARY, RunRecord, load_run, save_run, write_results, write_table
from medgan.comparison.scoring import Task
from medgan.comparison.summary import COLUMNS, SummaryRow, summarise
from medgan.config import Config
from medgan.data.cohort import Cohort, open_cohort
from medgan.data.loaders import prepare
from medgan.data.preprocess import Preprocessing
from medgan.data.split import split_cohort
from medgan.errors import InputFault
from medgan.progress import progress_bar
from medgan.sampler import Sampler, load
from medgan.seeding import derive_seed
from medgan.tracking import Tracker, flatten, open_tracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyResult:
    """What a study gives.

    Attributes:
        output: the folder with plan.json, results.csv, curve.csv, summary.csv, report.html and runs/.
        summary: a row for each metric and arm.
        runs: each arm's runs, in the order of the seeds.
        reused: how many of them were there already.
    """

    output: Path
    summary: tuple[SummaryRow, ...]
    runs: Mapping[str, Sequence[RunRecord]]
    reused: int


def compare(config: Config, output: Path, tracker: Tracker | None = None) -> StudyResult:
    """Run the study that ``config.compare`` describes and write its files into ``output``.

    A study that was interrupted goes on where it stopped: a finished run of the same plan is not run again.

    Args:
        config: data, preprocessing and study.
        output: folder for all results.
        tracker: where runs are recorded; by default what ``config.tracking`` says.

    Raises:
        InputFault: the data or the checkpoint do not allow the study, or the folder holds another one.
        TrainingFailure: a downstream run's loss became NaN; finished runs are kept.
    """
    sampler = load(require_checkpoint(config)) if needs_generator(config) else None
    checkpoint = None if sampler is None else sampler.checkpoint
    cohort = open_cohort(config.data)
    split = split_cohort(cohort, config.data)
    hashes = content_hashes(split)
    require_no_leak(split, hashes, cohort.source, checkpoint)
    task = make_task(config, cohort)
    kept = {part: usable(getattr(split, part), task, part) for part in PARTS}
    require_enough(kept, task, cohort.source, config.compare.batch)
    plan = make_plan(config, split, hashes=hashes, cases=kept, task=task, checkpoint=checkpoint)
    tracker = open_tracker(config.tracking) if tracker is None else tracker
    digest = freeze(plan, output)
    preprocessing = Preprocessing(config.study_grid)
    cases = Cases(*(prepare(kept[part], cohort, preprocessing, f"reading {part}") for part in PARTS))

    settings = config.model_dump(mode="json", include={"name", "seed", "data", "preprocess", "compare"})
    params = {**flatten(settings), "plan_sha256": digest, "checkpoint_sha256": plan["checkpoint_sha256"]}
    tags = {"medgan.kind": "study", "medgan.task": task.kind}
    study = _Study(config, output / RUNS_FOLDER, task, cases, sampler, digest, tracker)
    with tracker.run(f"compare {config.name}", params, tags) as run:
        runs, reused = study.run_all()
        write_results(output, [record for records in runs.values() for record in records])
        summary = summarise(runs, config.compare.baseline, task, config.compare.bootstrap, config.seed)
        write_table(output / SUMMARY, [asdict(row) for row in summary], COLUMNS)
        report = write_report(output)
        for row in summary:
            run.log_metrics(
                {f"{row.metric}/{row.arm}": row.mean, f"{row.metric}_difference/{row.arm}": row.difference}, 0
            )
        for file in (output / "plan.json", output / SUMMARY, report):
            run.log_file(file)
        for picture in sorted((output / "figures").glob("*.png")):
            run.log_picture(picture, "figures")
    return StudyResult(output, tuple(summary), runs, reused)


def make_task(config: Config, cohort: Cohort) -> Task:
    """Return what the downstream model is to find: the cohort's labels or classes.

    Raises:
        InputFault: the cohort has no structure, or fewer than two classes.
    """
    # Only a grid of fixed spacing has millimetres; a stretched one has its own in every case.
    spacing = config.study_grid.spacing if config.study_grid.fit == "crop" else None
    if config.compare.task == "classification":
        if len(cohort.class_names) < 2:
            reason = f"{len(cohort.class_names)} classes are known, at least 2 are needed"
            raise InputFault(cohort.source, "NO_CLASSES", reason, "set data.class_key to the manifest's class column")
        return Task("classification", class_names=tuple(cohort.class_names), spacing=spacing)
    names = {value: name for value, name in cohort.label_names.items() if value != 0}
    if not names:
        reason = "there are no label maps, or they hold background alone"
        raise InputFault(cohort.source, "NO_STRUCTURE", reason, "add label maps, or set compare.task=classification")
    values = tuple(sorted(names))
    return Task("segmentation", tuple(names[v] for v in values), values, spacing=spacing)


@dataclass(frozen=True)
class _Study:
    """All that the runs have in common."""

    config: Config
    folder: Path
    task: Task
    cases: Cases
    sampler: Sampler | None
    digest: str
    tracker: Tracker

    def run_all(self) -> tuple[dict[str, list[RunRecord]], int]:
        """Return each arm's runs and how many were there already; seed by seed, so that what is there is paired."""
        settings = self.config.compare
        runs: dict[str, list[RunRecord]] = {arm: [] for arm in settings.arms}
        reused = 0
        with progress_bar() as bar:
            total = bar.add_task("study", total=len(settings.arms) * settings.seeds * settings.steps, note="")
            for index in range(settings.seeds):
                for arm in settings.arms:
                    bar.update(total, description=f"{arm}, seed {index}")
                    record = load_run(self.folder, arm, index, self.digest)
                    if record is None:
                        record = self._run(arm, index, bar, total)
                    else:
                        reused += 1
                        self._record_again(record)
                        bar.advance(total, settings.steps)
                    runs[arm].append(record)
        if reused:
            logger.info("%d finished runs of this plan were there already", reused)
        return runs, reused

    def _run(self, arm: str, index: int, bar: Any, total: Any) -> RunRecord:
        settings = self.config.compare
        transform = build_arm(
            arm,
            task=self.task.kind,
            modality=self.config.data.modality,
            shape=self.config.study_grid.shape,
            gan=settings.gan,
            sampler=self.sampler,
        )
        with self.tracker.run(f"{arm} seed {index}", *self._labels(arm, index), nested=True) as run:

            def on_step(step: int, values: Mapping[str, float]) -> None:
                run.log_metrics(values, step)
                bar.update(total, advance=1, note=f"loss {values['loss']:.3f}")

            seed = derive_seed(self.config.seed, "compare", index)
            result = train_downstream(self.task, self.cases, transform, settings, seed, arm=arm, on_step=on_step)
            record = RunRecord(self.digest, arm, index, result.seconds, result.headline, result.curve, result.scores)
            save_run(self.folder, record)
            run.log_metrics({**_test(record), "seconds": record.seconds}, settings.steps)
        return record

    def _record_again(self, record: RunRecord) -> None:
        """Let a study that goes on stand in the tracker as a whole, not as its last part."""
        params, tags = self._labels(record.arm, record.seed)
        name = f"{record.arm} seed {record.seed}"
        with self.tracker.run(name, params, {**tags, "medgan.reused": "true"}, nested=True) as run:
            for point in record.curve:
                run.log_metrics({f"validation/{point.metric}": point.value}, point.step)
            run.log_metrics({**_test(record), "seconds": record.seconds}, self.config.compare.steps)

    def _labels(self, arm: str, index: int) -> tuple[dict[str, object], dict[str, str]]:
        settings = self.config.compare
        params: dict[str, object] = {"arm": arm, "seed": index, "steps": settings.steps, "plan_sha256": self.digest}
        return params, {"medgan.kind": "arm", "medgan.arm": arm, "medgan.baseline": str(arm == settings.baseline)}


def _test(record: RunRecord) -> dict[str, float]:
    return {f"test/{name}": value for name, value in record.headline.items()}
