"""The keys of the configuration, read off its sections: which there are, and what each means."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from medgan.config.whole import Config


def describe(section: type[BaseModel] = Config, prefix: str = "") -> list[tuple[str, str, str]]:
    """List every key as (dotted key, default, meaning), for the documentation; ``[]`` stands for an item of a list."""
    rows: list[tuple[str, str, str]] = []
    for name, field in section.model_fields.items():
        if field.annotation not in _sections(field.annotation):
            default = "required" if field.is_required() else str(field.default)
            rows.append((prefix + name, default, field.description or ""))
        for between, inner in _inner(field):
            rows += describe(inner, f"{prefix}{name}{between}")
    return rows


def known_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    """List every dotted key, those that hold sections too; ``[]`` stands for an item of a list."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        for between, inner in _inner(field):
            keys += known_keys(inner, f"{prefix}{name}{between}")
    return keys


def inside(annotation: Any, part: int | str) -> Any:
    """Return the type of a section's key or of a sequence's item; ``None`` where there is none to know."""
    if isinstance(part, int):
        return next(iter(typing.get_args(annotation)), None)
    field = next((s.model_fields[part] for s in _sections(annotation) if part in s.model_fields), None)
    return None if field is None else field.annotation


def branches(annotation: Any) -> set[str]:
    """Return the names of a union's members in pydantic's locations; none for what is no union of several."""
    members = _members(annotation)
    return {getattr(member, "__name__", "") for member in members} if len(members) > 1 else set()


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that a field can hold: itself, or members of a union."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [section for member in _members(annotation) for section in _sections(member)]


def _inner(field: FieldInfo) -> list[tuple[str, type[BaseModel]]]:
    """Return the sections under a key, each with what stands between: ``.``, or ``[].`` for the items of a list."""
    found = [(".", section) for section in _sections(field.annotation)]
    if typing.get_origin(field.annotation) is tuple:
        found += [("[].", section) for item in typing.get_args(field.annotation) for section in _sections(item)]
    return found


def _members(annotation: Any) -> list[Any]:
    """Return the members of a union, without None; none for what is no union."""
    if typing.get_origin(annotation) not in (types.UnionType, typing.Union):
        return []
    return [member for member in typing.get_args(annotation) if member is not type(None)]
