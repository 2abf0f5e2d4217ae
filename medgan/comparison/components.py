"""Further transforms of an arm, named in the configuration by ``_target_``: any of MONAI or TorchIO, and no code.

A configuration may come from someone else. So a target is a class of an allowed package and nothing that hangs on it,
a value is a number, a text, a truth value or a list or mapping of these, and whatever evaluates text, calls a function
given to it, or reads or writes files is refused. Nothing is imported by a name that stands in the configuration.
"""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from medgan.errors import InputFault

TARGET = "_target_"
ROOTS = ("monai.transforms", "torchio", "torchio.transforms")
OWN = "medgan.transforms"
DEPTH = 8
KNOWN = "name a class of monai.transforms or torchio, e.g. monai.transforms.RandBiasFieldd"
PLAIN = "give numbers, texts, true, false, null, lists or mappings"

# By a class's name or that of a class it is derived from, and why.
REFUSED: Mapping[str, str] = {
    "Lambda": "calls a function",
    "Lambdad": "calls a function",
    "MonaiAdapter": "wraps another transform; name that one itself",
    "Compose": "holds other transforms; list those themselves",
    "OneOf": "holds other transforms; list those themselves",
    "Invertd": "undoes another transform",
    "Ensembled": "joins several models' outputs",
    "TorchVisiond": "takes a transform by name from another package",
    "RandTorchVisiond": "takes a transform by name from another package",
    "TorchIOd": "takes a transform by name from another package; name torchio's own class",
    "RandTorchIOd": "takes a transform by name from another package; name torchio's own class",
    "CuCIMd": "takes a transform by name from another package",
    "RandCuCIMd": "takes a transform by name from another package",
    "ApplyPendingd": "is part of MONAI's lazy evaluation",
    "DataStatsd": "prints what it sees",
    "IntensityStatsd": "calls a function",
    "SaveClassificationd": "writes files",
    "WriteFileMappingd": "writes files",
    "HistogramStandardization": "reads files",
    "Resample": "reads files and changes the grid",
    "ToReferenceSpace": "changes the grid",
}
REFUSED_MODULES: Mapping[str, str] = {
    "monai.transforms.io": "reads or writes files",
    "monai.transforms.lazy": "is part of MONAI's lazy evaluation",
    "monai.transforms.regularization": "mixes the samples of a batch, and is given one",
}


