"""A training function of the user's own, in place of the built-in downstream model.

It gets the arm's augmented samples, the validation cases with their truth and the test cases without it, trains what
it likes, and hands back predictions; the study scores them like any others.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from medgan.comparison.arms import AUGMENTATION_THREADS, Arm, choose_indices
from medgan.comparison.scoring import Task
from medgan.data.loaders import Prepared
from medgan.errors import InputFault
from medgan.seeding import derive_seed
from medgan.threads import torch_threads

TrainFunction = Callable[..., Mapping[str, Sequence[Any]]]
CONTRACT = "see docs/own_model.py for what it is given and must give back"
SUM_TOLERANCE = 1e-3  # probabilities that went through float16 or a text file


@dataclass(frozen=True, eq=False)
class OwnLogits:
    """Predictions in the form the study scores.

    Attributes:
        validation: ``(N, outputs, *shape)``, 1 for the predicted structure and 0 else, or ``(N, K)`` log-probabilities.
        test: the same of the test cases.
        seconds: what the function took.
    """

    validation: Tensor
    test: Tensor
    seconds: float


class TrainingSamples(IterableDataset[dict[str, Any]]):
    """An arm's augmented training samples, epoch after epoch.

    A sample is ``{"image": (C, *shape) float32, "label": (1, *shape) int64}`` (labels numbered 0 to outputs − 1) or
    ``{"image": ..., "target": class index}``. ``epoch(n)`` is a function of (seed, n) alone; each ``iter()`` gives the
    next epoch, so ``DataLoader(samples, batch_size=4)`` can be gone through again and again.

    Args:
        cases: the training cases.
        arm: decides which cases an epoch holds.
        transform: of :func:`~medgan.comparison.arms.build_transform`.
        task: what is learned.
        seed: of the run.
        pseudo: how many of the cases, the last ones, have pseudo-labels.
        share: of an epoch that they get.
    """

    def __init__(
        self,
        cases: Sequence[Prepared],
        arm: Arm,
        transform: Any,
        task: Task,
        seed: int,
        pseudo: int = 0,
        share: float = 0.5,
    ) -> None:
        self._cases = cases
        self._arm = arm
        self._transform = transform
        self._task = task
        self._seed = seed
        self._pseudo, self._share = pseudo, share
        self._next = 0

    def __len__(self) -> int:
        """Samples in an epoch."""
        return len(self._cases)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Go through the next epoch.

        Raises:
            RuntimeError: called in a worker process, which would give the same epoch again and again.
        """
        if get_worker_info() is not None:
            raise RuntimeError("training samples are made in the main process: set num_workers=0")
        number = self._next
        self._next += 1
        return self.epoch(number)

    def epoch(self, number: int) -> Iterator[dict[str, Any]]:
        """Go through epoch ``number``, from 0."""
        alike = self._task.kind == "segmentation"
        classes = [0 if alike else case.class_index for case in self._cases]
        chosen = choose_indices(self._arm, self._seed, number, classes, len(self._cases), self._pseudo, self._share)
        for place, index in enumerate(chosen):
            seed = derive_seed(self._seed, "augment", number, place) % 2**32
            with torch_threads(AUGMENTATION_THREADS):
                self._transform.set_random_state(seed)
                sample = self._transform(
                    {**_sample(self._cases[index], self._task), "class": self._cases[index].case.class_name}
                )
            yield {
                key: _own(sample[key], whole=key == "label") for key in ("image", "label", "target") if key in sample
            }


def load_function(path: str) -> TrainFunction:
    """Return the function that ``module:function`` names.

    Importing a module runs it. That is meant: the user names code of their own on their own machine, which is trusted
    as any program they start. Never take such a name from someone else's configuration without reading the module.
    The current folder is searched last.

    Raises:
        InputFault: ``FUNCTION_PATH`` or ``FUNCTION_IMPORT``: not of that form, no such module, the module fails, or
            it has no such function.
    """
    module_name, _, name = path.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise InputFault(path, "FUNCTION_PATH", "not of the form module:function", "write e.g. own_model:train")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        reason = f"the module cannot be imported ({_cause(error)})"
        raise InputFault(path, "FUNCTION_IMPORT", reason, "run from its folder, or install its package") from error
    function = getattr(module, name, None)
    if not callable(function):
        reason = f"the module has no function {name!r}"
        raise InputFault(path, "FUNCTION_IMPORT", reason, CONTRACT)
    found: TrainFunction = function
    return found


def function_digest(function: TrainFunction) -> str:
    """Return the SHA-256 of the file that defines the function: another file is another plan."""
    source = inspect.getsourcefile(inspect.unwrap(function))
    if source is None:
        raise InputFault("function", "FUNCTION_PATH", "its source file is not known", "name a Python file's function")
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()


