"""What a run with failures is made of: values for people, and the arrays that the event loop works on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array
from ultratwin.hardware.failures import PartClass, Recovery

CAUSES: Final = (
    "training", "saving checkpoints", "work done again", "work spoilt silently", "detection", "isolation",
    "waiting for spares", "restart", "reload", "warm-up", "fewer replicas", "maintenance",
)  # fmt: skip
"""What the wall time of a run goes to. The event loop fills them by their place here."""
NO_SAVES: Final = 1e18
"""An interval that no run reaches [s]: nothing is saved."""
MAX_STRETCH: Final = 10.0
"""A run that is not done after so many times its length without failures is given up: in practice it never ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedTier:
    """A tier as a run uses it.

    interval_s: seconds of work between saves; stall_s: how long the chips wait for one; latency_s: until it can be
    used; reload_s: to read it back.
    """

    name: str
    interval_s: float
    stall_s: float
    latency_s: float
    reload_s: float
    survives_node: bool
    survives_rack: bool
    keeps_history: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Elastic:
    """Data parallelism that goes on with fewer replicas.

    `step_s`: what is lost when a replica drops out, one step.
    """

    replicas: int
    least_replicas: int
    nodes_per_replica: int
    step_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunModel:
    """A run: work, what fails, where it saves (finest tier first), how it recovers, what stands by.

    work_s: its length if nothing fails and nothing is saved. maintenance: of the whole machine, 0 for none.
    most_s: wall time after which a run is given up, if that is sooner than MAX_STRETCH times its work.
    """

    work_s: float
    parts: tuple[PartClass, ...]
    tiers: tuple[SavedTier, ...]
    recovery: Recovery
    spare_nodes: int = 0
    elastic: Elastic | None = None
    maintenance_every_s: float = 0.0
    maintenance_s: float = 0.0
    most_s: float = math.inf

    @property
    def horizon_s(self) -> float:
        """When a run is given up."""
        return min(MAX_STRETCH * self.work_s, self.most_s)

    def checked(self) -> RunModel:
        """The same run.

        Raises: ScenarioError for values that no run has
        """
        if not (0 < self.work_s < math.inf):
            raise ScenarioError(f"a run of {self.work_s:g} s", allowed="above 0")
        if not self.tiers:
            raise ScenarioError("a run without a place for checkpoints", hint="give at least one tier")
        for each in self.tiers:
            if not each.interval_s > 0:
                raise ScenarioError(f"a checkpoint every {each.interval_s:g} s", allowed="above 0")
        if self.spare_nodes < 0:
            raise ScenarioError(f"{self.spare_nodes} spare nodes", allowed="0 or more")
        return self


class RunScalars(NamedTuple):
    """A run's numbers as the event loop takes them."""

    work: float
    horizon: float
    coarse_cost: float
    detection: float
    silent_delay: float
    isolation: float
    restart: float
    warm_up: float
    resize: float
    reset: float
    replacement: float
    replacement_frac: float
    spares: float
    replicas: float
    least: float
    nodes_per_replica: float
    step: float
    elastic: bool
    maintenance_every: float
    maintenance: float


def run_scalars(model: RunModel) -> RunScalars:
    """A run's numbers; the saves to coarser tiers are spread evenly over its work."""
    recovery = model.recovery
    elastic = model.elastic or Elastic(replicas=1, least_replicas=1, nodes_per_replica=1, step_s=0.0)
    return RunScalars(
        work=float(model.work_s),
        horizon=float(model.horizon_s),
        coarse_cost=math.fsum(each.stall_s / each.interval_s for each in model.tiers[1:]),
        detection=float(recovery.detection_s),
        silent_delay=float(recovery.silent_detection_s),
        isolation=float(recovery.isolation_s),
        restart=float(recovery.restart_s),
        warm_up=float(recovery.warm_up_s),
        resize=float(recovery.resize_s),
        reset=float(recovery.reset_s),
        replacement=float(recovery.replacement_s),
        replacement_frac=float(recovery.replacement_frac),
        spares=float(model.spare_nodes),
        replicas=float(elastic.replicas),
        least=float(elastic.least_replicas),
        nodes_per_replica=float(elastic.nodes_per_replica),
        step=float(elastic.step_s),
        elastic=model.elastic is not None,
        maintenance_every=float(model.maintenance_every_s or NO_SAVES),
        maintenance=float(model.maintenance_s),
    )


def tier_rows(tiers: tuple[SavedTier, ...]) -> Array:
    """Tiers as numbers, [tier, column], in the columns of the event loop."""
    return np.array([
        (each.interval_s, each.stall_s, each.latency_s, each.reload_s, each.survives_node, each.survives_rack,
         each.keeps_history)
        for each in tiers
    ], dtype=np.float64)  # fmt: skip


def part_rows(parts: tuple[PartClass, ...]) -> Array:
    """Classes of parts as numbers, [part, column], in the columns of the event loop."""
    return np.array([(each.nodes_lost, each.rack_wide, each.silent) for each in parts], dtype=np.float64).reshape(-1, 3)


def rate_table(parts: tuple[PartClass, ...], horizon_s: float, bins: int = 96) -> tuple[Array, Array]:
    """Failures per second of each class by age: starts of the bins [bin], rates [bin, part].

    One bin where no rate depends on age.
    """
    edges = np.concatenate([[0.0], np.geomspace(horizon_s * 1e-5, horizon_s, bins)])
    ages = np.stack([np.broadcast_to(np.asarray(part.expected_failures(edges)), edges.shape) for part in parts], axis=1)
    rates = np.diff(ages, axis=0) / np.diff(edges)[:, None]
    if np.allclose(rates, rates[-1], rtol=1e-9, atol=0.0):
        return np.zeros(1), np.ascontiguousarray(ages[-1:] / horizon_s)
    return np.ascontiguousarray(edges[:-1]), np.ascontiguousarray(rates)
