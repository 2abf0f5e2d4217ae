from __future__ import annotations

import hashlib
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from medgan.comparison.arms import Arm, batch_indices, build_transform, parse_parts
from medgan.comparison.own_function import TrainingSamples, function_digest, load_function, run_own_function
from medgan.comparison.scoring import Task
from medgan.data.case import Case
from medgan.data.loaders import Prepared
from medgan.errors import InputFault

DOCS = Path(__file__).parents[2] / "docs"
SHAPE = (16, 16, 16)
SEGMENTATION = Task("segmentation", ("cube", "absent"), (2, 7))
CLASSIFICATION = Task("classification", class_names=("dark", "bright"))
TASKS = pytest.mark.parametrize("task", [SEGMENTATION, CLASSIFICATION], ids=lambda t: t.kind)


def item(index: int) -> Prepared:
    """A noisy volume with a cube of label 2; class ``bright`` has the cube brighter."""
    generator = torch.Generator().manual_seed(index)
    image = torch.rand(1, *SHAPE, generator=generator) * 0.3
    label = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    cube = (slice(None), slice(4, 10), slice(4, 10), slice(4, 10))
    image[cube] += 0.3 + 0.4 * (index % 2)
    label[cube] = 2
    case = Case(f"c{index}", f"p{index}", (Path("x.nii.gz"),), Path("y.nii.gz"), ("dark", "bright")[index % 2])
    return Prepared(case, image, label, index % 2)


CASES = [item(i) for i in range(11)]


def samples(task: Task, parts: str = "none", seed: int = 0) -> TrainingSamples:
    arm = Arm(parts, parse_parts(parts))
    transform = build_transform(arm, task=task.kind, modality="mri", shape=SHAPE)
    return TrainingSamples(CASES[:6], arm, transform, task, seed)


def run(function: Any, task: Task, parts: str = "none", steps: int = 2) -> Any:
    return run_own_function(function, samples(task, parts), CASES[6:8], CASES[8:], task, seed=4, steps=steps)


def answer(task: Task, count: int) -> list[Any]:
    if task.kind == "segmentation":
        return [np.zeros((1, *SHAPE), np.uint8) for _ in range(count)]
    return [[0.25, 0.75] for _ in range(count)]


@TASKS
def test_the_example_learns(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    train = load_function("own_model:train")
    out = run(train, task, "classical", steps=30)
    assert out.seconds > 0
    if task.kind == "segmentation":
        truth = torch.stack([task.compact(c.label) for c in CASES[8:] if c.label is not None])
        predicted = out.test.argmax(dim=1, keepdim=True)
        overlap = 2 * ((predicted == 1) & (truth == 1)).sum() / ((predicted == 1).sum() + (truth == 1).sum())
        assert float(overlap) > 0.5
        assert out.validation.shape == (2, 3, *SHAPE)
    else:
        assert out.test.shape == (3, 2)
        assert torch.allclose(out.test.exp().sum(dim=1), torch.ones(3, dtype=torch.float64), atol=1e-5)


@TASKS
def test_the_example_gives_the_same_for_the_same_seed(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    train = load_function("own_model:train")
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    first = run(train, task, "classical")
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(first.test, run(train, task, "classical").test)


def test_the_example_is_at_most_forty_lines_of_code() -> None:
    lines = (DOCS / "own_model.py").read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 40


@TASKS
def test_an_epoch_is_a_function_of_seed_and_number(task: Task) -> None:
    training = samples(task, "classical")
    first, again, later = (list(training.epoch(n)) for n in (3, 3, 4))
    assert len(training) == len(first) == 6
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a["image"], b["image"]) for a, b in zip(first, later, strict=True))
    other = list(samples(task, "classical", seed=1).epoch(3))
    assert not all(torch.equal(a["image"], b["image"]) for a, b in zip(first, other, strict=True))


def test_each_iteration_is_the_next_epoch_in_the_arms_order() -> None:
    training = samples(CLASSIFICATION)
    for number in range(3):
        order = batch_indices(0, number, 6, 6)
        seen = list(training)
        assert all(torch.equal(s["image"], CASES[i].image) for s, i in zip(seen, order, strict=True))
        assert [s["target"] for s in seen] == [i % 2 for i in order]
    assert next(iter(DataLoader(training, batch_size=4)))["image"].shape == (4, 1, *SHAPE)
    with pytest.raises(RuntimeError, match="num_workers=0"):
        next(iter(DataLoader(training, batch_size=4, num_workers=1)))


def test_labels_are_whole_numbers_in_the_tasks_numbering() -> None:
    for sample in samples(SEGMENTATION, "classical").epoch(0):
        assert set(sample) == {"image", "label"}
        assert sample["label"].dtype == torch.int64
        assert set(sample["label"].unique().tolist()) <= {0, 1}
        assert type(sample["image"]) is torch.Tensor


