"""Figures in words: the cells and rows of the page's tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MINUS, NONE, TIMES = "\u2212", "\u2013", " \u00d7 "

Row = dict[str, Any]
Cell = tuple[str, str]
"""A figure, and its interval or what it is of, in small."""


def row(name: str, words: str, *cells: str | Cell) -> Row:
    """Return a row of a table: its name, what it means, and a cell for each column."""
    return {"name": name, "words": words, "cells": [(cell, "") if isinstance(cell, str) else cell for cell in cells]}


def number(value: float | None) -> str:
    """Return a figure with three digits after the point, one from 10 on; a dash for none."""
    if value is None:
        return NONE
    digits = 3 if abs(value) < 10 else 1
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.lstrip("-")


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:.1f}\u00a0%" if 0 < share < 1 else f"{100 * share:.0f}\u00a0%"


def interval(figure: Mapping[str, float], unit: str = "") -> Cell:
    """Return a figure with its confidence interval."""
    return f"{number(figure['value'])}{unit}", f"95 % CI {number(figure['low'])} to {number(figure['high'])}"


def share(figure: Mapping[str, float]) -> Cell:
    """Return a share with its confidence interval."""
    return percent(figure["value"]), f"95 % CI {percent(figure['low'])} to {percent(figure['high'])}"


def spanned(figure: Mapping[str, float], unit: str = "") -> Cell:
    """Return a median with the range of nine in ten."""
    return f"{number(figure['median'])}{unit}", f"90 % in {number(figure['p5'])} to {number(figure['p95'])}"


def ordinal(number: int) -> str:
    """Return 1st, 2nd, ..."""
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")
