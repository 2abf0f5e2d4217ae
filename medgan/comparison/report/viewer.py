"""The pictures of a study's report: failed cases by arm, and real volumes beside their siblings, slice by slice."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medgan.comparison.report.finished import FinishedStudy
from medgan.comparison.report.sprites import Image, Layout, image_sprite, layout_of, outline_sprite
from medgan.comparison.report.words import block_name, figure, plural
from medgan.errors import InputFault
from medgan.pictures import OUTLINES

GALLERY, VOLUMES = "gallery.json", "gallery.npz"
REFERENCE_COLOUR, PREDICTION_COLOUR = "#56B4E9", "#E69F00"


@dataclass(frozen=True)
class Layer:
    """A sprite in the page: the id it is used by, its size in voxels, its data URI."""

    id: str
    width: int
    height: int
    source: str


@dataclass(frozen=True)
class Panel:
    """A volume in a viewer: what is laid over what, a title, and a description for those who cannot see it."""

    title: str
    note: str
    alt: str
    image: str
    outline: str


@dataclass(frozen=True)
class Viewer:
    """Panels that are scrolled together."""

    id: str
    title: str
    layout: Layout
    panels: tuple[Panel, ...]
    legend: tuple[tuple[str, str, bool], ...]

    @property
    def view_box(self) -> str:
        """The first slice's place in the sprite; shown where scripts are off, too."""
        row, column = divmod(self.layout.start, self.layout.columns)
        width, height = self.layout.width, self.layout.height
        return f"{column * width + 1} {row * height + 1} {width - 2} {height - 2}"

    @property
    def spoken(self) -> str:
        """Which slices there are."""
        every = f", every {_ordinal(self.layout.step)} slice" if self.layout.step > 1 else ""
        return f"{plural(self.layout.slices, 'slice')}{every}"


@dataclass(frozen=True)
class Pictures:
    """All pictures of a report.

    Attributes:
        failures: viewers of failed cases.
        siblings: viewers of real volumes and their siblings.
        layers: the sprites they use.
        left_out: sets of volumes that did not fit the page.
    """

    failures: tuple[Viewer, ...] = ()
    siblings: tuple[Viewer, ...] = ()
    layers: tuple[Layer, ...] = ()
    left_out: int = 0


class _Album:
    """Collects sprites as long as they fit the page."""

    def __init__(self, budget: int) -> None:
        self.left = budget
        self.layers: list[Layer] = []
        self.left_out = 0

    def take(self, viewer: Viewer, sprites: Mapping[str, bytes]) -> bool:
        """Add a viewer's sprites whole or not at all."""
        sources = {id: "data:image/png;base64," + base64.b64encode(png).decode() for id, png in sprites.items()}
        size = sum(len(source) for source in sources.values())
        if size > self.left:
            self.left_out += 1
            return False
        self.left -= size
        sheet = viewer.layout.columns * viewer.layout.width, viewer.layout.rows * viewer.layout.height
        self.layers += [Layer(id, *sheet, source) for id, source in sources.items()]
        return True


def read_pictures(study: FinishedStudy, output: Path, budget: int) -> Pictures:
    """Return the pictures that fit a number of characters; sources and failed cases by turns, the first ones first.

    Raises:
        InputFault: the gallery's files do not fit each other.
    """
    if not (output / GALLERY).is_file() or not (output / VOLUMES).is_file():
        return Pictures()
    try:
        index = json.loads((output / GALLERY).read_text(encoding="utf-8"))
        album = _Album(budget)
        kept: dict[str, list[Viewer]] = {"cases": [], "sources": []}
        with np.load(output / VOLUMES, allow_pickle=False) as volumes:
            for turn in range(max(len(index["cases"]), len(index["sources"]))):
                for kind, make in (("cases", _case), ("sources", _source)):
                    if turn < len(index[kind]):
                        viewer, sprites = make(study, index[kind][turn], volumes, index["labels"])
                        if album.take(viewer, sprites):
                            kept[kind].append(viewer)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"not a readable gallery of the study ({type(error).__name__})"
        raise InputFault(output / GALLERY, "GALLERY_UNREADABLE", reason, "remove it, or run the study again") from error
    return Pictures(tuple(kept["cases"]), tuple(kept["sources"]), tuple(album.layers), album.left_out)


