"""A sample's draw is a function of (seed, epoch, sample), whichever loader and worker serves it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, ThreadDataLoader
from monai.transforms import Compose
from monai.utils import set_determinism
from torch.utils.data import DataLoader as TorchDataLoader

from medgan.transforms import RandDAGAN, RandDAGANd
from medgan.transforms.visits import CAPACITY, Visits

COUNT = 8
Draws = dict[str, tuple[float, float]]


def samples(names: Iterable[str] = tuple("abcdefgh"), *, named: bool = True) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 12, 12, 12, generator=generator) for _ in names]
    metas = [{"filename_or_obj": f"{name}.nii.gz"} if named else {} for name in names]
    return [{"image": MetaTensor(i, meta=m), "case": n} for i, m, n in zip(images, metas, names, strict=True)]


@pytest.fixture
def make(checkpoint_folder: Path) -> Callable[..., RandDAGANd]:
    def transform(**arguments: Any) -> RandDAGANd:
        return RandDAGANd("image", checkpoint_folder, **{"prob": 1.0, "strength": (0.1, 1.0), **arguments})

    return transform


def drawn(item: dict[str, Any]) -> tuple[float, float]:
    record = item["image"].applied_operations[-1]["extra_info"]
    return record["seed"], record["strength"]


def first(batch: list[dict[str, Any]]) -> dict[str, Any]:
    return batch[0]


def epoch(loader: Iterable[dict[str, Any]]) -> Draws:
    return {item["case"]: drawn(item) for item in loader}


def torch_loader(transform: Any, workers: int, *, named: bool = True, **arguments: Any) -> TorchDataLoader[Any]:
    data = Dataset(samples(named=named), transform)
    return TorchDataLoader(data, batch_size=1, num_workers=workers, collate_fn=first, **arguments)


@pytest.mark.parametrize("persistent", [False, True])
def test_any_number_of_workers_draws_the_same_for_a_sample(persistent: bool, make: Callable[..., RandDAGANd]) -> None:
    found = []
    for workers in (0, 1, 2):
        keep = persistent and workers > 0
        loader = torch_loader(make(seed=7), workers, shuffle=True, persistent_workers=keep)
        found.append([epoch(loader), epoch(loader)])
    assert found[0] == found[1] == found[2]
    both = [draw for one in found[0] for draw in one.values()]
    assert len(set(both)) == 2 * COUNT


def test_so_it_is_with_monais_loader_and_in_threads(make: Callable[..., RandDAGANd]) -> None:
    found = []
    for cls, workers in ((DataLoader, 0), (DataLoader, 2), (ThreadDataLoader, 0)):
        transform = Compose([make(seed=7)])
        loader = cls(Dataset(samples(), transform), batch_size=1, num_workers=workers, collate_fn=first)
        found.append([epoch(loader), epoch(loader)])
    assert found[0] == found[1] == found[2]
    assert set(found[0][0].values()).isdisjoint(found[0][1].values())


def test_threads_for_workers_keep_their_draws_apart(make: Callable[..., RandDAGANd]) -> None:
    expected = epoch(torch_loader(make(seed=7), 0))
    loader = ThreadDataLoader(
        Dataset(samples(), make(seed=7)), batch_size=1, num_workers=3, use_thread_workers=True, collate_fn=first
    )
    assert epoch(loader) == expected


def test_spawned_workers_count_together(make: Callable[..., RandDAGANd]) -> None:
    expected = torch_loader(make(seed=7), 0)
    first_epoch, second_epoch = epoch(expected), epoch(expected)
    loader = torch_loader(make(seed=7), 1, multiprocessing_context="spawn", persistent_workers=True)
    assert epoch(loader) == first_epoch
    assert epoch(loader) == second_epoch


def test_setting_the_epoch_reaches_workers_that_are_alive(make: Callable[..., RandDAGANd]) -> None:
    transform = make(seed=7)
    loader = torch_loader(transform, 2, persistent_workers=True)
    draws = []
    for number in (0, 5, 0):
        transform.set_epoch(number)
        draws.append(epoch(loader))
    assert draws[0] == draws[2]
    assert set(draws[0].values()).isdisjoint(draws[1].values())


def test_a_sample_seen_twice_in_an_epoch_differs_each_time(make: Callable[..., RandDAGANd]) -> None:
    draws = [drawn(make(seed=7)(samples()[0])) for _ in range(2)]
    assert draws[0] == draws[1]
    transform = make(seed=7)
    assert len({drawn(transform(samples()[0])) for _ in range(5)}) == 5


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("seed", [None, 3])
def test_torchs_plain_loader_gives_no_two_samples_the_same(
    seed: int | None, named: bool, make: Callable[..., RandDAGANd]
) -> None:
    """Unseeded MONAI transforms draw alike in two workers of it: they share the class's stream."""
    loader = torch_loader(make(seed=seed), 2, named=named)
    draws = [*epoch(loader).values(), *epoch(loader).values()]
    assert len(set(draws)) == 2 * COUNT


