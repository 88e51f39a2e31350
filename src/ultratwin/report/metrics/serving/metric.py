"""What a serving metric is: a name, a formula, and how it is read from a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ultratwin.planning.serving.request_times import RequestTimes, Sample
from ultratwin.planning.serving.slo import Slos


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRun:
    """What metrics are read from.

    times: of the requests that were answered
    duration_s: from the first moment to the last answer's end, as `duration` of `vllm bench serve` [s]
    num_chips: chips that served, idle ones and warm spares included [1]
    energy_j: drawn in that time by chips, hosts and network, before PUE; None if not known [J]
    usd_per_chip_hour: price of one chip; None if not known [USD/h]
    slos: what is asked of the service; none is no goodput
    """

    times: RequestTimes
    duration_s: float
    num_chips: int = 1
    energy_j: float | None = None
    usd_per_chip_hour: float | None = None
    slos: Slos = field(default_factory=Slos)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMetric:
    """A figure that every request (or every gap) has: reported as mean, deviation and percentiles.

    `tag` is its name in JSON and Python, with its SI unit; `field` is what stands between statistic and unit in vLLM's
    results (mean_ttft_ms), "" if vLLM has no such; `label` what people call it; printed value = SI value / scale.
    """

    tag: str
    field: str
    label: str
    formula: str
    unit: str
    scale: float
    read: Callable[[ServingRun], Sample]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMetric:
    """A figure that a run has once; None where a run does not say enough. Names as in RequestMetric."""

    tag: str
    field: str
    label: str
    formula: str
    unit: str
    scale: float
    read: Callable[[ServingRun], float | None]


def per_second(amount: float, run: ServingRun) -> float | None:
    """An amount over a run's duration [1/s]; None for a run that took no time."""
    return float(amount) / run.duration_s if run.duration_s > 0 else None
