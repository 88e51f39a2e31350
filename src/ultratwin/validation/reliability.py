"""Published interruptions, effective training times and checkpoint sizes: rows of reliability.csv to predictions.

Every row is predicted from part rates, recovery times and stores of the catalogue. A row that a constant comes from
says so in `role` and is not scored. Nothing here knows a row, a source or a machine by name.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Final

from ultratwin.catalogue import loader
from ultratwin.errors import CatalogueError
from ultratwin.hardware.failures import (
    FailureRates,
    Layout,
    PartClass,
    interruptions_per_s,
    load_rates,
    load_recovery,
    machine_parts,
)
from ultratwin.hardware.storage import usual_storage
from ultratwin.mapping.profile import load_profile
from ultratwin.planning.reliability.model import saved_tier
from ultratwin.simulation.reliability.closed_form import progress_rate, with_best_intervals
from ultratwin.simulation.reliability.records import RunModel
from ultratwin.validation.result import RowResult
from ultratwin.validation.rows import Row, Skip, word

METRIC: Final = "figure"
_DAY: Final = 86400.0
_YEAR: Final = 365.25 * _DAY
_USUAL_PARAMETERS: Final = 100e9
"""Of a model whose size a row doesn't say: it decides how long a checkpoint takes, hardly what a run loses."""
_RUN_S: Final = 60 * _DAY
# chip text -> id of the catalogue, chips of a node; the first that matches
_CHIPS: Final = (
    (r"A100|Ampere", "a100-80-sxm", 8),
    (r"H100|Hopper", "h100-sxm", 8),
    (r"H200", "h200-sxm", 8),
    (r"GB200", "gb200", 4),
    (r"GB300", "gb300", 4),
    (r"B200|Blackwell", "b200-sxm", 8),
    (r"B300", "b300-sxm", 8),
    (r"MI3\d\d", "mi300x", 8),
    (r"TPU ?v?(\d\w?)", "tpu-v4", 4),
    (r"trainium|trn\d", "trainium1", 16),
    (r"GPU", "h100-sxm", 8),
)
_SECONDS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "hours": 3600.0, "d": _DAY, "days": _DAY}
_BYTES: Final = {"GB": 1e9, "TB": 1e12, "PB": 1e15}
_MONTHS: Final = r"\b\d{1,2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The machine of a row and what fails in it, with the ends of the rates' ranges."""

    chips: int
    nodes: int
    chip_id: str
    expected: tuple[PartClass, ...]
    low: tuple[PartClass, ...]
    high: tuple[PartClass, ...]


def predict_rows(rows: list[Row]) -> list[RowResult]:
    """One result a row, in the unit that the row has."""
    found = []
    for row in rows:
        unit = word(row, "unit")
        groups = {key: word(row, key) for key in ("source", "operator", "chip", "category")}
        try:
            measured = _measured(row)
            predicted, low, high, quantity = _predicted(row)
        except Skip as skip:
            found.append(
                RowResult(id=row["id"], metric=METRIC, unit=unit, status="skipped", reason=str(skip), groups=groups)
            )
            continue
        if word(row, "value").startswith(">") and predicted >= measured:  # a bound that the prediction keeps
            low = min(low, measured)
        found.append(
            RowResult(
                id=row["id"], metric=METRIC, unit=unit, status="scored", predicted=predicted, measured=measured,
                low=min(low, predicted), high=max(high, predicted), groups=groups | {"quantity": quantity},
            )
        )  # fmt: skip
    return found


def _measured(row: Row) -> float:
    """The number of a row; of a bound such as ">90", its end."""
    if word(row, "role") == "constant":
        raise Skip("a constant comes from it")
    match = re.fullmatch(r"[<>~]?\s*(\d[\d.,]*(?:[eE][+-]?\d+)?)", word(row, "value"))
    if match is None:
        raise Skip("the value is not a number")
    return float(match[1].replace(",", ""))


