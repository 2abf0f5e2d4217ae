"""Checkpoints and configurations that mean harm: python benchmarks/reliability/hostile.py

Pickles in place of weights, paths that lead elsewhere, wrong shapes, headers of 10⁹ elements, truncated files;
``_target_`` outside the allowed packages, ``$`` expressions, YAML tags, aliases that explode. None may be executed,
none may open a file for writing or a process, and each must be refused in one line. An audit hook of the interpreter
watches for what should not happen.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from material import small_generator, small_training
from report import ended, seeded
from safetensors.torch import load_file, save

from medgan.checkpoint import RECORD, WEIGHTS, load_checkpoint
from medgan.comparison.components import build_components
from medgan.config import load_config
from medgan.errors import InputFault

WATCHED = {
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "pickle.find_class",
}
SECONDS = 20.0
TARGETS = [
    "os.system", "subprocess.Popen", "builtins.eval", "builtins.exec", "importlib.import_module", "pickle.loads",
    "monai.transforms.utils.importlib.import_module", "monai.transforms.Lambdad", "monai.transforms.Lambda",
    "monai.transforms.LoadImaged", "monai.transforms.SaveImaged", "monai.transforms..os.system",
    "monai.bundle.ConfigParser", "monai.utils.module.optional_import", "torchio.datasets.IXI", "torch.load",
    "monai.transforms.__builtins__", "monai.transforms.compose.__loader__", "$import os",
    "monai.apps.utils.download_url", "medgan.cli.main", "../../evil", "__main__.evil", "", "monai.transforms.\x00",
]  # fmt: skip

watching = False
seen: list[str] = []


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not watching:
        return
    if event in WATCHED:
        seen.append(f"{event} {arguments!r:.80}")
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        seen.append(f"open for writing {arguments[0]!r:.80}")


class Evil:
    """Touches a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def hostile_checkpoint(folder: Path, rng: np.random.Generator) -> None:
    weights, record_path = folder / WEIGHTS, folder / RECORD
    record = json.loads(record_path.read_text())
    tensors = load_file(weights)
    blob = weights.read_bytes()
    name = str(rng.choice(sorted(tensors)))
    kind = rng.integers(12)
    if kind == 0:
        weights.write_bytes(pickle.dumps(Evil()))
    elif kind == 1:
        torch.save({"x": Evil()}, weights)
    elif kind == 2:
        record_path.write_bytes(pickle.dumps(Evil()))
    elif kind == 3:
        record["sha256"] = {f"{'../' * int(rng.integers(1, 9))}etc/passwd": "0" * 64}
    elif kind == 4:
        tensors[name] = torch.zeros([int(n) for n in rng.integers(1, 9, rng.integers(1, 5))] + [7])
        weights.write_bytes(save(tensors))
    elif kind == 5:  # a header that claims 10⁹ elements
        header = {name: {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}
        text = json.dumps(header).encode()
        weights.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    elif kind == 6:
        weights.write_bytes(int(rng.integers(1 << 62)).to_bytes(8, "little") + blob[8:])
    elif kind == 7:
        weights.write_bytes(blob[: rng.integers(len(blob))])
    elif kind == 8:
        text = record_path.read_bytes()
        record_path.write_bytes(text[: rng.integers(len(text) - 1)])
    elif kind == 9:
        key = str(
            rng.choice([k for k in record if k not in ("created", "versions", "metrics", "steps", "split_digest")])
        )
        record[key] = [None, -1, 10**30, "x" * 10**5, {"_target_": "os.system"}, [[[]]], "$(id)"][rng.integers(7)]
    elif kind == 10:
        at = int(rng.integers(8, len(blob)))
        weights.write_bytes(blob[:at] + bytes([blob[at] ^ (1 << int(rng.integers(8)))]) + blob[at + 1 :])
    else:
        record["config"]["model"]["width"] = [10**9, -4, 4.5, "4; id", 256][rng.integers(5)]
    if kind in (3, 9, 11):
        record_path.write_text(json.dumps(record))


def hostile_config(path: Path, rng: np.random.Generator) -> Callable[[], object]:
    kind = rng.integers(6)
    command = "touch executed"
    if kind == 0:
        tag = rng.choice(["!!python/object/apply:os.system", "!!python/name:os.system", "!!python/module:os", "!evil"])
        path.write_text(f"name: {tag} ['{command}']\n")
    elif kind == 1:
        levels = int(rng.integers(5, 30))
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
        path.write_text("\n".join(lines))
    elif kind == 2:
        path.write_text(rng.choice(["[", "{a: ", "- "]) * int(rng.integers(200, 50_000)))
    elif kind == 3:
        key = rng.choice(["seed", "training.steps", "preprocess.shape", "model.width"])
        value = rng.choice([f"$__import__('os').system('{command}')", f"${{{command}}}", f"`{command}`", "%(x)s"])
        path.write_text("name: x\n")
        return lambda: load_config(path, [f"{key}={value}"])
    elif kind == 4:
        target = TARGETS[rng.integers(len(TARGETS))]
        return lambda: build_components([{"_target_": target, "cmd": command}], ["image", "label"])
    else:
        value = [f"$os.system('{command}')", {"_target_": "os.system", "command": command}, "@image"][rng.integers(3)]
        specification = {"_target_": "monai.transforms.RandGaussianNoised", "keys": ["image"], "mean": value}
        return lambda: build_components([specification], ["image", "label"])
    return lambda: load_config(path)


def refusal(call: Callable[[], object]) -> str:
    """Return the code of a refusal in one line; anything else is an escape."""
    global watching  # noqa: PLW0603
    begun = time.monotonic()
    watching = True
    try:
        call()
        result = "ACCEPTED"
    except InputFault as fault:
        line = str(fault)
        result = fault.code if "\n" not in line and len(line) < 3000 else "LONG LINE"
    except BaseException as error:
        result = f"ESCAPED {type(error).__name__}: {error!s:.80}"
    finally:
        watching = False
    return result if time.monotonic() - begun < SECONDS else f"SLOW {result}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=500)
    arguments, rng = seeded(parser)
    tally: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        config = small_training(Path("cohort"))
        small_generator(config, Path("sound"))
        load_checkpoint("sound")
        build_components(
            [{"_target_": "monai.transforms.RandGaussianNoised", "keys": ["image"], "prob": 0.5}], ["image", "label"]
        )
        sys.addaudithook(hook)
        resource.setrlimit(
            resource.RLIMIT_DATA, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + 2**33,) * 2
        )
        for number in range(arguments.tries):
            if number % 2:
                shutil.rmtree("hostile", ignore_errors=True)
                shutil.copytree("sound", "hostile")
                hostile_checkpoint(Path("hostile"), rng)
                tally[refusal(lambda: load_checkpoint("hostile"))] += 1
            else:
                tally[refusal(hostile_config(Path("hostile.yaml"), rng))] += 1
        executed = Path("executed").exists()
        os.chdir("/")
    for code, count in tally.most_common():
        print(f"{count:5} {code}")
    for event in seen[:10]:
        print("seen:", event)
    escapes = sum(n for code, n in tally.items() if code.startswith(("ACCEPTED", "ESCAPED", "LONG", "SLOW")))
    summary = f"{sum(tally.values())} tried, {int(executed)} executed, {len(seen)} events, {escapes} escapes"
    ended(not executed and not seen and not escapes, summary)


if __name__ == "__main__":
    main()
