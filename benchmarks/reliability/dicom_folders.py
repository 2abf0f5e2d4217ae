"""Real DICOM folders of many vendors: python benchmarks/reliability/dicom_folders.py [FOLDER ...]

Every folder with DICOM files is read or refused. Where a ground-truth NIfTI lies beside it (``NAME_ground_truth.nii*``)
the voxels and their places must be equal to it; a refusal is printed with its reason, to be judged by a reader; a
traceback or another volume breaks the promise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel
import numpy as np
from material import REALDATA
from report import ended, started

from medgan.data.dicom import is_dicom_folder, read_dicom_series
from medgan.data.volume import Volume
from medgan.errors import InputFault

PLACES = 0.01  # mm: converters write an affine in float32 and positions in decimals


def agrees(volume: Volume, truth: Path) -> bool:
    """Whether voxels and their places are the truth's, in whatever order it stores the axes."""
    reference = nibabel.as_closest_canonical(nibabel.load(truth))
    own = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume.data[0].astype(np.float64), volume.affine))
    if own.shape != reference.shape:
        return False
    same = np.allclose(own.get_fdata(), reference.get_fdata(), rtol=1e-5, atol=1e-3)
    return bool(same and np.abs(own.affine - reference.affine).max() < PLACES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*", default=[REALDATA / "dicom"])
    arguments = parser.parse_args()
    started(__file__)
    equal = unjudged = refused = broken = 0
    found = sorted(
        {
            path
            for top in arguments.folders
            for path in (top, *top.rglob("*"))
            if path.is_dir() and is_dicom_folder(path)
        }
    )
    for folder in found:
        truth = next(iter(folder.parent.glob(f"{folder.name}_ground_truth.nii*")), None)
        try:
            volume = read_dicom_series(folder)
        except InputFault as fault:
            refused += 1
            verdict = f"refused: {fault.code}: {fault.reason}"
        except Exception as error:
            broken += 1
            verdict = f"TRACEBACK {error!r}"
        else:
            if truth is None:
                unjudged += 1
                verdict = f"read, {volume.spatial_shape}, no ground truth"
            elif agrees(volume, truth):
                equal += 1
                verdict = "equal to the ground truth"
            else:
                broken += 1
                verdict = "ANOTHER VOLUME than the ground truth"
        print(f"{'/'.join(folder.parts[-3:]):<44} {verdict}")
    summary = f"{len(found)} folders: {equal} equal, {unjudged} read without a truth, {refused} refused, {broken} wrong"
    ended(bool(found) and not broken, summary)


if __name__ == "__main__":
    main()
