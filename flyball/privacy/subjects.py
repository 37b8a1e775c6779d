"""A subject: the person whose data is erased, as a value in columns, and when a stored value is that one.

The subject is a text. It is the same as a value when the value is that text, or a whole number written so: `1` is 1 and
1.0 and "1", but `01` is the text "01" only. Nothing is trimmed, no case is folded and no Unicode normalisation applied:
"é" composed and decomposed are two subjects, because they may be two people; erase both.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from flyball.data.masking import keyed_hash
from flyball.errors import InvalidInput, listed

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Subject", "column_of", "one_column", "subject"]

_WHOLE = re.compile(r"0|-?[1-9]\d{0,37}")
_TELLING_BYTES = 4  # a shorter text stands in too many places by chance to be looked for in raw bytes


@dataclass(frozen=True)
class Subject:
    """One person: `text` is the value, `columns` where it stands, `hashes` what it was masked to in the log."""

    text: str = field(repr=False)
    columns: frozenset[str]
    hashes: frozenset[str] = field(default=frozenset(), repr=False)

    @cached_property
    def number(self) -> int | None:
        """The whole number that the text is, or None."""
        return int(self.text) if _WHOLE.fullmatch(self.text) else None

    def is_value(self, value: Any) -> bool:
        """Whether a plain value is the subject; see the module's description."""
        if isinstance(value, str):
            return value == self.text
        if isinstance(value, bool) or self.number is None:
            return False
        return isinstance(value, int | float) and value == self.number

    @cached_property
    def needles(self) -> tuple[bytes, ...]:
        """What a JSON document must contain one of, to be about the subject."""
        quoted = {orjson.dumps(self.text)[1:-1], json.dumps(self.text)[1:-1].encode()}
        return (*sorted(quoted), *(h.encode() for h in self.hashes))

    @property
    def raw(self) -> bytes | None:
        """What to look for in files that have no structure; None when it is a number, or too short to tell."""
        data = self.text.encode()
        return data if self.number is None and len(data) >= _TELLING_BYTES else None

    def keyed(self, key: bytes) -> str:
        """Return what stands for the subject in certificates, journals and the suppression list."""
        return keyed_hash(key, self.text)

    def condition(self, schema: pl.Schema) -> pl.Expr | None:
        """Return what is true of the subject's rows in a table, None when it has none of the columns."""
        import polars as pl

        tests = [test for name in sorted(self.columns) if (test := self._test(name, schema)) is not None]
        return pl.any_horizontal(tests) if len(tests) > 1 else tests[0] if tests else None

    def types(self, schema: pl.Schema) -> dict[str, pl.DataType]:
        """Return the types without the subject of columns whose type names it: an Enum holds all that may occur."""
        import polars as pl

        return {
            name: pl.Enum(dtype.categories.filter(dtype.categories != self.text))
            for name, dtype in schema.items()
            if name in self.columns and isinstance(dtype, pl.Enum) and self.text in dtype.categories
        }

    def _test(self, name: str, schema: pl.Schema) -> pl.Expr | None:
        found = column_of(name, schema)
        return None if found is None else _equals(*found, self.text, self.number)


def subject(value: int | str, columns: Iterable[str], mask_key: Path | None = None) -> Subject:
    """Return the subject that a value names.

    Args:
        columns: where it stands; a dotted name is a field inside a struct.
        mask_key: the secret of the prediction log's masks, where there is one: masked values are found by it.

    Raises:
        InvalidInput: the value is no text or whole number, or empty, or no column is given.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InvalidInput(f"a subject is a {type(value).__name__}; expected text or a whole number")
    text, names = str(value), frozenset(columns)
    if not text:
        raise InvalidInput("the subject is empty; give the value that names the person, as userId=42")
    if not names:
        raise InvalidInput("no column says where the subject stands; name one, as userId=42, or declare a subject")
    if mask_key is None or not mask_key.exists():
        return Subject(text, names)
    key = mask_key.read_bytes()
    plain = Subject(text, names)
    forms: list[Any] = [text] if plain.number is None else [text, plain.number, float(plain.number)]
    try:
        written = [orjson.dumps(form) for form in forms]
    except TypeError:  # a number beyond 64 bits was never logged as one
        written = [orjson.dumps(text)]
    return Subject(text, names, frozenset(hmac.digest(key, form, "sha256")[:16].hex() for form in written))


def column_of(name: str, schema: pl.Schema | Mapping[str, pl.DataType]) -> tuple[pl.Expr, pl.DataType] | None:
    """Return a column, or the field of a struct that a dotted name means, with its type; None when it is not there."""
    import polars as pl

    if name in schema:
        return pl.col(name), schema[name]
    head, *path = name.split(".")
    if head not in schema:
        return None
    value, dtype = pl.col(head), schema[head]
    for part in path:
        fields = {f.name: f.dtype for f in dtype.fields} if isinstance(dtype, pl.Struct) else {}
        if part not in fields:
            return None
        inner: Any = fields[part]
        value, dtype = value.struct.field(part), inner() if isinstance(inner, type) else inner
    return value, dtype


def _equals(value: pl.Expr, dtype: pl.DataType, text: str, number: int | None) -> pl.Expr | None:
    """Return the test, None when no value of this type can be the subject."""
    import polars as pl

    if isinstance(dtype, pl.String):
        return value == text
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return value.cast(pl.String) == text
    if dtype.is_integer():
        bits = int(re.sub(r"\D", "", str(dtype)) or 64)
        least, most = (0, (1 << bits) - 1) if str(dtype).startswith("U") else (-(1 << bits - 1), (1 << bits - 1) - 1)
        return value == pl.lit(number, dtype=dtype) if number is not None and least <= number <= most else None
    if dtype.is_float():
        return value == float(number) if number is not None and abs(number) <= 1 << 53 else None
    if isinstance(dtype, pl.Binary):
        return value == text.encode()
    if isinstance(dtype, pl.Boolean | pl.Null) or dtype.is_nested():
        return None
    return value.cast(pl.String) == text


def one_column(text: str, declared: Mapping[str, list[str]]) -> tuple[str, str]:
    """Split `userId=42` into column and value; without a column the one that datasets declare as their subject.

    Args:
        declared: column → the datasets whose subject it is.

    Raises:
        InvalidInput: no column is given, and none or several are declared.
    """
    column, equals, value = text.partition("=")
    if equals and column:
        return column, value
    if len(declared) == 1:
        return next(iter(declared)), text
    if declared:
        names = [f"{column} (of {listed(names, 3)})" for column, names in sorted(declared.items())]
        raise InvalidInput(f"the subject may stand in several columns: {listed(names)}; say which, as COLUMN=VALUE")
    raise InvalidInput("no dataset declares a subject; say in which column it stands, as userId=42")
