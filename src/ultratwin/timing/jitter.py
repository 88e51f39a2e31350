"""How much slower the slowest of many ranks is: chips differ, and each step has its noise.

A synchronous step waits for the slowest rank, so its time is a maximum over ranks: an order statistic.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from ultratwin.catalogue import loader
from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array, Number

_POINTS: Final = 4096
_WIDEST: Final = 12.0
"""Standard deviations that the integral covers: beyond, 10^12 ranks hold nothing."""
_EULER: Final = 0.5772156649015329


class Noise(ABC):
    """A distribution of one rank's slowdown. One distribution, one final class."""

    @abstractmethod
    def expected_maximum(self, num_ranks: Number) -> Number:
        """Mean of the largest of so many draws, in standard deviations above the mean of one."""

    @abstractmethod
    def draws(self, random: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Draws with mean 0 and standard deviation 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normal(Noise):
    """Many small causes: how chips of one kind differ in speed."""

    def expected_maximum(self, num_ranks: Number) -> Number:
        """Mean of the largest of n normal draws.

        Equation: m(n) = int_0^inf 1 - F(x)^n dx - int_-inf^0 F(x)^n dx
        Source: David and Nagaraja, Order Statistics, section 3.1; integrated by the trapezoid rule
        Example:
            >>> round(float(Normal().expected_maximum(2)), 4), round(float(Normal().expected_maximum(1_000_000)), 3)
            (0.5642, 4.863)
        """
        x, log_below = _normal_grid()
        powers = np.exp(np.multiply.outer(_checked(num_ranks), log_below))
        integrand = np.where(x >= 0, 1.0 - powers, -powers)
        step = x[1] - x[0]
        # the integrand jumps by 1 at zero: the grid has zero in its middle and the trapezoid takes both sides' mean
        found: Number = (integrand.sum(axis=-1) - 0.5) * step
        return found

    def draws(self, random: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Draws with mean 0 and standard deviation 1."""
        return random.standard_normal(shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialTail(Noise):
    """Rare long delays: interrupts, retries, page faults."""

    def expected_maximum(self, num_ranks: Number) -> Number:
        """Mean of the largest of n exponential draws, less their mean.

        Equation: m(n) = H(n) - 1 = ln n + 0.5772 + 1/(2n) - 1/(12 n^2) + 1/(120 n^4) - 1
        Source: Renyi 1953: spacings of exponential draws are independent
        Example:
            >>> round(float(ExponentialTail().expected_maximum(2)), 3)
            0.5
        """
        n = _checked(num_ranks)
        harmonic = np.log(n) + _EULER + 1 / (2 * n) - 1 / (12 * n**2) + 1 / (120 * n**4) - 1 / (252 * n**6)
        found: Number = np.where(n < 2, 0.0, harmonic - 1.0)
        return found

    def draws(self, random: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Draws with mean 0 and standard deviation 1."""
        return random.standard_exponential(shape) - 1.0


NOISES: Final[tuple[type[Noise], ...]] = (Normal, ExponentialTail)
"""Explicit: the contract tests run over this tuple."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jitter:
    """How unevenly ranks run, as fractions of a step.

    chip_frac: standard deviation of chips' speeds, the same chip every step; noise_frac: of what changes every step.
    """

    chip_frac: float
    noise_frac: float
    noise: Noise = Normal()

    def slowdown(self, num_ranks: Number, barriers: int = 1) -> Number:
        """Time of a step over that of a step without jitter, as all wait for the slowest.

        Equation: f = 1 + s m(n), s^2 = a^2 + b^2 k for normal noise; 1 + a m(n) + b sqrt(k) m'(n) as a bound for others
        Symbols: a chips, b noise of a whole step, k barriers of a step, m expected maximum of n draws
        Args: num_ranks: n [candidate]; barriers: k, how often all ranks meet in a step
        Returns: factor [candidate]
        Source: derived; a step cut into k pieces by barriers sums k maxima of noise b / sqrt(k) each
        Example:
            >>> round(float(Jitter(chip_frac=0.0, noise_frac=0.01).slowdown(2)), 4)
            1.0056
        """
        if barriers < 1:
            raise ScenarioError(f"{barriers} barriers", allowed="1 or more")
        chips = Normal().expected_maximum(num_ranks)
        noise_frac = self.noise_frac * math.sqrt(barriers)
        if isinstance(self.noise, Normal):
            return 1.0 + math.hypot(self.chip_frac, noise_frac) * chips
        return 1.0 + self.chip_frac * chips + noise_frac * self.noise.expected_maximum(num_ranks)


def load_jitter() -> Jitter:
    """The catalogue's jitter of chips in a cluster."""
    figures = loader.entry("reliability", "jitter").figures
    return Jitter(chip_frac=figures["chip_speed_frac"].si, noise_frac=figures["step_noise_frac"].si)


def sampled_slowdown(jitter: Jitter, num_ranks: int, *, num_steps: int = 64, num_machines: int = 64, seed: int = 0
) -> tuple[float, float]:  # fmt: skip
    """What `Jitter.slowdown` is by sampling whole machines: mean and its standard error. The check of the formula.

    Args: num_ranks: of a machine; num_steps: of each; num_machines: each with its own chips
    """
    random = np.random.default_rng(seed)
    means = np.empty(num_machines)
    for machine in range(num_machines):
        chips = 1.0 + jitter.chip_frac * Normal().draws(random, (num_ranks,))
        noise = jitter.noise_frac * jitter.noise.draws(random, (num_steps, num_ranks))
        means[machine] = (chips + noise).max(axis=1).mean()
    return float(means.mean()), float(means.std(ddof=1) / math.sqrt(num_machines))


def _checked(num_ranks: Number) -> Array:
    n = np.asarray(num_ranks, dtype=np.float64)
    if np.any(n < 1):
        raise ScenarioError(f"{float(np.min(n)):g} ranks", allowed="1 or more")
    return n


@lru_cache(maxsize=1)
def _normal_grid() -> tuple[Array, Array]:
    """Points and the logarithm of the normal distribution below each, exact in the upper tail."""
    x = np.linspace(-_WIDEST, _WIDEST, 2 * _POINTS + 1)
    above = np.array([0.5 * math.erfc(each / math.sqrt(2.0)) for each in x])
    below = np.array([0.5 * math.erfc(-each / math.sqrt(2.0)) for each in x])
    upper = x > 0
    return x, np.where(upper, np.log1p(-np.where(upper, above, 0.5)), np.log(np.maximum(below, 1e-300)))
