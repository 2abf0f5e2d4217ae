"""The classical arm: nnU-Net's augmentation, from MONAI's transforms, tuned for few labelled cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from medgan.config import Triple

Modality = Literal["mri", "ct", "mask"]
TaskKind = Literal["segmentation", "classification"]

# nnU-Net's ranges, but more often than its 0.2. With eight labelled hippocampi (200 steps, two seeds, so only a rough
# choice) Dice was 0.795 without augmentation, 0.804 with nnU-Net's probabilities, 0.810 with these; the deformation,
# which nnU-Net has switched off, changed nothing there (0.810), one of ±10 % of an axis cost 0.006.
ROTATION = 0.5236  # rad, 30°
# Size can be what tells classes apart (an enlarged gland, a growing nodule): zooming as far as nnU-Net does for
# segmentation cost a classifier of adrenal shapes 0.02 of its AUC.
SCALING = {"segmentation": (0.7, 1.4), "classification": (0.9, 1.1)}
P_ROTATION = 0.3
P_SCALING = 0.3
P_DEFORMATION = 0.4
# The deformation: uniform displacements on CONTROL³ points inside the volume, linear in between, 0 at its faces.
# Neighbouring points lie 1 / (CONTROL + 1) of an axis apart and each moves by at most DEFORMATION / 2 of that axis
# (MONAI counts an axis as 2 long), so along an axis no point overtakes the next.
DEFORMATION = 0.12
CONTROL = 4


def classical_transforms(
    keys: Sequence[str], task: TaskKind, modality: Modality, shape: Triple, mirror_axes: Sequence[int] = ()
) -> list[Any]:
    """Return the classical augmentation: nnU-Net's recipe from MONAI's transforms, plus a smooth deformation.

    ==================================  ===========  =================================================================
    transform                           probability  range
    ==================================  ===========  =================================================================
    rotation about all axes             0.3          ±30°
    zoom, the same along all axes       0.3          0.7 to 1.4; for classification 0.9 to 1.1
    smooth deformation                  0.4          ±6 % of each axis, 4³ control points
    mirror, each of ``mirror_axes``     0.5          off by default: left and right may be structures of their own
    Gaussian noise                      0.1          SD 0 to 0.05 of the 0 to 1 range
    Gaussian blur                       0.2          SD 0.5 to 1 voxel
    brightness (product)                0.15         0.75 to 1.25
    contrast (about the mean)           0.15         0.75 to 1.25, within the sample's range
    low resolution                      0.25         0.5 to 1 of the voxels, nearest down, cubic up
    gamma of the inverted image         0.1          0.7 to 1.5, mean and SD kept
    gamma                               0.3          0.7 to 1.5, mean and SD kept
    ==================================  ===========  =================================================================

    Samples of modality ``mask`` (binary shapes) get no change of intensity, and are sampled by nearest neighbour so
    that they stay binary.

    Args:
        keys: the image first, then label maps.
        task: what is learned.
        modality: what the voxels are.
        shape: voxels of the samples; the deformation is made for them.
        mirror_axes: spatial axes along which a mirrored sample is as likely as the sample.

    Source: Isensee et al., nnU-Net, Nature Methods 2021, and the defaults of its version 2.
    """
    from monai import transforms as m

    if task not in SCALING:
        raise ValueError(f"task must be segmentation or classification, got {task!r}")
    smallest, largest = SCALING[task]
    image = keys[0]
    others = ["nearest"] * (len(keys) - 1)
    linear = ["nearest" if modality == "mask" else "bilinear", *others]
    zoom_linear = ["nearest" if modality == "mask" else "trilinear", *others]
    shape_changes: list[Any] = [
        m.RandAffined(keys, prob=P_ROTATION, rotate_range=(ROTATION,) * 3, mode=linear, padding_mode="border"),
        m.RandZoomd(keys, prob=P_SCALING, min_zoom=smallest, max_zoom=largest, mode=zoom_linear, padding_mode="edge"),
        m.RandSmoothDeformd(
            keys,
            spatial_size=shape,
            rand_size=(CONTROL,) * 3,
            pad=1,
            field_mode="trilinear",
            align_corners=True,
            prob=P_DEFORMATION,
            def_range=DEFORMATION,
            grid_mode=linear,
            grid_padding_mode="border",
            grid_align_corners=True,
        ),
        *(m.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in mirror_axes),
    ]
    if modality == "mask":
        return shape_changes
    gamma = {"gamma": (0.7, 1.5), "retain_stats": True}
    return [
        *shape_changes,
        m.RandGaussianNoised(image, prob=0.1, std=0.05),
        m.RandGaussianSmoothd(image, prob=0.2, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0), sigma_z=(0.5, 1.0)),
        m.RandScaleIntensityd(image, prob=0.15, factors=0.25),
        m.RandScaleIntensityFixedMeand(image, prob=0.15, factors=0.25, preserve_range=True),
        m.RandSimulateLowResolutiond(image, prob=0.25, zoom_range=(0.5, 1.0), upsample_mode="trilinear"),
        m.RandAdjustContrastd(image, prob=0.1, invert_image=True, **gamma),
        m.RandAdjustContrastd(image, prob=0.3, **gamma),
    ]
