"""The requests that a serving question is about: generated from its demand, or read from its trace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.planning.serving.mix import Load
from ultratwin.workload.load import load_model
from ultratwin.workload.model import Model
from ultratwin.workload.traffic.arrivals import arrivals_of
from ultratwin.workload.traffic.generate import Traffic, generate, resampled
from ultratwin.workload.traffic.lengths import Fixed, around
from ultratwin.workload.traffic.prefixes import SharedPrefix
from ultratwin.workload.traffic.replay import at_rate, first, mean_rate
from ultratwin.workload.traffic.requests import Requests
from ultratwin.workload.traffic.traces import read_trace

if TYPE_CHECKING:
    from ultratwin.planning.serving.question import ServingQuestion

DEFAULT_REQUESTS: Final = 1000
"""Requests of a simulation where their number is not given: `vllm bench serve`."""
_PER_USER: Final = 10
"""Requests of each user of a closed loop, where their number is not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """Requests; what they ask for on average; their mean rate (None in a closed loop); notes on the file."""

    requests: Requests
    load: Load
    request_rate: float | None
    notes: tuple[str, ...] = ()


def offered(question: ServingQuestion) -> Offered:
    """The requests of a question.

    Raises: ScenarioError for demands that no requests follow from, and for files that can't be read
    """
    demand = question.demand
    found, notes = _read(question) if demand.trace is not None else (_generated(question), ())
    rate = mean_rate(found)
    return Offered(
        requests=found,
        load=mean_load(found, prefix_caching=question.prefix_caching, longest=_longest(question)),
        request_rate=rate if math.isfinite(rate) and rate > 0 else None,
        notes=notes,
    )


def _longest(question: ServingQuestion) -> int:
    """Tokens of the longest request that is not turned away."""
    model = question.model if isinstance(question.model, Model) else load_model(question.model)
    return question.max_model_len or model.max_seq_length


def _read(question: ServingQuestion) -> tuple[Requests, tuple[str, ...]]:
    """The trace: at its own times, stretched to a rate, or under a law of arrivals where it has none."""
    demand = question.demand
    if demand.trace is None:
        raise ScenarioError("no trace is given")
    trace = read_trace(demand.trace, format=demand.trace_format)
    requests, rate = trace.requests, demand.request_rate
    finite = rate is not None and math.isfinite(rate)
    if trace.has_times and (finite or (rate is None and demand.concurrency is None)):
        found = at_rate(requests, rate) if rate is not None and finite else requests
        return (first(found, demand.num_prompts) if demand.num_prompts else found), trace.notes
    law = arrivals_of(
        request_rate=math.inf if rate is None else rate, burstiness=demand.burstiness,
        max_concurrency=demand.concurrency or 0,
    )  # fmt: skip
    return resampled(requests, law, demand.num_prompts or 0, seed=question.seed), trace.notes


def _generated(question: ServingQuestion) -> Requests:
    demand = question.demand
    rate = math.inf if demand.request_rate is None else demand.request_rate
    closed = demand.concurrency or 0
    count = demand.num_prompts or max(DEFAULT_REQUESTS, _PER_USER * closed)
    lengths = [int(demand.prompt_tokens), int(demand.output_tokens)]
    prompt, output = (around(each, demand.range_frac) if demand.range_frac else Fixed(length=each) for each in lengths)
    prefix = None
    if demand.prefix_tokens:
        prefix = SharedPrefix(tokens=demand.prefix_tokens, block_tokens=question.block_size or 16)
    law = arrivals_of(request_rate=rate, burstiness=demand.burstiness, max_concurrency=closed)
    return generate(
        Traffic(arrivals=law, prompt=prompt, output=output, num_requests=count, prefix=prefix), seed=question.seed
    )


def mean_load(requests: Requests, *, prefix_caching: bool, longest: float = math.inf) -> Load:
    """What some requests ask for on average.

    Equation: context of a decoding step = sum o (p + o / 2) / sum o: longer answers have more steps
    Args:
        requests: p prompt and o output tokens each; prefix_caching: blocks that came before are found again, as if the
            cache forgot none; longest: those with more tokens are turned away and don't count, unless all are
    """
    prompt, output = requests.prompt_tokens.astype(np.float64), requests.output_tokens.astype(np.float64)
    served = prompt + output <= longest
    if served.any():
        prompt, output = prompt[served], output[served]
    steps = np.maximum(output - 1.0, 0.0)
    total = steps.sum()
    context = float((steps * (prompt + 0.5 * output)).sum() / total) if total else float(prompt.mean())
    cached = 0.0
    hashes = requests.prefix_hashes
    if prefix_caching and hashes is not None and len(hashes.hashes):
        seen = len(hashes.hashes) - len(np.unique(hashes.hashes))
        cached = min(seen * hashes.block_tokens / float(prompt.sum()), 0.999)
    return Load(
        prompt_tokens=float(prompt.mean()), output_tokens=float(output.mean()), cached_frac=cached, context=context
    )
