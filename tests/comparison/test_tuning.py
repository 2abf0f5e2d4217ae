"""Values of arms chosen on validation cases: which are tried, which win, and that nothing tested is looked at."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import pytest
from cubes import write_cohort

from medgan.checkpoint import Origin, save_checkpoint
from medgan.comparison import execution, study
from medgan.comparison.cost import describe
from medgan.comparison.design import Cell, expand_trials, trial_cells
from medgan.comparison.engines import attempts
from medgan.comparison.live import LiveTable
from medgan.comparison.material import Material
from medgan.comparison.results import RunRecord, Trial, read_table, read_trials, write_trials
from medgan.comparison.tuning import choose, with_choices
from medgan.config import Config, parse_config
from medgan.errors import InputFault, TrainingFailure
from medgan.models.generator import Generator
from medgan.tracking import MLflowTracker, NoTracker

compare = partial(study.compare, workers=1)
TUNED = ["classical+gan", "classical+random-deformation"]


def with_generator(config: Config, folder: Path) -> Config:
    generator = Generator(config.model, 1, 0, config.preprocess.shape)
    case = {"patient_id": "elsewhere", "case_id": "elsewhere", "content_sha256": "0" * 64}
    save_checkpoint(folder, generator.state_dict(), config, Origin((), {3: "cube"}, 1, [case], "d", 5))
    return config


@pytest.fixture(scope="module")
def settings(config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("generator") / "g"
    changes: dict[str, Any] = {"arms": ["classical", *TUNED], "tune": {"strength": [0.5, 2], "seeds": 1}}
    return with_generator(config(checkpoint=str(folder), **changes), folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> MLflowTracker:
    return MLflowTracker(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db", "tuning")


@pytest.fixture(scope="module")
def tuned(settings: Config, store: MLflowTracker, tmp_path_factory: pytest.TempPathFactory) -> study.StudyResult:
    return compare(settings, tmp_path_factory.mktemp("tuned") / "out", store)


def section(**compare: Any) -> Config:
    return parse_config({"compare": compare})


def test_every_arm_has_the_same_values_to_choose_from() -> None:
    tune = {"probability": [0.3, 0.5], "strength": [1, 1.7]}
    trials = expand_trials(section(arms=["none", "classical", *TUNED], tune=tune).compare)
    assert list(trials) == TUNED
    values = {name: [(a.probability, a.strength) for a in variants] for name, variants in trials.items()}
    assert values[TUNED[0]] == values[TUNED[1]] == [(0.3, 1.0), (0.3, 1.7), (0.5, 1.0), (0.5, 1.7)]
    assert [a.name for a in trials[TUNED[0]]][:2] == [
        "classical+gan tried p=0.3 s=1.0",
        "classical+gan tried p=0.3 s=1.7",
    ]


def test_what_an_arm_gives_itself_is_not_tuned() -> None:
    arms = ["classical", {"name": "mild", "use": "gan", "strength": 0.4}, {"name": "set", "use": "gan", "strength": 1,
            "probability": 0.2}]  # fmt: skip
    trials = expand_trials(section(arms=arms, tune={"probability": [0.3, 0.5], "strength": [1, 1.7]}).compare)
    assert {name: [(a.probability, a.strength) for a in found] for name, found in trials.items()} == {
        "mild": [(0.3, 0.4), (0.5, 0.4)]
    }
    assert expand_trials(section(arms=["classical", "gan"]).compare) == {}
    # Strength means nothing for a control that copies cases; their share is that of the generator's arm.
    tune = {"probability": [0.3, 0.5], "strength": [1, 1.7]}
    trials = expand_trials(section(arms=["classical", "classical+duplicate"], tune=tune).compare)
    assert [(a.probability, a.strength) for a in trials["classical+duplicate"]] == [(0.3, 1.0), (0.5, 1.0)]
    assert expand_trials(section(arms=["classical", "duplicate"], tune={"strength": [1, 1.7]}).compare) == {}


def test_an_arm_cannot_have_the_name_of_a_trial() -> None:
    arms = ["classical", "gan", {"name": "gan tried s=1.7", "use": "classical"}]
    with pytest.raises(InputFault, match="also the name of values that are tried"):
        expand_trials(section(arms=arms, tune={"strength": [1, 1.7]}).compare)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tune": {"strength": [1.0]}}, "two or more different values"),
        ({"tune": {"strength": [1.0, 1.0]}}, "two or more different values"),
        ({"tune": {"strength": [0.5, 1]}, "sweep": {"strength": [0.5, 1]}}, "empty where sweep.strength is not"),
        ({"tune": {"strength": [0.5, 1], "seeds": 3}, "seeds": 2}, "at most compare.seeds, 2, got 3"),
    ],
)
def test_a_tuning_that_means_nothing_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputFault, match=reason):
        section(**change)


def test_the_best_on_validation_is_taken_and_nothing_tested_was_looked_at(tuned: study.StudyResult) -> None:
    trials = read_trials(tuned.output)
    assert [(t.arm, t.strength) for t in trials] == [(arm, s) for arm in TUNED for s in (0.5, 2.0)]
    for arm in TUNED:
        of_arm = [t for t in trials if t.arm == arm]
        assert [t.chosen for t in of_arm].count(True) == 1
        assert next(t for t in of_arm if t.chosen).value == max(t.value for t in of_arm)
    files = sorted((tuned.output / "tuning").glob("*.json"))
    assert len(files) == 4
    for file in files:
        record = json.loads(file.read_text())
        assert {score["split"] for score in record["scores"]} == {"validation"}
        found = next(t.value for t in trials if f"{t.arm} tried s={t.strength}" == record["arm"])
        assert found == record["headline"]["dice"] == pytest.approx(record["curve"][-1]["value"])
    # Of seed 0 of every arm there are pictures of test cases; of what was tried there are none.
    predicted = [file.name for file in (tuned.output / "predictions").iterdir()]
    assert len(predicted) == 3
    assert not any("tried" in name for name in predicted)


def test_an_arm_is_what_it_would_be_with_the_chosen_value_given_by_hand(
    tuned: study.StudyResult, settings: Config, tmp_path: Path
) -> None:
    chosen = {t.arm: t.strength for t in read_trials(tuned.output) if t.chosen}
    tree = settings.model_dump(mode="json")

    def with_strengths(strengths: dict[str, float]) -> Config:
        by_hand = [{"name": arm, "use": arm, "strength": strengths[arm]} for arm in TUNED]
        return parse_config({**tree, "compare": {**tree["compare"], "arms": ["classical", *by_hand], "tune": {}}})

    same = compare(with_strengths(chosen), tmp_path / "out", NoTracker())
    assert [r.key for arm in TUNED for r in same.runs[0][arm]] == [r.key for arm in TUNED for r in tuned.runs[0][arm]]
    for table in ("results.csv", "curve.csv"):
        assert (tmp_path / "out" / table).read_bytes() == (tuned.output / table).read_bytes()
    # And it is another than that of the value that was not taken.
    other = Material(with_strengths({arm: 2.5 - strength for arm, strength in chosen.items()}))
    assert other.key(Cell(0, 0, 0, TUNED[0])) != tuned.runs[0][TUNED[0]][0].key


def test_trials_that_are_there_are_not_made_again(
    tuned: study.StudyResult, settings: Config, tmp_path: Path, made: list[str]
) -> None:
    before = without_times(tuned.output)
    store = MLflowTracker(f"sqlite:///{tmp_path}/mlflow.db", "again")
    assert compare(settings, tuned.output, store).reused == 6
    assert made == []
    assert strengths_of(store) == {t.arm: t.strength for t in before if t.chosen}
    next((tuned.output / "tuning").glob("classical-and-gan*s=2*.json")).unlink()
    compare(settings, tuned.output, NoTracker())
    assert made == ["classical+gan tried s=2.0"]
    assert without_times(tuned.output) == before


def test_what_was_chosen_once_stays(tuned: study.StudyResult, settings: Config, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tuned.output, tmp_path / "out"))
    trials = without_times(folder)
    write_trials(folder, [replace(trial, chosen=not trial.chosen) for trial in trials])
    again = compare(settings, folder, NoTracker())
    assert [t.chosen for t in read_trials(folder)] == [not t.chosen for t in trials]
    keys = [{r.key for r in result.runs[0]["classical+gan"]} for result in (tuned, again)]
    assert not keys[0] & keys[1]
    # A table that nobody can read is no choice: the trials choose anew.
    (folder / "tuning.csv").write_text("arm,chosen\nclassical+gan,True\n")
    compare(settings, folder, NoTracker())
    assert without_times(folder) == trials


def test_an_arm_that_comes_through_with_no_value_is_named_with_the_reason(
    settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = attempts.execute

    def failing(material: Any, cell: Any, *rest: Any) -> Any:
        if cell.arm.startswith("classical+gan tried"):
            raise TrainingFailure("the loss became nan")
        return run(material, cell, *rest)

    monkeypatch.setattr(attempts, "execute", failing)
    with pytest.raises(TrainingFailure, match=r"classical\+gan: FAILED_RUNS: .* the loss became nan"):
        compare(settings, tmp_path / "out", NoTracker())
    told = {t.arm: (t.error, t.chosen) for t in read_trials(tmp_path / "out")}
    assert told["classical+gan"] == ("the loss became nan", False)
    assert told["classical+random-deformation"][0] == ""
    assert not (tmp_path / "out" / "runs").exists()


def test_processes_of_their_own_choose_and_train_alike(
    tuned: study.StudyResult, settings: Config, tmp_path: Path
) -> None:
    compare(settings, tmp_path / "out", NoTracker(), workers=2)
    assert without_times(tmp_path / "out") == without_times(tuned.output)
    assert (tmp_path / "out" / "results.csv").read_bytes() == (tuned.output / "results.csv").read_bytes()


def test_the_report_and_the_store_say_what_was_tried_and_taken(tuned: study.StudyResult, store: MLflowTracker) -> None:
    page, text = ((tuned.output / f"report.{kind}").read_text() for kind in ("html", "md"))
    chosen = {t.arm: t.strength for t in read_trials(tuned.output) if t.chosen}
    assert 'id="tuning"' in page
    assert (tuned.output / "figures" / "tuning-0.png").is_file()
    lines = [line for line in text.splitlines() if line.endswith("| yes |")]
    assert [line.split("|")[3].strip() for line in lines] == [f"{chosen[arm]:g}" for arm in TUNED]
    assert "for classical+gan the strength (among 2); for classical+random-deformation the strength (among 2)" in text
    assert "| classical+gan, tuning | 2 |" in text
    assert "50 % of samples, strength tuned" in text
    assert "50 % of samples, strength tuned" in page
    assert strengths_of(store) == chosen
    client = store._client
    (parent,) = [r for r in client.search_runs([store.experiment_id]) if r.data.tags["medgan.kind"] == "study"]
    assert "arm.classical-and-gan.probability" in parent.data.params
    assert "arm.classical-and-gan.strength" not in parent.data.params
    assert "tuning.csv" in {a.path for a in client.list_artifacts(parent.info.run_id)}


def test_the_plan_holds_what_is_tried_and_an_untuned_one_knows_of_no_tuning(
    tuned: study.StudyResult, settings: Config, config: Callable[..., Config], tmp_path: Path
) -> None:
    plan = json.loads((tuned.output / "plan.json").read_text())["plan"]
    tried = {arm["name"]: [v["strength"] for v in arm.get("tuned", ())] for arm in plan["arms"]}
    assert tried == {"classical": [], **{arm: [0.5, 2.0] for arm in TUNED}}
    compare(config(steps=1, seeds=1), tmp_path / "out", NoTracker())
    plain = json.loads((tmp_path / "out" / "plan.json").read_text())["plan"]
    assert "tune" not in plain["compare"]
    assert not any("tuned" in arm for arm in plain["arms"])


def test_a_dry_run_counts_the_trials(settings: Config) -> None:
    words = describe(settings, workers=1)
    assert words.count("and 1 more to choose among 2 values on validation cases") == 2


def test_each_block_and_fold_chooses_for_itself(config: Callable[..., Config], tmp_path: Path) -> None:
    tree = config({"folds": 2}, arms=["classical", "gan"], splits=2, labelled=[2, 4], seeds=2,
                  tune={"strength": [0.5, 1], "seeds": 2}, checkpoint=str(tmp_path / "g-{fold}"))  # fmt: skip
    for fold in range(2):
        with_generator(tree, tmp_path / f"g-{fold}")
    material = Material(tree)
    cells = trial_cells(tree, material.trials)
    low, high = (variant.name for variant in material.trials["gan"])
    # In the second fold with four labelled cases the higher value is better, elsewhere the lower one.
    records = {
        c: record_of(c, 0.8 + (0.1 if (c.arm == high) == ((c.labelled, c.fold) == (4, 1)) else 0.0) - 0.05 * c.seed)
        for c in cells
    }
    choices = choose(material, cells, records)
    assert choices == {("gan", n, k): high if (n, k) == (4, 1) else low for n in (2, 4) for k in (0, 1)}
    strengths = {
        (c.labelled, c.fold): material.arm(c).strength
        for c in with_choices([Cell(n, k, 0, "gan") for n in (2, 4) for k in (0, 1)], choices)
    }
    assert strengths == {(2, 0): 0.5, (2, 1): 0.5, (4, 0): 0.5, (4, 1): 1.0}
    assert material.arm(Cell(2, 0, 0, "classical", "")).name == "classical"
    # A value that lost one of its trainings is no match for one that has both, however good the other was.
    del records[Cell(2, 0, 1, low)]
    records[Cell(2, 1, 0, low)] = record_of(Cell(2, 1, 0, low), math.nan)
    choices = choose(material, cells, records)
    assert choices["gan", 2, 0] == choices["gan", 2, 1] == high
    del records[Cell(2, 0, 0, high)]
    assert ("gan", 2, 0) not in choose(material, cells, records)


def test_a_report_of_folds_and_of_arms_that_give_a_part_themselves(
    config: Callable[..., Config], tmp_path: Path
) -> None:
    arms = ["classical", "gan", {"name": "mild", "use": "gan", "probability": 0.2}]
    for name, data in (("fixed", {}), ("folds", {"folds": 2})):
        tree = config(data, arms=arms, seeds=1, steps=1, pictures=False, tune={"strength": [0.5, 1], "seeds": 1},
                      checkpoint=str(tmp_path / name))  # fmt: skip
        with_generator(tree, tmp_path / name)
        out = compare(tree, tmp_path / f"{name}-study", NoTracker()).output
        assert (out / "figures" / "tuning-0.png").is_file()
        # What is tuned has no place on an axis of strengths.
        assert not list((out / "figures").glob("sweep-*"))
        assert "20 % of samples, strength tuned" in (out / "report.md").read_text()


def test_an_own_function_is_tuned_as_well(
    config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs"))
    tree = config(arms=["classical", "gan"], seeds=1, steps=1, tune={"strength": [0.5, 1], "seeds": 1},
                  function="own_model:train", checkpoint=str(tmp_path / "g"))  # fmt: skip
    result = compare(with_generator(tree, tmp_path / "g"), tmp_path / "out", NoTracker())
    assert [math.isfinite(t.value) for t in read_trials(result.output)] == [True, True]
    for file in (result.output / "tuning").glob("*.json"):
        assert {score["split"] for score in json.loads(file.read_text())["scores"]} == {"validation"}


def test_what_is_tried_may_be_its_teacher(
    config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    train = execution.train_downstream

    def counted(*arguments: Any, **keywords: Any) -> Any:
        trained.append(arguments[3].name)
        return train(*arguments, **keywords)

    monkeypatch.setattr(execution, "train_downstream", counted)
    arms = ["gan", "gan+self-training"]
    tree = config(arms=arms, baseline="gan", seeds=1, steps=1, pictures=False, tune={"strength": [0.5, 1], "seeds": 1},
                  checkpoint=str(tmp_path / "g"))  # fmt: skip
    shown: dict[str, bool] = {}
    finish = LiveTable.finish

    def watched(table: LiveTable, cell: Cell, figure: float | None, *, reused: bool = False) -> None:
        shown[cell.arm] = reused
        finish(table, cell, figure, reused=reused)

    monkeypatch.setattr(LiveTable, "finish", watched)
    compare(with_generator(tree, tmp_path / "g"), tmp_path / "out", NoTracker())
    assert [shown.pop(arm) for arm in arms] == [True, True]
    assert list(shown.values()) == [False] * 4
    # Four trials and nothing anew: each teacher was a trial, and each arm is one of its trials, tested.
    assert len(trained) == 4
    assert not (tmp_path / "out" / "kept").exists()


def test_a_test_scan_among_the_choosers_is_refused(settings: Config, tmp_path: Path) -> None:
    write_cohort(tmp_path)
    image = nibabel.load(tmp_path / "i04.nii.gz")
    nibabel.save(nibabel.Nifti1Image(image.get_fdata() * 3, image.affine), tmp_path / "i00.nii.gz")
    tree = settings.model_dump(mode="json")
    tree["data"]["root"] = str(tmp_path / "manifest.csv")
    with pytest.raises(InputFault, match=r"LEAK: 1 test cases .* of a validation case"):
        Material(parse_config(tree))


def test_validation_cases_are_needed(settings: Config, tmp_path: Path, manifest: Path) -> None:
    rows = read_table(manifest)
    for row in rows:
        row["split"] = "training" if row["split"] == "validation" else row["split"]
        row["image"] = str(manifest.parent / row["image"])
        row["label"] = str(manifest.parent / row["label"]) if row["label"] else ""
    other = tmp_path / "manifest.csv"
    other.write_text("\n".join(",".join(r) for r in [list(rows[0]), *(list(r.values()) for r in rows)]))
    tree = settings.model_dump(mode="json")
    tree["data"]["root"] = str(other)
    with pytest.raises(InputFault, match=r"compare\.tune needs them") as fault:
        Material(parse_config(tree))
    assert fault.value.code == "TOO_FEW_CASES"


def record_of(cell: Cell, value: float) -> RunRecord:
    return RunRecord("", cell.arm, cell.labelled, cell.fold, cell.seed, headline={"dice": value})


def without_times(folder: Path) -> list[Trial]:
    return [replace(trial, seconds=0.0, teacher_seconds=0.0) for trial in read_trials(folder)]


def strengths_of(store: MLflowTracker) -> dict[str, float]:
    runs = store._client.search_runs([store.experiment_id])
    return {r.data.params["arm"]: float(r.data.params["strength"]) for r in runs if r.data.params.get("arm") in TUNED}
