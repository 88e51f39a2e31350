"""What a replica does in the steady state: means, and percentiles by two moments."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ultratwin.hardware.chip import Array
from ultratwin.planning.serving.mix import (
    Mix,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyState:
    """What one replica does; arrays [candidate]. Times are means over requests.

    request_rate: requests that it serves [1/s]; sustainable_rate: the most that it could (open loads; NaN in closed)
    decoding: sequences that decode at once; iteration_s: mean of all iterations; decode_s: of one that only decodes
    ttft_s, tpot_s, e2e_s: infinite where more is offered than it can serve; wait_s: the part of TTFT before the prompt
    is computed, own_s: the rest; ttft_least_s, ttft_variance, tpot_variance: for percentiles [s, s^2]
    power_w: of all its chips with their share of hosts and network
    """

    request_rate: Array
    sustainable_rate: Array
    running: Array
    decoding: Array
    iteration_s: Array
    decode_s: Array
    ttft_s: Array
    tpot_s: Array
    e2e_s: Array
    wait_s: Array
    own_s: Array
    ttft_least_s: Array
    ttft_variance: Array
    tpot_variance: Array
    power_w: Array
    mix: Mix

    def ttft_at(self, quantile: float) -> Array:
        """A percentile of TTFT: the least that it takes, and beyond it a gamma distribution of known mean and variance.

        Source: Wilson and Hilferty's cube root for the quantiles of a gamma distribution
        """
        mean = np.maximum(self.ttft_s - self.ttft_least_s, 0.0)
        return self.ttft_least_s + _gamma_quantile(mean, self.ttft_variance, quantile)

    def tpot_at(self, quantile: float) -> Array:
        """A percentile of TPOT, a mean of many iterations: normal."""
        found: Array = self.tpot_s + _normal_quantile(quantile) * np.sqrt(self.tpot_variance)
        return found

    def at(self, index: int) -> SteadyState:
        """One candidate, still as arrays of one."""

        def one(value: Array) -> Array:
            value = np.asarray(value)
            return value[..., index : index + 1] if value.ndim and value.shape[-1] > 1 else value

        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name != "mix"}
        mix = Mix(**{each.name: one(getattr(self.mix, each.name)) for each in dataclasses.fields(self.mix)})
        return SteadyState(**{name: one(value) for name, value in values.items()}, mix=mix)


def _normal_quantile(quantile: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(quantile)


def _gamma_quantile(mean: Array, variance: Array, quantile: float) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.where(mean > 0, variance / (9.0 * mean**2), 0.0)  # 1 / (9 shape)
        found = mean * np.maximum(1.0 - spread + _normal_quantile(quantile) * np.sqrt(spread), 0.0) ** 3
    return np.where(np.isfinite(mean), found, mean)