def test_without_a_file_a_seed_tells_samples_by_their_voxels(make: Callable[..., RandDAGANd]) -> None:
    a, b = (epoch(torch_loader(make(seed=7), workers, named=False)) for workers in (0, 2))
    assert a == b
    assert len(set(a.values())) == COUNT


def test_a_key_may_tell_samples_apart(make: Callable[..., RandDAGANd]) -> None:
    draws = [drawn(make(seed=7, id_key="case")({**samples()[i], "case": "same"})) for i in (0, 1)]
    assert draws[0] == draws[1]


def test_set_random_state_decides_everything(make: Callable[..., RandDAGANd]) -> None:
    def run(seed: int, *, named: bool) -> list[tuple[float, float]]:
        transform = make().set_random_state(seed)
        return [drawn(transform(sample)) for sample in samples(named=named)]

    for named in (False, True):
        assert run(3, named=named) == run(3, named=named)
        assert run(3, named=named) != run(4, named=named)


def test_a_random_state_may_be_given(make: Callable[..., RandDAGANd]) -> None:
    def run(seed: int) -> tuple[float, float]:
        return drawn(make().set_random_state(state=np.random.RandomState(seed))(samples()[0]))

    assert run(3) == run(3) != run(4)


@pytest.mark.parametrize("workers", [0, 2])
def test_set_determinism_decides_everything(workers: int, make: Callable[..., RandDAGANd]) -> None:
    def run(seed: int) -> list[Draws]:
        set_determinism(seed)
        loader = DataLoader(
            Dataset(samples(), Compose([make()])), batch_size=1, num_workers=workers, collate_fn=first, shuffle=True
        )
        return [epoch(loader), epoch(loader)]

    try:
        one, again, other = run(1), run(1), run(2)
    finally:
        set_determinism(None)
    assert one == again != other
    assert set(one[0].values()).isdisjoint(one[1].values())


def test_monais_workers_agree_whatever_their_number(make: Callable[..., RandDAGANd]) -> None:
    found = []
    for workers in (1, 3):
        generator = torch.Generator().manual_seed(4)
        data = Dataset(samples(), Compose([make()]))
        loader = DataLoader(data, batch_size=1, num_workers=workers, collate_fn=first, generator=generator)
        found.append([epoch(loader), epoch(loader)])
    assert found[0] == found[1]


def test_probability_holds_sample_by_sample(make: Callable[..., RandDAGANd]) -> None:
    transform = make(prob=0.3, seed=1)
    for _ in range(25):
        for sample in samples():
            transform.randomize(sample)
    share = np.mean([transform._draw(sample) is not None for sample in samples() for _ in range(50)])
    assert 0.2 < share < 0.4


def test_the_array_version_draws_by_the_file_too(checkpoint_folder: Path) -> None:
    one, twin = (RandDAGAN(checkpoint_folder, prob=1.0, seed=2) for _ in range(2))
    a, b = (sample["image"] for sample in samples("ab"))
    forward, backward = [one(a), one(b)], [twin(b), twin(a)]
    assert torch.equal(forward[0], backward[1])
    assert torch.equal(forward[1], backward[0])


def test_a_negative_epoch_is_refused(make: Callable[..., RandDAGANd]) -> None:
    with pytest.raises(ValueError, match="-1"):
        make().set_epoch(-1)


def test_visits_of_a_copy_go_on_by_themselves() -> None:
    visits = Visits()
    assert [visits.count("a"), visits.count("a"), visits.count("b")] == [0, 1, 0]
    twin = copy.deepcopy(visits)
    assert [twin.count("a"), visits.count("a")] == [2, 2]
    assert pickle.loads(pickle.dumps(visits)).count("a") == 0


def test_more_samples_than_the_table_holds_are_still_counted() -> None:
    visits = Visits()
    visits._rows[:CAPACITY, 0] = 1  # full of another sample
    assert [visits.count("a"), visits.count("a"), visits.count("b")] == [0, 1, 0]