def build_components(specifications: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[Any]:
    """Return the transforms that the specifications name, in order.

    Args:
        specifications: each a mapping of ``_target_`` and the keywords of that class. MONAI's dictionary transforms
            need their own ``keys``; TorchIO's get all of ``keys``, label maps as such.
        keys: of a sample: the image, then label maps.

    Raises:
        InputFault: ``COMPONENT_TARGET`` (no such class, or none of the allowed packages), ``COMPONENT_REFUSED`` (a
            class that runs code or touches files), ``COMPONENT_VALUE`` (a value that is not plain data),
            ``COMPONENT_ARGUMENTS`` (the class refuses its keywords), ``COMPONENT_MISSING`` (TorchIO is not installed).
    """
    return [_build(specification, keys) for specification in specifications]


def resolve(target: object) -> type:
    """Return the transform class that a dotted path names.

    Raises:
        InputFault: see :func:`build_components`.
    """
    if not isinstance(target, str):
        raise InputFault(_shown(target), "COMPONENT_TARGET", "a transform needs its dotted path in _target_", KNOWN)
    root, _, name = target.rpartition(".")
    if root == OWN:
        reason = "it uses a generator, which the study must know to check for leaks"
        raise InputFault(_shown(target), "COMPONENT_REFUSED", reason, "use the part gan instead")
    if root not in ROOTS or not name.isidentifier() or name.startswith("_"):
        raise InputFault(_shown(target), "COMPONENT_TARGET", f"not a class of {', '.join(ROOTS)}", KNOWN)
    package = root.partition(".")[0]
    namespace, base = _namespace(root, package)
    found = vars(namespace).get(name)
    home = f"{package}.transforms."
    is_transform = isinstance(found, type) and issubclass(found, base) and found.__module__.startswith(home)
    if not isinstance(found, type) or not is_transform:
        near = difflib.get_close_matches(name, [n for n, v in vars(namespace).items() if isinstance(v, type)], 1)
        remedy = f"did you mean {root}.{near[0]}?" if near and near[0] != name else KNOWN
        raise InputFault(_shown(target), "COMPONENT_TARGET", "no transform of that name", remedy)
    _require_harmless(target, found, package)
    return found


def require_plain(value: Any, where: str, depth: int = 0) -> None:
    """Refuse a value that is not plain data: only numbers, texts, truth values, ``None``, lists and mappings.

    Texts that MONAI's configurations would evaluate or look up (``$``, ``@``, ``%``) and keys that begin with ``_``
    are refused.

    Raises:
        InputFault: ``COMPONENT_VALUE``.
    """
    if depth > DEPTH:
        raise InputFault(where, "COMPONENT_VALUE", f"values are nested more than {DEPTH} deep", PLAIN)
    if isinstance(value, str):
        if value.lstrip()[:1] in ("$", "@", "%"):
            reason = f"{_shown(value)} is an expression or a reference; nothing is evaluated"
            raise InputFault(where, "COMPONENT_VALUE", reason, PLAIN)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str) or key.startswith("_"):
                raise InputFault(where, "COMPONENT_VALUE", f"the key {_shown(key)} is not allowed", PLAIN)
            require_plain(item, where, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            require_plain(item, where, depth + 1)
    elif value is not None and not isinstance(value, bool | int | float):
        raise InputFault(where, "COMPONENT_VALUE", f"{type(value).__name__} is not plain data", PLAIN)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputFault(where, "COMPONENT_VALUE", f"{value} is not a finite number", PLAIN)


def _build(specification: Mapping[str, Any], keys: Sequence[str]) -> Any:
    if not isinstance(specification, Mapping):
        raise InputFault(_shown(specification), "COMPONENT_TARGET", "a transform is a mapping with _target_", KNOWN)
    target = specification.get(TARGET)
    arguments = {key: value for key, value in specification.items() if key != TARGET}
    require_plain(arguments, _shown(target))
    found = resolve(target)
    torchio = found.__module__.startswith("torchio.")
    if not torchio:
        _require_keys(arguments.get("keys", ()), keys, str(target))
    try:
        # TorchIO takes ranges as tuples; MONAI takes any sequence.
        transform = found(**({name: _tuples(v) for name, v in arguments.items()} if torchio else arguments))
    except Exception as error:
        reason = f"the keywords do not fit ({type(error).__name__}: {str(error)[:200]})"
        raise InputFault(_shown(target), "COMPONENT_ARGUMENTS", reason, "see that class's documentation") from error
    if torchio:
        from medgan.comparison.composition import TorchIOd

        return TorchIOd(keys, transform)
    return transform


def _namespace(root: str, package: str) -> tuple[Any, type]:
    """Return an allowed module and its base class of transforms."""
    if package == "torchio":
        try:
            torchio = importlib.import_module("torchio")
        except ImportError as error:
            reason = "TorchIO is not installed"
            raise InputFault(root, "COMPONENT_MISSING", reason, "pip install torchio") from error
        return torchio.transforms if root == "torchio.transforms" else torchio, torchio.Transform
    from monai.transforms import Transform

    return importlib.import_module(root), Transform


def _require_harmless(target: str, found: type, package: str) -> None:
    for ancestor in found.__mro__:
        why = REFUSED.get(ancestor.__name__)
        if why is None:
            why = next((w for m, w in REFUSED_MODULES.items() if f"{ancestor.__module__}.".startswith(f"{m}.")), None)
        if why is not None:
            raise InputFault(_shown(target), "COMPONENT_REFUSED", f"it {why}", "choose another transform")
    if package == "torchio":
        return
    from monai.transforms import MapTransform

    if not issubclass(found, MapTransform):
        reason = "it works on arrays, and a sample is a mapping of image and label"
        raise InputFault(_shown(target), "COMPONENT_REFUSED", reason, f"use the dictionary version, {target}d")


def _require_keys(given: object, keys: Sequence[str], target: str) -> None:
    names = [given] if isinstance(given, str) else list(given) if isinstance(given, list | tuple) else []
    if not names or not set(map(str, names)) <= set(keys):
        reason = f"keys must be of {', '.join(keys)}, got {_shown(given)}"
        remedy = f"set keys: [{', '.join(keys)}] for changes of shape, keys: [{keys[0]}] for changes of intensity"
        raise InputFault(_shown(target), "COMPONENT_ARGUMENTS", reason, remedy)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _shown(value: object) -> str:
    """Return a value short enough for one line."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