def run_own_function(
    function: TrainFunction,
    training: TrainingSamples,
    validation: Sequence[Prepared],
    test: Sequence[Prepared],
    task: Task,
    *,
    seed: int,
    steps: int,
) -> OwnLogits:
    """Train and predict by the user's function, and check what it gives back.

    It is called as ``function(training, validation, test, seed=, steps=, task=)``: training as
    :class:`TrainingSamples`, validation as a list of samples of the same form, test as a list of samples with the
    image alone. It returns ``{"validation": predictions, "test": predictions}`` in the order of the lists: for
    segmentation whole-number label maps ``(1, *shape)`` of 0 to outputs − 1, for classification probabilities
    ``(K,)`` in the order of ``task.class_names``. What it changes in place stays its own.

    Args:
        function: from :func:`load_function`.
        training: the arm's samples.
        validation: cases with truth.
        test: cases whose truth the function does not get.
        task: what is learned.
        seed: of the run; torch's global stream is put back afterwards.
        steps: the arms' budget of updates.

    Raises:
        InputFault: ``FUNCTION_FAILED``, or ``PREDICTIONS_FORM``, ``PREDICTIONS_COUNT``, ``PREDICTIONS_SHAPE`` or
            ``PREDICTIONS_VALUE``: something else came back.
    """
    name = getattr(function, "__name__", type(function).__name__)
    known = [
        {key: _own(value, whole=key == "label") for key, value in _sample(case, task).items()} for case in validation
    ]
    unknown = [{"image": _own(case.image)} for case in test]
    started = time.perf_counter()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "function"))
            given = function(training, known, unknown, seed=seed, steps=steps, task=task)
    except InputFault:
        raise
    except Exception as error:
        raise InputFault(name, "FUNCTION_FAILED", f"it failed ({_cause(error)})", CONTRACT) from error
    seconds = time.perf_counter() - started
    if not isinstance(given, Mapping) or not {"validation", "test"} <= set(given):
        reason = f"it gave {type(given).__name__}, not a mapping with validation and test"
        raise InputFault(name, "PREDICTIONS_FORM", reason, CONTRACT)
    make = _of_label_maps if task.kind == "segmentation" else _of_probabilities
    logits = [make(given[part], cases, task, f"{name}, {part}") for part, cases in _parts(validation, test)]
    return OwnLogits(logits[0], logits[1], seconds)


def _parts(validation: Sequence[Prepared], test: Sequence[Prepared]) -> list[tuple[str, Sequence[Prepared]]]:
    return [("validation", validation), ("test", test)]


def _of_label_maps(given: Any, cases: Sequence[Prepared], task: Task, where: str) -> Tensor:
    from monai.networks.utils import one_hot

    shape = tuple(cases[0].image.shape[1:]) if cases else ()
    arrays = _arrays(given, len(cases), (1, *shape), where)
    for array in arrays:
        if not (np.equal(array, np.round(array)).all() and array.min() >= 0 and array.max() < task.outputs):
            reason = (
                f"label maps hold whole numbers from 0 to {task.outputs - 1}, got {array.min():g} to {array.max():g}"
            )
            raise InputFault(where, "PREDICTIONS_VALUE", reason, "take the argmax over the network's outputs")
    if not arrays:
        return torch.empty(0, task.outputs)
    maps = torch.from_numpy(np.stack(arrays).astype(np.int64))
    logits: Tensor = one_hot(maps, task.outputs)
    return logits


def _of_probabilities(given: Any, cases: Sequence[Prepared], task: Task, where: str) -> Tensor:
    arrays = _arrays(given, len(cases), (task.outputs,), where)
    for array in arrays:
        if array.min() < 0 or abs(float(array.sum()) - 1) > SUM_TOLERANCE:
            reason = f"probabilities are ≥ 0 and sum to 1, got {np.round(array, 3).tolist()[:8]}"
            raise InputFault(where, "PREDICTIONS_VALUE", reason, "take the softmax of the network's outputs")
    if not arrays:
        return torch.empty(0, task.outputs)
    probabilities = torch.from_numpy(np.stack(arrays))
    return probabilities.clamp_min(torch.finfo(torch.float64).tiny).log()


def _arrays(given: Any, count: int, shape: tuple[int, ...], where: str) -> list[np.ndarray]:
    """Return predictions as finite float64 arrays of the right number and shape."""
    try:
        arrays = [np.asarray(a.detach().cpu() if isinstance(a, Tensor) else a, dtype=np.float64) for a in given]
    except (TypeError, ValueError) as error:
        reason = f"not a list of arrays ({type(error).__name__})"
        raise InputFault(where, "PREDICTIONS_FORM", reason, CONTRACT) from error
    if len(arrays) != count:
        reason = f"{len(arrays)} predictions of {count} cases"
        raise InputFault(where, "PREDICTIONS_COUNT", reason, "give one for each case, in the order of the list")
    for number, array in enumerate(arrays):
        if array.shape != shape:
            reason = f"prediction {number} has shape {array.shape}, not {shape}"
            raise InputFault(where, "PREDICTIONS_SHAPE", reason, CONTRACT)
        if not np.isfinite(array).all():
            raise InputFault(
                where, "PREDICTIONS_VALUE", f"prediction {number} is NaN or infinite", "check the function's training"
            )
    return arrays


def _sample(case: Prepared, task: Task) -> dict[str, Any]:
    """Return a case's image and truth."""
    if task.kind == "classification":
        return {"image": case.image, "target": case.class_index}
    if case.label is None:
        raise ValueError("a case of a segmentation study has no label map")
    return {"image": case.image, "label": task.compact(case.label)}


def _own(value: Any, *, whole: bool = False) -> Any:
    """Return a copy without MONAI's metadata, whole numbers for label maps: what the user does to it stays theirs."""
    if not isinstance(value, Tensor):
        return value
    tensor = value.as_tensor() if hasattr(value, "as_tensor") else value
    return tensor.round().long() if whole else tensor.float().clone()


def _cause(error: BaseException) -> str:
    """Return an error in one line, with the place in the user's code that it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}: {error}"