@TASKS
def test_the_function_gets_no_truth_of_the_test_and_cannot_change_the_cases(task: Task) -> None:
    before = [c.image.clone() for c in CASES]

    def function(training: Any, validation: Any, test: Any, *, seed: int, steps: int, task: Task) -> Any:
        assert (seed, steps) == (4, 2)
        assert [set(s) for s in test] == [{"image"}] * 3
        assert [len(s) for s in validation] == [2, 2]
        for sample in [*training, *validation, *test]:
            sample["image"].zero_()
            if "label" in sample:
                sample["label"].zero_()
        return {"validation": answer(task, 2), "test": answer(task, 3)}

    run(function, task)
    assert all(torch.equal(a, c.image) for a, c in zip(before, CASES, strict=True))
    assert all(int(c.label.sum()) == 2 * 216 for c in CASES if c.label is not None)


def test_predictions_become_what_the_study_scores() -> None:
    maps = [np.full((1, *SHAPE), n, np.int16) for n in (0, 1, 2)]
    out = run(lambda *_, **__: {"validation": maps[:2], "test": maps}, SEGMENTATION)
    assert out.test.shape == (3, 3, *SHAPE)
    assert [row.argmax(dim=0).unique().tolist() for row in out.test] == [[0], [1], [2]]
    out = run(lambda *_, **__: {"validation": [[1, 0]] * 2, "test": [[0.25, 0.75]] * 3}, CLASSIFICATION)
    assert torch.softmax(out.test, dim=1)[0].tolist() == pytest.approx([0.25, 0.75])
    assert torch.isfinite(out.validation).all()
    assert torch.softmax(out.validation, dim=1)[0].tolist() == pytest.approx([1, 0])


@TASKS
@pytest.mark.parametrize(
    ("given", "code"),
    [
        (lambda _: None, "PREDICTIONS_FORM"),
        (lambda good: {"test": good}, "PREDICTIONS_FORM"),
        (lambda good: {"validation": good[:2], "test": 3}, "PREDICTIONS_FORM"),
        (lambda good: {"validation": good[:2], "test": ["x"] * 3}, "PREDICTIONS_FORM"),
        (lambda good: {"validation": good[:2], "test": good[:2]}, "PREDICTIONS_COUNT"),
        (lambda good: {"validation": good, "test": good}, "PREDICTIONS_COUNT"),
        (lambda good: {"validation": good[:2], "test": [[g] for g in good]}, "PREDICTIONS_SHAPE"),
        (lambda good: {"validation": good[:2], "test": [np.asarray(g) * math.nan for g in good]}, "PREDICTIONS_VALUE"),
        (lambda good: {"validation": good[:2], "test": [np.asarray(g) + 3 for g in good]}, "PREDICTIONS_VALUE"),
        (lambda good: {"validation": good[:2], "test": [np.asarray(g) - 1 for g in good]}, "PREDICTIONS_VALUE"),
        (lambda good: {"validation": good[:2], "test": [np.asarray(g) + 0.5 for g in good]}, "PREDICTIONS_VALUE"),
    ],
)
def test_predictions_that_are_none_are_refused(given: Any, code: str, task: Task) -> None:
    with pytest.raises(InputFault) as caught:
        run(lambda *_, **__: given(answer(task, 3)), task)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_a_function_that_fails_says_where() -> None:
    def function(*_: Any, **__: Any) -> Any:
        raise KeyError("no such\nthing")

    with pytest.raises(InputFault, match=r"FUNCTION_FAILED: .*KeyError at test_own_function\.py:\d+") as caught:
        run(function, SEGMENTATION)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("own_model", "FUNCTION_PATH"),
        ("own_model:", "FUNCTION_PATH"),
        ("own model:train", "FUNCTION_PATH"),
        ("../own_model:train", "FUNCTION_PATH"),
        ("own_model:train.x", "FUNCTION_PATH"),
        ("no_such_module_here:train", "FUNCTION_IMPORT"),
        ("broken_model:train", "FUNCTION_IMPORT"),
        ("math:train", "FUNCTION_IMPORT"),
        ("math:pi", "FUNCTION_IMPORT"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(
    path: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_model.py").write_text("1 / 0\n")
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputFault) as caught:
        load_function(path)
    assert caught.value.code == code


def test_a_function_of_the_current_folder_is_found_and_its_file_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "def train(*_, **__):\n    return 5\n"
    (tmp_path / "model_of_this_folder.py").write_text(source)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    function = load_function("model_of_this_folder:train")
    assert function() == 5
    assert function_digest(function) == hashlib.sha256(source.encode()).hexdigest()
