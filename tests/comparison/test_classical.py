from __future__ import annotations

from typing import Any

import pytest
import torch

from medgan.comparison.classical import classical_transforms

SHAPE = (16, 24, 16)


def sample(channels: int = 1) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(channels, *SHAPE, generator=generator)
    label = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    label[:, 4:12, 6:18, 4:8] = 1
    label[:, 4:12, 6:18, 8:12] = 2
    return {"image": image, "label": label, "class": "left"}


def classical(modality: Any = "mri", **changes: Any) -> Any:
    from monai.transforms import Compose

    return Compose(classical_transforms(["image", "label"], "segmentation", modality, SHAPE, **changes))


@pytest.mark.parametrize("channels", [1, 2])
def test_classical_keeps_shapes_and_label_values_and_changes_most_samples(channels: int) -> None:
    arm = classical()
    arm.set_random_state(0)
    outputs = [arm(sample(channels)) for _ in range(40)]
    source = sample(channels)
    for out in outputs:
        assert out["image"].shape == source["image"].shape
        assert out["label"].shape == source["label"].shape
        assert set(out["label"].unique().tolist()) <= {0, 1, 2}
        assert torch.isfinite(out["image"]).all()
        assert out["class"] == "left"
    changed = sum(not torch.equal(o["image"].as_tensor(), source["image"]) for o in outputs)
    assert changed > 30
    moved = sum(not torch.equal(o["label"].as_tensor().byte(), source["label"]) for o in outputs)
    assert 15 <= moved <= 38


def test_the_source_sample_is_not_written_to() -> None:
    arm = classical()
    arm.set_random_state(0)
    source = sample()
    for _ in range(20):
        arm(dict(source))
    assert torch.equal(source["image"], sample()["image"])
    assert torch.equal(source["label"], sample()["label"])


def test_image_and_label_move_together() -> None:
    arm = classical(modality="mask")
    arm.set_random_state(1)
    for _ in range(20):
        source = sample()
        source["image"] = source["label"].float()
        out = arm(source)
        assert torch.equal(out["image"].as_tensor(), out["label"].as_tensor().float())


def test_the_same_seed_gives_the_same_samples_and_another_does_not() -> None:
    arm = classical()
    draws = {}
    for seed in (5, 5, 6):
        arm.set_random_state(seed)
        batch = torch.stack([arm(sample())["image"].as_tensor() for _ in range(4)])
        assert torch.equal(draws.setdefault(seed, batch), batch)
    assert not torch.equal(draws[5], draws[6])


def test_masks_stay_binary() -> None:
    from monai.transforms import Compose

    arm = Compose(classical_transforms(["image"], "classification", "mask", SHAPE))
    arm.set_random_state(0)
    mask = (sample()["label"] > 0).float()
    outputs = [arm({"image": mask, "class": None})["image"] for _ in range(30)]
    assert all(set(out.unique().tolist()) <= {0.0, 1.0} for out in outputs)
    assert sum(not torch.equal(out.as_tensor(), mask) for out in outputs) > 10


def test_nothing_is_mirrored_unless_asked_for() -> None:
    from monai.transforms import RandFlipd

    assert not any(isinstance(t, RandFlipd) for t in classical().transforms)
    assert sum(isinstance(t, RandFlipd) for t in classical(mirror_axes=(0, 1)).transforms) == 2


def test_the_smooth_deformation_keeps_the_order_along_every_axis() -> None:
    from monai.transforms import RandSmoothDeformd

    deformation = next(t for t in classical().transforms if isinstance(t, RandSmoothDeformd)).trans
    deformation.prob = 1.0
    deformation.set_grid_mode("bilinear")
    grid = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in SHAPE], indexing="ij"))
    deformation.set_random_state(0)
    for _ in range(10):
        positions = deformation(grid)
        assert not torch.equal(positions, grid)
        for axis in range(3):
            # Beyond the volume positions stand still at its border, so equal neighbours are no fold.
            assert torch.diff(positions[axis], dim=axis).min() > -1e-4
