"""What a call of ``medgan generate`` is asked for, and all that is opened for it: the same in every process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medgan.data.cohort import Case, Cohort, read_cohort
from medgan.data.split import content_hash
from medgan.errors import InputFault
from medgan.generate.formats.base import LEVEL, Encoded, Format, Setting
from medgan.generate.formats.decathlon import Decathlon
from medgan.generate.formats.dicom import Dicom
from medgan.generate.formats.nifti import Nifti
from medgan.generate.formats.nnunet import NnUNet
from medgan.generate.making import Gate, LeftOut, known_class, make_sibling
from medgan.generate.plan import SIBLING, Order, Plan, choose_sources, plan_orders
from medgan.generate.sidecar import Place, build_left_out, build_sidecar, files_entry, measure, part_of_source
from medgan.generate.source import Source, read_source
from medgan.generate.store import LocalStore, Store, open_store
from medgan.sampler import Sampler, View, attempt_at, attempt_number, load, require_gate
from medgan.tracking import is_model_uri

FormatName = Literal["nifti", "dicom", "nnunet", "decathlon"]
FORMATS: Mapping[str, Callable[[], Format]] = {
    "nifti": Nifti,
    "dicom": Dicom,
    "nnunet": NnUNet,
    "decathlon": Decathlon,
}
RESERVED = ("case_id", "patient_id", "image", "label", "split", "source_case", "synthetic", "quality")
MARK = "generation.json"
LEFT_OUT = "left_out"
ASKED = "asked"
ENDING = re.compile(r"\.(nii\.gz|json|dcm)$")
CHANNEL = re.compile(r"_\d{4}$")


@dataclass(frozen=True)
class Job:
    """What is asked for; see :func:`medgan.generate.batch.generate`."""

    checkpoint: str
    data: Path
    output: str
    count: int
    seed: int = 0
    strength: float = 1.0
    sources: str = "training"
    class_names: tuple[str, ...] = ()
    balance: bool = False
    max_share: float | None = None
    format_name: FormatName = "nifti"
    real_share: float = 0.0
    level: int = LEVEL
    min_quality: float = 0.0


class Contents:
    """Content hashes of cases, each computed once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, case: Case) -> str:
        """Return the hash of a case."""
        if case.case_id not in self._known:
            self._known[case.case_id] = content_hash(case)
        return self._known[case.case_id]


