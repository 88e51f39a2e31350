"""Arithmetic of derived facts: an expression over figures gives the fact again (design D2).

A figure of the same file is named by its key, one of a related entry by what relates it: a system's expressions know
`chip.memory_bytes` and `scale_up.bytes_per_s`, a claim's the entries that it names.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from ultratwin.catalogue.facts import Fact
from ultratwin.errors import CatalogueError

Value = TypeVar("Value")
_BINARY: Final[dict[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.Pow: ("**", operator.pow),
}


def evaluate(
    expression: str, figures: Mapping[str, Fact], related: Mapping[str, Mapping[str, Fact]] | None = None
) -> float:
    """Value of an expression of numbers, names of figures (their SI values), + - * / ** and brackets.

    Args:
        expression: for example "num_dma_engines * 33e9", "num_chips * chip.memory_bytes"
        figures: the figures of the same file; related: those of other entries, by what relates them
    Returns: the value in SI
    Raises: CatalogueError if it does not parse, names an unknown figure or holds anything but arithmetic
    Example:
        >>> engines = Fact(value=128, unit="engines", status="published", source="nki_v4")
        >>> evaluate("num_dma_engines * 33e9", {"num_dma_engines": engines})
        4224000000000.0
    """
    known = _by_name(figures, related or {})

    def value_of(name: str) -> float:
        if name not in known:
            raise _fault(name, "is not a figure of this file")
        return known[name].si

    return computed(expression, value_of, float, lambda _, operate, left, right: float(operate(left, right)))


def computed(
    expression: str,
    value_of: Callable[[str], Value],
    of_number: Callable[[float], Value],
    combined: Callable[[str, Callable[[Any, Any], Any], Value, Value], Value],
) -> Value:
    """An expression over values of any kind: numbers, arrays, or trees that remember where they came from.

    Args:
        value_of: of a name; of_number: of a constant
        combined: of a sign, the operation that it stands for, and what stands to its left and right
    Raises: as `evaluate`
    """

    def value(node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return of_number(float(number))
            case ast.Name() | ast.Attribute(value=ast.Name()):
                return value_of(ast.unparse(node))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return combined("-", operator.sub, of_number(0.0), value(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return combined(*_BINARY[type(op)], value(left), value(right))
        raise _fault(ast.unparse(node), "is not arithmetic")

    try:
        return value(ast.parse(expression, mode="eval").body)
    except SyntaxError:
        raise _fault(expression, "does not parse") from None
    except (ArithmeticError, RecursionError) as error:
        raise _fault(expression, str(error)) from None


def names(expression: str) -> tuple[str, ...]:
    """The figures that an expression names, each once, in order.

    Example:
        >>> names("num_chips * chip.memory_bytes / num_chips")
        ('num_chips', 'chip.memory_bytes')
    """
    found: dict[str, None] = {}
    computed(expression, lambda name: found.setdefault(name), lambda _: None, lambda *_: None)
    return tuple(found)


def _by_name(figures: Mapping[str, Fact], related: Mapping[str, Mapping[str, Fact]]) -> dict[str, Fact]:
    return dict(figures) | {f"{word}.{key}": fact for word, theirs in related.items() for key, fact in theirs.items()}


def _fault(text: str, what: str) -> CatalogueError:
    return CatalogueError(f'"{text}" {what}', hint="an expression holds numbers, figures of its file, + - * / ** ( )")
