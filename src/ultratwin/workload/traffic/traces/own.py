"""The project's own traces: a CSV with the fields of Requests, read and written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ultratwin.errors import ScenarioError
from ultratwin.workload.traffic.traces.csv_format import CsvFormat

if TYPE_CHECKING:
    from pathlib import Path

    from ultratwin.workload.traffic.requests import Requests

_MORE: Final = (("priority", "priority"), ("session", "session"), ("think_s", "think_s"))
OWN: Final = CsvFormat(
    name="requests",
    about="seconds, tokens of the prompt, tokens generated; optional: priority, session, think_s",
    time="arrival_s",
    prompt="prompt_tokens",
    output="output_tokens",
    more=_MORE,
)
OWN_LENGTHS: Final = CsvFormat(
    name="lengths",
    about="tokens of the prompt, tokens generated",
    time="",
    prompt="prompt_tokens",
    output="output_tokens",
    more=_MORE[:1],
)


def write_requests(requests: Requests, path: str | Path) -> None:
    """Writes requests as a CSV that `read_trace` reads back to the same numbers. Prefix hashes have no place in it.

    Raises: ScenarioError if the requests have prefix hashes, or the file can't be written
    """
    if requests.prefix_hashes is not None:
        raise ScenarioError("prefix hashes can't be written to a CSV", hint="drop them with dataclasses.replace")
    names = ["arrival_s", "prompt_tokens", "output_tokens"]
    names += [name for name, _ in _MORE if getattr(requests, name) is not None]
    columns = [map(repr, np.asarray(getattr(requests, name)).tolist()) for name in names]
    try:
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(",".join(names) + "\n")
            file.writelines(",".join(row) + "\n" for row in zip(*columns, strict=True))
    except OSError as error:
        raise ScenarioError(f"can't write the trace: {error.strerror or error}", where=str(path)) from None
