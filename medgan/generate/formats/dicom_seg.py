"""A label map as DICOM Segmentation (PS3.3 A.51), one binary segment a label value, by highdicom."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medgan.generate.formats.dicom_image import Identity, mark_synthetic

# The standard wants a date; today's would make every file differ from its reproduction.
FIXED_DATE, FIXED_TIME = "20000101", "000000"


def segmentation(
    label: NDArray[Any], values: Sequence[int], names: Mapping[int, str], images: Sequence[Dataset], identity: Identity
) -> Dataset:
    """Return the segmentation object of a label map.

    Args:
        label: ``(X, Y, Z)`` whole numbers on the voxels of ``images``.
        values: label values other than 0, one segment each; the description of a segment says its value.
        names: of the values.
        images: the series' data sets, in the order of the third axis.
        identity: of the study.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

    how = hd.AlgorithmIdentificationSequence(
        name="medgan", family=codes.DCM.ArtificialIntelligence, version=identity.version
    )
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=(names.get(value) or f"label {value}")[:64],
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.AnatomicalStructure,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=how,
        )
        for number, value in enumerate(values, 1)
    ]
    numbers = np.zeros(256, np.uint8)
    numbers[list(values)] = np.arange(1, len(values) + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the empty study date, and of segments without a voxel
        seg: Dataset = hd.seg.Segmentation(
            source_images=list(images),
            pixel_array=np.ascontiguousarray(numbers[label].transpose(2, 1, 0)),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=descriptions,
            series_instance_uid=identity.uid("segmentation series"),
            series_number=100,
            sop_instance_uid=identity.uid("segmentation"),
            instance_number=1,
            manufacturer="medgan",
            manufacturer_model_name="medgan",
            software_versions=identity.version,
            device_serial_number="none",
            content_label="LABELS",
            series_description="medgan synthetic labels",
        )
    for item, value in zip(seg.SegmentSequence, values, strict=True):
        item.SegmentDescription = f"label value {value}"
    mark_synthetic(seg, identity)
    _fix(seg, identity)
    return seg


def _fix(seg: Dataset, identity: Identity) -> None:
    """Replace what highdicom draws or reads from the clock by functions of the identity."""
    for name in ("ContentDate", "InstanceCreationDate", "SeriesDate"):
        if name in seg:
            setattr(seg, name, FIXED_DATE)
    for name in ("ContentTime", "InstanceCreationTime", "SeriesTime"):
        if name in seg:
            setattr(seg, name, FIXED_TIME)
    organisation = identity.uid("dimension organization")
    for item in seg.DimensionOrganizationSequence:
        item.DimensionOrganizationUID = organisation
    for item in seg.DimensionIndexSequence:
        item.DimensionOrganizationUID = organisation
