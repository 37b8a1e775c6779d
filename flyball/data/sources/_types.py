"""What the texts of a column are: numbers, times, truth values, or texts. Decided over all of a source's rows.

`kind_of` looks at one block of values, `merged` combines what was seen in two blocks, `converted` is the expression
that turns the column into its type. Called by `_csv`, which reads every column as text first: so a late `N/A` makes a
text column and not an error, a number is never cut to fit, and a file costs the same whatever is in it.

Rules:
    whole numbers        Int64; UInt64 when one is beyond Int64 and none is negative; beyond 64 bits text
    numbers              Float64; one too large for it (`1e400`) keeps the column text
    true, false          Boolean, in any case
    2024-01-31           Date; only the ISO order, since 01/02/2024 is two days in two countries
    2024-01-31 12:00:00  Datetime(us) without zone; `T` or a space, seconds and fraction optional, cut to microseconds
    the same with Z, +01:00, -0500   Datetime(us, UTC): offsets, also mixed ones, are brought to UTC
    12:30:00             Time
A leading `+` or a blank makes text (`+41 44`), a leading zero does not (`007` is 7): name such columns as text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Kind", "Numbers", "converted", "kind_of", "merged"]

Kind = Literal[
    "nothing",
    "boolean",
    "natural",
    "integer",
    "unsigned",
    "number",
    "date",
    "time",
    "local",
    "zoned",
    "zones mixed",
    "comma",
    "text",
]

_DATE = r"\d{4}-\d{2}-\d{2}"
_CLOCK = r"\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?"
_OFFSET = r"(Z|z|[+-]\d{2}(:?\d{2})?)"
_LOCAL = f"^{_DATE}[T ]{_CLOCK}$"
_ZONED = f"^{_DATE}[T ]{_CLOCK} ?{_OFFSET}$"
_TIMES: dict[Kind, str] = {"date": f"^{_DATE}$", "local": _LOCAL, "zoned": _ZONED, "time": f"^{_CLOCK}$"}
_GLANCE = 100  # values looked at before all are
_COMMA = r"^-?\d+(,\d+)?$"
_JOINED: dict[frozenset[Kind], Kind] = {
    frozenset({"natural", "integer"}): "integer",
    frozenset({"natural", "unsigned"}): "unsigned",
    frozenset({"natural", "number"}): "number",
    frozenset({"integer", "number"}): "number",
    frozenset({"unsigned", "number"}): "number",
    frozenset({"natural", "comma"}): "comma",
    frozenset({"integer", "comma"}): "comma",
    frozenset({"local", "zoned"}): "zones mixed",
    frozenset({"local", "zones mixed"}): "zones mixed",
    frozenset({"zoned", "zones mixed"}): "zones mixed",
}


class Numbers:
    """How numbers are written: the sign before decimals and, perhaps, the one between thousands."""

    def __init__(self, decimal: str = ".", thousands: str | None = None) -> None:
        self.decimal, self.thousands = decimal, thousands

    @property
    def are_plain(self) -> bool:
        """Whether numbers are written as `1234.5`."""
        return self.decimal == "." and self.thousands is None

    def plain(self, column: pl.Expr) -> pl.Expr:
        """Return the expression of the same texts with numbers as `1234.5`; other texts become null."""
        import polars as pl

        if self.are_plain:
            return column
        point = "," if self.decimal == "," else r"\."
        whole = r"\d+"
        if self.thousands is not None:
            group = r"\." if self.thousands == "." else self.thousands
            whole = rf"(\d{{1,3}}({group}\d{{3}})+|\d+)"
        text = column
        if self.thousands is not None:
            text = text.str.replace_all(self.thousands, "", literal=True)
        text = text.str.replace(self.decimal, ".", literal=True)
        return pl.when(column.str.contains(rf"^-?{whole}({point}\d*)?([eE][+-]?\d+)?$")).then(text).otherwise(None)


def kind_of(values: pl.Series, numbers: Numbers) -> Kind:
    """Return what the texts are, leaving out those that are null or empty."""
    import polars as pl

    texts = values.filter(values != "")
    if not texts.len():
        return "nothing"
    first = str(texts[0])
    if (time := _times(texts, first)) is not None:
        return time
    plain = texts.to_frame("x").select(numbers.plain(pl.col("x"))).to_series()
    if not plain.null_count() and (found := _number(plain)) is not None:
        return found
    if first.lower() in ("true", "false") and texts.str.to_lowercase().is_in(["true", "false"]).all():
        return "boolean"
    if numbers.decimal == "." and "," in texts.head(_GLANCE).str.join(" ").item() and texts.str.contains(_COMMA).all():
        return "comma"
    return "text"


def merged(one: Kind, other: Kind) -> Kind:
    """Return what a column is that was `one` in some rows and `other` in others."""
    if one == other or other == "nothing":
        return one
    return other if one == "nothing" else _JOINED.get(frozenset({one, other}), "text")


def converted(name: str, kind: Kind, numbers: Numbers) -> pl.Expr:
    """Return the expression of a text column in its type; an empty text is null but in a text column.

    It fails where a value is not of the type, which cannot be unless the source changed after it was looked at.
    """
    import polars as pl

    column = pl.col(name)
    if kind in ("nothing", "text", "zones mixed", "comma"):
        return column
    present = pl.when(column != "").then(column)
    if kind in ("natural", "integer", "unsigned", "number"):
        dtypes = {"natural": pl.Int64(), "integer": pl.Int64(), "unsigned": pl.UInt64(), "number": pl.Float64()}
        return numbers.plain(present).cast(dtypes[kind]).alias(name)
    if kind == "boolean":
        return (present.str.to_lowercase() == "true").alias(name)
    return _time(present, kind, strict=True).alias(name)


def _number(texts: pl.Series) -> Kind | None:
    import polars as pl

    if texts.str.starts_with("+").any():
        return None
    whole = texts.cast(pl.Int64, strict=False)
    if not whole.null_count():
        return "integer" if (whole < 0).any() else "natural"
    if texts.str.contains(r"^-?\d+$").all():  # whole numbers, and one beyond Int64
        return "unsigned" if not texts.cast(pl.UInt64, strict=False).null_count() else "text"
    floats = texts.cast(pl.Float64, strict=False)
    if floats.null_count():
        return None
    endless = floats.is_infinite()
    if endless.any() and not texts.filter(endless).str.contains("(?i)inf").all():
        return None
    return "number"


def _times(texts: pl.Series, first: str) -> Kind | None:
    """Return which date or time the texts are, None when they are none."""
    for kind, pattern in _TIMES.items():
        if re.match(pattern, first) and texts.str.contains(pattern).all() and not _fails(texts, kind):
            return kind
    if re.match(f"{_LOCAL}|{_ZONED}", first) and texts.str.contains(f"{_LOCAL}|{_ZONED}").all():
        return "zones mixed" if texts.str.contains(_LOCAL).any() and texts.str.contains(_ZONED).any() else None
    return None


def _fails(texts: pl.Series, kind: Kind) -> bool:
    import polars as pl

    return bool(texts.to_frame("x").select(_time(pl.col("x"), kind, strict=False).null_count()).item())


def _time(text: pl.Expr, kind: Kind, *, strict: bool) -> pl.Expr:
    import polars as pl

    if kind == "date":
        return text.str.to_date("%Y-%m-%d", strict=strict)
    if kind == "time":
        full = pl.when(text.str.len_bytes() == 5).then(text + ":00").otherwise(text)
        return full.str.to_time("%H:%M:%S%.f", strict=strict)
    spaced = text.str.replace("T", " ", literal=True)
    if kind == "local":
        full = pl.when(spaced.str.len_bytes() == 16).then(spaced + ":00").otherwise(spaced)
        return full.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=strict)
    zone = spaced.str.slice(16).str.extract(f" ?{_OFFSET}$", 1)
    clock = spaced.str.extract(f"^({_DATE} {_CLOCK})", 1)
    full = pl.when(clock.str.len_bytes() == 16).then(clock + ":00").otherwise(clock)
    offset = pl.when(zone.str.to_uppercase() == "Z").then(pl.lit("+00:00")).otherwise(zone)
    offset = pl.when(offset.str.len_bytes() == 3).then(offset + ":00").otherwise(offset)
    stamp = full + offset
    return stamp.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%z", time_unit="us", time_zone="UTC", strict=strict)
