"""What a law of arrivals is: a rule that places requests in time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ultratwin.errors import ScenarioError

if TYPE_CHECKING:
    from numpy.random import Generator

    from ultratwin.workload.traffic.requests import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals(ABC):
    """A law of arrivals. `name` is what scenarios call it."""

    name: ClassVar[str]

    @abstractmethod
    def times_s(self, num_requests: int, generator: Generator) -> Floats:
        """When each request arrives, from 0 on and never falling [s], shape [request]."""


def check_rate(request_rate: float, *, what: str = "request rate") -> None:
    """Raises: ScenarioError unless the rate is a number of requests per second above 0."""
    if not (isfinite(request_rate) and request_rate > 0):
        raise ScenarioError(f"{what} {request_rate:g} requests/s", allowed="a finite number above 0")


def arrival_times_s(gaps_s: Floats, request_rate: float, *, is_rescaled: bool) -> Floats:
    """Times from gaps, stretched so that the last request comes after exactly n / rate, as `vllm bench serve` does.

    Equation:  t_i = sum of gaps up to i;  rescaled: t_i n / (rate t_n)
    Args:
        gaps_s: time before each request [s], shape [request]
        request_rate: mean rate [requests/s]
        is_rescaled: whether the mean rate is met exactly, rather than on average
    Source: vllm/benchmarks/serve.py, get_request
    """
    times: Floats = np.cumsum(gaps_s)
    if is_rescaled and times.size and times[-1] > 0:
        times *= times.size / request_rate / times[-1]
    return times
