"""Fitted constants in a file of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path


def write_fitted(path: Path, values: Mapping[str, tuple[float, str]], *, source: str, note: str) -> None:
    """Puts fitted constants into a catalogue file: a line that is there is replaced, the others are added.

    Args:
        path: a TOML file of the catalogue
        values: value and unit, as the file states them, by constant
        source: who measured: the tool
        note: the points and the residual
    """
    text = path.read_text(encoding="utf-8")
    for key, (value, unit) in values.items():
        facts = f'unit = "{unit}", status = "measured", source = "{source}", note = "{note}"'
        line = f"{key} = {{ value = {value:.4g}, {facts} }}"
        text, count = re.subn(rf"^{key} = .*$", line, text, flags=re.MULTILINE)
        if not count:
            text = text.rstrip("\n") + "\n" + line + "\n"
    path.write_text(text, encoding="utf-8")
