"""What is compiled: importing a module that uses this imports Numba, so `simulate` imports those when it runs."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ultratwin.errors import ScenarioError

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function as machine code. Division by zero gives infinity, as in NumPy."""
    return _njit()(error_model="numpy", nogil=True)(function)  # type: ignore[no-any-return]


def inlined(function: F) -> F:
    """As `compiled`, and made a part of each function that calls it; compiles faster where there is one caller."""
    return _njit()(error_model="numpy", nogil=True, inline="always")(function)  # type: ignore[no-any-return]


def compiled_once(function: F) -> F:
    """As `compiled`, and kept on disk. The function must be a closure over `sources_key()`.

    Numba's cache looks at the file of this one function only; what is in a closure belongs to the key as well.
    """
    return _njit()(error_model="numpy", nogil=True, cache=True)(function)  # type: ignore[no-any-return]


def sources_key() -> int:
    """A number that changes when any file of the event loop does."""
    folder = Path(__file__).parent
    key = 0
    for path in sorted(folder.rglob("*.py")):
        key = zlib.crc32(path.read_bytes(), key)
    return key


def _njit() -> Any:
    try:
        import numba
    except ImportError:
        raise ScenarioError(
            "serving simulations need Numba, which is not installed", hint="pip install 'ultratwin[serve]'"
        ) from None
    return numba.njit
