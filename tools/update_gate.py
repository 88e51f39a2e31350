"""Tightens tests/gate.toml to what the scoreboard measures now, and never loosens it.

    python tools/update_gate.py

A limit that is already exceeded stays as it is: then the tests fail until the prediction is mended.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Final

from ultratwin.validation.gate import Limits, breaches, measured_families, tightened
from ultratwin.validation.scoreboard import score_all

GATE: Final = Path(__file__).parents[1] / "tests/gate.toml"
HEAD: Final = """# Limits of the scoreboard by family of rows. tests/test_scoreboard.py holds them and
# tools/update_gate.py tightens them; they never loosen. rows: at least so many are compared.
# median, mean, worst: of |predicted / measured - 1|. bias: |median signed error|. wrong: share of wrong verdicts.

"""


def dumped(limits: dict[str, Limits]) -> str:
    """Limits as TOML, a family a line."""
    lines = []
    for family, values in limits.items():
        inner = ", ".join(f"{figure} = {value:g}" for figure, value in values.items())
        lines.append(f"{json.dumps(family, ensure_ascii=False)} = {{ {inner} }}\n")
    return HEAD + "".join(lines)


def main() -> int:
    """Writes the file; prints what is worse than its limit."""
    old = tomllib.loads(GATE.read_text(encoding="utf-8")) if GATE.exists() else {}
    measured = measured_families(score_all())
    GATE.write_text(dumped(tightened(measured, old)), encoding="utf-8")
    found = breaches(measured, old)
    for each in found:
        print(each, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
