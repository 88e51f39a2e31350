"""Fits the constants of node power that no kernel shows to half of the measured nodes, and writes them.

    python tools/fit_power.py

Half of the configurations of truth/power.csv, by a hash, is fitted by the mean of |log(predicted / measured)|, on a
grid; the error on the other half is printed beside it. The `value` of each constant is written into its file under
src/ultratwin/catalogue/data/power; ranges and everything else stay.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from ultratwin.validation.power import NODE_POWER, check_steady, figures, node_power_w
from ultratwin.validation.rows import Row, Skip, number, word
from ultratwin.validation.split import is_fitted_half
from ultratwin.validation.truth_file import OWN_TRUTH, read_truth

DATA: Final = Path(__file__).parents[1] / "src/ultratwin/catalogue/data/power"
GRID: Final = {
    # constant -> its file, what is tried
    "linear_free_frac": ("activity", np.linspace(1.0, 1.8, 17)),
    "fan_frac": ("supply", np.linspace(0.15, 0.35, 9)),
}


def usable_rows() -> list[Row]:
    """Rows of measured nodes that can be predicted."""
    found = []
    for row in read_truth(OWN_TRUTH / "power.csv").rows:
        try:
            if word(row, "metric") == NODE_POWER:
                check_steady(row)
                node_power_w(row, *figures(row, 1))
                found.append(row)
        except Skip:
            continue
    return found


def error(rows: Sequence[Row], values: dict[str, float]) -> list[float]:
    """log(predicted / measured) of every row with some constants."""
    found = []
    for row in rows:
        activity, supply = (dict(each) for each in figures(row, 1))
        for name, value in values.items():
            (activity if GRID[name][0] == "activity" else supply)[name] = value
        found.append(math.log(node_power_w(row, activity, supply) / number(row, "value")))
    return found


def main() -> int:
    """Fits, prints the residuals of both halves, writes the values."""
    rows = usable_rows()
    fitted = [row for row in rows if is_fitted_half(row["config_id"])]
    held = [row for row in rows if not is_fitted_half(row["config_id"])]
    candidates = [
        dict(zip(GRID, (float(each) for each in values), strict=True))
        for values in itertools.product(*(tried for _, tried in GRID.values()))
    ]
    best = min(candidates, key=lambda values: statistics.fmean(abs(each) for each in error(fitted, values)))
    for name, half in (("fitted", fitted), ("held out", held)):
        sizes = [abs(math.expm1(each)) for each in error(half, best)]
        print(f"{name}: {len(half)} rows, median {statistics.median(sizes):.1%}, worst {max(sizes):.1%}")
    for name, value in best.items():
        path = DATA / f"{GRID[name][0]}.toml"
        text = path.read_text(encoding="utf-8")
        pattern = rf"(\[figures\.{name}\]\nvalue = )[\d.]+"
        path.write_text(re.sub(pattern, rf"\g<1>{value:.4g}", text), encoding="utf-8")
        print(f"{name} = {value:.4g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
