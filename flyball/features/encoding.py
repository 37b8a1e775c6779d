"""Frames as online rows: keys and values in the form that an online store keeps, made a column at a time.

Materialisation calls this for the newest rows of a view. It is the form in which `pushes` writes a single row.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import polars as pl

from flyball.storage.online.places import SHORT_BYTES, hash_of, places_of

__all__ = ["encoded_keys", "encoded_rows", "places"]

_RFC_3339 = '"%Y-%m-%dT%H:%M:%S%.6fZ"'  # as `clock.format_instant` writes it, in JSON's quotes


def encoded_rows(frame: pl.DataFrame, features: Mapping[str, str]) -> list[bytes]:
    """Return each row's features as a JSON array in the order of `features`, as `OnlineStore.put_encoded` takes them.

    A float that is not finite is null, as JSON has neither NaN nor infinity.

    Args:
        frame: rows in the form of `FeatureView.check`; other columns than the features do not matter.
        features: name → dtype, as in `ViewSpec.features`.
    """
    if not frame.height:
        return []
    cells = [_cell(name, dtype, frame.schema[name]) for name, dtype in features.items()]
    # The fastest writer of rows of text that the engine has is that of CSV: with nothing quoted, null as JSON writes it
    # and each line in brackets it makes JSON arrays. Texts are JSON by then, so none holds a line's end.
    out = io.BytesIO()
    out.write(b"[")
    frame.select(cells).write_csv(
        out, include_header=False, quote_style="never", null_value="null", line_terminator="]\n["
    )
    rows = out.getvalue().split(b"\n")
    rows.pop()
    return rows


def encoded_keys(frame: pl.DataFrame, entity: Sequence[str]) -> list[str]:
    """Return each row's online key, as `ViewSpec.key_of` makes it: text, digits, or a JSON list of several texts.

    No entity column may hold a null.
    """
    texts = frame.select(pl.col(name).cast(pl.String) for name in entity)
    if len(entity) == 1:
        return texts.to_series().to_list()
    parts = [_json(pl.col(name)) for name in entity]
    return (
        texts.select(pl.concat_str(pl.lit("["), pl.concat_str(parts, separator=","), pl.lit("]"))).to_series().to_list()
    )


def places(frame: pl.DataFrame, entity: Sequence[str]) -> pl.Series:
    """Return for each row a number (Int64) in whose order an online store in a file writes its keys fastest.

    Rows of one entity have the same; rows of two may have, as `storage.online.places.hash_of` says. Of whole numbers it
    is the order of the keys' places only, not the places, which is ten times faster.
    """
    if len(entity) == 1 and frame.schema[entity[0]].is_integer():
        value = frame[entity[0]]
        number = value.reinterpret(signed=True) if value.dtype == pl.UInt64 else value.cast(pl.Int64)
        is_short = number.is_between(0, 10**SHORT_BYTES - 1)
        return number + is_short.cast(pl.Int64) * 2**62
    keys = encoded_keys(frame, entity)
    found = [place if isinstance(place, int) else hash_of(place) for place in places_of(keys)]
    return pl.Series(found, dtype=pl.Int64)


def _cell(name: str, dtype: str, kept: pl.DataType) -> pl.Expr:
    value = pl.col(name)
    if dtype == "datetime":
        return value.dt.convert_time_zone("UTC").dt.strftime(_RFC_3339)
    if dtype == "string":
        return _json(value.cast(pl.String)).alias(name)
    if kept.is_float():
        return pl.when(value.is_finite()).then(value).cast(pl.Float64)
    return value


def _json(text: pl.Expr) -> pl.Expr:
    """Return text as JSON writes it, in quotes; null as `null`."""
    return pl.struct(text.alias("")).struct.json_encode().str.strip_prefix('{"":').str.strip_suffix("}")
