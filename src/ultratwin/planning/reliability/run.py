"""What is asked about failures, and the answer: options, quantiles, choices compared, the whole run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ultratwin.errors import ScenarioError, unknown_name
from ultratwin.hardware.chip import Array
from ultratwin.hardware.failures import FailureRates, Recovery
from ultratwin.hardware.storage import TIERS
from ultratwin.planning.reliability.slowest_rank import SlowestRank
from ultratwin.simulation.reliability.records import RunModel, SavedTier

ENDS_FRAC: Final = 0.5
"""A job ends if at least so many of its runs do."""
UNITS: Final = ("node", "domain", "rack")
"""What leaves the job when a part of it fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityOptions:
    """What is asked about failures.

    failures: "default" (the chip's fleet), "none", or a TOML file of rates and times
    recovery: "automatic", "hot" or "manual"
    checkpoint_s: work between saves of the fastest tier, None for the best
    tiers: where checkpoints go, None for the best; asynchronous: training goes on while they are written; sharded:
        every rank writes its part, else one replica does
    spares_frac: nodes that stand by, of those in use; None for the best
    elastic: go on with fewer replicas while nodes are missing, down to `least_replicas_frac`
    failure_unit: what leaves when a part fails: "node", "domain" (UltraServer, NVL72) or "rack"
    maintenance_every_s, maintenance_s: planned stops of the whole machine, 0 for none
    sampled_rates: draw rates from their ranges, once a run
    """

    failures: str | Path = "default"
    recovery: str = "automatic"
    checkpoint_s: float | None = None
    tiers: tuple[str, ...] | None = None
    asynchronous: bool = True
    sharded: bool = True
    spares_frac: float | None = None
    elastic: bool = False
    least_replicas_frac: float = 0.5
    failure_unit: str = "node"
    maintenance_every_s: float = 0.0
    maintenance_s: float = 0.0
    num_runs: int = 1000
    sampled_rates: bool = True
    seed: int = 0

    def checked(self) -> ReliabilityOptions:
        """The same options.

        Raises: ScenarioError for a value out of range
        """
        if self.checkpoint_s is not None and not 0 < self.checkpoint_s < math.inf:
            raise ScenarioError(
                f"a checkpoint every {self.checkpoint_s:g} s", where="--checkpoint", allowed="above 0, or auto",
                hint="for example 30min",
            )  # fmt: skip
        if self.spares_frac is not None and not 0 <= self.spares_frac <= 1:
            raise ScenarioError(
                f"{self.spares_frac:.4g} of the nodes as spares", where="--spares", allowed="0 to 100 %",
                hint="for example 2%",
            )  # fmt: skip
        if self.failure_unit not in UNITS:
            raise unknown_name("failure unit", self.failure_unit, UNITS, error=ScenarioError)
        for each in self.tiers or ():
            if each not in TIERS:
                raise unknown_name("checkpoint tier", each, TIERS, error=ScenarioError)
        if self.tiers is not None and not len(set(self.tiers)) == len(self.tiers) > 0:
            raise ScenarioError("checkpoint tiers are given twice, or none is", allowed=", ".join(TIERS))
        if not 0 < self.least_replicas_frac <= 1:
            raise ScenarioError(f"least_replicas_frac is {self.least_replicas_frac:g}", allowed="above 0, up to 1")
        if min(self.maintenance_every_s, self.maintenance_s) < 0 or (
            self.maintenance_s > 0 and self.maintenance_every_s == 0
        ):
            raise ScenarioError("maintenance needs a length and how often", allowed="both above 0, or both 0")
        if not 1 <= self.num_runs <= 100_000:
            raise ScenarioError(f"{self.num_runs:,} runs", allowed="1 to 100,000")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """10th, 50th and 90th percentile over the runs; infinite where so many runs never end."""

    p10: float
    p50: float
    p90: float
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One choice compared: its name, the share of time that it makes progress, chip-hours of the run that are paid."""

    name: str
    ettr: float
    chip_hours: float
    chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointing:
    """How a run saves: bytes of one checkpoint, the tiers with their intervals, and what the formulas advise.

    `young_s`, `daly_s`, `exact_s` are for the finest tier's stall and all failures of the job; infinite without them.
    `notes`: tiers that were left out, and why.
    """

    size_bytes: float
    tiers: tuple[SavedTier, ...]
    young_s: float
    daly_s: float
    exact_s: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliableRun:
    """A training run with its failures.

    `finishes`: whether half of the runs or more end within MAX_STRETCH times their length without failures;
    `largest_chips`: where they don't, the largest machine on which they would (0: none); `remedies`: what else would
    help, by formula. `failures_per_day`: by class of part. `shares`: of wall
    time, by cause; they sum to 1. `ettr`: effective training time ratio, work over wall time. Money is by offer, spares
    included. `losses_usd`, `losses_j`: beyond the run without failures. `slowest`: what training itself waits.
    """

    model: RunModel
    rates: FailureRates
    recovery: Recovery
    chips: int
    spare_chips: int
    finishes: bool
    finished_frac: float
    largest_chips: int
    remedies: tuple[Alternative, ...]
    mtbf_s: float
    failures_per_day: dict[str, float]
    failures_seen: float
    checkpointing: Checkpointing
    ideal_s: float
    duration_s: Quantiles
    ettr: Quantiles
    expected_ettr: float
    shares: dict[str, float]
    cost_usd: dict[str, Quantiles]
    losses_usd: dict[str, float]
    energy_j: Quantiles
    losses_j: float
    tier_choices: tuple[Alternative, ...]
    interval_choices: tuple[Alternative, ...]
    spare_choices: tuple[Alternative, ...]
    unit_choices: tuple[Alternative, ...]
    slowest: SlowestRank
    num_runs: int
    seed: int


def quantiles(values: Array) -> Quantiles:
    """Percentiles over runs, each the value of a run: infinite ones are the largest.

    Example:
        >>> quantiles(np.array([3.0, 1.0, 2.0]))
        Quantiles(p10=1.0, p50=2.0, p90=3.0, mean=2.0)
    """
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], method="nearest")
    return Quantiles(p10=float(low), p50=float(middle), p90=float(high), mean=float(np.mean(values)))
