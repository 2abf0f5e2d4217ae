"""No room at a random write: python benchmarks/reliability/disk_full.py

A training of which a checkpoint and two states exist goes on in a process that may write files only up to a random
size (``RLIMIT_FSIZE``), or, with ``--folder`` on a small tmpfs, on a disk that a file of random size has filled. It
must end with one line that names the folder and the bytes it needed; the checkpoint and the state from before must
still be whole; and with room again it must end as the run that was left alone.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

from children import finished, forked
from killed import loads
from material import small_training
from report import ended, quiet, seeded

from medgan.checkpoint import WEIGHTS, file_digest
from medgan.errors import InputFault
from medgan.training import loop
from medgan.training.loop import train
from medgan.training.state import has_state, recorded_run

HALF = 3


def starved(config: loop.Config, output: Path, limit: int | None) -> str:
    """Train in a child with no room; return its last line, or nothing where there was room enough."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        with os.fdopen(read) as stream:
            text = stream.read()
        os.waitpid(child, 0)
        return text
    try:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        train(config, output)
        line = ""
    except InputFault as fault:
        line = str(fault)
    except BaseException as error:
        line = f"TRACEBACK {error!r}"
    os.write(write, line.encode())
    os._exit(0)


def judged(line: str, output: Path) -> str:
    if not line:
        return "room enough"
    if line.startswith("TRACEBACK"):
        return line[:120]
    named = str(output) in line and re.search(r"\d+ bytes", line) and "\n" not in line
    return "named" if named else f"NOT NAMED {line[:120]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="a small tmpfs to fill, instead of a limit a file")
    arguments, rng = seeded(parser)
    quiet()
    tally: Counter[str] = Counter()
    lost = different = 0
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        config = small_training(Path(name) / "cohort")
        if not finished(forked(partial(train, config, Path(name) / "alone"))):
            ended(False, "the run that was left alone did not end")
        wanted = file_digest(Path(name) / "alone" / WEIGHTS)
        keep, loop.remove_states = loop.remove_states, lambda _: None
        half = config.training.model_copy(update={"steps": HALF})
        train(config.model_copy(update={"training": half}), Path(name) / "half")
        loop.remove_states = keep
        largest = max(path.stat().st_size for path in (Path(name) / "half").rglob("*") if path.is_file())
        output, ballast = Path(place) / "run", Path(place) / "ballast"
        for _ in range(arguments.writes):
            shutil.copytree(Path(name) / "half", output)
            limit = None
            if arguments.folder:
                room = shutil.disk_usage(place).free
                ballast.write_bytes(bytes(max(0, room - int(rng.integers(0, 3 * largest)))))
            else:
                limit = int(rng.integers(1, largest))
            line = starved(config, output, limit)
            tally[judged(line, output)] += 1
            ballast.unlink(missing_ok=True)
            if line:
                whole = loads(output) and has_state(output) and recorded_run(output)
                lost += not whole
                different += not (
                    finished(forked(partial(train, config, output))) and file_digest(output / WEIGHTS) == wanted
                )
            shutil.rmtree(output)
    for what, count in tally.most_common():
        print(f"{count:5} {what}")
    tried = sum(tally.values()) - tally["room enough"]
    summary = f"{tried} full disks, {lost} checkpoints lost, {different} ended otherwise, {tally['named']} named"
    ended(lost == different == 0 and tally["named"] == tried, summary)


if __name__ == "__main__":
    main()
