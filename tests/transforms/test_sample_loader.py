"""Fault 28: a loader's worker dies; the message names the sample."""

from __future__ import annotations

import doctest
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import CacheDataset, Dataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from torch.utils.data import IterableDataset

from medgan.transforms import RandDAGANd, SampleDataLoader
from medgan.transforms.loader import WorkerLost

KEYS = ["image", "label"]


def files(cohort: Path) -> list[dict[str, Any]]:
    return [
        {"image": cohort / "images" / f"case{i:02d}.nii.gz", "label": cohort / "labels" / f"case{i:02d}.nii.gz"}
        for i in range(1, 5)
    ]


def killed_at(name: str, how: Callable[[], None]) -> Callable[[Any], Any]:
    def act(sample: Any) -> Any:
        if name in str(sample["image"] if isinstance(sample, dict) else sample):
            time.sleep(0.3)  # so that the others are served, and the parent waits
            how()
        return sample

    return act


def fatal(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


DEATHS = {"killed": fatal(signal.SIGKILL), "segmentation fault": fatal(signal.SIGSEGV), "exit": lambda: os._exit(3)}


@pytest.mark.parametrize("how", DEATHS)
def test_28_the_sample_a_worker_died_over_is_named(how: str, cohort_folder: Path) -> None:
    data = Dataset(files(cohort_folder), Compose([killed_at("case03", DEATHS[how])]))
    with pytest.raises(WorkerLost) as lost:
        list(SampleDataLoader(data, num_workers=2, batch_size=1, collate_fn=lambda batch: batch))
    message = str(lost.value)
    image, label = files(cohort_folder)[2].values()
    assert message.startswith(f"sample 2, image {image}, label {label}: WORKER_DIED: ")
    assert "use fewer workers or more memory" in message
    assert "\n" not in message
    assert isinstance(lost.value.__cause__, RuntimeError)
    # Nothing was harmed: the files are there, and the next epoch runs.
    assert image.exists()
    assert len(list(SampleDataLoader(files(cohort_folder), num_workers=2, collate_fn=len))) == 4


def test_28_it_is_named_wherever_the_main_thread_is(cohort_folder: Path) -> None:
    data = Dataset(files(cohort_folder), Compose([killed_at("case03", fatal(signal.SIGKILL))]))
    batches = iter(SampleDataLoader(data, num_workers=1, batch_size=1, collate_fn=lambda batch: batch))
    next(batches)
    with pytest.raises(WorkerLost, match="sample 2, image"):
        time.sleep(60)  # a long update on a GPU


def test_28_a_fault_in_a_worker_names_the_sample_too(cohort_folder: Path) -> None:
    def fail() -> None:
        raise ValueError("no such thing")

    data = Dataset(files(cohort_folder), Compose([killed_at("case03", fail)]))
    with pytest.raises(RuntimeError, match=r"medgan: over sample 2, image .*case03\.nii\.gz"):
        list(SampleDataLoader(data, num_workers=1, batch_size=1, collate_fn=lambda batch: batch))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cached", [False, True])
def test_batches_are_those_of_monais_loader(
    workers: int, cached: bool, cohort_folder: Path, checkpoint_folder: Path
) -> None:
    from monai.data import DataLoader

    found = []
    for loader in (DataLoader, SampleDataLoader):
        augment = RandDAGANd(KEYS, str(checkpoint_folder), prob=1.0, seed=5)
        pipeline = Compose([LoadImaged(KEYS), EnsureChannelFirstd(KEYS), augment])
        make: Any = CacheDataset if cached else Dataset
        data = make(files(cohort_folder), pipeline, **({"progress": False} if cached else {}))
        torch.manual_seed(0)
        found.append([batch["image"] for batch in loader(data, num_workers=workers, batch_size=1, shuffle=True)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_epochs_that_were_left_early_blame_nobody_later(cohort_folder: Path) -> None:
    def slow(sample: Any) -> Any:
        time.sleep(0.2)
        return sample

    loader = SampleDataLoader(Dataset(files(cohort_folder), slow), num_workers=2, batch_size=1, collate_fn=len)
    for _ in range(2):
        for _ in loader:
            break
    assert len(list(loader)) == 4


def test_the_data_set_is_reached_through_the_loader(cohort_folder: Path) -> None:
    loader = SampleDataLoader(Dataset(files(cohort_folder)), num_workers=0)
    assert len(loader.dataset) == 4
    assert loader.dataset.data == files(cohort_folder)


def test_an_iterable_data_set_is_refused() -> None:
    class Endless(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(int, 1)

    with pytest.raises(ValueError, match="map-style"):
        SampleDataLoader(Endless())


def test_it_works_with_spawned_workers(tmp_path: Path) -> None:
    (tmp_path / "spawned.py").write_text(
        "import os, signal\n"
        "from medgan.transforms import SampleDataLoader\n"
        "class Data:\n"
        "    data = [{'image': 'a'}, {'image': 'b'}]\n"
        "    def __len__(self): return 2\n"
        "    def __getitem__(self, index):\n"
        "        if index == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return index\n"
        "if __name__ == '__main__':\n"
        "    list(SampleDataLoader(Data(), num_workers=1, multiprocessing_context='spawn'))\n"
    )
    ended = subprocess.run([sys.executable, tmp_path / "spawned.py"], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "WorkerLost: sample 1, image b: WORKER_DIED" in ended.stderr.splitlines()[-1]


def test_the_example_runs() -> None:
    tests = doctest.DocTestFinder(recurse=False).find(SampleDataLoader, globs={"SampleDataLoader": SampleDataLoader})
    results = [doctest.DocTestRunner().run(test) for test in tests]
    assert results == [doctest.TestResults(failed=0, attempted=2)]
