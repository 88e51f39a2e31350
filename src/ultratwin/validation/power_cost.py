"""Collected figures of power, energy, price and carbon, one a row (power_cost.csv): those that the twin predicts.

A node's median power while an MLPerf benchmark trains, and energy or chip-hours of a published run, become rows of
validation/power.py; every other row is skipped with a reason that names what it holds.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Final

from ultratwin.catalogue import loader
from ultratwin.catalogue.schema import ChipEntry
from ultratwin.errors import UltratwinError
from ultratwin.mapping.recipe import RECIPES
from ultratwin.planning.training import DEFAULT_PROFILES
from ultratwin.validation import power
from ultratwin.validation.benchmarks import known, published_run, searched_split, stated_split, texts_of
from ultratwin.validation.machines import chip_id, pool_of
from ultratwin.validation.result import RowResult
from ultratwin.validation.rows import Row, Skip, integer, number, row_id, word

_MEDIAN: Final = "node power, median"
_HIGH: Final = "node power, p95"
_WORKLOAD: Final = re.compile(r"MLPerf Training (v[\d.]+) (\S+)", re.IGNORECASE)
_RUN_METRICS: Final = {
    "energy at TDP": power.RUN_ENERGY, "energy": power.RUN_ENERGY, "accelerator-hours": power.RUN_CHIP_HOURS,
}  # fmt: skip
_KINDS: Final = ("power measured", "energy of a run")
_COOLING: Final = (("immersion", "immersion"), ("water", "water"), ("liquid", "water"))
UNITS: Final = {
    power.NODE_POWER: {"W/node": 1.0, "kW/node": 1e3, "W": 1.0, "kW": 1e3},
    power.RUN_ENERGY: {"kWh": 1e-3, "MWh": 1.0, "GWh": 1e3},
    power.RUN_CHIP_HOURS: {"GPU-h": 1.0, "accelerator-h": 1.0, "chip-h": 1.0, "M GPU-h": 1e6},
}
"""Units of a row over the unit that validation/power.py predicts in."""
Highs = Mapping[tuple[str, ...], str]


def predict_rows(rows: Sequence[Row]) -> list[RowResult]:
    """One result a row, in the row's own unit."""
    highs = high_values(rows)
    found: list[RowResult] = []
    for line, row in enumerate(rows, start=2):
        try:
            cells, factor = _question(row, highs)
        except (Skip, UltratwinError) as error:
            reason = error.what if isinstance(error, UltratwinError) else str(error)
            groups = {"source": word(row, "kind"), "quantity": word(row, "metric"), "chip": word(row, "chip")}
            found.append(
                RowResult(
                    id=row_id(row, line), metric=power.METRIC, unit=word(row, "unit"), status="skipped", reason=reason,
                    groups=groups,
                )
            )  # fmt: skip
            continue
        (answer,) = power.predict_rows([cells])
        found.append(_in_unit(answer, row, line, factor))
    return found


def _in_unit(answer: RowResult, row: Row, line: int, factor: float) -> RowResult:
    predicted, measured, low, high = (
        None if value is None else value / factor
        for value in (answer.predicted, answer.measured, answer.low, answer.high)
    )
    return dataclasses.replace(
        answer, id=row_id(row, line), unit=word(row, "unit"), predicted=predicted, measured=measured, low=low, high=high
    )


def _question(row: Row, highs: Highs) -> tuple[Row, float]:
    """A row of validation/power.py whose layout is complete, and its unit in terms of that one's.

    Raises: Skip for what the twin doesn't predict
    """
    metric = word(row, "metric")
    if word(row, "value"):
        number(row, "value")
    if is_node_power(row):
        cells = node_cells(row, highs)
    elif metric in _RUN_METRICS and word(row, "kind") == "energy of a run":
        if published_run(word(row, "model")) is None:
            raise Skip(f"tokens and layout of a run of {word(row, 'model')[:60]!r} are not known")
        cells = run_cells(row)
    elif word(row, "kind") in _KINDS:
        raise Skip(f"not predicted: {metric[:80] or 'no metric'}, {_short(row)}")
    else:
        raise Skip(f"not predicted: rows of kind {word(row, 'kind')[:40]!r}")
    if word(cells, "layers") and not word(cells, "dp"):
        cells |= searched_split(cells, word(cells, "benchmark"))
    factor = _factor(word(row, "unit"), cells)
    if factor != 1.0:
        cells |= {key: repr(number(cells, key) * factor) for key in ("value", "high_value") if word(cells, key)}
    return cells, factor


