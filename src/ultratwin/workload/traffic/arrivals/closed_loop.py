"""Closed loop: a fixed number of users, each asks again as soon as the answer is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.arrivals.arrivals import Arrivals

if TYPE_CHECKING:
    from numpy.random import Generator

    from ultratwin.workload.traffic.requests import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop(Arrivals):
    """At most `max_concurrency` requests are under way: `--request-rate inf --max-concurrency N`.

    All requests wait at the client from time 0; the simulation lets one go whenever another finishes, so that its real
    arrival is a result, not an input.
    """

    name: ClassVar[str] = "closed-loop"
    max_concurrency: int

    def __post_init__(self) -> None:
        if self.max_concurrency < 1:
            raise ScenarioError(f"max concurrency {self.max_concurrency}", allowed="1 or more")

    def times_s(self, num_requests: int, generator: Generator) -> Floats:
        """Zeros: the client holds them."""
        return np.zeros(num_requests)
