"""How parts fail: failure laws as frozen values, the rates of a chip's fleet, and the parts of a machine by class."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ultratwin import units
from ultratwin.catalogue import loader
from ultratwin.catalogue.facts import Fact
from ultratwin.catalogue.schema import ReliabilityEntry
from ultratwin.errors import CatalogueError, ScenarioError, UnitError, unknown_name
from ultratwin.hardware.chip import Number

SECONDS_PER_YEAR: Final = 365.25 * 86400.0
SECONDS_PER_DAY: Final = 86400.0


class FailureLaw(ABC):
    """How often something fails as it ages. One law, one final class."""

    @abstractmethod
    def expected_failures(self, age_s: Number) -> Number:
        """Failures up to an age, if each is followed by a repair that doesn't reset the age [1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponential(FailureLaw):
    """Fails at a constant rate, however old."""

    rate_per_s: float

    def expected_failures(self, age_s: Number) -> Number:
        """Failures up to an age.

        Equation: L = r t
        Example:
            >>> Exponential(rate_per_s=0.5).expected_failures(10.0)
            5.0
        """
        return self.rate_per_s * age_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Weibull(FailureLaw):
    """Fails more often when new (shape below 1: infant mortality) or when old (above 1).

    `rate_per_s` is the mean rate over the first `reference_s`.
    """

    rate_per_s: float
    shape: float
    reference_s: float = SECONDS_PER_YEAR

    def expected_failures(self, age_s: Number) -> Number:
        """Failures up to an age.

        Equation: L = r T (t / T)^k
        Symbols: r mean rate over the first T, k shape
        Source: Weibull 1951; the cumulative hazard of a part that is renewed to the age it had
        Example:
            >>> Weibull(rate_per_s=0.01, shape=0.5, reference_s=400.0).expected_failures(100.0)
            2.0
        """
        share = np.asarray(age_s) / self.reference_s
        found: Number = self.rate_per_s * self.reference_s * share**self.shape
        return float(found) if np.ndim(found) == 0 else found


@dataclass(frozen=True, slots=True, kw_only=True)
class PerJob(FailureLaw):
    """Fails with the job, not with its parts: software, users, storage.

    A job of fewer than `full_chips` meets its share of them; a larger one no more than `rate_per_s`.
    """

    rate_per_s: float
    chips: float
    full_chips: float

    def expected_failures(self, age_s: Number) -> Number:
        """Failures up to an age.

        Equation: L = r t min(n / n_full, 1)
        Example:
            >>> PerJob(rate_per_s=0.5, chips=256.0, full_chips=1024.0).expected_failures(8.0)
            1.0
        """
        return self.rate_per_s * min(self.chips / self.full_chips, 1.0) * age_s