def _short(row: Row) -> str:
    """What a workload is, without the version and the benchmark."""
    workload = word(row, "workload")
    return next((text for text in ("MLPerf Training", "MLPerf Inference", "kernel loop") if text in workload), "a run")


def _factor(unit: str, cells: Row) -> float:
    """Raises: Skip for a unit of something else"""
    quantity = cells["metric"]
    if quantity == power.NODE_POWER and re.fullmatch(r"k?W/(accelerator|GPU|chip)", unit):
        return integer(cells, "chips_per_node") * (1e3 if unit[0] == "k" else 1.0)
    if unit not in UNITS[quantity]:
        raise Skip(f"{quantity} in {unit[:40]!r}, not in {', '.join(UNITS[quantity])}")
    return UNITS[quantity][unit]


# rows of power.csv


def is_node_power(row: Row) -> bool:
    """Whether a row holds the median power of a node that trains an MLPerf benchmark."""
    trains = _WORKLOAD.match(word(row, "workload")) is not None
    return trains and word(row, "metric").startswith(_MEDIAN) and word(row, "kind", "power measured") == _KINDS[0]


def high_values(rows: Sequence[Row]) -> Highs:
    """The 95th percentile of a node's power, by what it shares with the median over the same window."""
    return {_window(row): word(row, "value") for row in rows if word(row, "metric").startswith(_HIGH)}


def _window(row: Row) -> tuple[str, ...]:
    return tuple(word(row, key) for key in ("system", "workload", "n_accel", "source"))


def node_cells(row: Row, highs: Highs) -> Row:
    """A median power as a row of power.csv; its layout as a submission published it, else left open.

    `high_value` is the 95th percentile over the same window.
    Raises: Skip where chip or sizes are missing
    """
    matched = _WORKLOAD.match(word(row, "workload"))
    version, benchmark = matched.groups() if matched else ("", "")
    benchmark = benchmark.lower().replace("-", "_")
    chip = chip_id(word(row, "chip"))
    chips = integer(row, "n_accel")
    note = word(row, "note")
    made = {
        "id": word(row, "id"), "source_key": f"mlperf-{version}", "chip": chip, "model": benchmark,
        "benchmark": benchmark, "n_chips": str(chips), "chips_per_node": str(_chips_per_node(row, chip, chips)),
        "metric": power.NODE_POWER, "value": word(row, "value"), "unit": "W",
        "high_value": highs.get(_window(row), ""), "source": word(row, "source"),
        "meter": "DC" if note.startswith("DC") else "AC",
        "cooling": next((kind for text, kind in _COOLING if text in note), "air"),
        "date": known().rounds.get(version.lower(), ""), "config_id": f"{benchmark}-{chip}-{chips}",
    }  # fmt: skip
    return made | _usual(row, chip) | stated_split(benchmark, chip, chips)


def _chips_per_node(row: Row, chip: str, chips: int) -> int:
    nodes = integer(row, "nodes", 0)
    if not nodes:
        return min(chips, int(pool_of(chip, "").chips_per_node))
    if chips % nodes:
        raise Skip(f"{chips} chips don't divide into {nodes} nodes")
    return chips // nodes


def _usual(row: Row, chip: str) -> Row:
    """Framework, network and number format of a submission: the row's, else what is usual on such chips."""
    entry = loader.entry("chips", chip)
    family = entry.family if isinstance(entry, ChipEntry) else ""
    usual = known().usual.get(family, {"framework": DEFAULT_PROFILES.get(family, ""), "network": ""})
    stated = word(row, "precision").lower()
    narrow = "fp8" if "fp8_flop_per_s" in entry.figures else "bf16"
    return usual | {"precision": stated if stated in {each.name for each in RECIPES} else narrow}


def run_cells(row: Row) -> Row:
    """Energy or chip-hours of a whole run as a row of power.csv; sizes and layout where the run is known.

    Raises: Skip where the catalogue has no such chip
    """
    model = word(row, "model")
    made = {
        "config_id": f"{model}-run", "id": word(row, "id"), "source_key": "runs", "task": "pretrain",
        "precision": "bf16", "chip": chip_id(word(row, "chip")), "chips_per_node": "8", "zero_stage": "1",
        "micro_batch": "1", "network": "InfiniBand", "framework": "Megatron-LM",
        "metric": _RUN_METRICS[word(row, "metric")], "value": word(row, "value"), "unit": word(row, "unit"),
        "note": "chip-hours x power limit", "source": word(row, "source"),
    }  # fmt: skip
    return made | texts_of(published_run(model)) | {"model": model}
