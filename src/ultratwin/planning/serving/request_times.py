"""What users felt: the times of requests that were served, and statistics of them as benchmarks compute them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultratwin.errors import ScenarioError
from ultratwin.hardware.chip import Array

if TYPE_CHECKING:
    from ultratwin.simulation.serving.served import Served

PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTimes:
    """Times of requests that were answered to the end; all arrays are [request].

    arrival_s: when the request reached the server; in a closed loop, when the client sent it [s]
    first_token_s, finish_s: when its first and its last token were there [s]
    prompt_tokens, output_tokens: its lengths; the first token counts as output [1]
    num_failed: requests that were rejected or never ended
    gap_s, gap_count: gaps between tokens of all requests together, each as often as its count says; None if not known
    """

    arrival_s: Array
    first_token_s: Array
    finish_s: Array
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    num_failed: int = 0
    gap_s: Array | None = None
    gap_count: Array | None = None

    def __post_init__(self) -> None:
        shapes = {np.shape(getattr(self, name)) for name in _COLUMNS}
        if len(shapes) > 1 or len(shapes.pop()) != 1:
            raise ScenarioError("times and lengths of requests are not of one length")

    def __len__(self) -> int:
        return int(self.arrival_s.size)


def times_of(served: Served) -> RequestTimes:
    """Times of a simulation's requests; those that were rejected or never ended have failed."""
    times = answered(
        arrival_s=served.arrival_s,
        first_token_s=served.first_token_s,
        finish_s=served.finish_s,
        prompt_tokens=served.prompt_tokens,
        output_tokens=served.output_tokens,
    )
    return replace(times, gap_s=served.gap_seconds, gap_count=served.gap_counts.astype(np.float64))


def answered(
    *, arrival_s: Array, first_token_s: Array, finish_s: Array, prompt_tokens: ArrayLike, output_tokens: ArrayLike
) -> RequestTimes:
    """Times of the requests that were answered, out of all that were sent: the others have no finite finish.

    Args: as the fields of RequestTimes, shape [request]; NaN or infinite where something never happened
    """
    done = np.isfinite(finish_s) & np.isfinite(first_token_s)
    return RequestTimes(
        arrival_s=np.asarray(arrival_s)[done],
        first_token_s=np.asarray(first_token_s)[done],
        finish_s=np.asarray(finish_s)[done],
        prompt_tokens=np.asarray(prompt_tokens, np.int64)[done],
        output_tokens=np.asarray(output_tokens, np.int64)[done],
        num_failed=int((~done).sum()),
    )


_COLUMNS: Final = ("arrival_s", "first_token_s", "finish_s", "prompt_tokens", "output_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Values of a distribution; `counts`: how often each counts, None is once."""

    values: Array
    counts: Array | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Mean, standard deviation (of the population), percentiles by number; NaN where there are no values."""

    mean: float
    std: float
    percentiles: dict[float, float]

    @property
    def median(self) -> float:
        """The 50th percentile."""
        return self.percentiles[50.0]


def ttft_s(times: RequestTimes) -> Array:
    """Time to first token: from arrival to the first token [s], shape [request]."""
    return times.first_token_s - times.arrival_s


def e2el_s(times: RequestTimes) -> Array:
    """End-to-end latency: from arrival to the last token [s], shape [request]."""
    return times.finish_s - times.arrival_s


def tpot_s(times: RequestTimes) -> Array:
    """Time per output token after the first.

    Equation:  (E2EL - TTFT) / (output tokens - 1); 0 for an answer of one token, as `vllm bench serve` counts goodput
    Returns: [s], shape [request]
    Source: vllm/benchmarks/serve.py, calculate_metrics
    Example:
        >>> one = np.array([1])
        >>> times = RequestTimes(arrival_s=one * 0.0, first_token_s=one * 0.5, finish_s=one * 2.5,
        ...                      prompt_tokens=one, output_tokens=one * 5)
        >>> ttft_s(times).tolist(), tpot_s(times).tolist(), e2el_s(times).tolist()
        ([0.5], [0.5], [2.5])
    """
    later = times.output_tokens - 1
    tpot: Array = np.where(later > 0, (times.finish_s - times.first_token_s) / np.maximum(later, 1), 0.0)
    return tpot


def tpot_sample(times: RequestTimes) -> Sample:
    """TPOT of the requests that have one: answers of one token have no time per further token."""
    return Sample(values=tpot_s(times)[times.output_tokens > 1])


def itl_sample(times: RequestTimes) -> Sample:
    """Inter-token latencies: gaps between tokens, every gap of every request.

    Where gaps are not known, those of a request are taken as equal: the mean is right, the spread a lower bound.
    """
    if times.gap_s is not None:
        return Sample(values=times.gap_s, counts=times.gap_count)
    several = times.output_tokens > 1
    counts = (times.output_tokens[several] - 1).astype(np.float64)
    return Sample(values=tpot_s(times)[several], counts=counts)


def statistics(sample: Sample, percentiles: Sequence[float] = PERCENTILES) -> Statistics:
    """Mean, deviation and percentiles of a sample, the 50th always among them.

    Percentiles are numpy's default, linear between the two nearest values. A count acts as if its value came so often.
    Raises: ScenarioError for a percentile outside 0 to 100
    Example:
        >>> statistics(Sample(values=np.array([1.0, 2.0, 3.0, 4.0]))).percentiles[50.0]
        2.5
        >>> statistics(Sample(values=np.array([1.0, 4.0]), counts=np.array([3, 1]))).mean
        1.75
    """
    wanted = sorted({50.0, *map(float, percentiles)})
    if not all(0 <= each <= 100 for each in wanted):
        raise ScenarioError(f"percentiles {', '.join(f'{each:g}' for each in percentiles)}", allowed="from 0 to 100")
    values, counts = np.asarray(sample.values, np.float64), sample.counts
    if counts is not None:
        values, counts = values[counts > 0], counts[counts > 0]
    if not values.size:
        return Statistics(mean=np.nan, std=np.nan, percentiles=dict.fromkeys(wanted, np.nan))
    if counts is None:
        found = np.percentile(values, wanted)
        return _statistics(float(values.mean()), float(values.std()), wanted, found)
    mean = float(np.average(values, weights=counts))
    std = float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))
    return _statistics(mean, std, wanted, _counted_percentiles(values, counts, np.array(wanted)))


def _statistics(mean: float, std: float, wanted: list[float], found: Array) -> Statistics:
    return Statistics(mean=mean, std=std, percentiles=dict(zip(wanted, found.tolist(), strict=True)))


def _counted_percentiles(values: Array, counts: Array, percentiles: Array) -> Array:
    """Percentiles of values that each stand there as often as their count says, without writing them out."""
    order = np.argsort(values)
    upto = np.cumsum(counts[order])
    place = percentiles / 100 * (upto[-1] - 1)
    low = np.floor(place)
    at_low = values[order][np.searchsorted(upto, low, side="right")]
    at_high = values[order][np.searchsorted(upto, np.minimum(low + 1, upto[-1] - 1), side="right")]
    found: Array = at_low + (at_high - at_low) * (place - low)
    return found
