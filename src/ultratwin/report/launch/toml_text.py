"""A small TOML writer: tables of numbers, booleans, text and lists; tables without values of their own have no head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def toml_text(tables: Mapping[str, Any], prefix: str = "") -> str:
    """Nested maps as TOML tables; None is left out, as TOML has none.

    Example:
        >>> print(toml_text({"a": {"x": 1, "y": [["b"], ["c"]], "z": {"on": True}}}), end="")
        [a]
        x = 1
        y = [["b"], ["c"]]
        <BLANKLINE>
        [a.z]
        on = true
    """
    parts = []
    for name, table in tables.items():
        path = f"{prefix}{name}"
        lines = [f"{key} = {_value(each)}" for key, each in table.items() if not isinstance(each, Mapping | None)]
        if lines:
            parts.append("\n".join([f"[{path}]", *lines]) + "\n")
        inner = {key: each for key, each in table.items() if isinstance(each, Mapping)}
        if inner:
            parts.append(toml_text(inner, f"{path}."))
    return "\n".join(parts)


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(each) for each in value)}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)
