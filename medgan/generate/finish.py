"""What lies beside the volumes when all are made: manifest, index, summary, rejections and a contact sheet.

Sidecars are read one by one, so that memory does not grow with their number.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np

from medgan.data.cohort import Case, load_image, load_label
from medgan.errors import InputFault
from medgan.generate.job import Workshop
from medgan.generate.plan import Order
from medgan.generate.real import add_real, choose_real
from medgan.pictures import save_figure, siblings_figure

MANIFEST = "manifest.csv"
SUMMARY = "summary.json"
REJECTIONS = "rejections.csv"
SHEET = "contact_sheet.png"
SHEET_ROWS = 6
SHEET_SIBLINGS = 4
QUALITIES = ("jacobian_min", "fold_share", "displacement_mm", "correlation_with_source")
PERCENTILES = (5, 25, 50, 75, 95)


class Tally:
    """What the summary says, gathered one sidecar at a time."""

    def __init__(self) -> None:
        self.count = self.bytes = self.rejected = 0
        self.by_class: Counter[str] = Counter()
        self.by_source: Counter[str] = Counter()
        self.by_patient: Counter[str] = Counter()
        self.quality = {name: array("d") for name in QUALITIES}

    def add(self, sidecar: dict[str, Any]) -> None:
        """Count a sibling."""
        self.count += 1
        self.bytes += sum(sum(entry["bytes"]) for entry in sidecar["files"].values())
        self.rejected += len(sidecar["rejected"])
        self.by_class[sidecar["parameters"]["class_name"] or "unknown"] += 1
        self.by_source[sidecar["source"]["case_id"]] += 1
        self.by_patient[sidecar["source"]["patient_id"]] += 1
        for name, values in self.quality.items():
            values.append(sidecar["quality"][name])

    def to_json(self) -> dict[str, Any]:
        """Return counts and, of each quality, smallest and largest value, median and percentiles."""
        quality = {}
        for name, values in self.quality.items():
            numbers = np.frombuffer(values)
            cuts = np.percentile(numbers, PERCENTILES)
            quality[name] = {
                "min": float(numbers.min()),
                "median": float(np.median(numbers)),
                "max": float(numbers.max()),
            }
            quality[name] |= {f"p{p:02d}": float(v) for p, v in zip(PERCENTILES, cuts, strict=True)}
        return {
            "count": self.count,
            "bytes": self.bytes,
            "by_class": dict(self.by_class),
            "by_source": dict(self.by_source),
            "largest_share_of_a_patient": max(self.by_patient.values()) / self.count,
            "rejected": self.rejected,
            "quality": quality,
        }


def finish(workshop: Workshop) -> str:
    """Write everything that is about all siblings; return the name of the manifest.

    Raises:
        InputFault: ``INCOMPLETE``: a sibling is missing, as while another shard is still being made.
    """
    job, store, setting = workshop.job, workshop.store, workshop.setting
    real = choose_real(workshop.plan.sources, job.count, job.real_share, job.seed, workshop.layout)
    tally = Tally()
    with store.open_text(MANIFEST) as manifest, store.open_text(REJECTIONS) as rejections:
        _write_rows(workshop, tally, manifest, rejections)
        for case in real:
            row = add_real(case, workshop.layout, setting, store)
            csv.DictWriter(manifest, fieldnames=list(row), lineterminator="\n").writerow(row)
    workshop.layout.write_index(_rows_of(workshop), setting, store)
    summary = {
        "count": tally.count,
        "real": len(real),
        "format": workshop.layout.name,
        "checkpoint_sha256": workshop.sampler.checkpoint.digest,
        "seed": job.seed,
        "strength": job.strength,
    } | tally.to_json()
    with tempfile.TemporaryDirectory() as scratch:
        store.put(SHEET, _contact_sheet(workshop, Path(scratch)))
    store.put(SUMMARY, json.dumps(summary, indent=1).encode())
    return MANIFEST


def _write_rows(workshop: Workshop, tally: Tally, manifest: IO[str], rejections: IO[str]) -> None:
    """Write the manifest's rows and the log of rejections, in the order of the plan."""
    column = workshop.setting.class_column
    fields = ["case_id", "patient_id", "image", "label", column, "source_case", "synthetic"]
    rows = csv.DictWriter(manifest, fieldnames=fields, lineterminator="\n")
    rows.writeheader()
    refused = csv.writer(rejections, lineterminator="\n")
    refused.writerow(["case_id", "source_case", "index", "reason"])
    for order in workshop.plan:
        sidecar = _sidecar(workshop, order)
        tally.add(sidecar)
        rows.writerow(
            {
                "case_id": order.name,
                "patient_id": order.case.patient_id,
                "image": ";".join(sidecar["files"]["image"]["paths"]),
                "label": ";".join(sidecar["files"].get("label", {"paths": []})["paths"]),
                column: order.case.class_name or "",
                "source_case": order.case.case_id,
                "synthetic": "yes",
            }
        )
        for entry in sidecar["rejected"]:
            refused.writerow([order.name, order.case.case_id, entry["index"], entry["reason"]])


def _sidecar(workshop: Workshop, order: Order) -> dict[str, Any]:
    name = workshop.sidecar_name(order)
    if not workshop.store.exists(name):
        reason = f"{order.name} is not made yet"
        raise InputFault(workshop.store.place, "INCOMPLETE", reason, "run the missing shards, then again")
    sidecar: dict[str, Any] = json.loads(workshop.store.read(name))
    return sidecar


def _rows_of(workshop: Workshop) -> Iterator[dict[str, str]]:
    yield from csv.DictReader(io.StringIO(workshop.store.read(MANIFEST).decode()))


def _contact_sheet(workshop: Workshop, scratch: Path) -> bytes:
    """Draw the first sources with their first siblings, read back from the store as a user would read them."""
    plan, store = workshop.plan, workshop.store
    rows: list[tuple[Any, Any, list[tuple[Any, Any]]]] = []
    first = 0
    for case, share in zip(plan.sources, plan.shares, strict=True):
        if share and len(rows) < SHEET_ROWS:
            image, label, spacing = _drawable(case, workshop)
            made = []
            for order in plan.orders(first, first + min(share, SHEET_SIBLINGS)):
                files = _sidecar(workshop, order)["files"]
                images, labels = (
                    tuple(store.fetch(path, scratch) for path in files.get(kind, {"paths": []})["paths"])
                    for kind in ("image", "label")
                )
                channels = case.channels if len(images) == 1 else 1
                channels = max(channels, len(case.images)) if len(images) == 1 else channels
                read = Case(order.name, "", images, labels[0] if labels else None, channels=channels)
                made.append(_drawable(read, workshop)[:2])
            rows.append((image, label, made))
        first += share
    path = scratch / SHEET
    save_figure(siblings_figure(rows, spacing=spacing), path)
    return path.read_bytes()


def _drawable(case: Case, workshop: Workshop) -> tuple[Any, Any, tuple[float, float, float]]:
    """Return the first channel and the label map with axes along R, A, S, and the spacing along these."""
    image = load_image(case)
    label = load_label(case, image, workshop.setting.cohort.label_names)
    orientation = nibabel.orientations.io_orientation(image.affine)
    turned = [
        None if volume is None else nibabel.orientations.apply_orientation(volume.data[0], orientation)
        for volume in (image, label)
    ]
    order = np.argsort(orientation[:, 0])
    x, y, z = (image.spacing[int(axis)] for axis in order)
    return turned[0], turned[1], (x, y, z)
