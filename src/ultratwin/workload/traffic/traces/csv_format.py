"""Traces as CSV: a header that names the columns, one request a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.traces.cells import Cells, cells, numbers, split_line, timestamps_ns
from ultratwin.workload.traffic.traces.format import ReadOptions, TraceFormat
from ultratwin.workload.traffic.traces.trace import (
    MAX_TIME_S,
    NUM_NAMED,
    Columns,
    Trace,
    field_faults,
    finished,
    token_faults,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ultratwin.workload.traffic.requests import Floats
    from ultratwin.workload.traffic.traces.source import Source

Faults = list[tuple["NDArray[np.bool_]", str, "Floats | None"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvFormat(TraceFormat):
    """A CSV whose columns have these names; others are ignored.

    time: when a request arrives; "" where the file doesn't say
    is_date: whether a time is a date, rather than seconds
    failed_has_no_output: whether 0 generated tokens mark a request that failed, which is left out
    more: further columns, by the field of Requests that they fill; a file need not have them
    """

    time: str
    prompt: str
    output: str
    is_date: bool = False
    failed_has_no_output: bool = False
    more: tuple[tuple[str, str], ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Its columns."""
        return tuple(name for name in (self.time, self.prompt, self.output) if name)

    def read(self, source: Source, options: ReadOptions) -> Trace:
        """Block by block; memory grows with the requests, not with the file."""
        columns = Columns(path=source.path, has_times=bool(self.time))
        header: list[str] = []
        for block in source.blocks():
            data, first_line = block.data, block.first_line
            while not header and data:  # blank lines before the header
                line, _, data = data.partition(b"\n")
                header = header_of(line.decode("utf-8"), source.path)
                first_line += 1
            if data:
                self._add(cells(data, first_line, len(header)), header, columns)
        return finished(columns, self.name)

    def _add(self, found: Cells, header: list[str], columns: Columns) -> None:
        """Adds the rows of a block."""
        fits = found.num_cells == len(header)
        parts: dict[str, NDArray[Any]] = {}
        faults: Faults = [
            (~fits, f"has {{:g}} cells, the header has {len(header)}", found.num_cells.astype(np.float64))
        ]
        if self.is_date:
            parts["date_ns"], good = timestamps_ns(found, header.index(self.time))
            faults.append((~good, f"{self.time} is no date: ", None))
        elif self.time:
            parts["arrival_s"], good = numbers(found, header.index(self.time))
            faults.append((~good, f"{self.time} is no number: ", None))
            late = parts["arrival_s"] > MAX_TIME_S
            faults.append((late, f"{self.time} {{:g}} s is beyond any clock", parts["arrival_s"]))
        failed = np.zeros(fits.size, np.bool_)
        for field, name in (("prompt_tokens", self.prompt), ("output_tokens", self.output)):
            tokens, good = numbers(found, header.index(name))
            faults.append((~good, f"{name} is no number: ", None))
            if field == "output_tokens" and self.failed_has_no_output:
                failed = fits & good & (tokens == 0)
            faults.extend((wrong, text, tokens) for wrong, text in token_faults(name, tokens))
            parts[field] = tokens
        for field, name in self.more:
            if name in header:
                values, good = numbers(found, header.index(name))
                faults.append((~good, f"{name} is no number: ", None))
                faults.extend((wrong, text, values) for wrong, text in field_faults(field, values))
                parts[field] = values
        broken = np.logical_or.reduce([wrong for wrong, _, _ in faults]) & ~failed
        columns.num_failed += int(failed.sum())
        columns.add(found.lines, parts, ~broken & ~failed)
        columns.add_broken(_said(found, faults, broken, header), int(broken.sum()))


def _said(found: Cells, faults: Faults, broken: NDArray[np.bool_], header: list[str]) -> Iterator[tuple[int, str]]:
    """The first broken lines of a block with their first fault."""
    for place in np.flatnonzero(broken)[:NUM_NAMED]:
        _, text, values = next(fault for fault in faults if fault[0][place])
        if values is not None:
            yield int(found.lines[place]), text.format(values[place])
        else:
            name = text.partition(" is no ")[0]
            yield int(found.lines[place]), text + repr(found.text(header.index(name), int(place))[:40])


def header_of(line: str, path: str) -> list[str]:
    """The names in a header; empty for a blank line.

    Raises: ScenarioError if a name appears twice
    """
    names = [name.strip() for name in split_line(line.strip("\r\n\ufeff"))]
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise ScenarioError(f"columns appear twice: {', '.join(twice[:10])}", where=f"{path}, header")
    return names
