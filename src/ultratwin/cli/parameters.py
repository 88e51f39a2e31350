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


Count = Annotated[int, Parameter(converter=_count, allow_leading_hyphen=True)]
Quantity = Annotated[float, Parameter(converter=_number, allow_leading_hyphen=True)]
Money = Annotated[float, Parameter(converter=_money, allow_leading_hyphen=True)]
