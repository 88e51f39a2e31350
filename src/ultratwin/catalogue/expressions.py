"""Arithmetic of derived facts: an expression over the figures of its file gives the fact again (design D2)."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Final

from ultratwin.catalogue.facts import Fact
from ultratwin.errors import CatalogueError

_BINARY: Final[dict[type[ast.operator], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def evaluate(expression: str, figures: Mapping[str, Fact]) -> float:
    """Value of an expression of numbers, names of figures (their SI values), + - * / ** and brackets.

    Args:
        expression: for example "num_dma_engines * 33e9"
        figures: the figures of the same file
    Returns: the value in SI
    Raises: CatalogueError if it does not parse, names an unknown figure or holds anything but arithmetic
    Example:
        >>> engines = Fact(value=128, unit="engines", status="published", source="nki_v4")
        >>> evaluate("num_dma_engines * 33e9", {"num_dma_engines": engines})
        4224000000000.0
    """
    try:
        return _value(ast.parse(expression, mode="eval").body, figures)
    except SyntaxError:
        raise _fault(expression, "does not parse") from None
    except (ArithmeticError, RecursionError) as error:
        raise _fault(expression, str(error)) from None


def _value(node: ast.expr, figures: Mapping[str, Fact]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.Name(id=name) if name in figures:
            return figures[name].si
        case ast.Name(id=name):
            raise _fault(name, "is not a figure of this file")
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, figures)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left, figures), _value(right, figures))
    raise _fault(ast.unparse(node), "is not arithmetic")


def _fault(text: str, what: str) -> CatalogueError:
    return CatalogueError(f'"{text}" {what}', hint="an expression holds numbers, figures of its file, + - * / ** ( )")
