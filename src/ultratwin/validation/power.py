"""Measured powers of nodes that train, published energies and chip-hours of runs: rows of power.csv to predictions.

A node's power follows from the operators that its chips run; a run's energy, counted as model cards count it
(chip-hours at the power limit), from the hours that the twin says. Nothing here knows a row, a source or a model by
name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from ultratwin.catalogue import loader
from ultratwin.errors import UltratwinError
from ultratwin.hardware.chip import Number
from ultratwin.hardware.system import Pool
from ultratwin.mapping.profile import find_profile
from ultratwin.mapping.recipe import recipe
from ultratwin.planning.power.chip import activity_facts, limit_power_w, step_energy_j
from ultratwin.timing.step import StepTimes, step_times
from ultratwin.validation.machines import pool_of
from ultratwin.validation.result import RowResult
from ultratwin.validation.rows import Row, Skip, integer, number, row_id, word
from ultratwin.validation.training import model_of, plan_of

METRIC: Final = "power"
NODE_POWER: Final = "node power"
RUN_ENERGY: Final = "energy of a run"
RUN_CHIP_HOURS: Final = "chip-hours of a run"
_LEAST_STEADY_FRAC: Final = 0.8
"""A median further below the 95th percentile says that the window is mostly set-up, not training."""
_J_PER_MWH: Final = 3.6e9
Figures = Mapping[str, Number]


def predict_rows(rows: Sequence[Row]) -> list[RowResult]:
    """One result a row, in the unit that the row has."""
    found = []
    for line, row in enumerate(rows, start=2):
        groups = {key: word(row, key) for key in ("chip", "cooling", "meter")}
        groups |= {"source": word(row, "source_key"), "quantity": word(row, "metric")}
        name, unit = row_id(row, line), word(row, "unit")
        try:
            measured = number(row, "value") if word(row, "value") else None
            low, predicted, high = _predicted(row)
        except (Skip, UltratwinError) as error:
            reason = error.what if isinstance(error, UltratwinError) else str(error)
            found.append(RowResult(id=name, metric=METRIC, unit=unit, status="skipped", reason=reason, groups=groups))
            continue
        found.append(
            RowResult(
                id=name, metric=METRIC, unit=unit, status="scored", predicted=predicted, measured=measured,
                low=min(low, predicted), high=max(high, predicted), groups=groups,
            )
        )  # fmt: skip
    return found


def _predicted(row: Row) -> tuple[float, float, float]:
    """Low, expected, high.

    Raises: Skip for a row that asks for something else
    """
    match word(row, "metric"):
        case "node power":
            check_steady(row)
            return tuple(node_power_w(row, *figures(row, end)) for end in (0, 1, 2))  # type: ignore[return-value]
        case "energy of a run":
            chip_s, spread, pool = _run_chip_s(row)
            energy_mwh = chip_s * float(np.ravel(pool.chip.tdp_w)[0]) / _J_PER_MWH
            return energy_mwh / spread, energy_mwh, energy_mwh * spread
        case "chip-hours of a run":
            chip_s, spread, _ = _run_chip_s(row)
            return chip_s / 3600 / spread, chip_s / 3600, chip_s / 3600 * spread
    raise Skip("the twin predicts no such figure")


def figures(row: Row, end: int) -> tuple[Figures, Figures]:
    """Figures of a row's chip in catalogue/data/power, all at their low (0), expected (1) or high (2) end.

    Returns: activity, supply
    Raises: CatalogueError for a chip that the catalogue lacks
    """
    supply = loader.entry("power", "supply").figures
    both = []
    for facts in (activity_facts(loader.resolve("chips", word(row, "chip"))), supply):
        both.append({key: (fact.range_si[0], fact.si, fact.range_si[1])[end] for key, fact in facts.items()})
    # fans that take more leave less of the host: the high end of a node's power has the low one
    both[1]["fan_frac"] = supply["fan_frac"].range_si[0 if end else 1] if end != 1 else both[1]["fan_frac"]
    return both[0], both[1]


def check_steady(row: Row) -> None:
    """Raises: Skip where a node's median power is that of its set-up."""
    high = number(row, "high_value", 0.0)
    if high and word(row, "value") and number(row, "value") < _LEAST_STEADY_FRAC * high:
        raise Skip("the measured window is mostly set-up")


def node_power_w(row: Row, activity: Figures, supply: Figures) -> float:
    """Power of one node of a row at the side of its supplies that was metered.

    Equation: W = n (chip + host (1 - fans)) conversion
    Args: activity, supply: figures of catalogue/data/power
    Raises: Skip where the row doesn't say what its chips do
    """
    per_node = integer(row, "chips_per_node")
    pool = pool_of(word(row, "chip"), word(row, "network"), 1, per_node)
    kept = 1.0 - (supply["fan_frac"] if word(row, "cooling") in ("immersion", "water") else 0.0)
    # a node's meter sees its adapters, which the host's draw holds, and no switch
    pool = dataclasses.replace(pool, host_power_w=pool.host_power_w * kept, network_power_w=0.0)
    converted = supply["conversion_frac"] if word(row, "meter") == "DC" else 1.0
    return float(np.ravel(_chip_power_w(row, pool, activity) * per_node * converted)[0])


def _chip_power_w(row: Row, pool: Pool, activity: Figures) -> Number:
    """Mean power of a chip with its host over a step; at the limit where one node runs operators the twin lacks."""
    if not word(row, "layers"):
        if integer(row, "n_chips") > integer(row, "chips_per_node"):
            raise Skip("operators that the twin lacks, on several nodes: how long they wait for each other is unknown")
        return limit_power_w(pool, activity)
    times = _times(row, pool)
    if "lora" in word(row, "task"):
        times = _frozen(times)
    return step_energy_j(times, pool, activity) / times.total_s


def _times(row: Row, pool: Pool) -> StepTimes:
    model = model_of(row)
    profile = find_profile(word(row, "framework"), word(row, "date"))
    return step_times(model, pool, plan_of(row, model), recipe(word(row, "precision")), profile)


def _frozen(times: StepTimes) -> StepTimes:
    """A step whose weights are frozen: no weight gradients, next to nothing to reduce or update."""
    layer = times.layer
    small = {"gradient synchronisation": 0.0, "optimizer": 0.0}
    left = dataclasses.replace(layer, linear=layer.linear - layer.weight, total=layer.total - layer.weight, weight=0.0)
    once = {cause: small.get(cause, seconds) for cause, seconds in times.once.items()}
    shorter = times.num_layers * left.total + sum(once.values())
    return dataclasses.replace(times, layer=left, once=once, total_s=shorter)


def _run_chip_s(row: Row) -> tuple[float, float, Pool]:
    """Seconds of all chips together of a run without failures, the factor that bounds them, and the machine."""
    pool = pool_of(word(row, "chip"), word(row, "network"), 1, integer(row, "chips_per_node"))
    times = _times(row, pool)
    step_tokens = number(row, "global_batch") * number(row, "seq_len")
    steps = number(row, "tokens") / step_tokens
    chip_s = float(np.ravel(times.total_s)[0]) * steps * integer(row, "n_chips")
    return chip_s, 1.0 + float(find_profile(word(row, "framework"), word(row, "date")).step_spread_frac), pool
