"""TOML files that users write, read strictly: every fault of a file is reported at once, with its line.

A field says with its type how it is read. `Count`, `Number`, `Money` and `Duration` take numbers, or text with a unit
("15.6T", "60d", "120M") by the rules of ultratwin.units; `Annotated[str, Reader(function)]` lets a function check or
translate a value.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from ultratwin.errors import ScenarioError, UltratwinError
from ultratwin.units import parse

MOST_BYTES: Final = 16 * 2**20
"""Largest file that is read: far more than anybody writes, far less than the memory."""
_S = TypeVar("_S", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Reader:
    """How a field's value is read: a function of what stands in the file; it raises UltratwinError to refuse it.

    `wants_folder`: the function takes the file's folder as a second argument, for paths relative to it.
    """

    read: Callable[..., Any]
    wants_folder: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """What a value must be once it is read: a function that raises UltratwinError to refuse it."""

    check: Callable[[Any], None]


def _some_and_distinct(values: Any) -> None:
    if not values:
        raise ScenarioError("it is empty", allowed="at least one entry; leave the key out to have its default")
    if len(set(values)) < len(values):
        twice = Counter(values).most_common(1)[0][0]
        raise ScenarioError(f"it has {getattr(twice, 'id', twice)} twice", allowed="each once")


Distinct: Final = Check(_some_and_distinct)
"""For lists: not empty, and nothing in them twice."""


def quantity(value: Any, dimension: str) -> float:
    """A number, or a text with a unit, in SI.

    Raises: ScenarioError or UnitError if it is neither
    Example:
        >>> quantity("15.6T", "number"), quantity("60d", "second"), quantity(8, "number")
        (15600000000000.0, 5184000.0, 8.0)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ScenarioError(f"it is {_said(value)}", allowed="a number, or text with a unit")
    return parse(value, dimension)


def count(value: Any) -> int:
    """A whole number; text may have a unit.

    Raises: ScenarioError or UnitError otherwise
    Example:
        >>> count("4k"), count(512)
        (4000, 512)
    """
    number = quantity(value, "number")
    if number != int(number):
        raise ScenarioError(f"{value} is not a whole number", allowed='such as 512, "4k" or "1e6"')
    return int(number)


Count = Annotated[int, Reader(count)]
Number = Annotated[float, Reader(lambda value: quantity(value, "number"))]
Money = Annotated[float, Reader(lambda value: quantity(value, "usd"))]
Duration = Annotated[float, Reader(lambda value: quantity(value, "second"))]


@dataclass(frozen=True, slots=True)
class _Reading:
    """A file that is being read: where its keys stand, and what was found wrong."""

    path: Path
    lines: Mapping[tuple[str, ...], int]
    faults: list[tuple[int, UltratwinError]] = field(default_factory=list)

    def fault(self, path: tuple[str, ...], what: str, *, allowed: str = "", hint: str = "") -> None:
        line = next((self.lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.lines), 0)
        where = f"{self.path.name}, line {line}" if line else self.path.name
        self.faults.append((line, ScenarioError(what, where=where, allowed=allowed, hint=hint)))


def read_settings(path: str | Path, struct: type[_S]) -> _S:
    """A TOML file as a msgspec Struct.

    Args:
        path: of the file
        struct: what it holds; keys that it does not have are faults
    Returns: the struct
    Raises: ScenarioError with all faults of the file, each with its line
    """
    path = Path(path)
    text = _text(path)
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError
        raise ScenarioError(
            f"not TOML: {error or 'nested too deep'}", where=str(path), hint='text stands in quotes: name = "a text"'
        ) from None
    reading = _Reading(path, _key_lines(text))
    found = _struct(reading, (), table, struct)
    if reading.faults:
        raise _together(path, [error for _, error in sorted(reading.faults, key=lambda each: each[0])])
    return cast(_S, found)


