"""Pictures and figures of what a generator has learned, as docs/learned.md shows them.

medgan demo --output demo && python docs/learned.py demo/generator docs/pictures

The patients are phantoms that the demo has not seen, of more voxels than the generator's grid; --cohort names others.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from noise import (
    Part,
    Patient,
    Slice,
    Slices,
    added,
    affine_share,
    directions,
    effects,
    motion,
    part_of,
    patients_of,
    shading,
    sum_share,
)
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import medgan
from medgan.data.phantom import build_phantom_cohort
from medgan.pictures import save_figure
from medgan.sampler import Sampler
from medgan.seeding import torch_generator

SAMPLES = 192  # noise vectors that the directions are found from
PAIRS = 48  # noise vectors that are added
STEPS = (-2, -1, 0, 1, 2)
DIRECTIONS = 3
COLOURS = 128
OUTLINE, BEFORE = "#E69F00", "#56B4E9"
MINUS = "\u2212"


def sheet(rows: int, columns: int) -> tuple[Figure, NDArray[np.object_]]:
    """Return an empty figure as wide as a page."""
    figure = Figure(figsize=(9, 9 / columns * rows * 1.04 + 0.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
    return figure, panels


def show(
    line: Sequence[Axes], drawn: Sequence[Slices], before: Slice, top: float, plane_mm: tuple[float, float]
) -> None:
    """Draw siblings and their outlines in one grey window, and in each, broken, one outline to compare them with."""
    across, up = plane_mm
    for panel, (image, outer) in zip(line, drawn, strict=True):
        panel.imshow(image, origin="lower", cmap="gray", vmin=0, vmax=top, aspect=up / across)
        panel.contour(before, levels=[0.5], colors=[BEFORE], linewidths=1.0, linestyles="dashed")
        panel.contour(outer, levels=[0.5], colors=[OUTLINE], linewidths=1.0)
    high, wide = before.shape
    length = 50 if wide * across > 150 else 10
    line[0].plot([0.04 * wide, 0.04 * wide + length / across], [0.05 * high] * 2, color="white", linewidth=2)
    line[0].text(0.04 * wide, 0.07 * high, f"{length // 10} cm", color="white", fontsize=9)


def brightest(drawn: Sequence[Slices]) -> float:
    """Return the upper end of a grey window that shows all."""
    return float(max(np.percentile(image, 99.8) for image, _ in drawn))


def entitle(figure: Figure, panels: Sequence[Axes], titles: Sequence[str], title: str, before: str) -> None:
    """Write the headings of a figure and of its columns, and what the lines are."""
    for panel, text in zip(panels, titles, strict=True):
        panel.set_title(text, fontsize=11)
    figure.suptitle(title, fontsize=12)
    figure.supxlabel(f"Orange: outline of the anatomy. Blue, broken: {before}.", fontsize=10)


def walks(sampler: Sampler, patient: Patient, rows: Sequence[tuple[str, Part, Tensor]]) -> Figure:
    """Draw siblings along directions of noise, a row each."""
    figure, panels = sheet(len(rows), len(STEPS))
    for line, (name, part, direction) in zip(panels, rows, strict=True):
        z = torch.stack([step * direction for step in STEPS])
        drawn = [patient.slices(part_of(patient.fields(sampler, one[None]), part)) for one in z]
        show(line, drawn, drawn[STEPS.index(0)][1], brightest(drawn), patient.plane_mm)
        line[0].set_ylabel(name, fontsize=11)
    titles = [f"{step:+d}".replace("-", MINUS) if step else "0: no noise" for step in STEPS]
    title = "One patient along single directions of noise, in standard deviations"
    entitle(figure, panels[0], titles, title, "without noise")
    return figure


def apart(sampler: Sampler, patient: Patient, z: Tensor) -> Figure:
    """Draw every appearance (rows) with every shape (columns) of some noise vectors; the source's come first."""
    figure, panels = sheet(len(z) + 1, len(z) + 1)
    made = [part_of(patient.fields(sampler, z[:1]), "neither"), *(patient.fields(sampler, one[None]) for one in z)]
    drawn = [
        [patient.slices(replace(shape, gain=one.gain, offset=one.offset, texture=one.texture)) for shape in made]
        for one in made
    ]
    top = brightest([one for row in drawn for one in row])
    names = ["of the source", *(f"of noise {name}" for name in "ABCDEFGH"[: len(z)])]
    for line, row, name in zip(panels, drawn, names, strict=True):
        show(line, row, drawn[0][0][1], top, patient.plane_mm)
        line[0].set_ylabel(f"appearance\n{name}", fontsize=11)
    titles = [f"shape {name}" for name in names]
    entitle(figure, panels[0], titles, "Shapes and appearances of one patient's siblings, exchanged", "the source's")
    return figure


