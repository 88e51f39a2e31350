"""ShareGPT: lengths as a CSV, or the conversations themselves as JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.traces.csv_format import CsvFormat
from ultratwin.workload.traffic.traces.format import ReadOptions, TraceFormat
from ultratwin.workload.traffic.traces.text import check_chars_per_token, estimate_note, estimated_tokens
from ultratwin.workload.traffic.traces.trace import Columns, Trace, finished

if TYPE_CHECKING:
    from ultratwin.workload.traffic.traces.source import Source

SHAREGPT_LENGTHS: Final = CsvFormat(
    name="sharegpt-lengths",
    about="lengths of ShareGPT or of MLPerf's data sets: tokens of the prompt, tokens of the answer",
    time="",
    prompt="input_length",
    output="output_length",
)


class _Turn(msgspec.Struct):
    value: str


class _Conversation(msgspec.Struct):
    conversations: list[_Turn]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareGptJson(TraceFormat):
    """The data set's JSON, a list of conversations: what is said first is a prompt, the next its answer, as in vLLM.

    Its text has no token counts: they are estimated if `chars_per_token` is given. Conversations of less than two turns
    are left out, as vLLM does; vLLM's limits of length (1,024 and 2,048 tokens) are not applied.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """Its key."""
        return ("conversations",)

    def read(self, source: Source, options: ReadOptions) -> Trace:
        """The whole file at once."""
        check_chars_per_token(options.chars_per_token, source.path)
        columns = Columns(path=source.path, has_times=False)
        prompts, outputs, numbers = [], [], []
        for number, raw in enumerate(_entries(source), 1):
            try:
                turns = msgspec.json.decode(raw, type=_Conversation).conversations
            except (msgspec.DecodeError, RecursionError) as error:
                columns.add_broken([(number, f"(entry, not line) {str(error)[:100]}")], 1)
                continue
            if len(turns) >= 2:
                prompts.append(estimated_tokens(turns[0].value, options.chars_per_token))
                outputs.append(estimated_tokens(turns[1].value, options.chars_per_token))
                numbers.append(number)
        keep = np.ones(len(numbers), np.bool_)
        lengths = {"prompt_tokens": np.array(prompts, np.int64), "output_tokens": np.array(outputs, np.int64)}
        columns.add(np.array(numbers, np.int64), lengths, keep)
        trace = finished(columns, self.name)
        return dataclasses.replace(trace, notes=(estimate_note(options.chars_per_token), *trace.notes))


def _entries(source: Source) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(source.whole(), type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ScenarioError(f"not JSON: {error}", where=source.path, hint="a file cut off looks like this") from None


SHAREGPT_JSON: Final = ShareGptJson(
    name="sharegpt", about="ShareGPT's JSON with text (ShareGPT_V3_unfiltered_cleaned_split.json)"
)
