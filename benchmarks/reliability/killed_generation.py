"""``medgan generate`` killed with SIGKILL at random moments, then called again.

python benchmarks/reliability/killed_generation.py

The folder at the end must hold the very files of the call that was left alone, and nothing else; and what a killed call
leaves under a final name must be whole. ``--checkpoint`` and ``--cohort`` name real ones. Each call is a fork of this
process, so that starting it takes no time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from children import finished, forked
from material import small_generator, small_training
from report import ended, quiet, seeded

from medgan.checkpoint import file_digest
from medgan.generate.batch import generate


def volumes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every volume there is, by name."""
    return {str(p.relative_to(folder)): file_digest(p) for p in sorted(folder.rglob("*.nii.gz"))}


def tree(folder: Path) -> str:
    """Return one hash of the folder: the bytes of volumes and tables, the names of all else (they hold times)."""
    lines = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = file_digest(path) if path.suffix in (".gz", ".csv") else ""
        lines.append(f"{path.relative_to(folder)} {content}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--count", type=int, default=60, help="volumes of a call")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--cohort", type=Path)
    arguments, rng = seeded(parser)
    quiet()
    kills = ends = other = torn = 0
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        checkpoint, cohort = arguments.checkpoint, arguments.cohort
        if checkpoint is None or cohort is None:
            cohort = home / "cohort"
            checkpoint = small_generator(small_training(cohort), home / "generator")

        def into(output: Path) -> int:
            return forked(lambda: generate(checkpoint, cohort, output, count=arguments.count, seed=3))

        begun = time.monotonic()
        if not finished(into(home / "alone")):
            ended(False, "the call that was left alone did not end")
        duration = time.monotonic() - begun
        whole, wanted = volumes(home / "alone"), tree(home / "alone")
        output = home / "out"
        killing = True
        while killing or output.exists():
            killing = kills < arguments.kills
            child = into(output)
            if killing:
                time.sleep(rng.uniform(0.1, 0.6) * duration)
                os.kill(child, signal.SIGKILL)
            if finished(child):
                ends += 1
                other += tree(output) != wanted
                shutil.rmtree(output)
            elif killing:
                kills += 1
                found = volumes(output) if output.exists() else {}
                torn += any(whole.get(file) != content for file, content in found.items())
            else:
                ended(False, "the call after the last kill did not end")
    print(f"one call of {arguments.count} volumes takes {duration:.1f} s")
    summary = f"{kills} kills, {ends} folders completed by calling again, {ends - other} with the tree hash {wanted} "
    summary += f"of the call left alone, {torn} kills left a volume that is not whole"
    ended(not other and not torn, summary)


if __name__ == "__main__":
    main()
