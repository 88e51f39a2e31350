"""What is read from a trace: requests, and all that was not as it should be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.requests import MAX_TOKENS, PrefixHashes, Requests, sorted_requests

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ultratwin.workload.traffic.requests import Floats, Ints

NUM_NAMED: Final = 5
"""Broken lines that are named; all are counted."""
MAX_TIME_S: Final = 1e11
"""Three thousand years: what is later is no time."""


MAX_NUMBER: Final = 2**53
"""Whole numbers up to here are exact where decimals are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenLine:
    """A line that holds no request, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Requests of a file.

    format: name of the format that its content has
    has_times: whether it says when requests come; else all arrive at 0 and `resampled` places them
    num_broken, broken: lines that could not be read: how many, and the first of them
    notes: what was done to the requests that the user should know, a sentence each
    """

    path: str
    format: str
    requests: Requests
    has_times: bool
    num_broken: int = 0
    broken: tuple[BrokenLine, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.requests)


@dataclass(slots=True, kw_only=True)
class Columns:
    """Columns of a trace while it is being read, block by block."""

    path: str
    has_times: bool
    parts: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    broken: list[BrokenLine] = field(default_factory=list)
    num_broken: int = 0
    num_failed: int = 0

    def add(self, lines: Ints, columns: dict[str, NDArray[Any]], keep: NDArray[np.bool_]) -> None:
        """Takes the rows to keep of a block.

        Raises: ScenarioError for a negative time, with its line
        """
        times = columns.get("arrival_s")
        if times is not None and (times[keep] < 0).any():
            place = int(np.flatnonzero(keep & (times < 0))[0])
            raise ScenarioError(
                f"a request arrives at {times[place]:g} s, before time 0", where=f"{self.path}, line {lines[place]}",
                allowed="times from 0 on", hint="shift all times so that the first is 0",
            )  # fmt: skip
        for name, values in columns.items():
            self.parts.setdefault(name, []).append(values if keep.all() else values[keep])

    def add_broken(self, faults: Iterable[tuple[int, str]], count: int) -> None:
        """Counts broken lines, and remembers the first of the file."""
        self.num_broken += count
        for line, reason in faults:
            if len(self.broken) == NUM_NAMED:
                break
            self.broken.append(BrokenLine(line=line, reason=reason))

    def joined(self, name: str, kind: Any) -> NDArray[Any]:
        """A column of the whole file; its parts are let go."""
        parts = self.parts.pop(name, [])
        return np.concatenate(parts).astype(kind, copy=False) if parts else np.empty(0, kind)


def token_faults(what: str, tokens: Floats) -> list[tuple[NDArray[np.bool_], str]]:
    """Which lengths no request can have, and how to say so; `{}` stands for the length."""
    return [
        (tokens != np.trunc(tokens), f"{what} {{:g}} is no whole number of tokens"),
        (tokens < 1, f"{what} is {{:g}} tokens, at least 1 is allowed"),
        (tokens > MAX_TOKENS, f"{what} {{:g}} is more than {MAX_TOKENS} tokens"),
    ]


def field_faults(name: str, values: Floats) -> list[tuple[NDArray[np.bool_], str]]:
    """Which priorities, sessions and think times are none."""
    if name == "think_s":
        return [((values < 0) | (values > MAX_TIME_S), f"{name} {{:g}} s is no time to think")]
    wrong = (values != np.trunc(values)) | (np.abs(values) > MAX_NUMBER)
    return [(wrong, f"{name} {{:g}} is no whole number below 2^53")]


def finished(columns: Columns, format_name: str, hashes: PrefixHashes | None = None) -> Trace:
    """The trace of columns that have been read.

    Raises: ScenarioError if more than half of the lines were broken, or no request is left
    """
    _check_enough(columns, format_name)
    notes = []
    arrays: dict[str, Any] = {"prompt_tokens": columns.joined("prompt_tokens", np.int64)}
    arrays["output_tokens"] = columns.joined("output_tokens", np.int64)
    count = arrays["prompt_tokens"].size
    times = _times(columns, count)
    for name, kind in (("priority", np.int64), ("session", np.int64), ("think_s", np.float64)):
        if name in columns.parts:
            arrays[name] = columns.joined(name, kind)
    if not columns.has_times:
        notes.append("the file does not say when requests arrive: all are there at 0 s unless a rate is given")
    early = int((np.diff(times) < 0).sum())
    if early:
        notes.append(
            f"requests were not in the order of their arrival ({early:,} came before their forerunner): sorted"
        )
    if columns.num_failed:
        notes.append(f"requests that failed (no tokens generated), left out: {columns.num_failed:,}")
    if columns.num_broken:
        named = "; ".join(f"line {each.line}: {each.reason}" for each in columns.broken)
        notes.append(f"broken lines, left out: {columns.num_broken:,} ({named}{_more(columns)})")
    build = sorted_requests if early else Requests
    return Trace(
        path=columns.path, format=format_name, has_times=columns.has_times,
        requests=build(arrival_s=times, prefix_hashes=hashes, **arrays),
        num_broken=columns.num_broken, broken=tuple(columns.broken), notes=tuple(notes),
    )  # fmt: skip


def _times(columns: Columns, count: int) -> Floats:
    """Seconds after the first arrival; dates lose nothing of their nanoseconds within a hundred days."""
    if not columns.has_times:
        return np.zeros(count)
    if "date_ns" in columns.parts:
        dates = columns.joined("date_ns", np.int64)
        dates -= dates.min()
        return dates / 1e9
    times = columns.joined("arrival_s", np.float64)
    times -= times.min()
    return times


def _more(columns: Columns) -> str:
    return "; ..." if columns.num_broken > len(columns.broken) else ""


def _check_enough(columns: Columns, format_name: str) -> None:
    good = sum(part.size for part in columns.parts.get("prompt_tokens", []))
    named = "; ".join(f"line {each.line}: {each.reason}" for each in columns.broken)
    if columns.num_broken > good:
        raise ScenarioError(
            f"{columns.num_broken:,} of {columns.num_broken + good:,} lines are broken ({named}{_more(columns)})",
            where=f"{columns.path}, read as {format_name}", allowed="at most half of the lines",
            hint="look at the lines named; a file cut off or of another format looks like this",
        )  # fmt: skip
    if not good:
        failed = f"; {columns.num_failed:,} requests failed" if columns.num_failed else ""
        raise ScenarioError(f"the file holds no requests{failed}", where=f"{columns.path}, read as {format_name}")
