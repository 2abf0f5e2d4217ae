"""Random mutations of sound input: python benchmarks/reliability/fuzz.py {nifti,dicom,config,cohort} --minutes 10

Every call must return or raise an ``InputFault`` whose text is one line. Anything else is a traceback; the input that
caused it is kept in the working folder.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from material import REALDATA, real_volumes, small_training
from report import ended, seeded

from medgan.config import load_config
from medgan.data.cohort import read_cohort
from medgan.data.dicom import read_dicom_series
from medgan.data.nifti import read_nifti
from medgan.errors import InputFault

Rng = np.random.Generator
Case = tuple[Callable[[], object], Path]
WORDS = [b"", b"0", b"-1", b"1e400", b"nan", b"null", b"true", b"[]", b"{}", b"!!", b"&a", b"*a", b"$x", b"\x00",
         b"\xff", b"9" * 400, b"'", b'"', b":", b"- ", b"\n", b"\t", b"../", b"\xe2\x80\xae", b"~", b"<<: ",
         b"2026-13-45", b"0x1F", b"? ", b"| ", b"%TAG", b"---", b"1:2:3"]  # fmt: skip


def mutated(content: bytes, rng: Rng, within: int | None = None, kinds: int = 5) -> bytes:
    """Change some bytes among the first ``within``, where headers are; two ``kinds`` leave the rest in place."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(min(len(data), within or len(data)) + 1)) if data else 0
        kind = rng.integers(kinds)
        if kind == 0 and at < len(data):
            data[at] = int(rng.integers(256))
        elif kind == 1:
            data[at : at + int(rng.integers(1, 9))] = rng.choice([bytes(8), b"\xff" * 8, rng.bytes(8)])
        elif kind == 2:
            del data[at : at + int(rng.integers(1, 65))]
        elif kind == 3:
            data[at:at] = WORDS[rng.integers(len(WORDS))]
        else:
            start = int(rng.integers(len(data) + 1))
            data[at:at] = data[start : start + int(rng.integers(1, 129))]
    return bytes(data)


def nifti(folder: Path, rng: Rng) -> Callable[[], Case]:
    sources = [gzip.decompress(path.read_bytes()) for path in real_volumes(12, folder)]

    def make() -> Case:
        raw = mutated(sources[rng.integers(len(sources))], rng, within=360, kinds=5 if rng.random() < 0.1 else 1)
        path = folder / ("case.nii" if rng.random() < 0.5 else "case.nii.gz")
        path.write_bytes(gzip.compress(raw, 1) if path.suffix == ".gz" else raw)
        channels, frame = int(rng.choice([1, 1, 1, 2])), rng.choice([None, None, 0, 5])
        role = "label" if rng.random() < 0.3 else "image"
        return lambda: read_nifti(path, channels=channels, frame=frame, role=role), path

    return make


def dicom(folder: Path, rng: Rng) -> Callable[[], Case]:
    sources = [sorted(path.parent.glob("*")) for path in sorted(REALDATA.glob("dicom/**/*.dcm"))]
    series = [s for s in {tuple(files) for files in sources} if sum(f.stat().st_size for f in s) < 2_000_000]
    if not series:
        ended(False, "needs the real series (MEDGAN_REALDATA)")

    def make() -> Case:
        target = folder / "case"
        target.mkdir(exist_ok=True)
        for path in target.iterdir():
            path.unlink()
        files = [path for path in series[rng.integers(len(series))] if path.is_file()]
        damaged = set(rng.choice(len(files), min(len(files), int(rng.integers(1, 3))), replace=False).tolist())
        for number, path in enumerate(files):
            content = path.read_bytes()
            (target / path.name).write_bytes(
                mutated(content, rng, within=3000, kinds=int(rng.choice([1, 2, 5]))) if number in damaged else content
            )
        return lambda: read_dicom_series(target), target

    return make


def config(folder: Path, rng: Rng) -> Callable[[], Case]:
    tree = small_training(folder / "cohort").model_dump(mode="json")
    sources = [yaml.safe_dump(tree).encode(), yaml.safe_dump(tree, default_flow_style=True).encode(), b"name: x\n"]
    sources += [path.read_bytes() for path in sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))]
    keys = ["training.steps", "preprocess.shape", "data.labels", "compare.arms", "x", "a.b.c", "", "training", "."]

    def make() -> Case:
        path = folder / "case.yaml"
        path.write_bytes(mutated(sources[rng.integers(len(sources))], rng))
        overrides = []
        if rng.random() < 0.3:
            value = mutated(WORDS[rng.integers(len(WORDS))], rng).decode("utf-8", "replace")
            overrides = [f"{keys[rng.integers(len(keys))]}={value}"]
        return lambda: load_config(path, overrides), path

    return make


def cohort(folder: Path, rng: Rng) -> Callable[[], Case]:
    small_training(folder / "cohort")
    manifest = (folder / "cohort" / "manifest.csv").read_bytes()
    listing = b'{"name": "x", "labels": {"0": "background", "1": "ball"}, "modality": {"0": "MRI"}, "training": ['
    listing += b'{"image": "c0.nii.gz", "label": "c0-label.nii.gz"}, {"image": "./c1.nii.gz"}], "test": ["c2.nii.gz"]}'

    def make() -> Case:
        table = rng.random() < 0.5
        path = folder / "cohort" / ("case.csv" if table else "case.json")
        path.write_bytes(mutated(manifest if table else listing, rng))
        return lambda: read_cohort(path, class_key="size" if table else None), path

    return make


TARGETS = {"nifti": nifti, "dicom": dicom, "config": config, "cohort": cohort}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=10)
    arguments, rng = seeded(parser)
    tally: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        make = TARGETS[arguments.target](Path(name), rng)
        until = time.monotonic() + 60 * arguments.minutes
        while time.monotonic() < until:
            call, path = make()
            try:
                call()
                tally["read"] += 1
            except InputFault as fault:
                tally[fault.code if str(fault).isprintable() else f"UNPRINTABLE {fault.code}"] += 1
            except Exception as error:
                tally[f"TRACEBACK {type(error).__name__}: {error!s:.100}"] += 1
                if path.is_file():
                    Path(f"fuzz-{arguments.target}-{tally.total()}{path.suffix}").write_bytes(path.read_bytes())
    for code, count in tally.most_common():
        print(f"{count:7} {code}")
    bad = sum(count for code, count in tally.items() if code.startswith(("TRACEBACK", "UNPRINTABLE")))
    ended(bad == 0, f"{arguments.target}: {tally.total()} inputs in {arguments.minutes:g} minutes, {bad} tracebacks")


if __name__ == "__main__":
    main()
