"""Figures that stand in for the catalogue's while a question is answered: what somebody assumes instead.

`assumptions.assuming` puts them in force; every entry that the loader hands out has them. They hold for one context
(thread, task) only. What is kept from one question to the next is kept for the assumptions that it was asked under.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar, cast

from ultratwin.catalogue.facts import Fact

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A figure of an entry that is assumed: `fact` instead of `stated`, what the catalogue says."""

    kind: str
    entry: str
    figure: str
    fact: Fact
    stated: Fact


_IN_FORCE: Final[ContextVar[tuple[Override, ...]]] = ContextVar("assumptions", default=())


def in_force() -> tuple[Override, ...]:
    """What is assumed in this context, in the order in which it was said."""
    return _IN_FORCE.get()


def put_in_force(overrides: tuple[Override, ...]) -> None:
    """Assumes from now on, in this context: what a process that works for another one begins with."""
    _IN_FORCE.set(overrides)


@contextmanager
def overriding(overrides: tuple[Override, ...]) -> Iterator[None]:
    """Assumes inside a `with` block, beside what is assumed around it; of one figure, the last one counts."""
    mine = {(each.kind, each.entry, each.figure): each for each in (*in_force(), *overrides)}
    token = _IN_FORCE.set(tuple(mine.values()))
    try:
        yield
    finally:
        _IN_FORCE.reset(token)


def cached(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """As functools.cache, for what rests on catalogue entries: results are kept for each set of assumptions apart."""
    kept: dict[tuple[Override, ...], Callable[Parameters, Result]] = {}

    @functools.wraps(function)
    def called(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        assumed = in_force()
        if assumed not in kept:
            kept[assumed] = cast("Callable[Parameters, Result]", functools.cache(function))
        return kept[assumed](*args, **kwargs)

    return called