def _predicted(row: Row) -> tuple[float, float, float, str]:
    """Expected, low, high and what is predicted, in the row's unit.

    Raises: Skip for a row that asks for something else
    """
    metric, kind = word(row, "metric"), word(row, "value_kind")
    if re.search(r"checkpoint size(?!.*per)", metric):
        return _checkpoint_size(row)
    per_part = re.search(r"per (?:GPU|node)-year", metric)
    if kind.startswith("derived") and not per_part:
        raise Skip("derived from other rows")
    fleet = fleet_of(row)
    if re.search(r"MTTF|mean time (?:to|between)", metric):
        return _time_between(row, fleet)
    if per_part:
        return _per_part_year(row, fleet)
    if re.search(r"effective training time|goodput|uptime", metric):
        return _effective_time(row, fleet)
    if re.search(r"per 1,000 node-days|going down per day|failures per week", metric):
        return _part_rate(row, fleet)
    if re.search(r"interruptions, unexpected|^restarts|recoveries", metric):
        return _count(row, fleet)
    raise Skip("the twin predicts no such figure")


def fleet_of(row: Row) -> Fleet:
    """The machine that a row is about.

    Raises: Skip if it doesn't say how many of which chips
    """
    text = word(row, "n_accel")
    if not text.isdecimal() or int(text) < 1:
        raise Skip("it doesn't say how many chips")
    chips = int(text)
    chip_id, per_node = _chip_of(word(row, "chip"))
    per_node = min(per_node, chips)
    layout = Layout(chips=chips, chips_per_node=per_node, chips_per_rack=max(32, per_node), unit_chips=per_node)
    rates = load_rates(chip_id)

    def end(at: int) -> tuple[PartClass, ...]:
        figures = {
            key: (value[at],) * 3 if key.endswith(("_year", "_day")) else (value[1],) * 3
            for key, value in rates.figures.items()
        }
        return machine_parts(FailureRates(name=rates.name, figures=figures), layout)

    return Fleet(
        chips=chips, nodes=layout.nodes, chip_id=chip_id, expected=machine_parts(rates, layout), low=end(0), high=end(2)
    )


def _chip_of(text: str) -> tuple[str, int]:
    try:
        found = loader.resolve("chips", text)
    except CatalogueError:
        found = ""
    for pattern, chip_id, per_node in _CHIPS:
        if re.search(pattern, text, re.IGNORECASE):
            return found or chip_id, per_node
    raise Skip(f"the catalogue has no chip {text[:40]!r}")


def _three(fleet: Fleet, names: str, per_s: float) -> tuple[float, float, float]:
    """Failures of the classes whose name matches, per some seconds: expected, low, high."""
    found = [
        interruptions_per_s(tuple(part for part in parts if re.search(names, part.name))) * per_s
        for parts in (fleet.expected, fleet.low, fleet.high)
    ]
    return found[0], found[1], found[2]


_NODE_PARTS: Final = r"^(?:chip|memory|host|NIC|switch)"


def _time_between(row: Row, fleet: Fleet) -> tuple[float, float, float, str]:
    unit = _SECONDS.get(word(row, "unit"))
    if unit is None:
        raise Skip(f"unit {word(row, 'unit')!r} is no time")
    if not re.search(r"job|interrupt", word(row, "metric")):
        raise Skip("a time of one part, not of a job")
    rate, low, high = _three(fleet, "", unit)
    return 1 / rate, 1 / high, 1 / low, "time between interruptions"


def _per_part_year(row: Row, fleet: Fleet) -> tuple[float, float, float, str]:
    metric = word(row, "metric")
    kinds = (
        (r"HBM|memory", r"^memory", fleet.chips),
        (r"switch|cable|network", r"^switch", fleet.chips),
        (r"host", r"^(?:host|NIC)", fleet.nodes),
        (r"GPU-class|chip|accelerator", r"^(?:chip|memory|silent)", fleet.chips),
    )
    for pattern, names, count in kinds:
        if re.search(pattern, metric):
            rate, low, high = _three(fleet, names, _YEAR / count)
            return rate, low, high, "rate of a part"
    raise Skip("the twin has no such part")


