"""Text to SI numbers and back. GB is 10^9 byte, GiB is 2^30; nothing else turns text into numbers.

Inside Ultratwin every figure is SI: byte, second, FLOP, watt, joule. Units live here and at the border only.
"""

from __future__ import annotations

import math
import re
from typing import Final

from ultratwin.errors import UnitError

_DECIMAL: Final = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY: Final = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}

# unit -> (factor to SI, dimension)
_UNITS: Final[dict[str, tuple[float, str]]] = {
    "": (1.0, "number"),
    "%": (0.01, "number"),
    "x": (1.0, "number"),
    "ns": (1e-9, "second"),
    "us": (1e-6, "second"),
    "ms": (1e-3, "second"),
    "s": (1.0, "second"),
    "min": (60.0, "second"),
    "h": (3600.0, "second"),
    "d": (86400.0, "second"),
    "USD": (1.0, "usd"),
    "USD/h": (1 / 3600, "usd_per_s"),
    "USD/kWh": (1 / 3.6e6, "usd_per_j"),
    "gCO2/kWh": (1e-3 / 3.6e6, "kg_per_j"),
    "kgCO2/kWh": (1 / 3.6e6, "kg_per_j"),
    "Wh": (3600.0, "joule"),
    "kWh": (3.6e6, "joule"),
    "MWh": (3.6e9, "joule"),
    "GWh": (3.6e12, "joule"),
    "J": (1.0, "joule"),
    "mm2": (1e-6, "m2"),
}
for _prefix, _factor in (_DECIMAL | _BINARY).items():
    _UNITS[_prefix + "B"] = (_factor, "byte")
    _UNITS[_prefix + "B/s"] = (_factor, "byte_per_s")
for _prefix, _factor in _DECIMAL.items():
    _UNITS[_prefix + "b/s"] = _UNITS[_prefix + "bps"] = (_factor / 8, "byte_per_s")
    _UNITS[_prefix + "FLOP"] = (_factor, "flop")
    _UNITS[_prefix + "FLOP/s"] = _UNITS[_prefix + "OP/s"] = (_factor, "flop_per_s")
    _UNITS[_prefix + "Hz"] = (_factor, "hertz")
    _UNITS[_prefix + "W"] = (_factor, "watt")
    _UNITS[_prefix + "USD"] = (_factor, "usd")
    if _prefix:
        _UNITS[_prefix] = (_factor, "number")
for _noun in ("cores", "chips", "engines", "links", "GPUs", "tokens", "stacks", "SMs", "lanes", "hops", "years"):
    _UNITS[_noun] = (1.0, "number")

_QUANTITY: Final = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z%/2]*)\s*")


def to_si(value: float, unit: str) -> tuple[float, str]:
    """SI value and dimension of a number in a unit.

    Raises: UnitError if the unit is unknown
    Example:
        >>> to_si(4.9, "TB/s")
        (4900000000000.0, 'byte_per_s')
        >>> to_si(96, "GiB")[0] == 96 * 2**30
        True
    """
    try:
        factor, dimension = _UNITS[unit]
    except KeyError:
        raise UnitError(
            f'unknown unit "{unit}"', allowed="for example GB, GiB, TB/s, Gb/s, TFLOP/s, W, us, h, d, USD/h"
        ) from None
    return value * factor, dimension


def parse(text: str | float, dimension: str, *, where: str = "") -> float:
    """SI value of a text such as "15.6T" (number), "60d" (second) or "4.9 TB/s" (byte_per_s).

    A bare number is taken as SI. M, G, T ... alone are counts: 15.6T tokens.
    Raises: UnitError if the text does not parse, is not finite, or has another dimension
    Example:
        >>> parse("15.6T", "number")
        15600000000000.0
        >>> parse("60d", "second")
        5184000.0
    """
    match = _QUANTITY.fullmatch(str(text))
    example = {"number": "15.6T", "second": "60d", "byte": "144GiB", "usd": "120M", "watt": "700W"}.get(dimension, "1")
    if match is None:
        raise UnitError(f'"{text}" is not a quantity', where=where, allowed=f"a number and a unit, such as {example}")
    number, unit = float(match[1].replace("_", "")), match[2]
    if dimension == "number" and unit == "B":  # 15.6B tokens or parameters: a count, not bytes
        value, found = number * 1e9, "number"
    else:
        value, found = to_si(number, unit)
    if unit == "" or (found == "number" and dimension == "usd"):
        found = dimension
    if found != dimension:
        raise UnitError(f'"{text}" is a {found}, not a {dimension}', where=where, allowed=f"such as {example}")
    if not math.isfinite(value):
        raise UnitError(f'"{text}" is not finite', where=where, allowed=f"such as {example}")
    return value


_SCALES: Final = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def format_si(value: float, unit: str, digits: int = 3) -> str:
    """A number with a decimal prefix.

    Example:
        >>> format_si(4.9e12, "B/s")
        '4.9 TB/s'
        >>> format_si(15.6e12, "")
        '15.6 T'
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}".strip()
    for scale, prefix in _SCALES:
        if abs(value) >= scale:
            return f"{value / scale:.{digits}g} {prefix}{unit}".strip()
    return f"{value:.{digits}g} {unit}".strip()


def format_seconds(value_s: float) -> str:
    """A duration in the unit that people would say it in.

    Example:
        >>> format_seconds(0.00234), format_seconds(5.2e6)
        ('2.34 ms', '60.2 d')
    """
    for scale, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(value_s) >= scale:
            return f"{value_s / scale:.3g} {unit}"
    return f"{value_s * 1e9:.3g} ns"
