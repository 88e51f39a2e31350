"""What a simulation found out: moments of every request, and what the replicas did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The course of a simulation, at most 2,048 moments [moment]; over all replicas."""

    time_s: Floats
    waiting: Floats
    running: Floats
    kv_usage_frac: Floats
    tokens_per_s: Floats  # answers' tokens of requests that ended since the moment before
    replicas: Floats  # that take requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Moments and counts of a simulation. Of a rejected request, and of what it never came to, a moment is NaN.

    arrival_s: when it was sent: as asked for, or later in a closed loop or after the turn before it [request]
    scheduled_s, first_token_s, finish_s: first taken into a batch; first and last token [request]
    max_gap_s: longest time between two tokens, 0 for an answer of one [request]
    cached_tokens, num_preemptions, replica: of each request; replica -1 if rejected [request]
    gap_seconds, gap_counts: gaps between tokens over all requests, in bins 0.5 % wide [bin]
    iterations, busy_s, energy_j: of each replica; energy while it waits included [replica]
    replica_s: time that each replica was paid for [replica]
    transferred_tokens: tokens whose KV went from prefill to decode replicas
    queued_at_last_arrival: requests waiting when the last one arrived
    backlog_s, backlog_finished: time in which requests waited, and answers that ended in it
    """

    arrival_s: Floats
    scheduled_s: Floats
    first_token_s: Floats
    finish_s: Floats
    max_gap_s: Floats
    rejected: NDArray[np.bool_]
    cached_tokens: Ints
    num_preemptions: Ints
    replica: Ints
    prompt_tokens: Ints
    output_tokens: Ints
    gap_seconds: Floats
    gap_counts: Ints
    iterations: Ints
    busy_s: Floats
    energy_j: Floats
    replica_s: Floats
    prefilled_tokens: int
    transferred_tokens: int
    queued_at_last_arrival: int
    backlog_s: float
    backlog_finished: int
    series: Series

    @property
    def ttft_s(self) -> Floats:
        """Time to first token [request]."""
        return self.first_token_s - self.arrival_s

    @property
    def e2e_s(self) -> Floats:
        """End-to-end latency [request]."""
        return self.finish_s - self.arrival_s

    @property
    def queue_s(self) -> Floats:
        """Time from arrival to the first batch [request]."""
        return self.scheduled_s - self.arrival_s

    @property
    def tpot_s(self) -> Floats:
        """Time per output token after the first one, as vLLM counts it; 0 for an answer of one token [request]."""
        after = np.maximum(self.output_tokens - 1, 1)
        return np.where(self.output_tokens > 1, (self.finish_s - self.first_token_s) / after, 0.0)

    @property
    def duration_s(self) -> float:
        """From the first arrival to the last token; 0 if nothing was served."""
        if self.rejected.all():
            return 0.0
        return float(np.nanmax(self.finish_s) - np.nanmin(self.arrival_s))

    def itl_quantile_s(self, quantile: float) -> float:
        """Inter-token latency below which a share of all gaps lies, to 0.5 %; NaN without gaps."""
        total = int(self.gap_counts.sum())
        if total == 0:
            return float("nan")
        place = int(np.searchsorted(np.cumsum(self.gap_counts), quantile * total))
        return float(self.gap_seconds[min(place, len(self.gap_seconds) - 1)])

    @property
    def sustainable_rate_per_s(self) -> float:
        """Requests per second that came to their end while others waited; infinite if nobody ever did."""
        if self.backlog_finished == 0 or self.backlog_s == 0.0:
            return float("inf")
        return self.backlog_finished / self.backlog_s

    @property
    def offered_rate_per_s(self) -> float:
        """Requests per second that arrived; infinite if all came at once."""
        span = float(self.arrival_s.max() - self.arrival_s.min()) if self.arrival_s.size else 0.0
        return (self.arrival_s.size - 1) / span if span > 0.0 else float("inf")

    @property
    def overloaded(self) -> bool:
        """Whether the queue grew for as long as requests came: more were offered than can be served.

        True if more than a twentieth of all requests waited at the last arrival, and more came than were served.
        """
        offered = self.offered_rate_per_s
        grown = self.queued_at_last_arrival > max(0.05 * self.arrival_s.size, 1.0)
        return bool(grown and np.isfinite(offered) and offered > self.sustainable_rate_per_s)


def moments(values: Any) -> Floats:
    """Moments that never came, kept as negative numbers, as NaN."""
    return np.where(values < 0.0, np.nan, values)
