"""What lies beside the volumes when all are made: manifest, index, summary, rejections and a contact sheet.

Sidecars are read one by one, so that memory does not grow with their number.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
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
from medgan.sampler import MAX_ATTEMPTS, attempt_number

MANIFEST = "manifest.csv"
SUMMARY = "summary.json"
REJECTIONS = "rejections.csv"
SHEET = "contact_sheet.png"
SHEET_ROWS = 6
SHEET_SIBLINGS = 4
QUALITIES = ("score", "jacobian_min", "fold_share", "displacement_mm", "correlation_with_source")
PERCENTILES = (5, 25, 50, 75, 95)

logger = logging.getLogger(__name__)


class Tally:
    """What the summary says, gathered one record at a time."""

    def __init__(self) -> None:
        self.count = self.bytes = 0
        self.by_class: Counter[str] = Counter()
        self.by_source: Counter[str] = Counter()
        self.by_patient: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.quality = {name: array("d") for name in QUALITIES}

    def add(self, record: dict[str, Any]) -> None:
        """Count a sibling, by its sidecar, or an order that nothing came of, by its record."""
        class_name = record["parameters"]["class_name"] or "unknown"
        self.rejected.update({class_name: len(record["rejected"])} if record["rejected"] else {})
        if not record["files"]:
            self.left_out[class_name] += 1
            return
        self.count += 1
        self.bytes += sum(sum(entry["bytes"]) for entry in record["files"].values())
        self.by_class[class_name] += 1
        self.by_source[record["source"]["case_id"]] += 1
        self.by_patient[record["source"]["patient_id"]] += 1
        for name, values in self.quality.items():
            value = record["quality"].get(name)  # no score without a critic
            if value is not None:
                values.append(value)

    def to_json(self) -> dict[str, Any]:
        """Return counts and, of each quality, smallest and largest value, median and percentiles."""
        quality = {}
        for name, values in self.quality.items():
            if not values:
                continue
            numbers = np.frombuffer(values)
            cuts = np.percentile(numbers, PERCENTILES)
            quality[name] = {
                "min": float(numbers.min()),
                "median": float(np.median(numbers)),
                "max": float(numbers.max()),
            }
            quality[name] |= {f"p{p:02d}": float(v) for p, v in zip(PERCENTILES, cuts, strict=True)}
        tries = self.count + self.rejected.total()
        return {
            "count": self.count,
            "left_out": self.left_out.total(),
            "left_out_by_class": dict(self.left_out),
            "bytes": self.bytes,
            "by_class": dict(self.by_class),
            "by_source": dict(self.by_source),
            "largest_share_of_a_patient": max(self.by_patient.values()) / self.count,
            "tries": tries,
            "rejected": self.rejected.total(),
            "rejection_rate": self.rejected.total() / tries,
            "rejected_by_class": dict(self.rejected),
            "quality": quality,
        }


def finish(workshop: Workshop) -> str:
    """Write everything that is about all siblings; return the name of the manifest.

    Raises:
        InputFault: ``INCOMPLETE``: a sibling is missing, as while another shard is still being made. ``REJECTED``: none
            was let pass.
    """
    job, store, setting = workshop.job, workshop.store, workshop.setting
    tally = Tally()
    with store.open_text(MANIFEST) as manifest, store.open_text(REJECTIONS) as rejections:
        _write_rows(workshop, tally, manifest, rejections)
        real = choose_real(workshop.plan.sources, tally.count, job.real_share, job.seed, workshop.layout)
        for case in real:
            row = add_real(case, workshop.layout, setting, store, job.level)
            csv.DictWriter(manifest, fieldnames=list(row), lineterminator="\n").writerow(row)
    workshop.layout.write_index(_rows_of(workshop), setting, store)
    summary = {
        "asked": len(workshop.plan),
        "real": len(real),
        "format": workshop.layout.name,
        "checkpoint_sha256": workshop.sampler.checkpoint.digest,
        "seed": job.seed,
        "strength": job.strength,
        "min_quality": job.min_quality,
    } | tally.to_json()
    _say(summary)
    with tempfile.TemporaryDirectory() as scratch:
        store.put(SHEET, _contact_sheet(workshop, Path(scratch)))
    store.put(SUMMARY, json.dumps(summary, indent=1).encode())
    return MANIFEST


def _say(summary: Mapping[str, Any]) -> None:
    rate = f"{summary['rejected']} of {summary['tries']} tries rejected ({summary['rejection_rate']:.1%})"
    logger.info("%d volumes, %s", summary["count"], rate)
    if summary["left_out"]:
        classes = ", ".join(f"{name} {number}" for name, number in summary["left_out_by_class"].items())
        logger.warning(
            "%d of %d volumes are left out (%s): none of %d attempts passed; %s, see %s",
            summary["left_out"], summary["asked"], classes, MAX_ATTEMPTS, rate, REJECTIONS,
        )  # fmt: skip


def _write_rows(workshop: Workshop, tally: Tally, manifest: IO[str], rejections: IO[str]) -> None:
    """Write the manifest's rows and the log of rejections, in the order of the plan."""
    column = workshop.setting.class_column
    fields = ["case_id", "patient_id", "image", "label", column, "source_case", "synthetic", "quality"]
    rows = csv.DictWriter(manifest, fieldnames=fields, lineterminator="\n")
    rows.writeheader()
    refused = csv.writer(rejections, lineterminator="\n")
    refused.writerow(["case_id", "source_case", column, "attempt", "index", "quality", "reason", "left_out"])
    last = ""
    for order in workshop.plan:
        record = _record(workshop, order)
        tally.add(record)
        for entry in record["rejected"]:
            # Outputs of earlier versions have neither attempt nor score.
            number, score, last = attempt_number(entry["index"]), _figure(entry.get("quality")), entry["reason"]
            row = [order.name, order.case.case_id, order.case.class_name or "", number, entry["index"], score, last]
            refused.writerow([*row, "" if record["files"] else "yes"])
        if not record["files"]:
            continue
        rows.writerow(
            {
                "case_id": order.name,
                "patient_id": order.case.patient_id,
                "image": ";".join(record["files"]["image"]["paths"]),
                "label": ";".join(record["files"].get("label", {"paths": []})["paths"]),
                column: order.case.class_name or "",
                "source_case": order.case.case_id,
                "synthetic": "yes",
                "quality": _figure(record["quality"].get("score")),
            }
        )
    if not tally.count:
        reason = f"all {len(workshop.plan)} volumes were refused in {MAX_ATTEMPTS} attempts each (last: {last})"
        raise InputFault(workshop.store.place, "REJECTED", reason, "lower --min-quality or --strength")


def _figure(score: float | None) -> str:
    return "" if score is None else f"{score:.6g}"


def _record(workshop: Workshop, order: Order) -> dict[str, Any]:
    """Return the sidecar of an order, or, where nothing came of it, the record of that."""
    for name in (workshop.sidecar_name(order), workshop.left_out_name(order)):
        if workshop.store.exists(name):
            record: dict[str, Any] = json.loads(workshop.store.read(name))
            return record
    reason = f"{order.name} is not made yet"
    raise InputFault(workshop.store.place, "INCOMPLETE", reason, "run the missing shards, then again")


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
            made: list[tuple[Any, Any]] = []
            for order in plan.orders(first, first + share):
                files = _record(workshop, order)["files"]
                if not files:
                    continue
                if len(made) == SHEET_SIBLINGS:
                    break
                images, labels = (
                    tuple(store.fetch(path, scratch) for path in files.get(kind, {"paths": []})["paths"])
                    for kind in ("image", "label")
                )
                channels = case.channels if len(images) == 1 else 1
                channels = max(channels, len(case.images)) if len(images) == 1 else channels
                read = Case(order.name, "", images, labels[0] if labels else None, channels=channels)
                made.append(_drawable(read, workshop)[:2])
            if made:
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
