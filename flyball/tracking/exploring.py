"""Looking through live traffic, however long ago: by version, variant, time and slice, in milliseconds.

The tables (`tracking.sealed`) are read by the columns and files that a question needs; what is not sealed yet comes
from the log. Both are of one moment, so no row is missing or there twice.

A slice is written like a filter of runs: comparisons joined by AND, of the columns of `tracking.traffic` and `label`:

    input.carrier = 'UA' AND input.hour >= 17 AND output.probability > 0.9 AND label IS NOT NULL

with = == != < <= > >=, LIKE and ILIKE (`%` stands for any characters, `_` for one), IN (…), IS NULL and IS NOT NULL.
What is true or false is compared with 1 or 0.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.storage.streams import Cursor, is_same
from flyball.tracking.clauses import Clause, Token, cut_clauses, pieces, unquoted
from flyball.tracking.predictions import check_variant, microseconds
from flyball.tracking.sealed import Part, Sealed
from flyball.tracking.traffic import TrafficReader, labels_of, with_labels

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Explorer", "Slice", "Summary"]

T = TypeVar("T")
_BASE = ("id", "at", "deployment", "revision", "variant", "version", "key", "latency_us", "trace", "label")
_COMPARED = {"=": "eq", "==": "eq", "!=": "ne", "<>": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
_OF_LABEL = ("label", "label_at", "label_source")
_MOST_GROUPS = 1000
_ATTEMPTS = 5


@dataclass(frozen=True)
class Slice:
    """Which rows are wanted; None: any.

    Attributes:
        where: comparisons, see the module.
        since, until: rows answered from `since` on and before `until`, with a zone (InvalidInput without).
        labelled: only those whose truth is known, or only those whose is not.
    """

    version: str | None = None
    variant: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    labelled: bool | None = None
    where: str | None = None

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            given = getattr(self, name)
            if given is not None and given.tzinfo is None:
                raise InvalidInput(f"{name} is {given.isoformat()}, without a zone; give it one, such as Z")


@dataclass(frozen=True)
class Summary:
    """What the rows of a slice come to.

    Attributes:
        rows: how many.
        first, last: when the first and the last of them was answered.
        latency_ms: p50, p95 and p99 of the milliseconds from question to answer.
        groups: by each value that was asked for, the most frequent first: `value`, `rows`, `latency_p50_ms`, the mean
            of each output that is a number, and of `labelled` rows how many there are.
    """

    rows: int
    first: datetime | None
    last: datetime | None
    latency_ms: Mapping[str, float]
    groups: list[dict[str, Any]]


class Explorer:
    """Looks through the prediction log in `folder`. May be used by several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables = Sealed(folder)
        self._reader = TrafficReader(folder, lambda _damage: None)
        self._lock = threading.Lock()
        self._since: Cursor = {}  # the log is held in memory from here on
        self._to: Cursor = {}
        self._live: dict[str, list[pl.DataFrame]] = {}

    def rows(
        self, deployment: str, wanted: Slice = Slice(), limit: int = 100, before: tuple[datetime, str] | None = None
    ) -> pl.DataFrame:
        """Return the newest rows of a slice, newest first, with `label`, `label_at` and `label_source`.

        Args:
            before: the instant and the id of the last row of the page before.

        Raises:
            InvalidInput: the slice cannot be read, or names a column that no row has.
        """
        return self._passing_damage(deployment, lambda: self._rows(deployment, wanted, limit, before))

    def _rows(self, deployment: str, wanted: Slice, limit: int, before: tuple[datetime, str] | None) -> pl.DataFrame:
        import polars as pl

        limited = wanted
        if before is not None:
            end = before[0] + timedelta(microseconds=1)
            limited = replace(wanted, until=end if wanted.until is None else min(end, wanted.until))
        found = [rows for rows in self._newest(deployment, limited, limit, before) if rows.height]
        if not found:
            return with_labels(_nothing(), None)
        rows = pl.concat(found, how="diagonal_relaxed").sort("at", "id", descending=True).head(limit)
        plain = rows.select(pl.exclude("label", "label_at", "label_source"))
        return with_labels(plain, self._labels(str(plain["id"].min()), str(plain["id"].max())))

    def _newest(
        self, deployment: str, wanted: Slice, limit: int, before: tuple[datetime, str] | None
    ) -> Iterator[pl.DataFrame]:
        """Yield rows of a slice, from the newest files back, until there are enough."""
        import polars as pl

        parts, live = self._sources(deployment, wanted)
        parts.sort(key=lambda part: part.last_at, reverse=True)
        every = _joined([self._tables.scan(parts), *live])
        if every is None:
            return
        schema = pl.LazyFrame(schema=every.collect_schema())  # a file may lack a column that another has
        enough = limit
        oldest: int | None = None  # of what was found
        sources: list[pl.LazyFrame | None] = [_joined(live)] if live else []
        taken, step = 0, 1
        while sources or taken < len(parts):
            if not sources:
                if enough <= 0 and oldest is not None and parts[taken].last_at < oldest:
                    return
                sources.append(self._tables.scan(parts[taken : taken + step]))
                taken, step = taken + step, step * 2
            source = _joined([schema, sources.pop()])
            if source is None:
                continue
            query = self._query(source, wanted)
            if before is not None:
                at, id = before
                query = query.filter((pl.col("at") < at) | ((pl.col("at") == at) & (pl.col("id") < id)))
            rows = query.sort("at", "id", descending=True).head(limit).collect()
            enough -= rows.height
            if rows.height:
                last = microseconds(rows["at"][-1])
                oldest = last if oldest is None else min(oldest, last)
            yield rows

    def summary(self, deployment: str, wanted: Slice = Slice(), by: str | None = None) -> Summary:
        """Return what the rows of a slice come to, in all and by the values of a column.

        Raises:
            InvalidInput: the slice cannot be read, or it or `by` names a column that no row has.
        """
        return self._passing_damage(deployment, lambda: self._summary(deployment, wanted, by))

    def _summary(self, deployment: str, wanted: Slice, by: str | None) -> Summary:
        import polars as pl

        parts, live = self._sources(deployment, wanted)
        source = _joined([self._tables.scan(parts), *live])
        if source is None:
            return Summary(0, None, None, {}, [])
        query = self._query(source, wanted, with_label=by in _OF_LABEL)
        latency = pl.col("latency_us")
        names = query.collect_schema()
        totals = query.select(
            pl.len().alias("rows"),
            pl.col("at").min().alias("first"),
            pl.col("at").max().alias("last"),
            *(latency.quantile(q).alias(name) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))),
        )
        grouped = None
        if by is not None:
            _check_column(by, names)
            means = [n for n, t in names.items() if n.startswith("output.") and t.is_numeric()]
            grouped = (
                self._marked(query.select("id", "latency_us", *means, value=pl.col(by)))
                .group_by("value")
                .agg(
                    pl.len().alias("rows"),
                    (latency.median() / 1000).alias("latency_p50_ms"),
                    pl.col("labelled").sum(),
                    *(pl.col(name).mean() for name in means),
                )
                .sort("rows", "value", descending=[True, False], nulls_last=True)
                .head(_MOST_GROUPS)
            )
        found = totals.collect().row(0, named=True)
        return Summary(
            found["rows"],
            found["first"],
            found["last"],
            {name: found[name] / 1000 for name in ("p50", "p95", "p99") if found[name] is not None},
            grouped.collect().to_dicts() if grouped is not None else [],
        )

    def schema(self, deployment: str) -> dict[str, pl.DataType]:
        """Return the columns that the rows of a deployment have, with their types; empty when it was never asked."""
        return self._passing_damage(deployment, lambda: self._schema(deployment))

    def _schema(self, deployment: str) -> dict[str, pl.DataType]:
        parts, live = self._sources(deployment, Slice())
        source = _joined([self._tables.scan(parts), *live])
        return {} if source is None else dict(source.collect_schema())

    def known(self, deployment: str) -> tuple[int, list[str]]:
        """Return how many rows of a deployment there are and the versions that answered, without reading the tables."""
        parts, live = self._sources(deployment, Slice())
        recent = [rows.select("version").collect()["version"] for rows in live]
        versions = {version for part in parts for version in part.versions} | {v for one in recent for v in one}
        return sum(part.rows for part in parts) + sum(map(len, recent)), sorted(versions)

    # -- within

    def _passing_damage(self, deployment: str, ask: Callable[[], T]) -> T:
        """Return what `ask` returns; when a file cannot be read, without that file."""
        import polars as pl

        for attempt in range(_ATTEMPTS):
            try:
                return ask()
            except (OSError, pl.exceptions.ComputeError, pl.exceptions.PanicException):
                if attempt == 0:  # a file may have been merged away meanwhile
                    continue
                if not self._tables.find_damaged(self._tables.parts("predictions", deployment)):
                    raise
        return ask()

    def _query(self, rows: pl.LazyFrame, wanted: Slice, *, with_label: bool = False) -> pl.LazyFrame:
        import polars as pl

        clauses = cut_clauses(wanted.where) if wanted.where else []
        if wanted.version is not None:
            rows = rows.filter(pl.col("version") == wanted.version)
        if wanted.variant is not None:
            check_variant(wanted.variant)
            rows = rows.filter(pl.col("variant") == wanted.variant)
        if wanted.since is not None:
            rows = rows.filter(pl.col("at") >= wanted.since)
        if wanted.until is not None:
            rows = rows.filter(pl.col("at") < wanted.until)
        about_label = [clause for clause in clauses if _column_of(clause.left) in _OF_LABEL]
        schema = rows.collect_schema()
        for clause in clauses:
            if clause not in about_label:
                rows = rows.filter(_condition(clause, schema))
        if with_label or about_label or wanted.labelled is not None:
            labelled = with_labels(rows.collect(), self._labels())
            rows, schema = labelled.lazy(), labelled.schema
            if wanted.labelled is not None:
                known = pl.col("label").is_not_null()
                rows = rows.filter(known if wanted.labelled else ~known)
            for clause in about_label:
                rows = rows.filter(_condition(clause, schema))
        return rows

    def _marked(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Return rows with `labelled`: whether the truth is known."""
        import polars as pl

        labels = self._labels()
        if labels is None:
            return rows.with_columns(labelled=pl.lit(False))
        known = labels.lazy().select(id="prediction_id", labelled=pl.lit(True)).unique("id")
        return rows.join(known, on="id", how="left").with_columns(pl.col("labelled").fill_null(False))

    def _sources(self, deployment: str, wanted: Slice) -> tuple[list[Part], list[pl.LazyFrame]]:
        """Return the files and the rows of the log that may be wanted, of one moment."""
        since, until = (None if at is None else microseconds(at) for at in (wanted.since, wanted.until))
        with self._lock:
            for _ in range(_ATTEMPTS):
                sealed = self._tables.cursor("predictions")
                parts = self._tables.parts("predictions", deployment, since, until)
                if wanted.version is not None:
                    parts = [part for part in parts if wanted.version in part.versions]
                if sealed == self._tables.cursor("predictions") and self._are_there(parts):
                    break
            self._read_on(sealed)
            return parts, [rows.lazy() for rows in self._live.get(deployment, [])]

    def _are_there(self, parts: list[Part]) -> bool:
        return all(self._tables.path(part).exists() for part in parts)

    def _read_on(self, sealed: Cursor) -> None:
        """Hold in memory what is in the log behind the tables."""
        if sealed != self._since:
            self._since, self._to, self._live = sealed, dict(sealed), {}
        while True:
            frames, after = self._reader.read_deployments(self._to)
            for name, rows in frames.items():
                self._live.setdefault(name, []).append(rows)
            if is_same(self._to, after):
                return
            self._to = {**self._to, **after}

    def _labels(self, first_id: str = "", last_id: str | None = None) -> pl.DataFrame | None:
        """Return all labels of predictions in a range of ids, of the tables and of the log."""
        import polars as pl

        cursor = self._tables.cursor("labels")
        sealed = labels_of(self._tables, first_id, last_id)
        found = [] if sealed is None else [sealed]
        while True:
            rows, after = self._reader.read_labels(cursor)
            if rows.height:
                found.append(rows.filter(pl.col("prediction_id").is_between(pl.lit(first_id), pl.lit(last_id or "~"))))
            if is_same(cursor, after):
                return pl.concat(found) if found else None
            cursor = {**cursor, **after}


def _joined(frames: Sequence[pl.LazyFrame | None]) -> pl.LazyFrame | None:
    import polars as pl

    found = [rows for rows in frames if rows is not None]
    return pl.concat(found, how="diagonal_relaxed") if found else None


def _nothing() -> pl.DataFrame:
    import polars as pl

    texts = pl.DataFrame(schema=dict.fromkeys(_BASE[:-1], pl.String))
    return texts.with_columns(
        pl.col("at").cast(pl.Datetime("us", "UTC")), pl.col("revision", "latency_us").cast(pl.Int64)
    )


def _column_of(token: Token) -> str:
    return ".".join(pieces(token)) if token.sort == "name" else unquoted(token.raw)


def _check_column(name: str, schema: Mapping[str, Any]) -> None:
    if name in schema:
        return
    near = [known for known in schema if known.partition(".")[2] == name]
    hint = f' (did you mean "{near[0]}"?)' if near else did_you_mean(name, schema)
    raise InvalidInput(f'no logged row has a column "{name[:80]}"{hint}; there are {listed(sorted(schema))}')


def _condition(clause: Clause, schema: Mapping[str, Any]) -> pl.Expr:
    import polars as pl

    name = _column_of(clause.left)
    _check_column(name, schema)
    column, dtype = pl.col(name), schema[name]
    operator = clause.operator
    if operator in ("IS NULL", "IS NOT NULL"):
        return column.is_null() if operator == "IS NULL" else column.is_not_null()
    if operator in ("IN", "NOT IN"):
        values = [_value(token, name, dtype) for token in clause.right.parts if token.raw != ","]
        found = column.is_in(pl.Series(values, dtype=dtype, strict=False).implode())
        return found if operator == "IN" else ~found
    if operator in ("LIKE", "ILIKE", "NOT LIKE", "NOT ILIKE"):
        import re

        pattern = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in str(_text(clause.right)))
        found = column.cast(pl.String).str.contains(f"(?s{'i' * operator.endswith('ILIKE')})^{pattern}$")
        return ~found if operator.startswith("NOT") else found
    compared = _COMPARED.get(operator)
    if compared is None:
        known = [*_COMPARED, "LIKE", "ILIKE", "IN", "IS NULL"]
        raise InvalidInput(f'"{operator}" does not compare columns of the log; expected {listed(known)}')
    result: pl.Expr = getattr(column, compared)(pl.lit(_value(clause.right, name, dtype)))
    return result


def _text(token: Token) -> str:
    return unquoted(token.raw)


def _value(token: Token, name: str, dtype: Any) -> Any:
    """Return what a column is compared with, in its type. Raises InvalidInput."""
    import polars as pl

    text = _text(token)
    try:
        if dtype.is_numeric():
            return int(text) if text.lstrip("-").isdecimal() else float(text)
        if dtype == pl.Boolean:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if isinstance(dtype, pl.Datetime):
            from flyball.clock import parse_instant

            return parse_instant(text)
    except (ValueError, KeyError):
        raise InvalidInput(
            f'"{name}" holds {dtype}, which {text[:80]!r} is not; compare it with a value of that type'
        ) from None
    return text
