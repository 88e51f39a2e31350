"""Cells of CSV lines as positions in a block of bytes, and numbers from them, a whole column at a time."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ultratwin.workload.traffic.requests import Floats, Ints

_PADDING: Final = b"\0" * 64
_FEED, _RETURN, _COMMA, _DOT, _ZERO = 10, 13, 44, 46, 48
_FAST_WIDTH: Final = 16
"""Characters of a number that fit exactly into the integers of a float64."""
_POWERS: Final = 10 ** np.arange(19, dtype=np.int64)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Lines of a block that are not blank.

    data: bytes of the block, padded
    lines: number of each line in the file [line]
    starts, ends: where the cells lie, [column, line]; 0 where a line does not have as many cells as the header
    num_cells: cells that each line has [line]
    """

    data: NDArray[np.uint8]
    lines: Ints
    starts: Ints
    ends: Ints
    num_cells: Ints

    def text(self, column: int, place: int) -> str:
        """A cell as text."""
        start, end = int(self.starts[column, place]), int(self.ends[column, place])
        return self.data[start:end].tobytes().decode("utf-8", "replace").strip()


def cells(data: bytes, first_line: int, num_columns: int) -> Cells:
    """Where the cells of whole lines lie. Quoted cells are read as CSV has them."""
    if b'"' in data:
        data = _unquoted(data)
    array = np.frombuffer(data + _PADDING, np.uint8)
    feeds = np.flatnonzero(array == _FEED)
    commas = np.flatnonzero(array == _COMMA)
    starts = np.concatenate(([0], feeds[:-1] + 1))
    ends = feeds - ((feeds > starts) & (array[feeds - 1] == _RETURN))
    filled = np.flatnonzero(ends > starts)
    starts, ends = starts[filled], ends[filled]
    first = np.searchsorted(commas, starts)
    count = np.searchsorted(commas, ends) - first + 1
    fits = count == num_columns
    shape = (num_columns, filled.size)
    cell_starts, cell_ends = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    between = np.concatenate((commas, [0]))
    for column in range(num_columns):
        left = starts[fits] if column == 0 else between[first[fits] + column - 1] + 1
        right = ends[fits] if column == num_columns - 1 else between[first[fits] + column]
        cell_starts[column, fits], cell_ends[column, fits] = left, right
    return Cells(data=array, lines=first_line + filled, starts=cell_starts, ends=cell_ends, num_cells=count)


def _unquoted(data: bytes) -> bytes:
    """The same lines without quotes; a comma inside a cell becomes a sign that no number has."""
    lines = data.decode("utf-8").split("\n")[:-1]
    plain = [",".join(map(_comma_free, split_line(line))) if '"' in line else line for line in lines]
    return ("\n".join(plain) + "\n").encode()


def _comma_free(cell: str) -> str:
    return cell.replace(",", "\x1f").replace("\n", "\x1f")


