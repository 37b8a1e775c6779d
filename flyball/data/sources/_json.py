"""JSON: an object a line, or one list of objects, read in blocks of whole objects so that memory stays bounded.

A list is turned into lines on the way, by arithmetic over the bytes of a block: commas between the list's own elements
become line ends. The schema is that of all objects: a field that some lack is null there, whole numbers and decimals
together are decimals. Called by `files` and, for pages of an API, by `http`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.data.reasons import reason_of
from flyball.data.sources._streams import Stamp, streamed
from flyball.data.sources._text import utf8_blocks
from flyball.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

__all__ = ["JsonFile", "joined_schema", "read_lines"]

_SMALL_BYTES = 64 * 1024 * 1024
_LONGEST_BYTES = 256 * 1024 * 1024  # of one object: beyond, the file is no list of rows


class JsonFile:
    """One file of JSON, looked at: its schema, and how many rows it has."""

    def __init__(self, path: Path, encoding: str | None, *, glimpse: bool = False) -> None:
        import polars as pl

        self.path, self._encoding = path, encoding
        self._stamp = Stamp.of(path)
        self.rows = 0
        self.schema: pl.Schema = pl.Schema()
        kept: list[bytes] | None = []
        size = 0
        for line, block in self._lines():
            frame = read_lines(block, f"{path}", line)
            self.schema = joined_schema([self.schema, frame.schema], str(path))
            self.rows += frame.height
            size += len(block)
            kept = None if kept is None or size > _SMALL_BYTES else [*kept, block]
            if glimpse:  # the first block is enough to know the columns
                break
        if size == 0:
            raise InvalidInput(f"{path} holds only blank lines; expected an object a line")
        _refuse_beyond_64_bits(self.schema, str(path))
        self._kept = kept

    def frame(self) -> pl.LazyFrame:
        """Return the table; large ones stream from the file."""
        import polars as pl

        if self._kept is not None:
            frames = [read_lines(block, str(self.path), 1, self.schema) for block in self._kept]
            return (pl.concat(frames) if frames else pl.DataFrame(schema=self.schema)).lazy()

        def read(columns: Sequence[str] | None) -> Iterator[pl.DataFrame]:
            for line, block in self._lines():
                frame = read_lines(block, str(self.path), line, self.schema)
                yield frame if columns is None else frame.select(columns)

        return streamed(read, self.schema, [self._stamp])

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield (number of the first line, block of whole objects, one a line)."""
        blocks = utf8_blocks(self.path, self._encoding)
        head = b""
        for head in blocks:
            if head.strip():
                break
        start = head.lstrip()[:1]
        if start == b"[":
            yield from _elements(self.path, head, blocks)
        elif start in (b"{", b""):
            yield from _objects(self.path, head, blocks)
        else:
            raise InvalidInput(f"{self.path} is not a table in JSON; expected a list of objects, or an object a line")


def read_lines(block: bytes, where: str, line: int, schema: Mapping[str, Any] | None = None) -> pl.DataFrame:
    """Return the objects of a block, one a line, as rows.

    Raises:
        InvalidInput: a line is no object, or a value does not fit the column's other values; the line is named.
    """
    import polars as pl

    try:
        given: Any = dict(schema) if schema is not None else None
        frame = pl.read_ndjson(block, schema=given, infer_schema_length=None)
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise _explained(block, where, line, error) from error
    if not frame.width:
        raise InvalidInput(f"{where} has objects without any field; expected {{column: value}}")
    return frame


def joined_schema(schemas: Iterable[pl.Schema], where: str) -> pl.Schema:
    """Return the schema that holds all of them. Raises InvalidInput: a column has types that do not go together."""
    import polars as pl

    frames = [pl.DataFrame(schema=schema) for schema in schemas if schema]
    try:
        return pl.concat(frames, how="diagonal_relaxed").schema
    except pl.exceptions.PolarsError as error:
        raise InvalidInput(f"the rows of {where} do not fit together: {reason_of(error)}") from error


