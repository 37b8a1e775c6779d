"""Take a batch of labels as it came and make rows of it that may be kept, or say which of its rows are wrong.

Row numbers in messages count from 1, as the batch came; values of keys are not shown, they may be personal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flyball.clock import parse_instant
from flyball.data.kinds import Labels
from flyball.errors import InvalidInput, did_you_mean, listed

if TYPE_CHECKING:
    import polars as pl

__all__ = ["COLUMNS", "Names", "label_type", "taken"]

COLUMNS = ("label", "labeller", "labelled_at", "known_at")
"""What a row of a label set has behind its key."""

_ROW = "__row"


@dataclass(frozen=True)
class Names:
    """How the columns of a batch are called; a labeller who made all of it may be given instead of a column."""

    label: str = "label"
    labeller: str = "labeller"
    labelled_at: str = "labelled_at"
    known_at: str = "known_at"


def taken(
    batch: pl.DataFrame, name: str, spec: Labels, names: Names, by: str | None, now: datetime, key_types: dict[str, Any]
) -> pl.DataFrame:
    """Return the batch as rows of a label set: the key, then `COLUMNS`; repeated rows once.

    Args:
        by: who made all of the labels, where no column says it.
        now: when the batch arrived; what holds where no column says when a label was made or known.
        key_types: the types that the key's columns must have, as far as they are known.

    Raises:
        InvalidInput: a column is missing or unknown, a time has no zone or cannot be, a label is not allowed, a key or
            labeller is missing, or two labels contradict each other; says which rows.
    """
    import polars as pl

    where = f"labels/{name}"
    given = {"label": names.label, "labeller": names.labeller}
    needed = [*spec.key, given["label"], *([given["labeller"]] if by is None else [])]
    for column in needed:
        if column not in batch.columns:
            hint = "; give the labeller of all of them instead" if column == given["labeller"] else ""
            raise InvalidInput(
                f'{where}: the batch has no column "{column}"{did_you_mean(column, batch.columns)} '
                f"(it has: {listed(batch.columns)}){hint}"
            )
    if not batch.height:
        raise InvalidInput(f"{where}: the batch has no rows; nothing was kept")
    rows = batch.with_row_index(_ROW, offset=1)
    who = pl.lit(by) if by is not None else pl.col(given["labeller"]).cast(pl.String)
    keys = [_key(rows, where, column, key_types.get(column)) for column in spec.key]
    known = _instants(rows, where, names.known_at)
    if known is None:
        known = pl.Series([now], dtype=_utc()).new_from_index(0, rows.height)
    made = _instants(rows, where, names.labelled_at)
    times = (known if made is None else made).alias("labelled_at"), known.alias("known_at")
    label = _label(rows, where, given["label"], spec)
    kept = rows.select(_ROW, *keys, label, who.alias("labeller")).with_columns(times)
    for column in (*spec.key, "labeller"):
        missing = pl.col(column).is_null()
        if kept[column].dtype == pl.String:
            missing |= pl.col(column).str.strip_chars() == ""
        _refuse(kept.filter(missing), where, f"{column} is missing; say who or what it is")
    early = pl.col("known_at") < pl.col("labelled_at")
    _refuse(kept.filter(early), where, "a label is known before it was made; check the times and their zones")
    _refuse(
        kept.filter(pl.col("known_at") > now), where, "a label is known only in the future; check the times and zones"
    )
    kept = kept.unique([*spec.key, *COLUMNS[:3]], keep="first", maintain_order=True)
    same = [*spec.key, "labeller", "labelled_at"]
    _refuse(
        kept.filter(kept.select(same).is_duplicated()),
        where,
        "one labeller gives an item two labels at one time; keep one of them, or say which came later",
    )
    return kept.drop(_ROW)


def label_type(spec: Labels, found: Any = None) -> Any:
    """Return the Polars type of the labels: that of the allowed values, or what was found."""
    import polars as pl

    kinds = {type(value) for value in spec.values}
    if not kinds:
        if found is None or found == pl.Null:
            return pl.String
        return pl.Int64 if found.is_integer() else pl.Float64 if found.is_float() else found
    if kinds == {bool}:
        return pl.Boolean
    if kinds == {int}:
        return pl.Int64
    return pl.Float64 if kinds <= {int, float} else pl.String


def _key(rows: pl.DataFrame, where: str, column: str, wanted: Any) -> pl.Expr:
    import polars as pl

    found = rows[column].dtype
    if wanted is None or found == wanted:
        if found.is_nested() or found == pl.Object:
            raise InvalidInput(f"{where}: the key column {column} is {found}; a key is a number, a text or a time")
        return pl.col(column)
    cast = rows.select(_ROW, pl.col(column), pl.col(column).cast(wanted, strict=False).alias("as"))
    lost = cast.filter(pl.col("as").is_null() & pl.col(column).is_not_null())
    _refuse(lost, where, f"{column} is {found} and not {wanted}, as it is in the dataset and in earlier labels")
    return pl.col(column).cast(wanted)


def _label(rows: pl.DataFrame, where: str, column: str, spec: Labels) -> pl.Expr:
    import polars as pl

    found = rows[column].dtype
    if found.is_nested() or found == pl.Object:
        raise InvalidInput(f"{where}: labels are {found}; a label is a number, a text or true and false")
    wanted = label_type(spec, found)
    label = pl.col(column)
    if wanted == pl.Boolean and found == pl.String:
        words = {"true": True, "false": False}
        label = label.str.to_lowercase().replace_strict(words, default=None, return_dtype=pl.Boolean)
    elif found == pl.Boolean and wanted == pl.String:
        label = label.cast(pl.String).str.to_lowercase()
    else:
        label = label.cast(wanted, strict=False)
    cast = rows.select(_ROW, pl.col(column).alias("given"), label.alias("label"))
    wrong = pl.col("label").is_null() & pl.col("given").is_not_null()
    if spec.values:
        allowed = pl.Series([str(v) if wanted == pl.String else v for v in spec.values], dtype=wanted)
        wrong |= pl.col("label").is_not_null() & ~pl.col("label").is_in(allowed.implode())
    bad = cast.filter(wrong)
    if bad.height:
        said = listed(repr(v) for v in bad["given"].cast(pl.String).unique(maintain_order=True).head(5).to_list())
        _refuse(bad, where, f"the label is {said}; allowed are {listed(map(str, spec.values))}")
    return label.alias("label")


def _utc() -> Any:
    import polars as pl

    return pl.Datetime("us", "UTC")


def _instants(rows: pl.DataFrame, where: str, column: str) -> pl.Series | None:
    """Return a column as instants in UTC, None where there is none of this name."""
    import polars as pl

    if column not in rows.columns:
        return None
    values = rows[column]
    if values.dtype == pl.String:
        texts = values.unique().drop_nulls().to_list()
        read = {text: _instant(text) for text in texts}
        wrong = [text for text, instant in read.items() if instant is None]
        bad = rows.filter(pl.col(column).is_in(wrong)) if wrong else rows.clear()
        _refuse(bad, where, f"{column} is no time with a zone; write it like 2013-05-03T14:00:00Z")
        found = values.replace_strict(read, return_dtype=_utc()) if read else values.cast(_utc())
    elif isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is not None:
        found = values.cast(pl.Datetime("us", values.dtype.time_zone)).dt.convert_time_zone("UTC")
    elif isinstance(values.dtype, pl.Datetime):
        raise InvalidInput(f"{where}: {column} has no time zone; give it one, so that it is known when that was")
    else:
        raise InvalidInput(f"{where}: {column} is {values.dtype}; expected times with a zone, 2013-05-03T14:00:00Z")
    _refuse(rows.filter(found.is_null()), where, f"{column} is missing; say when it was")
    return found


def _instant(text: str) -> datetime | None:
    try:
        return parse_instant(text)
    except InvalidInput:
        return None


def _refuse(rows: pl.DataFrame, where: str, sentence: str) -> None:
    if rows.height:
        numbers: Sequence[int] = rows[_ROW].to_list()
        named = f"row{'s' if len(numbers) > 1 else ''} {listed(map(str, numbers), 5)}"
        raise InvalidInput(f"{where}: {named}: {sentence}; nothing was kept")