def split_line(line: str) -> list[str]:
    """Cells of a line as CSV has them; where its quotes make no sense, as the commas are."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return line.split(",")


def numbers(found: Cells, column: int) -> tuple[Floats, NDArray[np.bool_]]:
    """A column of decimal numbers, and whether each is one: finite, exactly as Python's float reads it.

    Equation:  value = digits without the point / 10^(digits after it), for up to 15 digits; the rest one by one
    """
    starts, widths = found.starts[column], found.ends[column] - found.starts[column]
    digits = np.zeros(starts.size, np.int64)
    after = np.zeros(starts.size, np.int64)
    point = np.zeros(starts.size, np.bool_)
    slow = (widths == 0) | (widths > _FAST_WIDTH)
    for place in range(min(int(widths.max(initial=0)), _FAST_WIDTH)):
        sign = found.data[starts + place]
        inside = widths > place
        digit = sign - np.uint8(_ZERO)  # wraps around below zero
        is_digit = (digit < 10) & inside
        digits = np.where(is_digit, digits * 10 + digit, digits)
        after += is_digit & point
        is_point = (sign == _DOT) & inside & ~point
        slow |= inside & ~is_digit & ~is_point
        point |= is_point
    values = digits / _POWERS[after]
    slow |= widths == point  # a point alone
    good = np.ones(starts.size, np.bool_)
    for index in np.flatnonzero(slow):
        values[index], good[index] = _number(found.text(column, int(index)))
    return values, good


def _number(text: str) -> tuple[float, bool]:
    try:
        value = float(text) if "_" not in text else np.nan
    except ValueError:
        value = np.nan
    good = bool(np.isfinite(value))
    return (value if good else 0.0), good


def timestamps_ns(found: Cells, column: int) -> tuple[Ints, NDArray[np.bool_]]:
    """A column of dates with times, such as 2023-11-16 18:15:46.6805900 or ...T18:15:46Z, and whether each is one.

    Returns: nanoseconds since 1970 [ns]; a date without a zone is taken as UTC
    """
    starts, widths = found.starts[column], found.ends[column] - found.starts[column]
    parts, good = _fields(found, starts)
    year, month, day, hour, minute, second = parts
    good &= widths >= 19
    good &= (year >= 1970) & (year < 2200) & (month >= 1) & (month <= 12) & (day >= 1)
    good &= (hour < 24) & (minute < 60) & (second < 60)
    months = np.where(good, (year - 1970) * 12 + month - 1, 0).astype("M8[M]")
    length = ((months + 1).astype("M8[D]") - months.astype("M8[D]")).astype(np.int64)
    good &= day <= length
    days = months.astype("M8[D]").astype(np.int64) + day - 1
    nanoseconds, width = _fraction(found, starts, widths)
    good &= _is_utc(found, starts + width, widths - width)
    total = ((days * 24 + hour) * 60 + minute) * 60 + second
    values = total * 10**9 + nanoseconds
    for index in np.flatnonzero(~good):  # other zones and rarer ways to write a date
        values[index], good[index] = _timestamp_ns(found.text(column, int(index)))
    return values, good


def _fields(found: Cells, starts: Ints) -> tuple[list[Ints], NDArray[np.bool_]]:
    """Year to second of dates whose figures stand in the usual places, and whether they do."""
    good = np.ones(starts.size, np.bool_)
    limit = found.data.size - 1
    for place, signs in ((4, b"-"), (7, b"-"), (10, b" T"), (13, b":"), (16, b":")):
        sign = found.data[np.minimum(starts + place, limit)]
        good &= np.isin(sign, np.frombuffer(signs, np.uint8))
    parts = []
    for place, width in ((0, 4), (5, 2), (8, 2), (11, 2), (14, 2), (17, 2)):
        value = np.zeros(starts.size, np.int64)
        for each in range(place, place + width):
            digit = found.data[np.minimum(starts + each, limit)] - np.uint8(_ZERO)
            good &= digit < 10
            value = value * 10 + digit
        parts.append(value)
    return parts, good


def _fraction(found: Cells, starts: Ints, widths: Ints) -> tuple[Ints, Ints]:
    """Nanoseconds after the second, and how many characters the date has up to there."""
    limit = found.data.size - 1
    going = (widths > 20) & (found.data[np.minimum(starts + 19, limit)] == _DOT)
    width = np.where(going, 20, 19)
    value = np.zeros(starts.size, np.int64)
    for place in range(20, 29):
        digit = found.data[np.minimum(starts + place, limit)] - np.uint8(_ZERO)
        going = going & (widths > place) & (digit < 10)
        value = np.where(going, value * 10 + digit, value)
        width = width + going
    return value * _POWERS[np.where(width > 19, 29 - width, 0)], width


def _is_utc(found: Cells, starts: Ints, widths: Ints) -> NDArray[np.bool_]:
    """Whether what follows the seconds is nothing, Z or +00:00."""
    limit = found.data.size - 1
    same: NDArray[np.bool_] = widths == 6
    for place, sign in enumerate(b"+00:00"):
        same &= found.data[np.minimum(starts + place, limit)] == sign
    same |= (widths == 1) & (found.data[np.minimum(starts, limit)] == ord("Z"))
    same |= widths == 0
    return same


def _timestamp_ns(text: str) -> tuple[int, bool]:
    try:
        time = datetime.fromisoformat(text)
        span = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH
    except (ValueError, OverflowError):
        return 0, False
    value = (span.days * 86400 + span.seconds) * 10**9 + span.microseconds * 1000
    good = 0 <= value < 2**62 and text[4:5] == "-"
    return (value if good else 0), good
