"""All at once: an offline batch, or `--request-rate inf`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ultratwin.workload.traffic.arrivals.arrivals import Arrivals

if TYPE_CHECKING:
    from numpy.random import Generator

    from ultratwin.workload.traffic.requests import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class AllAtOnce(Arrivals):
    """Every request is there at time 0."""

    name: ClassVar[str] = "all-at-once"

    def times_s(self, num_requests: int, generator: Generator) -> Floats:
        """Zeros."""
        return np.zeros(num_requests)
