"""Gamma arrivals: bursts, or a beat steadier than chance."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, ClassVar

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.arrivals.arrivals import Arrivals, arrival_times_s, check_rate

if TYPE_CHECKING:
    from numpy.random import Generator

    from ultratwin.workload.traffic.requests import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Gamma(Arrivals):
    """Gaps follow a gamma distribution of shape `burstiness` and mean 1 / rate.

    Their coefficient of variation is 1 / sqrt(burstiness): 1 is Poisson, below 1 comes in bursts, above 1 is steadier.
    Source: `--burstiness` of `vllm bench serve`
    """

    name: ClassVar[str] = "gamma"
    request_rate: float
    burstiness: float
    is_rescaled: bool = True

    def __post_init__(self) -> None:
        check_rate(self.request_rate)
        if not (isfinite(self.burstiness) and self.burstiness > 0):
            raise ScenarioError(
                f"burstiness {self.burstiness:g}",
                allowed="a finite number above 0; 1 is Poisson, below 1 comes in bursts",
            )

    def times_s(self, num_requests: int, generator: Generator) -> Floats:
        """Sums of gamma gaps."""
        gaps = generator.gamma(self.burstiness, 1.0 / (self.request_rate * self.burstiness), num_requests)
        return arrival_times_s(gaps, self.request_rate, is_rescaled=self.is_rescaled)
