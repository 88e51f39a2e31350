"""A file as blocks of whole lines: read once, front to back, so that pipes work and memory stays small."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from ultratwin.errors import ScenarioError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

BLOCK_BYTES: Final = 4 * 2**20
MAX_LINE_BYTES: Final = 256 * 2**20
"""A longer line belongs to no trace that is read line by line."""
MAX_WHOLE_BYTES: Final = 2 * 2**30
"""The largest JSON that is read as a whole."""
_MARK: Final = b"\xef\xbb\xbf"
_PACKED: Final = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"PK\x03\x04", "zip"), (b"BZh", "bzip2"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Whole lines, each with its line feed; the number of the first, from 1."""

    data: bytes
    first_line: int


@dataclass(slots=True)
class Source:
    """An open file; `head` is its beginning, which tells the format.

    Raises: ScenarioError if it can't be opened, is empty, packed, or no UTF-8 text
    """

    path: str
    head: bytes = b""
    _file: BinaryIO = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            mode = Path(self.path).stat().st_mode
            if stat.S_ISDIR(mode) or stat.S_ISBLK(mode):
                raise ScenarioError("not a file", where=self.path, hint="give a trace: CSV, JSON or JSON lines")
            self._file = Path(self.path).open("rb")  # noqa: SIM115
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ScenarioError(f"can't read the trace: {reason}", where=self.path) from None
        self.head = self._read(BLOCK_BYTES)
        try:
            self._check_head()
        except ScenarioError:
            self._file.close()
            raise
        self.head = self.head.removeprefix(_MARK)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def first_line(self) -> str:
        """The first line that is not blank."""
        return self.head.lstrip().partition(b"\n")[0].decode("utf-8", "replace").strip()

    def blocks(self) -> Iterator[Block]:
        """All lines, once. A last line without a line feed gets one."""
        rest, line, data = b"", 1, self.head
        while data:
            whole, feed, tail = data.rpartition(b"\n")
            if feed:
                block = Block(data=rest + whole + feed, first_line=line)
                self.check_text(block)
                yield block
                line += block.data.count(b"\n")
                rest = tail
            else:
                rest += tail
            if len(rest) > MAX_LINE_BYTES:
                raise ScenarioError(
                    f"line {line} is longer than {MAX_LINE_BYTES // 2**20} MiB", where=self.path,
                    hint="a trace has one request a line",
                )  # fmt: skip
            data = self._read(BLOCK_BYTES)
        if rest:
            block = Block(data=rest + b"\n", first_line=line)
            self.check_text(block)
            yield block

    def whole(self) -> bytes:
        """The whole file at once."""
        data = self.head + self._read(MAX_WHOLE_BYTES + 1)
        if len(data) > MAX_WHOLE_BYTES:
            raise ScenarioError(
                f"the file is larger than {MAX_WHOLE_BYTES // 2**30} GiB and has to be read as a whole",
                where=self.path,
                hint="a CSV of lengths, or JSON lines, may be of any size",
            )
        self.check_text(Block(data=data, first_line=1))
        return data

    def check_text(self, block: Block) -> None:
        """Raises: ScenarioError for bytes that are not UTF-8, with their line."""
        if block.data.isascii():
            return
        try:
            block.data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = block.first_line + block.data.count(b"\n", 0, error.start)
            raise ScenarioError(
                f"byte {block.data[error.start]:#04x} is not UTF-8", where=f"{self.path}, line {line}",
                hint="save the file as UTF-8",
            ) from None  # fmt: skip

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise ScenarioError(f"can't read the trace: {error.strerror or error}", where=self.path) from None

    def _check_head(self) -> None:
        if not self.head.removeprefix(_MARK).strip():
            raise ScenarioError("the trace is empty", where=self.path)
        if self.head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ScenarioError("the trace is UTF-16", where=self.path, allowed="UTF-8", hint="save it as UTF-8")
        for magic, name in _PACKED:
            if self.head.startswith(magic):
                raise ScenarioError(f"the trace is packed ({name})", where=self.path, hint="unpack it first")
