"""The tables of the prediction log without a subject, or without rows that are too old.

Rows of a table are judged as the log's own payloads are: those that may be about the subject are put back into that
form, so that both places obey one rule. Files are replaced one by one; `tracking.sealed.alone` must be held.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from flyball.tracking.predictions import microseconds
from flyball.tracking.sealed import Sealed

if TYPE_CHECKING:
    import polars as pl

__all__ = ["drop_ids", "drop_older", "matching_rows", "take_out"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PARTS = {"input": "inputs", "feature": "features", "output": "outputs"}


def take_out(
    folder: Path, needles: Sequence[bytes], change: Callable[[bytes], bytes | None], *, dry_run: bool = False
) -> None:
    """Offer each row that holds one of `needles` to `change`, as a payload; None from it takes the row out.

    A payload that comes back changed changes the row's texts: what is missing in it becomes null.
    """
    tables = Sealed(folder)
    for part in tables.parts("predictions"):
        if dry_run:
            _without(tables.whole(part), needles, change)
        else:
            tables.rewrite(part, lambda rows: _without(rows, needles, change))


def drop_ids(folder: Path, ids: Collection[str], *, dry_run: bool = False) -> set[tuple[str, int]]:
    """Take out the labels of some predictions; return the id and the instant (µs) of arrival of each."""
    import polars as pl

    if not ids:
        return set()
    tables, gone = Sealed(folder), set[tuple[str, int]]()
    wanted = pl.Series(sorted(ids))
    for part in tables.parts("labels", ids=(wanted[0], wanted[-1])):
        rows = tables.whole(part)
        is_gone = rows["prediction_id"].is_in(wanted.implode())
        lost = rows.filter(is_gone)
        gone |= set(zip(lost["prediction_id"], lost["arrived"].cast(pl.Int64), strict=True))
        if lost.height and not dry_run:
            tables.rewrite(part, lambda rows: rows.filter(~rows["prediction_id"].is_in(wanted.implode())))
    return gone


def drop_older(folder: Path, deployments: Collection[str], before: int, *, dry_run: bool = False) -> set[str]:
    """Take out the rows of some deployments from before an instant (µs since 1970); return their ids."""
    import polars as pl

    tables, ids = Sealed(folder), set[str]()
    border = _EPOCH + timedelta(microseconds=before)
    for deployment in sorted(deployments):
        for part in tables.parts("predictions", deployment):
            if part.first_at >= before:
                continue
            rows = tables.whole(part)
            ids.update(rows.filter(pl.col("at") < border)["id"])
            if not dry_run:
                tables.rewrite(part, lambda rows: rows.filter(pl.col("at") >= border))
    return ids


def matching_rows(folder: Path, columns: Sequence[str], is_wanted: Callable[[str], bool]) -> str | None:
    """Return the first text among the values of some inputs and features for which `is_wanted` holds, or None."""

    tables = Sealed(folder)
    for part in tables.parts("predictions"):
        rows = tables.whole(part)
        for name in (f"{kind}.{column}" for kind in ("input", "feature") for column in columns):
            if name not in rows.columns:
                continue
            for value in rows[name].drop_nulls().unique():
                text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
                if is_wanted(text):
                    return text
    return None


def _without(rows: pl.DataFrame, needles: Sequence[bytes], change: Callable[[bytes], bytes | None]) -> pl.DataFrame:
    import polars as pl

    texts = [pl.col(name).cast(pl.String) for name in rows.columns if name == "key" or "." in name]
    wanted = sorted({needle.decode("utf-8", "replace") for needle in needles} | {_plain(needle) for needle in needles})
    may_hold = pl.any_horizontal([text.str.contains_any(wanted) for text in texts]).fill_null(False)
    places = rows.select(may_hold.arg_true()).to_series()
    gone: list[int] = []
    for place in places:
        row = rows.row(place, named=True)
        payload = orjson.dumps(_document(row))
        kept = change(payload)
        if kept is None:
            gone.append(place)
        elif kept != payload:
            rows = _changed(rows, place, orjson.loads(kept))
    if not gone:
        return rows
    return rows.filter(~pl.int_range(pl.len()).is_in(pl.Series(gone).implode()))


def _document(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as a payload of the log, see `tracking.predictions`."""
    document = {name: value for name, value in row.items() if "." not in name and name not in ("id", "key", "at")}
    document |= {"at": microseconds(row["at"]), "ids": row["id"], "keys": row.get("key")}
    for kind, part in _PARTS.items():
        document[part] = {n[len(kind) + 1 :]: v for n, v in row.items() if n.startswith(f"{kind}.") and v is not None}
    return document


def _changed(rows: pl.DataFrame, place: int, document: Mapping[str, Any]) -> pl.DataFrame:
    import polars as pl

    new = {"key": document.get("keys")}
    for kind, part in _PARTS.items():
        of = document.get(part) or {}
        new |= {name: of.get(name[len(kind) + 1 :]) for name in rows.columns if name.startswith(f"{kind}.")}
    here = pl.int_range(pl.len()) == place
    return rows.with_columns(
        pl.when(here).then(pl.lit(value, dtype=rows.schema[name])).otherwise(pl.col(name)).alias(name)
        for name, value in new.items()
        if name in rows.columns and value != rows[name][place]
    )


def _plain(needle: bytes) -> str:
    """Return a needle as the text that its JSON spelling means."""
    try:
        return str(orjson.loads(b'"' + needle + b'"'))
    except orjson.JSONDecodeError:
        return needle.decode("utf-8", "replace")