@dataclass(frozen=True, eq=False)
class Ready:
    """A sibling that only waits to be compressed and written; of an order that nothing came of, its record alone.

    Attributes:
        name: of the record in the store.
        encoded: image and label map.
        record: the sidecar, but for its ``files``.
    """

    name: str
    encoded: Encoded
    record: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Workshop:
    """A job with everything opened: reads sources, makes siblings, writes them.

    Attributes:
        job: what is asked for.
        sampler: the generator.
        plan: which siblings.
        setting: what all volumes have in common.
        layout: how they are written.
        store: where.
        place: for the sidecars.
        gate: judges siblings, or ``None``.
        contents: content hashes of the sources.
    """

    job: Job
    sampler: Sampler
    plan: Plan
    setting: Setting
    layout: Format
    store: Store
    place: Place
    gate: Gate | None = None
    contents: Contents = field(default_factory=Contents)

    def missing(self, start: int, stop: int, on_done: list[int]) -> Iterator[tuple[Source, View, Order]]:
        """Yield the orders from ``start`` to ``stop`` that are not written yet, each with its source read and seen.

        ``on_done[0]`` is raised by one for each that is there already.
        """
        seen: tuple[Source, View] | None = None
        for order in self.plan.orders(start, stop):
            if self.is_done(order):
                on_done[0] += 1
                continue
            if seen is None or seen[0].case is not order.case:
                source = read_source(order.case, self.setting.cohort.label_names, self.contents.of(order.case))
                seen = source, self.sampler.view(source.tensor, source.image.affine)
            yield *seen, order

    def make(self, item: tuple[Source, View, Order]) -> Ready:
        """Make one sibling, measure it and lay it out in bytes."""
        source, view, order = item
        made = make_sibling(source, view, order, self.sampler, self.job.strength, self.gate, self.job.min_quality)
        if isinstance(made, LeftOut):
            return Ready(self.left_out_name(order), Encoded(), build_left_out(made, self.place))
        return Ready(
            self.sidecar_name(order),
            self.layout.encode(made, self.setting),
            build_sidecar(made, measure(made), self.place),
        )

    def write(self, ready: Ready) -> None:
        """Compress and write a sibling: its volumes and, last, as the mark that they are whole, the sidecar."""
        files: dict[str, Any] = {}
        for kind, pieces in ready.encoded.by_kind().items():
            contents = [piece.packed(self.job.level) for piece in pieces]
            for piece, content in zip(pieces, contents, strict=True):
                self.store.put(piece.path, content)
            files[kind] = files_entry(pieces, contents)
        record = ready.record | {"files": files}
        self.store.put(ready.name, json.dumps(record, indent=1).encode())

    def sidecar_name(self, order: Order) -> str:
        """Return where an order's sidecar lies in the store."""
        return f"{self.layout.folders[0]}/{order.name}.json"

    def left_out_name(self, order: Order) -> str:
        """Return where it stands in the store that nothing came of an order."""
        return f"{LEFT_OUT}/{order.name}.json"

    def is_done(self, order: Order) -> bool:
        """Whether a sibling is there, whole, or all attempts at it were refused.

        Raises:
            InputFault: one is there under its name that was made otherwise.
        """
        for name in (self.sidecar_name(order), self.left_out_name(order)):
            if self.store.exists(name) and self._is_whole(name, order):
                return True
        return False

    def _is_whole(self, name: str, order: Order) -> bool:
        try:
            found = json.loads(self.store.read(name))
            drawn, files = found["parameters"], list(found["files"].values())
            wanted = self.sampler.draw(
                order.seed, order.index, self.job.strength, known_class(order.case.class_name, self.sampler)
            )
            same = drawn == attempt_at(wanted, attempt_number(drawn["index"]) - 1).to_json()
            source = found["source"]
            same = same and source["content_sha256"] == self.contents.of(order.case)
            same = same and part_of_source(order.case).items() <= source.items()
        except (ValueError, KeyError, TypeError):
            return False
        if not same or found["format"] != self.layout.name:
            raise InputFault(
                f"{self.store.place}/{name}", "OTHER_OUTPUT", "the folder holds siblings made otherwise",
                "name another --output",
            )  # fmt: skip
        return all(
            self.store.size(path) == size
            for entry in files
            for path, size in zip(entry["paths"], entry["bytes"], strict=True)
        )


def open_job(job: Job, gate: Gate | None = None) -> Workshop:
    """Load the generator, read which cases there are, plan, and check all that can be checked before the work.

    Raises:
        InputFault: an input is missing or damaged, or what is asked for cannot be done.
    """
    sampler = load(job.checkpoint)
    checkpoint = sampler.checkpoint
    config = checkpoint.config
    if job.format_name not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {job.format_name!r}")
    if job.count < 1:
        raise InputFault(job.output, "COUNT", f"--count is {job.count}", "ask for at least 1")
    require_gate(checkpoint, job.min_quality, "--min-quality")
    layout = FORMATS[job.format_name]()
    cohort = read_cohort(
        job.data,
        class_key=config.data.class_key,
        classes=sampler.class_names,
        labels=dict(checkpoint.origin.label_names),
        class_optional=True,
    )
    store = open_store(job.output)
    key = config.data.class_key
    setting = Setting(cohort, checkpoint, key if key and key not in RESERVED else "class")
    layout.check(setting)
    contents = Contents()
    sources = choose_sources(
        cohort, checkpoint, job.sources, job.class_names, labelled=layout.needs_label, content=contents.of
    )
    plan = plan_orders(sources, job.count, job.seed, balance=job.balance, max_share=job.max_share)
    beside = store.folder / layout.folders[0] if isinstance(store, LocalStore) else None
    uri = str(job.checkpoint) if is_model_uri(job.checkpoint) else None
    place = Place(beside, job.data, cohort.modality, checkpoint, uri, layout.name)
    _require_own_place(job, store, cohort, _decides(job, sampler))
    return Workshop(job, sampler, plan, setting, layout, store, place, gate, contents)


