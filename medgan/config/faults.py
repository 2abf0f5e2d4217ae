"""What is wrong with a configuration, in one line: the first fault that pydantic finds, by its dotted key."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from medgan.config.keys import branches, inside, known_keys
from medgan.config.whole import Config
from medgan.errors import InputFault


def first_fault(error: ValidationError, source: str | Path) -> InputFault:
    """Return the fault that names the first error. ``source`` names the configuration's origin."""
    # A key that is not known comes before what its lack leaves missing.
    details = sorted(error.errors(include_url=False), key=lambda detail: detail["type"] != "extra_forbidden")
    detail = _meant(details)
    location = _without_branches(detail["loc"])
    dotted = ".".join(map(str, location)) or "configuration"
    value = detail.get("input")
    if detail["type"] == "extra_forbidden":
        deeper, value = _only_key(value)
        dotted = ".".join([dotted, *deeper])
        return InputFault(
            source,
            "CONFIG_UNKNOWN_KEY",
            f"{dotted} is not a known key (value {value!r})",
            f"did you mean {_nearest(dotted, location)}?",
        )
    message = detail["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(value, dict | BaseModel) else f" (value {value!r})"
    # What a check of a whole section says begins with the key that is at fault.
    named = message.partition(" must ")[0] if detail["type"] == "value_error" else ""
    if ".".join([*map(str, location), named]) in known_keys(Config):
        dotted, message = ".".join([*map(str, location), named]), message.removeprefix(f"{named} ")
    hint = f"change {dotted} in the file or on the command line"
    return InputFault(source, "CONFIG_VALUE", f"{dotted}: {message}{shown}", hint)


def _meant(details: Sequence[ErrorDetails]) -> ErrorDetails:
    """Return the first error, of a value that may be a text or a section that of what it is."""
    first = _without_branches(details[0]["loc"])
    for detail in details:
        wrong_kind = detail["type"] == "string_type" and isinstance(detail.get("input"), dict)
        if not wrong_kind and _without_branches(detail["loc"])[: len(first)] == first:
            return detail
    return details[0]


def _without_branches(location: Sequence[int | str]) -> list[int | str]:
    """Return where an error is without the names that pydantic gives to the members of a union."""
    kept: list[int | str] = []
    within: Any = Config
    for part in location:
        if part in branches(within):
            continue
        kept.append(part)
        within = inside(within, part)
    return kept


def _only_key(value: Any) -> tuple[list[str], Any]:
    """Return the rest of the dotted path to a value that stands alone in mappings, and the value."""
    path: list[str] = []
    while isinstance(value, dict) and len(value) == 1:
        key, value = next(iter(value.items()))
        path.append(str(key))
    return path, value


def _nearest(dotted: str, location: Sequence[int | str]) -> str:
    """Return the known key that is most like an unknown one: of its own section, where one there is like it."""
    numbered = [str(part) for part in location]
    plain = ["[]" if isinstance(part, int) else str(part) for part in location]
    section = ".".join(plain[:-1]).replace(".[]", "[]")
    known = known_keys(Config)
    beside = [key.rpartition(".")[2] for key in known if section and key.rpartition(".")[0] == section]
    near = difflib.get_close_matches(plain[-1], beside, n=1)
    if near:
        return ".".join([*numbered[:-1], near[0]])
    return difflib.get_close_matches(dotted, known, n=1, cutoff=0.0)[0]