def _case(
    study: FinishedStudy, case: Mapping[str, Any], volumes: Mapping[str, Image], _: Mapping[str, str]
) -> tuple[Viewer, dict[str, bytes]]:
    """A test case: each arm's prediction over it."""
    key, metric = str(case["key"]), str(study.plan["metric"])
    image, truth = volumes[f"{key}/image"], _known(volumes, f"{key}/truth")
    layout = layout_of(image, truth, study.plan["spacing"])
    name = f"failure-{key}"
    sprites = {f"{name}-image": image_sprite(image, layout)}
    panels = []
    scored = "Dice" if metric == "dice" else "probability of the true class"
    for number, (arm, score) in enumerate(_scores(study, case)):
        prediction = _known(volumes, f"{key}/prediction/{arm}")
        outline = ""
        if truth is not None:
            outline = f"{name}-outline{number}"
            masks = [(np.equal(truth, v), REFERENCE_COLOUR, False) for v in _values(truth)]
            if prediction is not None:
                masks += [(np.equal(prediction, v), PREDICTION_COLOUR, True) for v in _values(prediction)]
            sprites[outline] = outline_sprite(masks or [(truth, REFERENCE_COLOUR, False)], layout)
        note = f"{scored} {figure(score, metric)}"
        alt = f"Test case {case['number']}, arm {arm}: {note}."
        panels.append(Panel(arm, note, alt, f"{name}-image", outline))
    if truth is None:
        # Without masks every arm's panel would be the same picture.
        given = ", ".join(f"{arm} {figure(score, metric)}" for arm, score in _scores(study, case))
        notes = f"{scored}: {given}"
        alt = f"Test case {case['number']}: {notes}."
        panels = [Panel("scan", notes, alt, f"{name}-image", "")]
    where = f" ({block_name(int(case['block']))})" if len(study.blocks) > 1 else ""
    title = f"Test case {case['number']}: {case['why']}{where}"
    drawn_prediction = truth is not None and any(f"{key}/prediction/{arm}" in volumes for arm in study.arms)
    legend = [("reference standard", REFERENCE_COLOUR, False)] if truth is not None else []
    legend += [("prediction", PREDICTION_COLOUR, True)] if drawn_prediction else []
    return Viewer(name, title, layout, tuple(panels), tuple(legend)), sprites


def _source(
    study: FinishedStudy, source: Mapping[str, Any], volumes: Mapping[str, Image], labels: Mapping[str, str]
) -> tuple[Viewer, dict[str, bytes]]:
    """A training volume beside its siblings."""
    key = str(source["key"])
    layout = layout_of(volumes[f"{key}/image"], _known(volumes, f"{key}/label"), study.plan["spacing"])
    name = f"siblings-{key}"
    of_class = f", class {source['class']}" if source["class"] else ""
    sprites: dict[str, bytes] = {}
    panels = []
    shown: set[int] = set()
    for number in range(int(source["siblings"]) + 1):
        place = key if number == 0 else f"{key}/sibling{number - 1}"
        sprites[f"{name}-image{number}"] = image_sprite(volumes[f"{place}/image"], layout)
        mask, outline = _known(volumes, f"{place}/label"), ""
        if mask is not None and mask.any():
            shown |= set(_values(mask))
            outline = f"{name}-outline{number}"
            masks = [(np.equal(mask, v), _colour(v), False) for v in _values(mask)]
            sprites[outline] = outline_sprite(masks, layout)
        title = "real" if number == 0 else f"sibling {number}"
        kind = "real training volume" if number == 0 else f"synthetic sibling by {source['generator']}"
        alt = f"{title.capitalize()}{of_class}: {kind}{', label outlines drawn' if outline else ''}."
        panels.append(Panel(title, "", alt, f"{name}-image{number}", outline))
    title = f"Siblings by {source['generator']}{of_class}"
    legend = tuple((labels.get(str(v), f"label {v}"), _colour(v), False) for v in sorted(shown))
    return Viewer(name, title, layout, tuple(panels), legend), sprites


def _scores(study: FinishedStudy, case: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(arm, float(case["scores"][arm])) for arm in study.arms if case["scores"].get(arm) is not None]


def _known(volumes: Mapping[str, Image], name: str) -> Image | None:
    return volumes.get(name)


def _values(mask: Image) -> Sequence[int]:
    return [int(v) for v in np.unique(mask) if v]


def _colour(value: int) -> str:
    return OUTLINES[(value - 1) % len(OUTLINES)]


def _ordinal(number: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(number, f"{number}th")