def claim(workshop: Workshop) -> None:
    """Make the output and mark it as this job's."""
    workshop.store.prepare()
    mark = json.dumps({**_decides(workshop.job, workshop.sampler), ASKED: _asked(workshop.job)}, indent=1).encode()
    if not workshop.store.exists(MARK) or workshop.store.read(MARK) != mark:
        workshop.store.put(MARK, mark)


def require_all_planned(workshop: Workshop, real: Sequence[Case]) -> None:
    """Refuse an output that holds volumes which would not stand in the manifest: of a call that asked for others.

    Args:
        workshop: with the plan.
        real: the cases that will lie beside the siblings.

    Raises:
        InputFault: ``OTHER_OUTPUT``.
    """
    shares = {case.case_id: share for case, share in zip(workshop.plan.sources, workshop.plan.shares, strict=True)}
    beside = {case.case_id for case in real}

    def is_planned(name: str) -> bool:
        whole = ENDING.sub("", name)
        for stem in (whole, CHANNEL.sub("", whole)):
            sibling = SIBLING.fullmatch(stem)
            if stem in beside or (sibling and int(sibling[2]) < shares.get(sibling[1], 0)):
                return True
        return False

    others: list[str] = []
    for folder in (*workshop.layout.folders, LEFT_OUT):
        names = (name for name in workshop.store.names(folder) if not name.startswith("."))
        volumes = (name for name in names if ENDING.search(name) or SIBLING.fullmatch(name))
        others += [f"{folder}/{name}" for name in volumes if not is_planned(name)]
    if not others:
        return
    try:
        before = json.loads(workshop.store.read(MARK))[ASKED]
        asked = _asked(workshop.job)
        words = [f"{key} {before.get(key)}, now {value}" for key, value in asked.items() if before.get(key) != value]
    except (ValueError, KeyError, TypeError, AttributeError):  # of an earlier version, which did not record it
        words = []
    reason = f"{len(others)} files in it would not be in the manifest, e.g. {min(others)}"
    reason += f" ({'; '.join(words) or 'fewer, or of other sources, were asked for than before'})"
    raise InputFault(
        workshop.job.output, "OTHER_OUTPUT", reason, "ask for no less than before or name another --output"
    )


def _asked(job: Job) -> dict[str, Any]:
    """Return what decides which volumes there are, by the names of its options."""
    return {
        "--count": job.count,
        "--sources": job.sources,
        "--class": sorted(job.class_names),
        "--balance": job.balance,
        "--max-share": job.max_share,
        "--real-share": job.real_share,
    }


def _decides(job: Job, sampler: Sampler) -> dict[str, Any]:
    """Return what must be the same in every call that writes to one output."""
    return {
        "checkpoint_sha256": sampler.checkpoint.digest,
        "seed": job.seed,
        "strength": float(job.strength),
        "format": job.format_name,
        "min_quality": job.min_quality or None,  # as in the outputs of versions that knew none
    }


def _require_own_place(job: Job, store: Store, cohort: Cohort, wanted: dict[str, Any]) -> None:
    """Refuse to write among the sources, into a folder that something else filled, or over another job's siblings."""
    inside = False
    if isinstance(store, LocalStore):
        if store.folder.exists() and not store.folder.is_dir():
            raise InputFault(store.folder, "NOT_A_FOLDER", "--output is a file", "name a folder")
        home = cohort.source if cohort.source.is_dir() else cohort.source.parent
        inside = home.resolve() == store.folder.resolve()
    names = {name for name in store.names() if not (name.startswith(".") and name.endswith(".tmp"))}
    if inside or (names and MARK not in names):
        raise InputFault(job.output, "OUTPUT_IN_USE", "the folder holds something else", "name a new folder")
    if MARK in names:
        try:
            found = json.loads(store.read(MARK))
        except ValueError:
            found = {}
        differing = [f"{key} {found.get(key)}, now {value}" for key, value in wanted.items() if found.get(key) != value]
        if differing:
            reason = f"the folder holds siblings made otherwise ({'; '.join(differing)})"
            raise InputFault(job.output, "OTHER_OUTPUT", reason, "name another --output")
