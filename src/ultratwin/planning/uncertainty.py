"""Ranges of facts as samples, so that an answer carries its own (design D3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.catalogue.facts import Fact
from ultratwin.hardware.chip import Array

NUM_SAMPLES: Final = 256
Z_90: Final = 1.6449
"""Standard deviations from the median to the 5th and 95th percentile of a normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Low, expected, high: 5th percentile, the answer with every fact at its value, 95th percentile."""

    low: float
    expected: float
    high: float


class Sampler:
    """Draws factors for facts, one Latin hypercube column each: index 0 is the expected value, then the samples.

    A fact is as likely below its value as above it, evenly between its ends. Every drawn fact is remembered by name, so
    that the spread of an answer can be attributed.
    """

    def __init__(self, seed: int = 0, num_samples: int = NUM_SAMPLES) -> None:
        self._random = np.random.default_rng(seed)
        self._num_samples = num_samples
        self.drawn: dict[str, Array] = {}

    def _column(self) -> Array:
        cells = self._random.permutation(self._num_samples)
        return (cells + self._random.random(self._num_samples)) / self._num_samples

    def fact(self, name: str, facts: Mapping[str, Fact], key: str) -> Array | float:
        """Values of a fact in SI, [1 + sample]; a plain number where it has no range."""
        fact = facts[key]
        low, high = fact.range_si
        return self.between(name, low, fact.si, high)

    def between(self, name: str, low: float, value: float, high: float) -> Array | float:
        """Values between two ends around an expected one, [1 + sample]; a plain number where they coincide."""
        if low == high:
            return value
        u = self._column()
        samples = np.where(u < 0.5, low + 2 * u * (value - low), value + (2 * u - 1) * (high - value))
        self.drawn[name] = np.concatenate([[0.5], u])
        return np.concatenate([[value], samples])

    def error_factor(self, name: str, spread_frac: float) -> Array:
        """The twin's own error: a lognormal factor whose 90 % interval is [1/(1+s), 1+s], [1 + sample]."""
        from statistics import NormalDist

        u = self._column()
        self.drawn[name] = np.concatenate([[0.5], u])
        normal = NormalDist()
        z = np.array([normal.inv_cdf(float(each)) for each in u])
        return np.concatenate([[1.0], np.exp(z * np.log1p(spread_frac) / Z_90)])

    def spread(self, values: Array | float, top: int = 6) -> tuple[tuple[str, float], ...]:
        """The facts that the spread of some values comes from, with their share of its variance, largest first.

        Share: squared correlation of log value with the fact's quantile, divided by the sum over facts.
        """
        if np.ndim(values) == 0 or not self.drawn:
            return ()
        logs = np.log(np.maximum(np.asarray(values)[1:], 1e-300))
        if np.ptp(logs) < 1e-12:
            return ()
        squares = {name: float(np.corrcoef(u[1:], logs)[0, 1]) ** 2 for name, u in self.drawn.items()}
        total = sum(squares.values()) or 1.0
        ranked = sorted(squares.items(), key=lambda each: (-each[1], each[0]))
        return tuple((name, square / total) for name, square in ranked[:top])


def range_of(values: Array | float) -> Range:
    """Low, expected and high of sampled values [1 + sample]; all the same for a plain number."""
    if np.ndim(values) == 0:
        return Range(low=float(values), expected=float(values), high=float(values))
    samples = np.asarray(values)
    low, high = np.quantile(samples[1:], [0.05, 0.95])
    expected = float(samples[0])
    return Range(low=float(min(low, expected)), expected=expected, high=float(max(high, expected)))
