"""Lognormal lengths: many short, a few very long, as people's prompts are."""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, exp, isfinite, log, sqrt
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.lengths.lengths import Lengths, check_tokens

if TYPE_CHECKING:
    from numpy.random import Generator

    from ultratwin.workload.traffic.requests import Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class LogNormal(Lengths):
    """Lognormal with a mean and a standard deviation in tokens, rounded, and clipped to `low` and `high`.

    Equation:  s^2 = ln(1 + (deviation / mean)^2), m = ln(mean) - s^2 / 2, tokens = exp(m + s z)
    `mean` and `deviation` are those before clipping; `mean_tokens` is the mean after it.
    """

    name: ClassVar[str] = "lognormal"
    mean: float
    deviation: float
    low: int = 1
    high: int = 2**20

    def __post_init__(self) -> None:
        if not (isfinite(self.mean) and self.mean > 0 and isfinite(self.deviation) and self.deviation >= 0):
            raise ScenarioError(
                f"lognormal lengths of mean {self.mean:g} and deviation {self.deviation:g} tokens",
                allowed="a mean above 0 and a deviation of 0 or more",
            )
        check_tokens("the lower end", self.low)
        check_tokens("the upper end", self.high)
        if self.low > self.high:
            raise ScenarioError(f"lengths from {self.low} to {self.high} tokens", allowed="a lower end up to the upper")

    def tokens(self, num_requests: int, generator: Generator) -> Ints:
        """Independent draws."""
        drawn = np.exp(self._log_mean + self._log_deviation * generator.standard_normal(num_requests))
        return np.clip(np.rint(drawn), self.low, self.high).astype(np.int64)

    @property
    def mean_tokens(self) -> float:
        """Mean of the clipped distribution; rounding moves it by far less than a token."""
        m, s, low, high = self._log_mean, self._log_deviation, float(self.low), float(self.high)
        if s == 0:
            return min(max(self.mean, low), high)
        a, b = (log(low) - m) / s, (log(high) - m) / s
        inside = self.mean * (_normal_share(b - s) - _normal_share(a - s))
        return low * _normal_share(a) + inside + high * (1 - _normal_share(b))

    @property
    def max_tokens(self) -> int:
        """Upper end."""
        return self.high

    @property
    def _log_deviation(self) -> float:
        return sqrt(log(1 + (self.deviation / self.mean) ** 2))

    @property
    def _log_mean(self) -> float:
        return log(self.mean) - self._log_deviation**2 / 2

    @property
    def median_tokens(self) -> float:
        """Median before clipping."""
        return exp(self._log_mean)


def _normal_share(z: float) -> float:
    """Share of a standard normal distribution below z."""
    return 0.5 * (1 + erf(z / sqrt(2)))
