"""Masking: show a column in another form, as lazy expressions at the very source of a frame.

Whatever is done with the frame afterwards (filters, joins, sorting) sees the masked values only, so it can learn
nothing of the real ones. What each way does to a value (null stays null everywhere):

| how | text | number | date or time | boolean, binary | list, struct |
|---|---|---|---|---|---|
| null | null | null | null | null | null |
| redact | `•••` | null | null | null | null |
| hash | 32 hexadecimal digits | the same, as text | the same, as text | the same, as text | null |
| generalise | `•••` | lower end of its band | 1 January of its year | null | null |
| partial | `•••` and the last characters | the same, as text | null | null | null |

The type stays as it is, but of `hash` and `partial` on what is not text: then it becomes String. The hash is keyed
(HMAC-SHA-256, RFC 2104, the first 128 bits) by a secret of the home, so equal values still join, in any dataset of the
home, and nobody without the secret can try values out. It hashes the value's text: 42 and "42" are equal.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flyball.errors import InvalidInput
from flyball.storage.secret import kept_secret

if TYPE_CHECKING:
    import polars as pl

__all__ = ["REDACTED", "Masked", "apply", "home_key", "keyed_hash"]

REDACTED = "•••"
_KEY_FILE = "privacy.key"


class Masked(Protocol):
    """How a column is masked; `governance.policies.Masking` is one."""

    @property
    def how(self) -> str: ...
    @property
    def keep(self) -> int: ...
    @property
    def band(self) -> float: ...


def apply(frame: pl.LazyFrame, masks: Mapping[str, Masked], key: bytes = b"") -> pl.LazyFrame:
    """Return the frame with its columns masked; nothing is computed yet.

    Args:
        masks: by column; a dotted name is a field inside a struct, or of the structs of a list. One that the frame
            does not have is passed over, because a policy may name columns that only some versions have.
        key: the home's secret, needed for `hash`; see `home_key`.

    Raises:
        InvalidInput: `hash` without a key.
    """
    import polars as pl

    schema = frame.collect_schema()
    by_column: dict[str, dict[tuple[str, ...], Masked]] = {}
    for name, mask in masks.items():
        head, path = (name, ()) if name in schema else _split(name)
        if head in schema:
            by_column.setdefault(head, {})[path] = mask
    if not by_column:
        return frame
    if not key and any(mask.how == "hash" for mask in masks.values()):
        raise InvalidInput("a column is masked by a hash, which needs the home's secret; pass key=home_key(home)")
    return frame.with_columns(
        _masked(pl.col(head), schema[head], paths, key).alias(head) for head, paths in by_column.items()
    )


def home_key(home: Path) -> bytes:
    """Return the home's 32-byte secret, made with mode 0600 when it is first needed; several processes agree on one.

    Raises:
        InvalidInput: others may read the file.
        Corrupt: it has another length.
    """
    return kept_secret(home / _KEY_FILE)


def keyed_hash(key: bytes, text: str) -> str:
    """Return 32 hexadecimal digits that stand for a text and cannot be turned back without the key."""
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256")[:16].hex()


def _split(name: str) -> tuple[str, tuple[str, ...]]:
    head, *path = name.split(".")
    return head, tuple(path)


def _masked(value: pl.Expr, dtype: pl.DataType, paths: Mapping[tuple[str, ...], Masked], key: bytes) -> pl.Expr:
    """Mask a value whole (the empty path), else its fields."""
    import polars as pl

    whole = paths.get(())
    if whole is not None:
        return _shown(value, dtype, whole, key)
    if isinstance(dtype, pl.List | pl.Array):
        inner = _masked(pl.element(), _dtype(dtype.inner), paths, key)
        return value.list.eval(inner) if isinstance(dtype, pl.List) else value.arr.to_list().list.eval(inner)
    if not isinstance(dtype, pl.Struct):
        return value
    fields = {field.name: _dtype(field.dtype) for field in dtype.fields}
    below: dict[str, dict[tuple[str, ...], Masked]] = {}
    for (first, *rest), mask in paths.items():
        if first in fields:
            below.setdefault(first, {})[tuple(rest)] = mask
    changed = [_masked(pl.field(name), fields[name], inner, key).alias(name) for name, inner in below.items()]
    return value.struct.with_fields(*changed) if changed else value


def _dtype(dtype: Any) -> pl.DataType:
    """Return an instance where Polars gives a class."""
    made: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return made


def _shown(value: pl.Expr, dtype: pl.DataType, mask: Masked, key: bytes) -> pl.Expr:
    import polars as pl

    text = isinstance(dtype, pl.String | pl.Categorical | pl.Enum)
    nothing = pl.when(False).then(value)  # typed, and one per row, also inside lists
    if dtype.is_nested() or mask.how == "null":
        return nothing
    if mask.how == "redact" or (mask.how == "generalise" and text):
        return _where_known(value, pl.lit(REDACTED)) if isinstance(dtype, pl.String) else _redacted(value, dtype)
    if mask.how == "hash":
        return _texts(value, dtype).map_batches(
            lambda texts: _hashed(texts, key), return_dtype=pl.String, is_elementwise=True
        )
    if mask.how == "partial" and (text or dtype.is_numeric()):
        known = _texts(value, dtype)
        end = known.str.tail(mask.keep) if mask.keep else pl.lit("")
        return _where_known(
            known, pl.when(known.str.len_chars() > mask.keep).then(pl.lit(REDACTED) + end).otherwise(pl.lit(REDACTED))
        )
    if mask.how == "generalise" and dtype.is_numeric():
        return ((value.cast(pl.Float64) / mask.band).floor() * mask.band).cast(dtype, strict=False)
    if mask.how == "generalise" and isinstance(dtype, pl.Date | pl.Datetime):
        return value.dt.truncate("1y")
    return nothing


def _where_known(value: pl.Expr, shown: pl.Expr) -> pl.Expr:
    import polars as pl

    return pl.when(value.is_not_null()).then(shown)


def _redacted(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Redact what is not plain text: categories become text, all else null."""
    import polars as pl

    if isinstance(dtype, pl.Categorical | pl.Enum):
        return _where_known(value, pl.lit(REDACTED))
    return pl.when(False).then(value)


def _texts(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    import polars as pl

    return value.bin.encode("hex") if isinstance(dtype, pl.Binary) else value.cast(pl.String)


def _hashed(texts: pl.Series, key: bytes) -> pl.Series:
    """Hash each different text once."""
    import polars as pl

    known = texts.drop_nulls().unique()
    if known.is_empty():
        return pl.Series(texts.name, [None] * len(texts), dtype=pl.String)
    hashes = pl.Series([keyed_hash(key, text) for text in known], dtype=pl.String)
    return texts.replace_strict(known, hashes, default=None, return_dtype=pl.String)
