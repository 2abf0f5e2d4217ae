"""From a YAML file to a configuration. Only the safe loader is used: a file can hold no code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from medgan.config.faults import first_fault
from medgan.config.whole import Config
from medgan.errors import InputFault

MAX_CONFIG_BYTES = 1_000_000


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file and apply ``KEY=VALUE`` overrides, e.g. ``data.root=../scans``.

    Raises:
        InputFault: the file is missing or no YAML mapping, or a key or value does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise InputFault(path, "MISSING_FILE", "there is no such configuration file", "give the path of a YAML file")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise InputFault(
            path, "CONFIG_SIZE", f"the file is larger than {MAX_CONFIG_BYTES} bytes", "give a medgan configuration"
        )
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputFault(path, "CONFIG_YAML", f"not readable as YAML ({error})", "mend the file") from error
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise InputFault(
            path, "CONFIG_YAML", f"the top level is a {type(tree).__name__}, not a mapping", "mend the file"
        )
    for override in overrides:
        _apply_override(path, tree, override)
    return parse_config(tree, source=path)


def parse_config(tree: dict[str, Any], source: str | Path = "configuration") -> Config:
    """Validate a nested mapping. ``source`` names its origin in a fault."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise first_fault(error, source) from None


def _apply_override(path: Path, tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputFault(path, "CONFIG_OVERRIDE", f"{override!r} is not KEY=VALUE", "write e.g. training.steps=500")
    try:
        value = yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise InputFault(path, "CONFIG_OVERRIDE", f"the value of {key} is no YAML ({error})", "quote it") from error
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise InputFault(
                path, "CONFIG_OVERRIDE", f"{key}: {parent} holds a value, not a section", "name a key inside a section"
            )
        node = child
    node[last] = value


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, without aliases (they can explode) and without duplicate keys (one would be lost)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = [key for key in keys if keys.count(key) > 1]
        if repeated:
            raise yaml.YAMLError(f"the key {repeated[0]!r} stands twice")
        return super().construct_mapping(node, deep)
