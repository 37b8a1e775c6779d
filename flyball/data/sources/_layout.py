"""How files are laid out, as far as they do not say it themselves; from the `options` of a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyball.data.sources._types import Numbers
from flyball.errors import InvalidInput, did_you_mean, listed

__all__ = ["FORMATS", "Layout"]

FORMATS: Mapping[str, str] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".arrow": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
}
_PACKED = (".gz", ".zst")  # what text may be compressed with: `flights.csv.gz`


@dataclass(frozen=True)
class Layout:
    """What a reader must know.

    Attributes:
        format: csv, parquet, json, ndjson or arrow; None: the file's name says.
        encoding: of text without a byte-order mark; None: UTF-8.
        separator: between the fields of CSV; None: the commonest of `,`, tab, `;` and `|` in the header.
        decimal, thousands: how numbers are written in CSV.
        nulls: texts of CSV that mean "no value", besides nothing at all.
        string_columns: columns of CSV that stay text.
        as_text: all columns of CSV stay text.
        union: files with more or fewer columns fit together; what a file lacks is null.
    """

    format: str | None = None
    encoding: str | None = None
    separator: str | None = None
    decimal: str = "."
    thousands: str | None = None
    nulls: tuple[str, ...] = ()
    string_columns: frozenset[str] = frozenset()
    as_text: bool = False
    union: bool = False

    def __post_init__(self) -> None:
        known = sorted(set(FORMATS.values()))
        if self.format is not None and self.format not in known:
            raise InvalidInput(
                f'unknown format "{self.format}"{did_you_mean(self.format, known)} (known: {listed(known)})'
            )
        if self.separator is not None and (len(self.separator) != 1 or ord(self.separator) > 127):
            raise InvalidInput(f"the separator is {self.separator!r}; expected one ASCII character such as ;")
        if self.decimal not in (".", ","):
            raise InvalidInput(f"the decimal sign is {self.decimal!r}; expected . or ,")
        if self.thousands is not None and (self.thousands not in (".", ",", " ", "'", "_")):
            raise InvalidInput(f"the sign between thousands is {self.thousands!r}; expected one of . , ' _ or a blank")
        if self.thousands == self.decimal:
            raise InvalidInput(f"{self.decimal!r} cannot stand both before decimals and between thousands")

    @property
    def numbers(self) -> Numbers:
        """How numbers are written."""
        return Numbers(self.decimal, self.thousands)

    def format_of(self, name: str) -> str:
        """Return the format of a file, `name` being its path or key. Raises InvalidInput: its extension is unknown."""
        if self.format is not None:
            return self.format
        plain = name.lower()
        for suffix in _PACKED:
            plain = plain.removesuffix(suffix)
        last = plain.rpartition("/")[2]
        extension = "." + last.rpartition(".")[2] if "." in last else ""
        found = FORMATS.get(extension)
        if found is None:
            shown = f'"{extension}"' if extension else "of no name"
            raise InvalidInput(
                f"the extension {shown} of {name} is unknown{did_you_mean(extension, FORMATS)} "
                f"(known: {listed(FORMATS)}); or say format="
            )
        return found

    @classmethod
    def of(cls, options: Mapping[str, Any], **given: Any) -> Layout:
        """Return the layout that a source's options describe. Raises InvalidInput: a value is not of its type."""
        texts = ("encoding", "separator", "decimal", "thousands")
        for name in texts:
            if name in options and not isinstance(options[name], str):
                raise InvalidInput(f"the option {name} is {options[name]!r}; expected a text")
        nulls = options.get("nulls", ())
        if not isinstance(nulls, list | tuple) or not all(isinstance(n, str) for n in nulls):
            raise InvalidInput(f'the option nulls is {nulls!r}; expected a list of texts such as ["N/A"]')
        union = options.get("union", False)
        if not isinstance(union, bool):
            raise InvalidInput(f"the option union is {union!r}; expected true or false")
        return cls(
            **{name: options[name] for name in texts if name in options}, nulls=tuple(nulls), union=union, **given
        )
