"""Reading a CSV of measurements: which format it is, its rows, and what is broken in it."""

from __future__ import annotations

import csv
import io
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ultratwin.errors import TruthError
from ultratwin.validation.formats import FORMATS, Format
from ultratwin.validation.rows import Row

MAX_FILE_BYTES: Final = 64 * 2**20
"""Ten times the largest published file; a larger one is refused before it is read."""
OWN_TRUTH: Final = Path(__file__).parent / "truth"
"""The project's own measurements, made by tools/make_truth.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRow:
    """A line that holds no row: the id that it has in results, and why."""

    id: str
    at: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """A file of measurements. `rows` all have an `id`: their own, or the line on which they start.

    `broken` are the rows that could not be read; `at` is their place among all rows.
    """

    path: str
    format: Format
    rows: tuple[Row, ...]
    broken: tuple[BrokenRow, ...] = ()


def read_truth(path: str | Path) -> Truth:
    """The measurements of a CSV file, UTF-8 with or without a byte order mark.

    Raises: TruthError if it can't be read, is no CSV, or has the columns of no format (naming what the nearest lacks)
    """
    text = _text(Path(path))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        found = _format_of(header, str(path))
        rows, broken = _rows(reader, header)
    except csv.Error as error:
        raise TruthError(f"line {reader.line_num} is not CSV: {error}", where=str(path)) from None
    if not rows and not broken:
        raise TruthError("the file has a header but no rows", where=str(path))
    return Truth(path=str(path), format=found, rows=tuple(rows), broken=tuple(broken))


def own_truth(form: Format) -> Path | None:
    """The project's own file of a format, None if it carries none."""
    path = OWN_TRUTH / f"{form.name}.csv"
    return path if path.is_file() else None


def _text(path: Path) -> str:
    where = str(path)
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode) or stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            raise TruthError("not a file", where=where, hint="give a CSV file of measurements")
        with path.open("rb") as file:
            data = b"" if found.st_size > MAX_FILE_BYTES else file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TruthError(f"can't read the file: {reason}", where=where) from None
    size = max(found.st_size, len(data))
    if size > MAX_FILE_BYTES:
        raise TruthError(
            f"the file has {size / 1e6:,.0f} MB", where=where, allowed=f"at most {MAX_FILE_BYTES / 1e6:.0f} MB",
            hint="split it into several files",
        )  # fmt: skip
    if not data.strip():
        raise TruthError("the file is empty", where=where)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise TruthError("the file is UTF-16", where=where, allowed="UTF-8", hint="save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TruthError(
            f"byte {data[error.start]:#04x} on line {line} is not UTF-8", where=where, hint="save the file as UTF-8"
        ) from None


def _format_of(header: list[str], where: str) -> Format:
    """The format whose columns the header has: of several, the one that asks for most.

    Raises: TruthError with what the nearest format lacks
    """
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    if twice:
        raise TruthError(f"columns appear twice: {', '.join(twice[:10])}", where=f"{where}, line 1")
    names = set(header)
    fitting = [each for each in FORMATS if names.issuperset(each.columns)]
    if fitting:
        return max(fitting, key=lambda each: len(each.columns))
    nearest = max(FORMATS, key=lambda each: len(names.intersection(each.columns)) / len(each.columns))
    lacking = [name for name in nearest.columns if name not in names]
    if len(lacking) == len(nearest.columns):
        shown = ",".join(header)[:60]
        separator = next((name for sign, name in ((";", "semicolons"), ("\t", "tabs")) if sign in shown), "")
        raise TruthError(
            f"no known columns in the header {shown!r}", where=f"{where}, line 1",
            allowed="formats " + ", ".join(each.name for each in FORMATS),
            hint=f"cells must be separated by commas, not {separator}" if separator else "line 1 must name the columns",
        )  # fmt: skip
    raise TruthError(
        f"the nearest format, {nearest.name}, needs the columns {', '.join(lacking)}", where=f"{where}, line 1",
        allowed=f"{nearest.name}: {', '.join(nearest.columns)}; others are optional",
        hint="an empty cell is fine where a figure is not known; a column may not be missing",
    )  # fmt: skip


def _rows(reader: csv._reader, header: list[str]) -> tuple[list[Row], list[BrokenRow]]:  # type: ignore[name-defined]
    rows: list[Row] = []
    broken: list[BrokenRow] = []
    own_id = header.index("id") if "id" in header else -1
    line = reader.line_num + 1
    for cells in reader:
        if cells:
            name = cells[own_id].strip() if 0 <= own_id < len(cells) else ""
            name = name or str(line)
            if len(cells) == len(header):
                rows.append({**dict(zip(header, cells, strict=True)), "id": name})
            else:
                reason = f"line {line} has {len(cells)} cells, the header has {len(header)}"
                broken.append(BrokenRow(id=name, at=len(rows) + len(broken), reason=reason))
        line = reader.line_num + 1
    return rows, broken