def _refuse_beyond_64_bits(schema: pl.Schema, where: str) -> None:
    import polars as pl

    for name, dtype in schema.items():
        if dtype in (pl.Int128, pl.UInt128):
            raise InvalidInput(
                f'column "{name}" of {where} has a whole number beyond 64 bits; write such numbers as texts, in quotes'
            )


def _objects(path: Path, head: bytes, blocks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    line, rest = 1, head
    for block in blocks:
        end = rest.rfind(b"\n") + 1
        if end:
            if rest[:end].strip():
                yield line, rest[:end]
            line += rest.count(b"\n", 0, end)
        rest = rest[end:] + block
        if len(rest) > _LONGEST_BYTES:
            raise InvalidInput(f"line {line} of {path} is longer than 256 MB; expected an object a line")
    if rest.strip():
        if b"\n" in rest.strip() and _is_json(rest):  # one object written over several lines
            rest = json.dumps(json.loads(rest)).encode()
        yield line, rest


def _elements(path: Path, head: bytes, blocks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the elements of a list, one a line, in blocks. Lines are counted in the file, so far as a block tells."""
    import numpy as np

    line, rest, found = 1, head.lstrip()[1:], False
    remaining = iter(blocks)
    while True:
        # For looking only: escaped characters become others of the same length, so that every quote left is a real one.
        seen = rest.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        data = np.frombuffer(seen, np.uint8)
        free = ~(np.add.accumulate(data == 34, dtype=np.uint8) & 1).astype(bool)
        opens = ((data == 123) | (data == 91)) & free
        closes = ((data == 125) | (data == 93)) & free
        depth = np.add.accumulate(opens.astype(np.int32) - closes.astype(np.int32))
        commas = np.flatnonzero((data == 44) & free & (depth == 0))
        ends = np.flatnonzero(depth < 0)
        last = int(ends[0]) if len(ends) else -1
        cut = last if last >= 0 else (int(commas[-1]) if len(commas) else -1)
        if cut >= 0:
            part = np.frombuffer(rest[:cut], np.uint8).copy()
            part[(part == 10) | (part == 13)] = 32
            part[commas[commas < cut]] = 10
            lines = part.tobytes()
            if any(not element.strip() for element in lines.split(b"\n")) and (lines.strip() or found):
                raise InvalidInput(f"{path} has two commas in a row, or one before the end of its list; remove one")
            if lines.strip():
                found = True
                yield line, lines + b"\n"
            line += rest.count(b"\n", 0, cut)
        if last >= 0:
            rest = rest[last + 1 :] + b"".join(remaining)
            if rest.strip():
                raise InvalidInput(f"{path} goes on after the end of its list; expected one list of objects")
            break
        rest = rest[cut + 1 :]
        block = next(remaining, b"")
        while block and (rest + block).endswith(b"\\"):  # an escape is not torn apart
            block += next(remaining, b" ")
        if not block:
            raise InvalidInput(f"{path} cannot be read: its list is never closed; it may be cut off")
        if len(rest) > _LONGEST_BYTES:
            raise InvalidInput(f"{path} has an object larger than 256 MB; expected rows")
        rest += block
    if not found:
        raise InvalidInput(f"{path} is an empty list; expected a list of objects")


def _explained(block: bytes, where: str, line: int, error: BaseException) -> InvalidInput:
    """Return an error that names the first line at fault, as far as one line is."""
    for number, text in enumerate(block.splitlines(), line):
        if text.strip():
            try:
                value = json.loads(text)
            except ValueError:
                return InvalidInput(f"{where} cannot be read: line {number} is not JSON, or is cut off")
            if not isinstance(value, dict):
                return InvalidInput(f"line {number} of {where} is no object; expected {{column: value}}")
    return InvalidInput(f"{where} cannot be read: {reason_of(error)}")


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
