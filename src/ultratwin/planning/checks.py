"""What is checked of a question before it is asked: sizes, amounts, names; the same for every way to ask it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ultratwin.catalogue import loader
from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.hardware.system import System
from ultratwin.mapping.plan import recompute_index
from ultratwin.mapping.schedules import schedule_index

MOST: Final = 10**9
"""Largest size, chip count or batch that is taken: sums of larger ones leave the integers that arrays hold."""
OBJECTIVES: Final = ("time", "cost", "energy", "carbon")
"""What a search can make least."""
OFFERS: Final = ("on_demand", "capacity_block", "reserved_1y", "reserved_3y", "spot")
"""Public prices, the first known of which counts where none is asked for."""
_NAME: Final = re.compile(r"[\w.+() -]{1,100}")


def checked_count(name: str, value: Any, *, lowest: int = 1) -> int | None:
    """A whole number in range; None stays None.

    Raises: ScenarioError otherwise
    """
    if value is None:
        return None
    allowed = f"a whole number from {lowest} to {MOST:,}"
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or int_of(value) is None:
        raise ScenarioError(f"{name} is {value!r}", allowed=allowed)
    if not lowest <= value <= MOST:
        shown = (
            f"{value:,}" if abs(value) < 1e30 else f"{float(value):g}" if abs(value) < 1e300 else "beyond all measure"
        )
        raise ScenarioError(f"{name} is {shown}", allowed=allowed)
    return int(value)


def int_of(value: float) -> int | None:
    """The whole number that a value is; None if it is not one.

    Example:
        >>> int_of(512.0), int_of(1.5)
        (512, None)
    """
    if isinstance(value, int):
        return value
    return int(value) if math.isfinite(value) and value == int(value) else None


def checked_amount(name: str, value: float | None) -> float | None:
    """An amount above zero, such as tokens; None stays None.

    Raises: ScenarioError otherwise
    """
    if value is not None and not 0 < value < 1e24:
        raise ScenarioError(f"{name} is {value:g}", allowed="above 0, below 1e24", hint="for example 15.6T")
    return value


def price_usd_per_chip_s(usd_per_hour: float | None) -> float | None:
    """A price per chip and hour as one per second.

    Raises: ScenarioError if it is negative or absurd
    """
    if usd_per_hour is None:
        return None
    if not 0 <= usd_per_hour < 1e9:
        raise ScenarioError(f"price_per_chip_hour is {usd_per_hour:g} USD", allowed="0 or more, below 1e9")
    return usd_per_hour / 3600


def checked_name(kind: str, name: str) -> str:
    """A name that can be looked up: catalogue names become file names, so paths are refused.

    Raises: ScenarioError for anything else
    """
    if not _NAME.fullmatch(name):
        shown = name if len(name) <= 60 else name[:57] + "..."
        raise ScenarioError(
            f"{kind} {shown!r} is no name", allowed="letters, digits, dots, dashes and blanks",
            hint=f"`ultratwin catalogue {kind if kind != 'framework' else 'profile'}s` lists all",
        )  # fmt: skip
    return name


def system_id(name: str) -> str:
    """The catalogue's name of a system.

    Raises: ScenarioError for what is no name, CatalogueError for an unknown one
    """
    return loader.resolve("systems", checked_name("system", name))


def checked_systems(systems: Sequence[str | System]) -> tuple[str | System, ...]:
    """The systems asked for, each once; "all" is the whole catalogue.

    Raises: ScenarioError if there are none, CatalogueError for an unknown name
    """
    if list(systems) == ["all"]:
        return tuple(loader.ids("systems"))
    named = [each if isinstance(each, System) else system_id(each) for each in systems]
    if not named:
        raise ScenarioError("no system is named", where="systems", hint="`ultratwin catalogue systems` lists all")
    return tuple({each if isinstance(each, str) else each.id: each for each in named}.values())


def prices_usd_per_chip_s(usd_per_hour: Mapping[str, float] | None) -> dict[str, float]:
    """Prices per chip and hour by system as ones per second, by the catalogue's names.

    Raises: ScenarioError for an absurd price, CatalogueError for an unknown system
    """
    return {system_id(name): price_usd_per_chip_s(price) or 0.0 for name, price in (usd_per_hour or {}).items()}


def checked_offer(name: str) -> str:
    """Which public price counts; empty for the first known.

    Raises: ScenarioError for an unknown word
    """
    if name and name not in OFFERS:
        raise unknown_name("offer", name, OFFERS, error=ScenarioError)
    return name


def checked_objective(name: str) -> str:
    """What shall be least.

    Raises: ScenarioError for an unknown word
    """
    if name not in OBJECTIVES:
        raise unknown_name("objective", name, OBJECTIVES, error=ScenarioError)
    return name


def layout_indices(
    sizes: Mapping[str, int | None], sequence_parallel: bool | None, recompute: str | None, schedule: str | None
) -> dict[str, int]:
    """What of a layout is given, names as the indices that a plan holds.

    Args:
        sizes: by their name in Plan; None where left open
        sequence_parallel, recompute, schedule: None where left open
    Returns: what is given, by its name in Plan
    Raises: ScenarioError for a layout that no plan has
    """
    layout = {name: value for name, value in sizes.items() if value is not None}
    if layout.get("zero_stage", 0) > 3:
        raise ScenarioError(f"zero_stage is {layout['zero_stage']}", allowed="0, 1, 2 or 3")
    whole = {"tensor_parallel_size", "pipeline_parallel_size", "micro_batch_size"} <= layout.keys()
    if "data_parallel_size" in layout and not whole:  # a search derives it from the chips
        raise ScenarioError(
            "data_parallel_size alone does not fix a layout", hint="give tensor, pipeline and micro-batch sizes too"
        )
    if sequence_parallel is not None:
        layout["sequence_parallel"] = int(sequence_parallel)
    if recompute is not None:
        layout["recompute"] = recompute_index(recompute)
    if schedule is not None:
        layout["schedule"] = schedule_index(schedule)
    return layout