LAWS: Final[tuple[type[FailureLaw], ...]] = (Exponential, Weibull, PerJob)
"""Explicit: the contract tests run over this tuple."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRates:
    """What fails how often, a year of one part or a day of one job; each figure with the ends of its range."""

    name: str
    figures: Mapping[str, tuple[float, float, float]]
    facts: Mapping[str, Fact] = dataclasses.field(default_factory=dict)

    def expected(self, key: str) -> float:
        """The figure itself."""
        return self.figures[key][1]


RATE_FIGURES: Final = (
    "chip_per_year", "memory_per_year", "host_per_year", "host_chips", "host_fixed_frac", "nic_per_year",
    "network_per_year", "rack_power_per_year", "silent_per_year", "software_per_day", "software_full_chips",
    "weibull_shape",
)  # fmt: skip
RECOVERY_FIGURES: Final = (
    "detection_s", "silent_detection_s", "isolation_s", "restart_s", "warm_up_s", "resize_s", "reset_s",
    "replacement_s", "replacement_frac",
)  # fmt: skip


def reliability_entry(name: str) -> ReliabilityEntry:
    """An entry of the catalogue's reliability files.

    Raises: CatalogueError if nobody has that name
    """
    found = loader.entry("reliability", name)
    if not isinstance(found, ReliabilityEntry):
        raise CatalogueError(f"{name} is not a reliability entry")
    return found


def load_rates(chip_id: str) -> FailureRates:
    """The failure rates of a chip's fleet; of accelerators in general where nobody published any."""
    entries = [(each, reliability_entry(each)) for each in loader.ids("reliability")]
    name, entry = next(
        ((name, entry) for name, entry in entries if entry.subject == "rates" and chip_id in entry.chips),
        ("generic", reliability_entry("generic")),
    )
    return FailureRates(name=name, figures=_ranges(entry), facts=entry.figures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """The course of a failure, in seconds: found, isolated, restarted, warm again; and how long repairs take.

    `resize_s`: going on with fewer replicas. `replacement_frac`: of broken nodes, those that need a new part.
    """

    name: str
    detection_s: float
    silent_detection_s: float
    isolation_s: float
    restart_s: float
    warm_up_s: float
    resize_s: float
    reset_s: float
    replacement_s: float
    replacement_frac: float


def load_recovery(name: str) -> Recovery:
    """How a job recovers: "automatic", "hot" or "manual".

    Raises: ScenarioError for another name
    """
    known = [each.removeprefix("recovery-") for each in loader.ids("reliability") if each.startswith("recovery-")]
    if name not in known:
        raise unknown_name("recovery", name, known, error=ScenarioError)
    figures = _ranges(reliability_entry(f"recovery-{name}"))
    return Recovery(name=name, **{key: figures[key][1] for key in RECOVERY_FIGURES})


def _ranges(entry: ReliabilityEntry) -> dict[str, tuple[float, float, float]]:
    return {key: (fact.range_si[0], fact.si, fact.range_si[1]) for key, fact in entry.figures.items()}


def read_failures_file(path: Path, rates: FailureRates, recovery: Recovery) -> tuple[FailureRates, Recovery]:
    """Rates and times of a user's TOML file, over those of the catalogue.

    Keys are the figures of the catalogue's reliability files: rates as numbers, times as texts such as "90s".
    Raises: ScenarioError for an unreadable file, an unknown key, a negative or zero value
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(
            f"can't read the failure rates: {getattr(error, 'strerror', None) or error}", where=str(path)
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"not TOML: {error}", where=str(path), hint="docs/how-to/plan-for-failures.md") from None
    figures, times = dict(rates.figures), {}
    for key, value in given.items():
        if key in RATE_FIGURES:
            low, number, high = _checked_range(key, value, str(path))
            figures[key] = (low, number, high)
        elif key in RECOVERY_FIGURES:
            times[key] = _checked_time(key, value, str(path))
        else:
            raise unknown_name("key", key, (*RATE_FIGURES, *RECOVERY_FIGURES), error=ScenarioError, where=str(path))
    name = path.name if times else recovery.name
    return (
        FailureRates(name=path.name, figures=figures),
        dataclasses.replace(recovery, **times, name=name),
    )


def _checked_range(key: str, value: Any, where: str) -> tuple[float, float, float]:
    """A number, or [low, value, high]."""
    numbers = value if isinstance(value, list) else [value, value, value]
    good = len(numbers) == 3 and all(
        isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) for each in numbers
    )
    if not good or not numbers[0] <= numbers[1] <= numbers[2]:
        raise ScenarioError(f"{key} is {value!r}", where=where, allowed="a number, or [low, value, high]")
    if numbers[0] <= 0:
        raise ScenarioError(
            f"{key} is {value!r}", where=where, allowed="above 0",
            hint="leave the file out and ask for no failures if nothing breaks",
        )  # fmt: skip
    if key.endswith("_frac") and numbers[2] > 1:
        raise ScenarioError(f"{key} is {value!r}", where=where, allowed="a share, above 0 and up to 1")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _checked_time(key: str, value: Any, where: str) -> float:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ScenarioError(f"{key} is {value!r}", where=where, allowed='such as "90s"')
    dimension = "number" if key.endswith("_frac") else "second"
    try:
        seconds = units.parse(value, dimension, where=where)
    except UnitError as error:
        raise ScenarioError(f"{key}: {error.what}", where=where, allowed=error.allowed) from None
    if not 0 <= seconds <= (1 if dimension == "number" else 10 * SECONDS_PER_YEAR):
        raise ScenarioError(f"{key} is {value!r}", where=where, allowed="0 to 10 years, fractions 0 to 1")
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class PartClass:
    """All parts of one kind in a machine: how many, their law, what a failure takes away.

    `nodes_lost`: nodes that must be replaced or repaired. `rack_wide`: what its neighbours held is lost too. `silent`:
    noticed late, so the run goes back behind it. `low`, `high`: ends of the rate's range, as factors.
    """

    name: str
    law: FailureLaw
    num_parts: float
    nodes_lost: int
    rack_wide: bool = False
    silent: bool = False
    low: float = 1.0
    high: float = 1.0

    def expected_failures(self, age_s: Number) -> Number:
        """Failures of all its parts up to an age of the machine [1]."""
        return self.num_parts * self.law.expected_failures(age_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What matters of a machine for its failures: counts of chips, and how many one failure takes out.

    `unit_chips`: chips that leave together when a part of them fails: a node, a tray, an UltraServer.
    """

    chips: int
    chips_per_node: int
    chips_per_rack: int
    unit_chips: int

    @property
    def nodes(self) -> int:
        """Nodes, the last one perhaps not full."""
        return -(-self.chips // self.chips_per_node)


def machine_parts(rates: FailureRates, layout: Layout) -> tuple[PartClass, ...]:
    """The parts of a machine by class, sorted by name.

    Equation: a host of c chips fails h (f + (1 - f) c / c_0) times a year
    Symbols: h host_per_year, of hosts of c_0 host_chips; f host_fixed_frac, what a host of any size has
    Args: rates: of one part; layout: how many chips, and how they stand together
    Returns: classes; parts that stand idle as spares are not among them
    """
    chips, nodes = float(layout.chips), float(layout.nodes)
    racks = float(-(-layout.chips // layout.chips_per_rack))
    lost = max(-(-layout.unit_chips // layout.chips_per_node), 1)
    rack_nodes = max(-(-min(layout.chips_per_rack, layout.chips) // layout.chips_per_node), 1)

    fixed = rates.expected("host_fixed_frac")
    host_size = fixed + (1.0 - fixed) * layout.chips_per_node / rates.expected("host_chips")

    def wear(name: str, key: str, parts: float, taken: int, size: float = 1.0, **more: bool) -> PartClass:
        low, value, high = rates.figures[key]
        rate, shape = value * size / SECONDS_PER_YEAR, rates.expected("weibull_shape")
        law = Exponential(rate_per_s=rate) if shape == 1.0 else Weibull(rate_per_s=rate, shape=shape)
        return PartClass(
            name=name, law=law, num_parts=parts, nodes_lost=taken, low=low / value, high=high / value, **more
        )

    low, value, high = rates.figures["software_per_day"]
    software = PartClass(
        name="software",
        law=PerJob(
            rate_per_s=value / SECONDS_PER_DAY, chips=chips, full_chips=rates.expected("software_full_chips")
        ),
        num_parts=1.0, nodes_lost=0, low=low / value, high=high / value,
    )  # fmt: skip
    found = (
        wear("chip", "chip_per_year", chips, lost),
        wear("memory of a chip", "memory_per_year", chips, lost),
        wear("host", "host_per_year", nodes, lost, host_size),
        wear("NIC", "nic_per_year", chips, lost),
        wear("switch or cable", "network_per_year", chips, lost),
        wear("rack power", "rack_power_per_year", racks, max(rack_nodes, lost), rack_wide=True),
        wear("silent corruption", "silent_per_year", chips, lost, silent=True),
        software,
    )
    return tuple(sorted(found, key=lambda each: each.name))


def interruptions_per_s(parts: tuple[PartClass, ...], horizon_s: float = SECONDS_PER_YEAR) -> float:
    """Interruptions of a job per second, mean over a horizon from its start.

    Example:
        >>> law = Exponential(rate_per_s=0.5)
        >>> interruptions_per_s((PartClass(name="chip", law=law, num_parts=100.0, nodes_lost=1),), 10.0)
        50.0
    """
    return math.fsum(float(part.expected_failures(horizon_s)) for part in parts) / horizon_s
