"""Requests: what users ask a server for, as arrays. Generators and trace readers make it, simulations take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ultratwin.errors import ScenarioError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

MAX_TOKENS = 2**40  # a length above this is a mistake; sums over ten million requests still fit into 64 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixHashes:
    """Which prompts begin alike: hashes of the blocks of each prompt, as compressed rows (CSR).

    The blocks of request i are `hashes[offsets[i] : offsets[i + 1]]`, in the order of its prompt. Two prompts share
    their first k blocks of `block_tokens` tokens exactly if their first k hashes are equal: a hash stands for a block
    together with everything before it, as in Mooncake's traces and vLLM's block hashes. The last block of a row may be
    begun only. What follows a shorter row is shared with nobody; a longer row goes on over the answer, whose blocks
    engines keep as well.
    """

    offsets: Ints  # [request + 1]
    hashes: Ints  # [block]
    block_tokens: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", np.ascontiguousarray(self.offsets, np.int64))
        object.__setattr__(self, "hashes", np.ascontiguousarray(self.hashes, np.int64))
        offsets = self.offsets
        whole = offsets.size > 0 and offsets[0] == 0 and offsets[-1] == self.hashes.size
        if not whole or (np.diff(offsets) < 0).any():
            raise ScenarioError(
                "offsets of prefix hashes do not cover the hashes",
                allowed="a rising list that begins at 0 and ends at the number of hashes",
            )
        if self.block_tokens < 1:
            raise ScenarioError(f"{self.block_tokens} tokens in a block of prefix hashes", allowed="1 or more")

    def take(self, index: Ints) -> PrefixHashes:
        """The rows of some requests, in that order."""
        starts, lengths = self.offsets[index], np.diff(self.offsets)[index]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return PrefixHashes(offsets=offsets, hashes=self.hashes[places], block_tokens=self.block_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Requests in the order of their arrival; all arrays are [request].

    arrival_s: when a request reaches the server, from the first moment of the trace [s], never falling
    prompt_tokens: tokens of the prompt, a conversation's history included [1], at least 1
    output_tokens: tokens that will be generated, the first one included [1], at least 1
    prefix_hashes: blocks that prompts share, None where nothing is known of them
    priority: smaller is served first, as vLLM's `priority`; None is first come, first served
    session: number of the conversation that a request belongs to; None: every request stands alone
    think_s: where given, request i of a session can't arrive before its forerunner in the same session has finished
        and `think_s[i]` has passed: it arrives at max(arrival_s, finish of the forerunner + think_s) [s]
    """

    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    prefix_hashes: PrefixHashes | None = None
    priority: Ints | None = None
    session: Ints | None = None
    think_s: Floats | None = None

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _array(name, value, kind))
        for name in _KINDS:
            value = getattr(self, name)
            if value is not None and value.shape != self.arrival_s.shape:
                raise ScenarioError(f"{value.size} values of {name} for {self.arrival_s.size} requests")
        if self.prefix_hashes is not None and self.prefix_hashes.offsets.size != self.arrival_s.size + 1:
            raise ScenarioError(
                f"prefix hashes of {self.prefix_hashes.offsets.size - 1} requests for {self.arrival_s.size} requests"
            )
        _check_times(self.arrival_s)
        for name in ("prompt_tokens", "output_tokens"):
            _check_tokens(name, getattr(self, name))
        if self.think_s is not None and not (self.think_s >= 0).all():
            raise ScenarioError("a think time is negative or no number", allowed="0 s or more")

    def __len__(self) -> int:
        return int(self.arrival_s.size)

    def take(self, index: ArrayLike) -> Requests:
        """Some of the requests: an index or mask [request] whose arrivals don't fall."""
        chosen = np.asarray(index)
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        parts: dict[str, Any] = {name: getattr(self, name) for name in _KINDS}
        parts = {name: None if value is None else value[chosen] for name, value in parts.items()}
        hashes = None if self.prefix_hashes is None else self.prefix_hashes.take(chosen)
        return Requests(**parts, prefix_hashes=hashes)


_KINDS: dict[str, Any] = {
    "arrival_s": np.float64,
    "prompt_tokens": np.int64,
    "output_tokens": np.int64,
    "priority": np.int64,
    "session": np.int64,
    "think_s": np.float64,
}


def _array(name: str, value: Any, kind: Any) -> Any:
    """One line of numbers of the kind that the field has; never a rounded one."""
    given = np.asarray(value)
    if given.ndim != 1 or given.dtype.kind not in "iuf":
        raise ScenarioError(f"{name} is not one line of numbers (shape {given.shape}, {given.dtype})")
    if kind is np.int64 and given.dtype.kind == "f" and not (given == np.trunc(given)).all():
        raise ScenarioError(f"{name} is not in whole numbers")
    return np.ascontiguousarray(given, kind)


def _check_times(arrival_s: Floats) -> None:
    if arrival_s.size == 0:
        return
    if not np.isfinite(arrival_s).all():
        raise ScenarioError("an arrival is not finite", allowed="seconds from the first moment of the trace")
    if arrival_s[0] < 0 or (np.diff(arrival_s) < 0).any():
        place = 0 if arrival_s[0] < 0 else int(np.argmax(np.diff(arrival_s) < 0)) + 1
        raise ScenarioError(
            f"request {place} arrives at {arrival_s[place]:g} s, "
            + ("before 0" if place == 0 else "before its forerunner"),
            allowed="arrivals from 0 s on that never fall",
            hint="sorted_requests sorts them",
        )


def _check_tokens(name: str, tokens: Ints) -> None:
    wrong = (tokens < 1) | (tokens > MAX_TOKENS)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ScenarioError(f"request {place} has {tokens[place]} {name}", allowed=f"1 to {MAX_TOKENS}")


def sorted_requests(*, arrival_s: ArrayLike, **others: Any) -> Requests:
    """Requests from columns in any order: sorted by arrival, those of one moment keep their order.

    Args: as the fields of Requests; `arrival_s` in any order [s]
    Example:
        >>> sorted_requests(arrival_s=[2.0, 0.5], prompt_tokens=[7, 9], output_tokens=[1, 2]).prompt_tokens.tolist()
        [9, 7]
    """
    times = np.asarray(arrival_s, np.float64)
    order = np.argsort(times, kind="stable")
    hashes = others.pop("prefix_hashes", None)
    columns: dict[str, Any] = {
        name: None if value is None else np.asarray(value)[order] for name, value in others.items()
    }
    taken = None if hashes is None else hashes.take(order)
    return Requests(arrival_s=times[order], prefix_hashes=taken, **columns)
