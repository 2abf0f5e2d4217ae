"""Cohorts listed in a CSV manifest: ``case_id, patient_id, image, label, <class column>, split``."""

from __future__ import annotations

import csv
from pathlib import Path

from medgan.data.case import Case, Cohort, Report, SplitName
from medgan.data.validate import fault_path
from medgan.errors import InputFault

_SPLITS: dict[str, SplitName] = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_REQUIRED = ("case_id", "image")


def read_manifest(path: Path, class_key: str | None, report: Report) -> Cohort:
    """Read a manifest; ``image`` may name several files, one a channel, with ``;`` between them.

    The optional column ``frame`` picks one frame, from 0, of a 4-D file; ``series`` one series of a DICOM folder.

    Raises:
        InputFault: the file is no such table. Faults of single rows go to ``report``.
    """
    rows, columns = _rows(path)
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        reason = f"no column {' or '.join(missing)} (columns: {', '.join(columns)})"
        raise InputFault(path, "MANIFEST", reason, "name the columns case_id, patient_id, image, label, split")
    if class_key is not None and class_key not in columns:
        others = [name for name in columns if name not in ("case_id", "patient_id", "image", "label", "split")]
        reason = f"no column {class_key!r} (columns: {', '.join(columns)})"
        raise InputFault(path, "UNKNOWN_CLASS_KEY", reason, f"choose one of {', '.join(others or columns)}")
    cases = []
    for number, row in rows:
        try:
            cases.append(_case(path, number, row, class_key))
        except InputFault as fault:
            report(fault)
    return Cohort(path, tuple(cases))


def _rows(path: Path) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """Return (line number, cells by column) of each row that is not blank, and the columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputFault(path, "MANIFEST", f"not readable as CSV ({error})", "save it as UTF-8 with commas") from error
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise InputFault(path, "MANIFEST", f"the column {', '.join(twice)} stands twice", "rename one")
    rows = []
    for number, line in lines:
        if not any(line):
            continue
        if len(line) > len(columns):
            reason = f"row {number} has {len(line)} cells for {len(columns)} columns"
            raise InputFault(path, "MANIFEST", reason, "quote cells that hold commas")
        rows.append((number, dict(zip(columns, line + [""] * (len(columns) - len(line)), strict=True))))
    return rows, columns


def _case(path: Path, number: int, row: dict[str, str], class_key: str | None) -> Case:
    where = f"row {number}"
    case_id = row["case_id"]
    if not case_id or not row["image"]:
        raise InputFault(
            path, "MANIFEST", f"{where} has no {'image' if case_id else 'case_id'}", "fill it in or remove the row"
        )
    split = row.get("split", "")
    if split and split.lower() not in _SPLITS:
        reason = f"{where}: the split {split!r} is none of training, validation, test"
        raise InputFault(path, "MANIFEST", reason, "mend the split column")
    frame = row.get("frame", "")
    if frame and not (frame.isascii() and frame.isdigit()):
        raise InputFault(path, "MANIFEST", f"{where}: the frame {frame!r} is no number", "count frames from 0")
    images = [name.strip() for name in row["image"].split(";") if name.strip()]
    label = row.get("label") or None
    return Case(
        case_id=case_id,
        patient_id=row.get("patient_id") or case_id,
        images=tuple(existing(path, where, name, folder_allowed=True) for name in images),
        label=existing(path, where, label) if label else None,
        class_name=(row.get(class_key) or None) if class_key else None,
        split=_SPLITS[split.lower()] if split else None,
        frame=int(frame) if frame else None,
        series=row.get("series") or None,
    )


def existing(source: Path, where: str, name: str, *, folder_allowed: bool = False) -> Path:
    """Return the path ``name`` means in ``source``; refuse one that does not exist, naming the entry."""
    target = source.parent / name
    try:
        found = target.is_file() or (folder_allowed and target.is_dir())
    except (OSError, ValueError):
        found = False
    if not found:
        reason = f"{where} names {fault_path(Path(name))}, which does not exist"
        raise InputFault(source, "MISSING_FILE", reason, "add the file or remove the entry")
    return target
