"""Ramp: the rate grows from one figure to another over the requests."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.arrivals.arrivals import Arrivals, check_rate

if TYPE_CHECKING:
    from numpy.random import Generator

    from ultratwin.workload.traffic.requests import Floats

STRATEGIES = ("linear", "exponential")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp(Arrivals):
    """Gamma gaps whose mean rate moves from request to request, as `--ramp-up-strategy` of `vllm bench serve`.

    Equation:  p = i / (n - 1);  linear: a + (b - a) p;  exponential: a (b / a)^p
    `burstiness` as in Gamma; infinite: no chance at all. Times are not rescaled. The rate may also fall.
    """

    name: ClassVar[str] = "ramp"
    start_rate: float
    end_rate: float
    strategy: str = "linear"
    burstiness: float = 1.0

    def __post_init__(self) -> None:
        check_rate(self.start_rate, what="start of the ramp")
        check_rate(self.end_rate, what="end of the ramp")
        if self.strategy not in STRATEGIES:
            raise ScenarioError(f'unknown ramp-up strategy "{self.strategy}"', allowed=", ".join(STRATEGIES))
        if not self.burstiness > 0:
            raise ScenarioError(f"burstiness {self.burstiness:g}", allowed="a number above 0")

    def rates(self, num_requests: int) -> Floats:
        """The rate before each request [requests/s], shape [request]."""
        progress = np.arange(num_requests) / max(num_requests - 1, 1)
        if self.strategy == "linear":
            return self.start_rate + (self.end_rate - self.start_rate) * progress
        return np.asarray(self.start_rate * (self.end_rate / self.start_rate) ** progress)

    def times_s(self, num_requests: int, generator: Generator) -> Floats:
        """Sums of gamma gaps of mean 1 / rate(i)."""
        gaps = 1.0 / self.rates(num_requests)
        if isfinite(self.burstiness):
            gaps = gaps * generator.gamma(self.burstiness, 1.0 / self.burstiness, num_requests)
        return np.cumsum(gaps)
