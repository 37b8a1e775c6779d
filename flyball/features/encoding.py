"""Frames as online rows: keys and values in the form that an online store keeps, made a column at a time.

Materialisation calls this for each batch of a view's rows. It is the form in which `pushes` writes a single row.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import polars as pl

__all__ = ["encoded_keys", "encoded_rows"]

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