def _part_rate(row: Row, fleet: Fleet) -> tuple[float, float, float, str]:
    metric = word(row, "metric")
    names = r"^(?:chip|memory)" if metric.startswith("GPU") else "" if "unexpected" in metric else _NODE_PARTS
    days = 1000 / fleet.nodes if "node-days" in metric else 7 if "week" in metric else 1
    return *_three(fleet, names, days * _DAY), "rate of a part"


def _count(row: Row, fleet: Fleet) -> tuple[float, float, float, str]:
    if re.search(_MONTHS, word(row, "metric")):
        raise Skip("a part of the period")
    # what is down for its last failure has no other: a share of the period, shorter the more fails
    recovery, found = load_recovery(_recovery_of(row)), []
    down_s = recovery.detection_s + recovery.isolation_s + recovery.restart_s + recovery.warm_up_s
    for rate in _three(fleet, "", 1.0):
        found.append(rate / (1.0 + rate * down_s) * _days(word(row, "period")) * _DAY)
    return found[0], found[1], found[2], "interruptions"


def _days(period: str) -> float:
    """Days of a period: "54 days, 2024", or two dates.

    Raises: Skip if it says neither
    """
    if match := re.search(r"(\d+(?:\.\d+)?) days", period):
        return float(match[1])
    dates = re.findall(r"\d{4}-\d\d-\d\d", period)
    if len(dates) == 2:
        return float((datetime.date.fromisoformat(dates[1]) - datetime.date.fromisoformat(dates[0])).days)
    raise Skip("it doesn't say over how many days")


def _parameters(row: Row) -> float | None:
    match = re.search(r"(\d+(?:\.\d+)?) ?([BT])\b", word(row, "system"))
    return float(match[1]) * (1e9 if match[2] == "B" else 1e12) if match else None


def _bytes_per_parameter() -> float:
    profile = load_profile("megatron")
    return float(profile.parameter_bytes + profile.optimizer_bytes)


def _checkpoint_size(row: Row) -> tuple[float, float, float, str]:
    unit, parameters = _BYTES.get(word(row, "unit")), _parameters(row)
    if unit is None or parameters is None:
        raise Skip("it doesn't say how large the model is")
    size = parameters * _bytes_per_parameter() / unit
    # optimizer states alone (momenta in 16 bit and a master copy) to everything in 32 bit
    return size, size * 8 / 14, size * 18 / 14, "checkpoint size"


def _effective_time(row: Row, fleet: Fleet) -> tuple[float, float, float, str]:
    scale = {"%": 100.0, "fraction": 1.0}.get(word(row, "unit"))
    if scale is None:
        raise Skip(f"unit {word(row, 'unit')!r} is no share")
    recovery = _recovery_of(row)
    low, high = (effective_time(fleet, parts, recovery, _parameters(row)) for parts in (fleet.high, fleet.low))
    expected = effective_time(fleet, fleet.expected, recovery, _parameters(row))
    return expected * scale, low * scale, high * scale, "effective training time"


def _recovery_of(row: Row) -> str:
    text = f"{word(row, 'metric')} {word(row, 'recovery')}"
    return "manual" if "manual" in text else "hot" if re.search(r"checkpointless|in-memory", text) else "automatic"


def effective_time(fleet: Fleet, parts: tuple[PartClass, ...], recovery: str, parameters: float | None) -> float:
    """Share of wall time that a long run on a fleet makes progress, with the best tiers and enough spares.

    Where people restart a job by hand, nothing keeps copies in its peers' memory either: it waits while it is saved.
    """
    storage = usual_storage(fleet.nodes, max(fleet.chips // fleet.nodes, 1))
    size = (parameters or _USUAL_PARAMETERS) * _bytes_per_parameter()
    by_hand = recovery == "manual"

    def progress(*names: str) -> float:
        tiers = tuple(
            saved_tier(storage, name, size, nodes=fleet.nodes, chips=fleet.chips, asynchronous=not by_hand)
            for name in names
        )
        model = RunModel(
            work_s=_RUN_S, parts=parts, tiers=tiers, recovery=load_recovery(recovery), spare_nodes=fleet.nodes
        )
        return progress_rate(with_best_intervals(model))

    return progress("store") if by_hand else max(progress("peer", "store"), progress("store"))
