"""Conversations: the prompt of a turn is all that was said before and something new, and waits for the last answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.arrivals import Arrivals
from ultratwin.workload.traffic.generate import MAX_REQUESTS, check_count, generators
from ultratwin.workload.traffic.lengths import Lengths
from ultratwin.workload.traffic.requests import PrefixHashes, Requests

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ultratwin.workload.traffic.requests import Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Conversations of several turns.

    arrivals: when conversations begin
    num_sessions: how many
    turns: requests of a conversation [1]
    first_prompt, later_prompt: what the user says first and then in each turn [tokens]
    output: what is answered [tokens]
    system_tokens: beginning that all conversations share [tokens]
    think_s: mean time from an answer's end to the next turn [s]; `is_think_fixed`: always that, else exponential
    max_model_len: a conversation ends before a turn whose prompt and answer would not fit; 0 is no limit [tokens]
    block_tokens: tokens of a block of prefix hashes
    """

    arrivals: Arrivals
    num_sessions: int
    turns: Lengths
    first_prompt: Lengths
    later_prompt: Lengths
    output: Lengths
    system_tokens: int = 0
    think_s: float = 0.0
    is_think_fixed: bool = False
    max_model_len: int = 0
    block_tokens: int = 16

    def __post_init__(self) -> None:
        check_count(self.num_sessions)
        if not (np.isfinite(self.think_s) and self.think_s >= 0):
            raise ScenarioError(f"think time {self.think_s:g} s", allowed="0 s or more")
        if self.system_tokens < 0 or self.max_model_len < 0:
            raise ScenarioError("a negative number of tokens", allowed="0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turns:
    """Turns in the order of conversations; all [turn]."""

    session: Ints
    place: Ints  # 0 is a conversation's first
    prompt: Ints  # what was said before included
    output: Ints


def session_requests(sessions: Sessions, *, seed: int = 0) -> Requests:
    """Requests of conversations, with `session`, `think_s` and the blocks that turns share.

    The prompt of a turn is the system's beginning, all that was said and answered before, and what the user says now.
    `arrival_s` of a later turn is the earliest it can be, as if answers took no time; with `think_s` a simulation knows
    when it really comes. Hashes go on over the answer, because engines keep its blocks as well.
    Raises: ScenarioError if not even one first turn fits into max_model_len
    """
    begins, lengths, thinks = generators(seed, 3)
    start = sessions.arrivals.times_s(sessions.num_sessions, begins)
    turns = _turns(sessions, lengths)
    mean = sessions.think_s
    pause = (
        np.full(turns.session.size, mean) if sessions.is_think_fixed else thinks.exponential(mean, turns.session.size)
    )
    pause[turns.place == 0] = 0.0
    waited = _running(pause, turns.place)
    times = start[turns.session] + waited
    order = np.argsort(times, kind="stable")
    return Requests(
        arrival_s=times[order],
        prompt_tokens=turns.prompt[order],
        output_tokens=turns.output[order],
        prefix_hashes=_hashes(sessions, turns).take(order),
        session=turns.session[order],
        think_s=pause[order],
    )


def _turns(sessions: Sessions, generator: np.random.Generator) -> _Turns:
    counts = sessions.turns.tokens(sessions.num_sessions, generator)
    total = int(counts.sum())
    if total > MAX_REQUESTS:
        raise ScenarioError(
            f"{total} requests in {sessions.num_sessions} conversations", allowed=f"{MAX_REQUESTS} in all"
        )
    place = _places(counts)
    said = np.where(
        place == 0,
        sessions.first_prompt.tokens(total, generator) + sessions.system_tokens,
        sessions.later_prompt.tokens(total, generator),
    )
    output = sessions.output.tokens(total, generator)
    context = _running(said + output, place)  # after a turn
    fits = np.ones(total, np.bool_) if not sessions.max_model_len else context <= sessions.max_model_len
    if not fits.any():
        raise ScenarioError(
            f"no conversation's first turn fits into {sessions.max_model_len} tokens",
            allowed=f"{int(context[place == 0].min())} tokens or more",
        )
    session = np.repeat(np.arange(sessions.num_sessions), counts)
    # contexts only grow, so the turns that fit are the first of each conversation
    return _Turns(
        session=session[fits], place=place[fits], prompt=(context - output)[fits], output=output[fits]
    )  # fmt: skip


def _places(counts: Ints) -> Ints:
    """0, 1, 2, ... in each conversation."""
    ends = np.cumsum(counts)
    return np.arange(int(ends[-1])) - np.repeat(ends - counts, counts)


def _running(values: NDArray[Any], place: Ints) -> NDArray[Any]:
    """Sums from the first turn of each conversation up to each turn."""
    total = np.cumsum(values)
    first = np.flatnonzero(place == 0)
    before = total[first] - values[first]
    sums: NDArray[Any] = total - np.repeat(before, np.diff(np.append(first, place.size)))
    return sums


def _hashes(sessions: Sessions, turns: _Turns) -> PrefixHashes:
    """Blocks of the system's beginning have the same hash everywhere, all others belong to their conversation."""
    blocks = (turns.prompt + turns.output) // sessions.block_tokens
    shared = sessions.system_tokens // sessions.block_tokens
    most = int(blocks.max(initial=1))
    offsets = np.concatenate(([0], np.cumsum(blocks)))
    place = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], blocks)
    own = shared + np.repeat(turns.session, blocks) * most + place
    return PrefixHashes(
        offsets=offsets, hashes=np.where(place < shared, place, own), block_tokens=sessions.block_tokens
    )
