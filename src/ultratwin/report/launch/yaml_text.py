"""A small YAML writer: maps, lists of scalars, numbers, booleans, nulls and quoted text, and nothing that surprises."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

Yaml = dict[str, Any]

_PLAIN: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_RESERVED: Final = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


def yaml_text(value: Mapping[str, Any], indent: int = 0) -> str:
    """A map as block YAML; lists on one line, text quoted wherever YAML could read something else.

    Example:
        >>> print(yaml_text({"a": {"b": [1.0, "x"]}, "c": None, "d": "0", "e": "on", "f": True}), end="")
        a:
          b: [1.0, x]
        c: null
        d: "0"
        e: "on"
        f: true
    """
    lines = []
    for key, each in value.items():
        if isinstance(each, Mapping):
            lines.append(f"{' ' * indent}{key}:\n{yaml_text(each, indent + 2)}")
        else:
            lines.append(f"{' ' * indent}{key}: {_scalar(each)}\n")
    return "".join(lines)


def _scalar(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_scalar(each) for each in value)}]"
    text = str(value)
    return text if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED else json.dumps(text)