def _text(path: Path) -> str:
    try:
        if path.is_dir():
            raise ScenarioError("this is a folder, not a file", where=str(path))
        if path.stat().st_size > MOST_BYTES:
            raise ScenarioError("the file is too large", where=str(path), allowed=f"up to {MOST_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ScenarioError("no such file", where=str(path), hint=_near(path)) from None
    except UnicodeDecodeError:
        raise ScenarioError("the file is not UTF-8 text", where=str(path)) from None
    except (OSError, ValueError) as error:
        raise ScenarioError(f"can't be read: {getattr(error, 'strerror', None) or error}", where=str(path)) from None


def _near(path: Path) -> str:
    try:
        names = [each.name for each in path.parent.iterdir() if each.suffix == ".toml"]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"did you mean {path.parent / near[0]}?" if near else ""


def _together(path: Path, faults: list[UltratwinError]) -> ScenarioError:
    if len(faults) == 1:
        only = faults[0]
        return ScenarioError(only.what, where=only.where, allowed=only.allowed, hint=only.hint)
    lines = [line for each in faults for line in str(each).splitlines()]
    marked = [f"  {line}" if not line.startswith(("allowed: ", "hint: ")) else f"    {line}" for line in lines]
    return ScenarioError(f"{len(faults)} faults in {path}\n" + "\n".join(marked))


def _struct(reading: _Reading, path: tuple[str, ...], value: Any, struct: type[msgspec.Struct]) -> Any:
    """A table as a Struct; None if it has a fault, which is then recorded."""
    if not isinstance(value, dict):
        reading.fault(path, f"{_named(path)} is {_said(value)}", allowed="a table of keys")
        return None
    before = len(reading.faults)
    hints = get_type_hints(struct, include_extras=True)
    fields = {each.encode_name: each for each in msgspec.structs.fields(struct)}
    for key in value.keys() - fields.keys():
        near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else ""
        reading.fault((*path, key), f'unknown key "{_named((*path, key))}"', allowed=", ".join(fields), hint=hint)
    for key, each in fields.items():
        if each.required and key not in value:
            reading.fault((*path, key), f"{_named((*path, key))} is missing")
    read = {fields[k].name: _value(reading, (*path, k), value[k], hints[fields[k].name]) for k in fields if k in value}
    if len(reading.faults) > before:
        return None
    try:
        return struct(**read)
    except (UltratwinError, ValueError) as error:
        _refused(reading, path, error)
        return None


def _value(reading: _Reading, path: tuple[str, ...], value: Any, hint: Any) -> Any:
    """A value as its type wants it; None if it has a fault."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        for each in arguments[1:]:
            if isinstance(each, Reader):
                return _read(reading, path, value, each)
        before = len(reading.faults)
        found = _value(reading, path, value, arguments[0])
        for each in arguments[1:]:
            if isinstance(each, Check) and len(reading.faults) == before:
                _read(reading, path, found, Reader(each.check))
        return found
    if origin in (Union, types.UnionType):
        return _value(reading, path, value, _member(arguments, value))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _struct(reading, path, value, hint)
    if origin in (list, tuple) and isinstance(value, list):
        return origin([_value(reading, path, each, arguments[0]) for each in value])
    if origin is dict and isinstance(value, dict):
        return {key: _value(reading, (*path, key), each, arguments[1]) for key, each in value.items()}
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        reading.fault(path, f"{_named(path)} is {_said(value)}", allowed=_allowed(hint, str(error)))
        return None


def _read(reading: _Reading, path: tuple[str, ...], value: Any, reader: Reader) -> Any:
    try:
        return reader.read(value, reading.path.parent) if reader.wants_folder else reader.read(value)
    except UltratwinError as error:
        _refused(reading, path, error)
        return None


def _refused(reading: _Reading, path: tuple[str, ...], error: Exception) -> None:
    what = error.what if isinstance(error, UltratwinError) else str(error)
    allowed, hint = (error.allowed, error.hint) if isinstance(error, UltratwinError) else ("", "")
    if what.startswith("it "):
        what = f"{_named(path)} {what.removeprefix('it ')}"
    elif path and path[-1].removesuffix("s") not in what:
        what = f"{_named(path)}: {what}"
    reading.fault(path, what, allowed=allowed, hint=hint)


def _member(members: tuple[Any, ...], value: Any) -> Any:
    """The alternative of a union that a value is meant for, by its shape."""
    some = [each for each in members if each is not type(None)]
    for each in some:
        bare = get_args(each)[0] if get_origin(each) is Annotated else each
        kind = get_origin(bare) or bare  # list[int] -> list
        is_table = kind is dict or (isinstance(kind, type) and issubclass(kind, msgspec.Struct))
        if (isinstance(value, dict) and is_table) or (isinstance(value, list) and kind in (list, tuple)):
            return each
        if isinstance(kind, type) and not isinstance(value, list | dict) and isinstance(value, kind):
            return each
    return some[0]


_TYPE_NAMES: Final = {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false"}


def _allowed(hint: Any, complaint: str) -> str:
    if get_origin(hint) in (list, tuple):
        return "a list in square brackets"
    return _TYPE_NAMES.get(hint) or complaint.replace("`", "")


def _said(value: Any) -> str:
    """A value as it is named in a message."""
    match value:
        case dict():
            return "a table"
        case list():
            return "a list"
        case str():
            return f'the text "{value if len(value) <= 60 else value[:57] + "..."}"'
        case bool():
            return str(value).lower()
    return str(value)[:60]


def _named(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the file"


_KEY: Final = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_PATH: Final = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER: Final = re.compile(rf"\s*\[{{1,2}}\s*({_PATH})\s*\]{{1,2}}\s*(?:#.*)?$")
_SETTING: Final = re.compile(rf"\s*({_PATH})\s*=")


def _key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Line of each key and table, by path; the first one where there are several.

    Example:
        >>> _key_lines('name = "a"\\n[layout]\\ntensor_parallel_size = 8')
        {('name',): 1, ('layout',): 2, ('layout', 'tensor_parallel_size'): 3}
    """
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _parts(header[1])
            found.setdefault(table, number)
        elif setting := _SETTING.match(line):
            found.setdefault((*table, *_parts(setting[1])), number)
    return found


def _parts(path: str) -> tuple[str, ...]:
    return tuple(each.strip("\"'") for each in re.findall(_KEY, path))
