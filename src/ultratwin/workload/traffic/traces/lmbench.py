"""Per-request results of LMBench (vLLM production stack, llm-d): when each was launched, and its lengths."""

from __future__ import annotations

from typing import Final

from ultratwin.workload.traffic.traces.csv_format import CsvFormat

LMBENCH: Final = CsvFormat(
    name="lmbench",
    about="per-request results of LMBench (github.com/LMCache/LMBench)",
    time="launch_time",
    prompt="prompt_tokens",
    output="generation_tokens",
    failed_has_no_output=True,
)
