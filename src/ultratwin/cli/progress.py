"""Progress of long work on stderr: a line that rewrites itself on a terminal, nothing into a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ultratwin.units import format_seconds

_EVERY_S: Final = 0.1
_AFTER_S: Final = 0.5
"""Work that is over sooner shows nothing."""


@contextmanager
def progress_line(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function to be told how many are done of how many; shows them with rate and time left."""
    start, last = time.monotonic(), 0.0
    wanted = sys.stderr.isatty()

    def tell(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if not wanted or now - start < _AFTER_S or (now - last < _EVERY_S and done < total):
            return
        last = now
        rate = done / (now - start)
        left = format_seconds((total - done) / rate) if rate else "?"
        sys.stderr.write(f"\r\x1b[K{done:,} of {total:,} {what}, {rate:,.1f} a second, {left} left")
        sys.stderr.flush()

    try:
        yield tell
    finally:
        if wanted and last:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
