"""What the iterations of a serving engine hold in the steady state: counts of sequences and tokens, no seconds yet.

Everything follows from one number: how many requests end (and, in the steady state, begin) in an iteration. Between two
iterations with new prompts the engine only decodes; how many prompts come together is taken to be Poisson.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ultratwin.hardware.chip import Array, Number

NODES: Final = ("decoding only", "one prompt", "several prompts", "as a new prompt sees it")
_ROUNDS: Final = 4
_WAYS: Final = 33


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What requests ask for on average, numbers or [candidate].

    `cached_frac`: share of prompt tokens found in the prefix cache. `context`: tokens that a decoding step attends to,
    averaged over all steps; prompt + output / 2 where left out (equal lengths).
    """

    prompt_tokens: Number
    output_tokens: Number
    cached_frac: Number = 0.0
    context: Number | None = None

    @property
    def decode_context(self) -> Number:
        """Mean tokens that a decoding step attends to."""
        return self.prompt_tokens + 0.5 * self.output_tokens if self.context is None else self.context

    @property
    def new_tokens(self) -> Number:
        """Prompt tokens that must be computed; the last one always is."""
        return np.maximum(np.asarray(self.prompt_tokens, dtype=np.float64) * (1.0 - np.asarray(self.cached_frac)), 1.0)

    @property
    def cached_tokens(self) -> Number:
        """Prompt tokens that the prefix cache holds."""
        return np.maximum(np.asarray(self.prompt_tokens, dtype=np.float64) - self.new_tokens, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """A draft of `num_tokens` tokens per step, each accepted with the same probability if those before it were.

    Example:
        >>> Speculation().accepted, round(Speculation(num_tokens=3, acceptance_rate=0.5).accepted, 3)
        (1.0, 1.875)
    """

    num_tokens: int = 0
    acceptance_rate: float = 0.0

    @property
    def computed(self) -> float:
        """Tokens that a sequence computes in a step."""
        return 1.0 + self.num_tokens

    @property
    def accepted(self) -> float:
        """Tokens that a sequence gains in a step: 1 + a + a^2 + ... + a^k."""
        return float(sum(self.acceptance_rate**power for power in range(self.num_tokens + 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What one replica may run at once, numbers or [candidate]; `kv_tokens`: tokens that fit into its KV cache."""

    max_num_seqs: Number
    max_num_batched_tokens: Number
    kv_tokens: Number
    block_size: Number = 16

    def most_running(self, load: Load) -> Number:
        """Sequences that can run at once: a sequence holds its prompt and, on average, half of its answer."""
        held = np.asarray(load.prompt_tokens) + 0.5 * np.asarray(load.output_tokens) + 0.5 * np.asarray(self.block_size)
        return np.minimum(np.asarray(self.max_num_seqs, dtype=np.float64), np.asarray(self.kv_tokens) / held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The iterations of the steady state, all [candidate] or [node, candidate] with the nodes of NODES.

    ended: requests that end per iteration (policies that prefill first: per decoding iteration)
    decoding: sequences that decode; prompt_iterations: iterations that a prompt takes; chunk: its tokens in each
    queued: iterations that a prompt waits for others' tokens; together: prompts that fit into one iteration
    weight, load: how often each kind of iteration comes, and its prompt tokens (the last node has no weight)
    """

    ended: Array
    decoding: Array
    prompt_iterations: Array
    chunk: Array
    queued: Array
    together: Array
    weight: Array
    load: Array


def mixed_mix(
    ended: Array, load: Load, limits: BatchLimits, speculation: Speculation, *, others: Number, seen: Number
) -> Mix:
    """Decoding first, chunks of prompts fill what is left of the token budget (vLLM V1, TensorRT-LLM).

    Args:
        ended: requests that begin and end per iteration
        others: share of the prompts that are not one's own (1 in an open load, 1 - 1/b in a closed loop of b)
        seen: sequences beside those that the others decode (1 in an open load: oneself; 0 in a closed loop)
    """
    prompt, steps = load.new_tokens, decode_steps(load, speculation)
    budget_tokens = np.asarray(limits.max_num_batched_tokens, dtype=np.float64)
    decoding = np.where(steps > 0, ended * steps + seen, 0.0)
    room = np.maximum(budget_tokens - speculation.computed * decoding, 1.0)
    iterations = np.ceil(prompt / room)
    chunk = prompt / iterations
    used = np.minimum(ended * prompt / room, 1.0)
    quiet = np.minimum(np.exp(-ended * iterations), 1.0 - used)
    weight, tokens = _split(ended * prompt, chunk, ended * iterations, quiet, room)
    own = np.minimum(chunk + others * ended * prompt, room)
    return Mix(
        ended=ended,
        decoding=decoding,
        prompt_iterations=iterations,
        chunk=chunk,
        together=np.maximum(room / prompt, 1.0),
        queued=queued_iterations(np.minimum(others * ended * prompt / room, 0.999), prompt / room, iterations),
        weight=np.stack([quiet, *weight, np.zeros_like(quiet)]),
        load=np.stack([np.zeros_like(quiet), chunk, tokens, own]),
    )


def prefill_first_mix(
    ended: Array, load: Load, limits: BatchLimits, speculation: Speculation, *, others: Number, seen: Number
) -> Mix:
    """Waiting prompts are computed in batches of their own before decoding goes on (SGLang, vLLM V0).

    Weights are per decoding iteration; loads above the token budget are several iterations.
    Args: as of `mixed_mix`
    """
    prompt, steps = load.new_tokens, decode_steps(load, speculation)
    budget_tokens = np.asarray(limits.max_num_batched_tokens, dtype=np.float64) + 0.0 * ended
    decoding = np.where(steps > 0, ended * steps + seen, 0.0)
    iterations = np.ceil(prompt / budget_tokens)
    quiet = np.exp(-ended)
    weight, tokens = _split(ended * prompt, prompt + 0.0 * ended, ended, quiet, np.full_like(ended, np.inf))
    return Mix(
        ended=ended,
        decoding=decoding,
        prompt_iterations=np.ones_like(ended),
        chunk=prompt / iterations,
        queued=np.zeros_like(ended),
        together=np.maximum(budget_tokens / prompt, 1.0),
        weight=np.stack([np.ones_like(quiet), *weight, np.zeros_like(quiet)]),
        load=np.stack([np.zeros_like(quiet), prompt + 0.0 * ended, tokens, prompt * (1.0 + others * ended)]),
    )


def static_mix(
    ended: Array, load: Load, limits: BatchLimits, speculation: Speculation, *, others: Number, seen: Number
) -> Mix:
    """A batch is prefilled, decoded to its end, and only then followed by the next; `ended` is its size.

    Weights are per batch.
    Args: as of `mixed_mix`
    """
    prompt, steps = load.new_tokens, decode_steps(load, speculation)
    size = np.maximum(ended, 1.0)
    none, whole = np.zeros_like(size), prompt * size
    return Mix(
        ended=ended,
        decoding=np.where(steps > 0, size, 0.0),
        prompt_iterations=np.ones_like(size),
        chunk=np.minimum(prompt + none, np.asarray(limits.max_num_batched_tokens, dtype=np.float64)),
        queued=none,
        together=size,
        weight=np.stack([steps + none, none + 1.0, none, none]),
        load=np.stack([none, whole, whole, whole]),
    )


MIXES: Final = {"mixed": mixed_mix, "prefill-first": prefill_first_mix, "static": static_mix}


def _split(total: Array, chunk: Number, often: Array, quiet: Array, room: Array) -> tuple[tuple[Array, Array], Array]:
    """Iterations with prompts as two kinds, one prompt and several, that together hold `total` tokens.

    Returns: weights of both, and the tokens of the second
    """
    busy = 1.0 - quiet
    single = np.minimum(often * np.exp(-often), busy)
    left = np.maximum(total - single * chunk, 0.0)
    several = np.maximum(busy - single, 1e-300)
    # where several prompts would overflow the budget they are spread over more iterations
    over = left > several * room
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.clip((total - busy * chunk) / (room - chunk), 0.0, busy)
    several = np.where(over & (room > chunk), spread, several)
    single = busy - several
    tokens = np.maximum(total - single * chunk, 0.0) / np.maximum(several, 1e-300)
    return (single, several), np.minimum(tokens, np.where(np.isfinite(room), room, np.inf))


def queued_iterations(used: Array, size: Number, iterations: Number) -> Array:
    """Iterations that a prompt waits until the budget has room for it.

    Equation: W = n u^(sqrt(2 (m + 1)) - 1) / (2 m (1 - u)), m = max(1, 1 / size) prompts at a time, n iterations each
    Args:
        used: share of the budget that prompts take; size: of a prompt over the budget of an iteration
    Source: Sakasegawa's approximation of M/G/m with constant service, cited by Hopp and Spearman, Factory Physics
    """
    servers = np.maximum(1.0 / size, 1.0)
    waited: Array = iterations * used ** (np.sqrt(2.0 * (servers + 1.0)) - 1.0) / (2.0 * servers * (1.0 - used))
    return waited


def decode_steps(load: Load, speculation: Speculation) -> Array:
    """Iterations in which a request decodes: all tokens but the first, several at once where drafts are accepted."""
    return np.maximum(np.asarray(load.output_tokens, dtype=np.float64) - 1.0, 0.0) / speculation.accepted


def closed_loop_ended(
    running: Number, load: Load, limits: BatchLimits, speculation: Speculation, policy: str, *, away: Number
) -> Array:
    """Requests that end per iteration when `running` are always under way: no seconds are needed for it.

    Equation: e (steps + prompt iterations + queued + away) = running
    Args:
        running: requests that are being served at any time, [candidate]
        away: iterations that a new request spends before it can be scheduled
    """
    steps, prompt = decode_steps(load, speculation), load.new_tokens
    asked = np.asarray(running, dtype=np.float64)
    if policy == "static":
        return np.asarray(asked + 0.0 * prompt)
    if policy != "mixed":
        return np.asarray(asked / np.maximum(steps + away, 1.0) + 0.0 * prompt)
    most = np.asarray(limits.max_num_batched_tokens) / (prompt + speculation.computed * steps)
    high = np.minimum(asked / (steps + 1.0), most)
    low = 0.0 * high
    grid = np.linspace(0.0, 1.0, _WAYS).reshape((-1,) + (1,) * np.ndim(high))
    others = np.maximum(1.0 - 1.0 / np.maximum(asked, 1.0), 0.0)
    for _ in range(_ROUNDS):
        ended = low + (high - low) * grid
        room = np.maximum(np.asarray(limits.max_num_batched_tokens) - speculation.computed * ended * steps, 1.0)
        iterations = np.maximum(np.ceil(prompt / room), 1.0)
        used = np.minimum(others * ended * prompt / room, 0.999)
        there = ended * (steps + iterations + away + queued_iterations(used, prompt / room, iterations))
        at = np.maximum((there <= asked).sum(axis=0) - 1, 0)
        width = (high - low) / (_WAYS - 1)
        low = low + at * width
        high = np.minimum(low + width, high)
    return np.asarray(0.5 * (low + high))
