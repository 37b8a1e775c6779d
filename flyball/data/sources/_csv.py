"""CSV and its relatives: one pass that finds types and faults, then a table in memory or one that streams.

`CsvFile(path, layout)` reads the file once, in blocks: records are checked (`_records`), every column is seen as text
and its type found (`_types`). A file whose text is small stays in memory; a larger one is read again in blocks by
whoever collects the lazy table, so memory does not grow with the file. Several files of a glob first agree on types
(`kinds`), then make their tables. Called by `files`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flyball.data.sources._layout import Layout
from flyball.data.sources._records import sound, whole_records
from flyball.data.sources._streams import Stamp, streamed
from flyball.data.sources._text import utf8_blocks
from flyball.data.sources._types import Kind, converted, kind_of, merged
from flyball.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

__all__ = ["CsvFile", "refuse_repeated"]

_SMALL_BYTES = 64 * 1024 * 1024  # text up to here stays in memory; as a table it takes about as much
_SEPARATORS = (",", "\t", ";", "|")


class CsvFile:
    """One file, looked at.

    Attributes:
        names: its columns.
        kinds: what the texts of each are.
        rows: how many records it has.
    """

    def __init__(self, path: Path, layout: Layout, *, glimpse: bool = False) -> None:
        self.path, self.layout = path, layout
        self.names: list[str] = []
        self.kinds: dict[str, Kind] = {}
        self.rows = 0
        self._separator = ""
        self._stamp = Stamp.of(path)
        self._kept: list[pl.DataFrame] | None = []
        size = 0
        for texts, length in self._texts():
            self.rows += texts.height
            size += length
            self._notice(texts)
            if self._kept is not None:
                self._kept.append(texts)
            if size > _SMALL_BYTES:
                self._kept = None
            if glimpse:  # the first block is enough to know the columns
                break
        self._refuse_ambiguous()

    def frame(self, kinds: Mapping[str, Kind]) -> pl.LazyFrame:
        """Return the table, its columns of these kinds (its own, or what it agreed on with others)."""
        import polars as pl

        conversions = {n: converted(n, kinds.get(n, self.kinds[n]), self.layout.numbers) for n in self.names}
        if self._kept is not None:
            texts = pl.concat(self._kept) if self._kept else pl.DataFrame(schema=dict.fromkeys(self.names, pl.String))
            return texts.select(conversions.values()).lazy()
        empty = pl.DataFrame(schema=dict.fromkeys(self.names, pl.String())).select(conversions.values())

        def read(columns: Sequence[str] | None) -> Iterator[pl.DataFrame]:
            wanted = [conversions[n] for n in (columns if columns is not None else self.names)]
            for texts, _ in self._texts():
                yield texts.select(wanted)

        return streamed(read, empty.schema, [self._stamp])

    def _texts(self) -> Iterator[tuple[pl.DataFrame, int]]:
        """Yield the records as texts, and the length of those in bytes."""
        import polars as pl

        schema: dict[str, pl.DataType] = {}
        nulls = list(self.layout.nulls) or None
        for line, found in whole_records(self.path, utf8_blocks(self.path, self.layout.encoding)):
            records = found
            if not schema:
                if not found.strip():
                    continue
                names, self._separator, records = self._header(found)
                self.names = names
                self.kinds = self.kinds or dict.fromkeys(names, "nothing")
                schema = dict.fromkeys(names, pl.String())
                line += found.count(b"\n") - records.count(b"\n")
            records = sound(self.path, line, records, len(schema), self._separator) if records else records
            if records:
                options = {"separator": self._separator, "null_values": nulls, "raise_if_empty": False}
                yield pl.read_csv(records, has_header=False, schema=schema, **options), len(records)  # type: ignore[arg-type]
        if not schema:
            raise InvalidInput(f"{self.path} holds only blank lines; expected a header and rows")

    def _header(self, block: bytes) -> tuple[list[str], str, bytes]:
        """Return the columns' names, the separator, and the records after the header."""
        text = block.lstrip(b"\r\n")
        separator = self.layout.separator
        if separator is None:
            line = text.partition(b"\n")[0]
            counts = {s: line.count(s.encode()) for s in _SEPARATORS}
            is_tsv = ".tsv" in self.path.suffixes
            separator = "\t" if is_tsv else max(_SEPARATORS, key=lambda s: counts[s])
        # The names may go over several lines when one in quotes holds a line break.
        end = text.find(b"\n") + 1
        while text.count(b'"', 0, end) % 2:
            end = text.find(b"\n", end) + 1
        record = next(csv.reader(io.StringIO(text[:end].decode(), newline=""), delimiter=separator))
        names = [name or f"column_{i}" for i, name in enumerate(record, 1)]
        refuse_repeated(names, str(self.path))
        return names, separator, text[end:]

    def _notice(self, texts: pl.DataFrame) -> None:
        layout = self.layout
        for name in self.names:
            if layout.as_text or name in layout.string_columns:
                self.kinds[name] = "text"
            elif self.kinds[name] != "text":
                self.kinds[name] = merged(self.kinds[name], kind_of(texts[name], layout.numbers))

    def _refuse_ambiguous(self) -> None:
        for name, kind in self.kinds.items():
            if kind == "zones mixed":
                raise InvalidInput(
                    f'column "{name}" of {self.path} has times with a zone and times without one; write all of them '
                    "with an offset such as Z, or keep the column as text"
                )
            if kind == "comma":
                raise InvalidInput(
                    f'column "{name}" of {self.path} looks like numbers with a decimal comma; '
                    'say so (options: {decimal: ","}), or keep the column as text'
                )


def refuse_repeated(names: Sequence[str], where: str) -> None:
    """Raise InvalidInput when two columns have one name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidInput(f'{where} has two columns named "{name}"; rename one')
        seen.add(name)
