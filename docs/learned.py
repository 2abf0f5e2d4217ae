"""Pictures of what a generator has learned: along one direction of noise, sums of noise, shape and appearance apart.

medgan demo --output demo && python docs/learned.py demo/generator demo/cohort/manifest.csv docs/pictures
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import medgan
from medgan.data.cohort import read_cohort
from medgan.data.loaders import Prepared, prepare
from medgan.data.preprocess import Scale
from medgan.models.fields import Fields, without_folds
from medgan.pictures import save_figure, siblings_figure
from medgan.sampler import Parameters, Recipe, Sampler, render, render_label
from medgan.seeding import torch_generator

Labelled = tuple[np.ndarray, np.ndarray | None]
STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)


def sibling(sampler: Sampler, case: Prepared, z: Tensor, part: str = "both") -> Labelled:
    """Return the sibling of a prepared case for one noise vector, or only what its shape or its appearance does."""
    shape = sampler.preprocessing.config.shape
    index = torch.tensor([case.class_index if case.class_index >= 0 else len(sampler.class_names)])
    fields: Fields = sampler.generator(case.image[None], z[None], index)
    if part == "shape":
        fields = replace(fields, gain=fields.gain * 0, offset=fields.offset * 0, texture=None)
    if part == "appearance":
        fields = replace(fields, velocity=fields.velocity * 0, generators=fields.generators * 0)
    fields, displacement = without_folds(fields, shape)
    scale = Scale(torch.zeros(len(case.image), 1, 1, 1), torch.ones(len(case.image), 1, 1, 1))
    parameters = Parameters(0, 0, 1.0, None, sampler.checkpoint.digest)
    recipe = Recipe(fields, displacement, np.eye(4), scale, shape, parameters)
    label = None if case.label is None else render_label(recipe, case.label)[0].numpy()
    return render(recipe, case.image)[0].numpy(), label


def source(case: Prepared) -> Labelled:
    """Return the case itself."""
    return case.image[0].numpy(), None if case.label is None else case.label[0].numpy()


@torch.no_grad()
def main() -> None:
    """Draw the three pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("cohort", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sampler = medgan.load(arguments.checkpoint)
    origin = sampler.checkpoint.origin
    class_key = sampler.checkpoint.config.data.class_key
    cohort = read_cohort(
        arguments.cohort, class_key=class_key, classes=sampler.class_names, labels=dict(origin.label_names),
        class_optional=True,
    )  # fmt: skip
    trained = {case["case_id"] for case in origin.training_cases}
    unseen = [case for case in cohort.cases if case.case_id not in trained and case.label is not None][:3]
    cases = prepare(unseen or cohort.cases[:3], cohort, sampler.preprocessing)
    rng = torch_generator(arguments.seed, "learned")
    a, b = torch.randn(2, sampler.generator.config.latent, generator=rng)

    parts = ("both", "shape", "appearance")
    walk = [(*source(cases[0]), [sibling(sampler, cases[0], t * a, part) for t in STEPS]) for part in parts]
    titles = ["real", *(f"{t:+g} a" if t else "0" for t in STEPS)]
    save_figure(siblings_figure(walk, titles=titles, names=parts), arguments.output / "noise-walk.png")

    sums = {"a": a, "b": b, "a + b": a + b, "a - b": a - b, "(a + b) / 2": (a + b) / 2}
    patients = [(*source(case), [sibling(sampler, case, z) for z in sums.values()]) for case in cases]
    names = [f"patient {number}" for number in range(1, len(cases) + 1)]
    figure = siblings_figure(patients, titles=["real", *sums], names=names)
    save_figure(figure, arguments.output / "noise-arithmetic.png")


if __name__ == "__main__":
    main()