def arithmetic(sampler: Sampler, patients: Sequence[Patient], a: Tensor, b: Tensor) -> Figure:
    """Draw, for each patient, siblings of a, b, a + b, and the recipes of a and b added."""
    figure, panels = sheet(len(patients), 5)
    for number, (line, patient) in enumerate(zip(panels, patients, strict=True), start=1):
        none, one, other, both = (patient.fields(sampler, z[None]) for z in (0 * a, a, b, a + b))
        made = (part_of(none, "neither"), one, other, both, added(one, other, none))
        drawn = [patient.slices(fields) for fields in made]
        show(line, drawn, drawn[0][1], brightest(drawn), patient.plane_mm)
        line[0].set_ylabel(f"patient {number}", fontsize=11)
    titles = ("source", "noise A", "noise B", "noise A + B", "changes of A\nand of B, added")
    entitle(
        figure, panels[0], titles, "The same noise for three patients, and a sum of two noise vectors", "the source's"
    )
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG with a palette, a third of the size."""
    save_figure(figure, path)
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


@torch.no_grad()
def main() -> None:
    """Draw the three pictures and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("output", type=Path)
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sampler = medgan.load(arguments.checkpoint)
    latent = sampler.generator.config.latent
    with tempfile.TemporaryDirectory() as name:
        cohort = arguments.cohort or build_phantom_cohort(Path(name), patients=4, shape=(96, 96, 96), seed=1)
        # New phantoms bear the names of the demo's, but are others.
        patients = patients_of(sampler, cohort, 3, seen_left_out=arguments.cohort is not None)
    if not patients:
        parser.error("the cohort has no case with a label map that the generator was not trained on")
    first = patients[0]

    z = torch.randn(SAMPLES, latent, generator=torch_generator(arguments.seed, "directions"))
    moved = [effects(sampler, patient, z, motion) for patient in patients]
    shaded = [effects(sampler, patient, z, shading) for patient in patients]
    of_shape, of_appearance = directions(z, torch.cat(moved, dim=1)), directions(z, torch.cat(shaded, dim=1))
    rows: list[tuple[str, Part, Tensor]] = [
        (f"shape {i + 1}\n{of_shape.shares[i]:.0%} of motion", "shape", of_shape.vectors[i]) for i in range(DIRECTIONS)
    ]
    rows.append((f"appearance 1\n{of_appearance.shares[0]:.0%} of change", "appearance", of_appearance.vectors[0]))
    save(walks(sampler, first, rows), arguments.output / "noise-walk.png")

    a, b, c = torch.randn(3, latent, generator=torch_generator(arguments.seed, "pictures"))
    save(apart(sampler, first, torch.stack([a, b, c])), arguments.output / "shape-appearance.png")
    save(arithmetic(sampler, patients, a, b), arguments.output / "noise-arithmetic.png")

    for what, found in (("motion", of_shape), ("shading", of_appearance)):
        shares = ", ".join(f"{share:.0%}" for share in found.shares[:5])
        print(f"{what}: linear in the noise {found.linear:.0%}; shares of the strongest directions {shares}")
    length = torch.cat(moved, dim=1).square().mean().mul(3).sqrt()
    affine = np.mean([affine_share(*pair) for pair in zip(moved, patients, strict=True)])
    print(f"motion, root mean square: {length:.2f} voxels of the grid; {affine:.0%} of it is affine")
    for what, measure in (("motion", motion), ("shading", shading)):
        share = sum_share(sampler, patients, z[:PAIRS], z[PAIRS : 2 * PAIRS], measure)
        print(f"{what} by a sum of two noise vectors: {share:.0%} is the sum of what each does")


if __name__ == "__main__":
    main()
