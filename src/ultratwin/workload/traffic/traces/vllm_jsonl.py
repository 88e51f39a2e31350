"""vLLM's benchmark files: a custom data set (JSON lines), and the detailed result of `vllm bench serve` (JSON)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.traces.format import ReadOptions, TraceFormat
from ultratwin.workload.traffic.traces.json_lines import JsonLinesFormat, Lines, column
from ultratwin.workload.traffic.traces.text import check_chars_per_token, estimate_note, estimated_tokens
from ultratwin.workload.traffic.traces.trace import Columns, Trace, finished

if TYPE_CHECKING:
    from ultratwin.workload.traffic.traces.source import Source


class _Row(msgspec.Struct, gc=False):
    prompt: str | list[int]
    output_tokens: float
    prompt_tokens: float = 0.0


def _lines(rows: Sequence[_Row], options: ReadOptions) -> Lines:
    prompts = np.array([_prompt_tokens(row, options) for row in rows], np.float64)
    return Lines(prompt=prompts, output=column(rows, "output_tokens"))


def _prompt_tokens(row: _Row, options: ReadOptions) -> float:
    if row.prompt_tokens:
        return row.prompt_tokens
    if isinstance(row.prompt, list):
        return float(len(row.prompt))
    check_chars_per_token(options.chars_per_token, "a prompt of the vLLM data set")
    return float(estimated_tokens(row.prompt, options.chars_per_token))


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmDataset(JsonLinesFormat):
    """A custom data set; what its text was estimated at is said in a note."""

    def read(self, source: Source, options: ReadOptions) -> Trace:
        """Block by block."""
        trace = JsonLinesFormat.read(self, source, options)
        if not options.chars_per_token:
            return trace
        return dataclasses.replace(trace, notes=(estimate_note(options.chars_per_token), *trace.notes))


class _Result(msgspec.Struct):
    input_lens: list[float]
    output_lens: list[float]
    start_times: list[float] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmResult(TraceFormat):
    """What `vllm bench serve --save-result --save-detailed` writes; `start_times` are missing in older versions.

    A request that failed has 0 generated tokens and is left out.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """Its keys."""
        return ("input_lens", "output_lens")

    def read(self, source: Source, options: ReadOptions) -> Trace:
        """The whole file at once."""
        try:
            result = msgspec.json.decode(source.whole(), type=_Result)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ScenarioError(
                f"no single result of vllm bench serve: {error}", where=source.path,
                hint="split a file of appended results, one JSON object a file",
            ) from None  # fmt: skip
        sizes = {len(result.input_lens), len(result.output_lens), len(result.start_times) or len(result.input_lens)}
        if len(sizes) > 1:
            raise ScenarioError(
                f"{len(result.input_lens)} input_lens, {len(result.output_lens)} output_lens and "
                f"{len(result.start_times)} start_times", where=source.path, allowed="as many of each",
            )  # fmt: skip
        return self._trace(result, source.path)

    def _trace(self, result: _Result, path: str) -> Trace:
        columns = Columns(path=path, has_times=bool(result.start_times))
        parts = {
            "prompt_tokens": np.array(result.input_lens, np.float64),
            "output_tokens": np.array(result.output_lens, np.float64),
        }
        if columns.has_times:
            parts["arrival_s"] = np.array(result.start_times, np.float64)
        done = parts["output_tokens"] > 0
        columns.num_failed = int((~done).sum())
        columns.add(np.arange(done.size), parts, done)
        return finished(columns, self.name)


VLLM_DATASET: Final = VllmDataset(
    name="vllm-dataset",
    about="custom data set of vllm bench serve: prompt (text or token ids), output_tokens; optional prompt_tokens",
    keys=("prompt", "output_tokens"),
    row=_Row,
    lines=_lines,
    has_times=False,
)
VLLM_RESULT: Final = VllmResult(
    name="vllm-result", about="result of vllm bench serve --save-result --save-detailed"
)  # fmt: skip
