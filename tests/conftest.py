from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from medgan.checkpoint import Origin, save_checkpoint
from medgan.config import Config, parse_config
from medgan.data.cohort import Case, read_cohort
from medgan.data.loaders import Prepared
from medgan.data.preprocess import Preprocessing
from medgan.data.split import content_hash
from medgan.measures.critic import Critic, fit_critic
from medgan.models.generator import Generator
from medgan.training.validation import interpolated_features

REALDATA = Path(os.environ.get("MEDGAN_REALDATA", Path(__file__).parents[2] / "shared" / "data"))
BALLS_SHAPE = (16, 16, 16)
AFFINE = np.array([[-2.0, 0, 0, 20], [0, 2.0, 0, -15], [0, 0, 2.5, 7], [0, 0, 0, 1]])  # L, A, S


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """A command sets how much is logged; the next test starts as a fresh process would."""
    loggers = logging.getLogger(), logging.getLogger("medgan")
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser that asks nobody for anything.

    It ends with its module: a worker forked while it is open inherits the pipe to its driver, and the driver waits for
    ever for the end of a pipe that a worker still holds.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((path for path in map(shutil.which, names) if path), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    arguments = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ]  # fmt: skip
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real volumes; tests that need it are skipped, by name, without it."""
    if not REALDATA.is_dir():
        pytest.skip("real CT and MRI volumes absent (set MEDGAN_REALDATA to their folder)")
    return REALDATA


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float) -> np.ndarray:
    """A solid ball, bool."""
    grid = np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))
    return (grid**2).sum(axis=0) <= radius**2


def write_patient(folder: Path, name: str, seed: int, *, large: bool) -> tuple[Path, Path]:
    """Write an image with a bright ball and its label map; the ball's size is the class."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(18, 22, 3))
    centre = tuple((n - 1) / 2 + rng.uniform(-1.5, 1.5) for n in shape)
    mask = ball(shape, centre, (6 if large else 4) + rng.uniform(-0.5, 0.5))
    image = 200 + 600 * mask + rng.normal(0, 30, shape)
    paths = folder / "images" / f"{name}.nii.gz", folder / "labels" / f"{name}.nii.gz"
    for path, data, dtype in zip(paths, (image, mask), (np.int16, np.uint8), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(data.astype(dtype), AFFINE), path)
    return paths


@pytest.fixture(scope="session")
def cohort_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients with a ball, small or large (the class), a manifest with splits; one without label and class."""
    folder = tmp_path_factory.mktemp("cohort")
    lines = ["case_id,patient_id,image,label,size,split"]
    for i in range(12):
        large = i % 2 == 1
        write_patient(folder, f"case{i:02d}", i, large=large)
        split = "train" if i < 6 else "val" if i < 8 else "test"
        label = "" if i == 0 else f"labels/case{i:02d}.nii.gz"
        size = "" if i == 0 else ("large" if large else "small")
        lines.append(f"case{i:02d},patient{i:02d},images/case{i:02d}.nii.gz,{label},{size},{split}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def tiny_tree(cohort_folder: Path) -> dict[str, object]:
    """A configuration of the tiny cohort, quick to train."""
    return {
        "name": "tiny",
        "data": {
            "root": str(cohort_folder),
            "class_key": "size",
            "classes": ["small", "large"],
            "labels": {1: "ball"},
        },
        "preprocess": {"shape": [16, 16, 16], "spacing": [2.0, 2.0, 2.5]},
        "model": {"width": 4, "latent": 4, "basis": 2},
        "training": {
            "steps": 6,
            "batch": 2,
            "validate_every": 3,
            "picture_every": 6,
            "state_every": 2,
            "log_every": 2,
            "penalty_every": 2,
        },
        "compare": {"steps": 4, "batch": 2, "width": 4, "seeds": 1, "curve_points": 2, "bootstrap": 100},
        "tracking": {"kind": "none"},
    }


@pytest.fixture(scope="session")
def tiny_config(tiny_tree: dict[str, object]) -> Config:
    return parse_config(tiny_tree)


@pytest.fixture(scope="session")
def make_checkpoint(tiny_config: Config) -> Callable[..., Path]:
    """Write a checkpoint of an untrained generator whose siblings nevertheless differ well from their source."""

    def make(
        folder: Path,
        config: Config = tiny_config,
        channels: int = 1,
        classes: tuple[str, ...] = ("small", "large"),
        seen: Sequence[Case] = (),
        critic: Critic | None = None,
    ) -> Path:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            generator = Generator(config.model, channels, len(classes), config.preprocess.shape)
            with torch.no_grad():
                for head in (generator.velocity, generator.appearance, generator.affine):
                    head.weight.mul_(15)
        cases = [{"case_id": c.case_id, "patient_id": c.patient_id, "content_sha256": content_hash(c)} for c in seen]
        origin = Origin(classes, {1: "ball"}, channels, cases, "0")
        save_checkpoint(folder, generator.state_dict(), config, origin, critic)
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint_folder(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="session")
def judged_checkpoint(
    make_checkpoint: Callable[..., Path],
    tiny_config: Config,
    cohort_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A checkpoint that has seen the first six cases of the cohort, with a critic of forty patients like them."""
    grid = Preprocessing(tiny_config.preprocess)
    folder, units = tmp_path_factory.mktemp("patients"), []
    for i in range(40):
        image = nibabel.load(write_patient(folder, f"{i}", 100 + i, large=i % 2 == 1)[0])
        units.append(grid.image_to_grid(np.asarray(image.dataobj, dtype=np.float32)[None], image.affine))
    critic = fit_critic(interpolated_features(torch.stack(units), 0))
    seen = read_cohort(cohort_folder, class_key="size").cases[:6]
    return make_checkpoint(tmp_path_factory.mktemp("judged"), seen=seen, critic=critic)


@pytest.fixture
def volume() -> torch.Tensor:
    """A noisy ball, ``(1, 20, 18, 22)`` float32 in a scanner's units."""
    rng = np.random.default_rng(7)
    shape = (20, 18, 22)
    return torch.from_numpy(200 + 600 * ball(shape, (9, 9, 11), 5) + rng.normal(0, 20, shape)).float()[None]


@pytest.fixture
def label() -> torch.Tensor:
    """The ball's label map, ``(1, 20, 18, 22)`` uint8."""
    return torch.from_numpy(ball((20, 18, 22), (9, 9, 11), 5).astype(np.uint8))[None]


@pytest.fixture(scope="session")
def balls() -> Callable[[int, int], list[Prepared]]:
    """Make cases with a ball, by turns small and large (the class), at another place in each."""

    def make(count: int, first: int) -> list[Prepared]:
        prepared = []
        for i in range(first, first + count):
            rng = np.random.default_rng(i)
            grid = np.indices(BALLS_SHAPE) - np.reshape(7.5 + rng.uniform(-2, 2, 3), (3, 1, 1, 1))
            mask = (grid**2).sum(axis=0) <= (5.5 if i % 2 else 3.0) ** 2
            image = torch.from_numpy(0.2 + 0.6 * mask + rng.normal(0, 0.02, BALLS_SHAPE)).float()[None]
            label = torch.from_numpy(mask.astype(np.uint8))[None]
            name = ("small", "large")[i % 2]
            case = Case(f"case{i:03d}", f"patient{i:03d}", (Path("image.nii"),), class_name=name)
            prepared.append(Prepared(case, image, label, i % 2))
        return prepared

    return make
