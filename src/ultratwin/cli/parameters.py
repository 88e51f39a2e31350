"""What the verbs' options have in common: numbers with units, names of other tools for the same option."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token

from ultratwin.errors import ScenarioError, UnitError
from ultratwin.units import parse


def _number(type_: Any, tokens: Sequence[Token]) -> float:
    """15.6T, 1e6, 4608 as a number."""
    return _parsed(tokens[0], "number")


def _parsed(token: Token, dimension: str) -> float:
    where = token.keyword or ""
    try:
        return parse(token.value, dimension, where=where)
    except UnitError as error:
        if error.where:
            raise
        # an unknown unit knows neither the text nor the option that it came from
        raise UnitError(f'"{token.value}": {error.what}', where=where, allowed=error.allowed) from None


def _count(type_: Any, tokens: Sequence[Token]) -> int:
    """As a number, but a whole one."""
    value = _number(type_, tokens)
    if not math.isfinite(value) or value != int(value):
        raise ScenarioError(
            f"{tokens[0].value} is not a whole number", where=tokens[0].keyword or "", allowed="such as 512, 4k or 1e6"
        )
    return int(value)


def _money(type_: Any, tokens: Sequence[Token]) -> float:
    """2.5 or "2.5 USD"."""
    return _parsed(tokens[0], "usd")


def _duration(type_: Any, tokens: Sequence[Token]) -> float:
    """60d, 12h or seconds."""
    return _parsed(tokens[0], "second")


def _names(type_: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    """a,b,c; an option that is given several times adds up."""
    return tuple(name for token in tokens for name in names_of(token.value))


def names_of(text: str) -> tuple[str, ...]:
    """a, b,c as three names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _chips(type_: Any, tokens: Sequence[Token]) -> tuple[int, ...] | range:
    """1024:65536 as a range, 1024,2048 as sizes."""
    token = tokens[0]
    low, colon, high = token.value.partition(":")
    if not colon:
        return tuple(_count(type_, [Token(keyword=token.keyword, value=each)]) for each in _names(type_, tokens))
    ends = [_count(type_, [Token(keyword=token.keyword, value=each)]) for each in (low, high)]
    if not 0 < ends[0] <= ends[1]:
        raise ScenarioError(
            f'"{token.value}" is no range', where=token.keyword or "", allowed="LOW:HIGH, as 1024:65536"
        )
    return range(ends[0], ends[1] + 1)


def _prices(type_: Any, tokens: Sequence[Token]) -> tuple[tuple[str, float], ...]:
    """SYSTEM=USD,SYSTEM=USD."""
    found = []
    for each in _names(type_, tokens):
        system, equals, price = each.partition("=")
        if not equals:
            raise ScenarioError(
                f'"{each}" is no price', where=tokens[0].keyword or "", allowed="SYSTEM=USD per chip-hour"
            )
        found.append((system, _money(type_, [Token(keyword=tokens[0].keyword, value=price)])))
    return tuple(found)


Flag = Annotated[bool, Parameter(negative=())]
"""An option that is given or not, without a --no- form."""
Count = Annotated[int, Parameter(converter=_count, allow_leading_hyphen=True)]
Quantity = Annotated[float, Parameter(converter=_number, allow_leading_hyphen=True)]
Money = Annotated[float, Parameter(converter=_money, allow_leading_hyphen=True)]
Duration = Annotated[float, Parameter(converter=_duration, allow_leading_hyphen=True)]
Names = Annotated[tuple[str, ...], Parameter(converter=_names, n_tokens=1, negative=())]
Chips = Annotated[tuple[int, ...] | range, Parameter(converter=_chips, n_tokens=1, allow_leading_hyphen=True)]
Prices = Annotated[tuple[tuple[str, float], ...], Parameter(converter=_prices, n_tokens=1, negative=())]
