"""Poisson arrivals: users who know nothing of each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ultratwin.workload.traffic.arrivals.arrivals import Arrivals, arrival_times_s, check_rate

if TYPE_CHECKING:
    from numpy.random import Generator

    from ultratwin.workload.traffic.requests import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisson(Arrivals):
    """Gaps are exponential with mean 1 / rate; `is_rescaled` meets the rate exactly, as `vllm bench serve` does."""

    name: ClassVar[str] = "poisson"
    request_rate: float
    is_rescaled: bool = True

    def __post_init__(self) -> None:
        check_rate(self.request_rate)

    def times_s(self, num_requests: int, generator: Generator) -> Floats:
        """Sums of exponential gaps."""
        gaps = generator.exponential(1.0 / self.request_rate, num_requests)
        return arrival_times_s(gaps, self.request_rate, is_rescaled=self.is_rescaled)
