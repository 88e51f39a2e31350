"""Constant arrivals: one request every 1 / rate seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ultratwin.workload.traffic.arrivals.arrivals import Arrivals, check_rate

if TYPE_CHECKING:
    from numpy.random import Generator

    from ultratwin.workload.traffic.requests import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(Arrivals):
    """Equal gaps, the first request after one gap: what burstiness tends to when it grows."""

    name: ClassVar[str] = "constant"
    request_rate: float

    def __post_init__(self) -> None:
        check_rate(self.request_rate)

    def times_s(self, num_requests: int, generator: Generator) -> Floats:
        """1 / rate, 2 / rate, ..."""
        return np.arange(1, num_requests + 1) / self.request_rate
