"""Training killed with SIGKILL at random moments, then resumed: python benchmarks/reliability/killed.py

The weights at the end must be those of the run that was left alone, bit for bit; and at every moment the checkpoint in
the folder, if there is one, must load. Each run is a fork of this process, so that starting it takes no time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
import time
from functools import partial
from pathlib import Path

from children import finished, forked
from material import small_training
from report import ended, quiet, seeded

from medgan.checkpoint import RECORD, WEIGHTS, file_digest, load_checkpoint
from medgan.training.loop import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    arguments, rng = seeded(parser)
    quiet()
    resumed = identical = broken = too_late = 0
    with tempfile.TemporaryDirectory() as name:
        config = small_training(Path(name) / "cohort")
        begun = time.monotonic()
        alone = Path(name) / "alone"
        if not finished(forked(partial(train, config, alone))):
            ended(False, "the run that was left alone did not end")
        duration = time.monotonic() - begun
        wanted = file_digest(alone / WEIGHTS)
        while resumed < arguments.kills:
            output = Path(name) / "run"
            child = forked(partial(train, config, output))
            time.sleep(rng.uniform(0.1, 1) * duration)
            os.kill(child, signal.SIGKILL)
            if finished(child):
                too_late += 1
            else:
                resumed += 1
                broken += (output / RECORD).exists() and not loads(output)
                identical += (
                    finished(forked(partial(train, config, output))) and file_digest(output / WEIGHTS) == wanted
                )
            shutil.rmtree(output, ignore_errors=True)
    print(f"one run takes {duration:.1f} s; {too_late} kills came after its end and are not counted")
    summary = f"{resumed} resumes, {identical} bit-identical to the run left alone, {broken} unreadable checkpoints"
    ended(identical == resumed and not broken, summary)


def loads(folder: Path) -> bool:
    try:
        load_checkpoint(folder)
    except Exception as error:
        print(error)
        return False
    return True


if __name__ == "__main__":
    main()
