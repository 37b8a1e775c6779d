"""Files of any format as one lazy table: each is looked at, then all must fit together. For kinds with files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from flyball.data.reasons import reason_of
from flyball.data.sources._csv import CsvFile
from flyball.data.sources._json import JsonFile, joined_schema
from flyball.data.sources._layout import Layout
from flyball.data.sources._memory import guarded
from flyball.data.sources._types import Numbers, converted, kind_of, merged
from flyball.errors import InvalidInput, listed

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Part", "glimpse", "open_parts", "partitions_of"]

_DEFAULT_PARTITION = "__HIVE_DEFAULT_PARTITION__"  # how Hive writes a null


@dataclass(frozen=True)
class Part:
    """One file, the name it has for people, and the values of the columns that its folders tell."""

    path: Path
    name: str
    partitions: Mapping[str, str | None] = field(default_factory=dict)


def partitions_of(folders: Sequence[str]) -> dict[str, str | None]:
    """Return the columns in folders of the form `column=value`; a value may be percent-encoded.

    >>> partitions_of(["flights", "year=2013", "carrier=B%206"])
    {'year': '2013', 'carrier': 'B 6'}
    """
    pairs = [folder.partition("=") for folder in folders if re.match(r"[^=]+=.", folder)]
    return {unquote(name): None if value == _DEFAULT_PARTITION else unquote(value) for name, _, value in pairs}


def open_parts(parts: Sequence[Part], layout: Layout) -> pl.LazyFrame:
    """Return the table of all files, in their order.

    Whole numbers in one file and decimals in another are decimals. A column that only some files have is an error,
    unless `layout.union` says that the others have no value there. Files with a header only are without rows among
    others that have some.

    Raises:
        InvalidInput: an empty or broken file, files that do not fit together, no row at all.
    """
    frames = _frames(parts, layout)
    _refuse_empty(parts, frames)
    typed = _with_partitions(parts, frames)
    if len(typed) == 1:
        return typed[0]
    return _joined(parts, typed, layout)


def glimpse(part: Part, layout: Layout) -> pl.Schema:
    """Return the columns of one file and their types, as far as its beginning shows them."""
    import polars as pl

    kind = layout.format_of(part.name)
    if kind == "parquet":
        schema: pl.Schema = guarded(part.name, lambda: pl.Schema(pl.read_parquet_schema(part.path)))
    elif kind == "csv":
        schema = CsvFile(part.path, layout, glimpse=True).frame({}).collect_schema()
    elif kind == "arrow":
        schema = guarded(part.name, lambda: _arrow(part.path).collect_schema())
    else:
        schema = JsonFile(part.path, layout.encoding, glimpse=True).schema
    return pl.Schema({**schema, **_partition_schema([part])})


def _frames(parts: Sequence[Part], layout: Layout) -> list[pl.LazyFrame]:
    csvs: dict[int, CsvFile] = {}
    frames: dict[int, pl.LazyFrame] = {}
    for index, part in enumerate(parts):
        if guarded(part.name, part.path.stat).st_size == 0:
            raise InvalidInput(f"{part.name} is empty; expected a table")
        if layout.format_of(part.name) == "csv":
            csvs[index] = guarded(part.name, partial(CsvFile, part.path, layout))
        else:
            frames[index] = guarded(part.name, partial(_frame, part, layout))
            if not guarded(part.name, frames[index].collect_schema):
                raise InvalidInput(f"{part.name} has no columns; expected a table")
    kinds = {
        name: reduce(merged, [csv.kinds[name] for csv in csvs.values() if name in csv.kinds])
        for csv in csvs.values()
        for name in csv.names
    }
    for index, csv in csvs.items():
        frames[index] = csv.frame(kinds)
    return [frames[index] for index in range(len(parts))]


def _frame(part: Part, layout: Layout) -> pl.LazyFrame:
    import polars as pl

    kind = layout.format_of(part.name)
    if kind == "parquet":
        return pl.scan_parquet(part.path, glob=False)
    return _arrow(part.path) if kind == "arrow" else JsonFile(part.path, layout.encoding).frame()


def _refuse_empty(parts: Sequence[Part], frames: Sequence[pl.LazyFrame]) -> None:
    for part, frame in zip(parts, frames, strict=True):
        if guarded(part.name, frame.head(1).collect).height:
            return
    more = f" and {len(parts) - 1} more files" if len(parts) > 1 else ""
    raise InvalidInput(f"{parts[0].name}{more} has a header but no rows; expected at least one row")


def _joined(parts: Sequence[Part], frames: Sequence[pl.LazyFrame], layout: Layout) -> pl.LazyFrame:
    import polars as pl

    schemas = [frame.collect_schema() for frame in frames]
    first = schemas[0]
    for part, schema in zip(parts[1:], schemas[1:], strict=True):
        if set(schema) != set(first) and not layout.union:
            extra, missing = sorted(set(schema) - set(first)), sorted(set(first) - set(schema))
            said = [f"lacks {listed(missing)}"] * bool(missing) + [f"has {listed(extra)} besides"] * bool(extra)
            raise InvalidInput(
                f"{parts[0].name} and {part.name} have different columns: the second {' and '.join(said)}; "
                "read them one by one, or say union (options: {union: true}) to have no value there"
            )
        for name in set(schema) & set(first):
            if pl.String in (schema[name], first[name]) and schema[name] != first[name]:
                if pl.Null in (schema[name], first[name]):
                    continue
                raise InvalidInput(
                    f'column "{name}" is {first[name]} in {parts[0].name} and {schema[name]} in {part.name}; '
                    "make it the same in both"
                )
    ordered = list(frames) if layout.union else [frame.select(first.names()) for frame in frames]
    where = f"{parts[0].name} and {len(parts) - 1} more"
    joined_schema(schemas, where)
    try:
        joined = pl.concat(ordered, how="diagonal_relaxed" if layout.union else "vertical_relaxed")
        joined.collect_schema()
    except pl.exceptions.PolarsError as error:
        raise InvalidInput(f"{where} do not fit together: {reason_of(error)}") from error
    return joined


def _partition_schema(parts: Sequence[Part]) -> dict[str, pl.DataType]:
    import polars as pl

    names = list(dict.fromkeys(name for part in parts for name in part.partitions))
    found = {}
    for name in names:
        values = pl.Series(name, [part.partitions.get(name) for part in parts], pl.String)
        found[name] = values.to_frame().select(converted(name, kind_of(values, Numbers()), Numbers())).schema[name]
    return found


def _with_partitions(parts: Sequence[Part], frames: Sequence[pl.LazyFrame]) -> list[pl.LazyFrame]:
    """Add the columns that the folders tell, where the file itself does not have them."""
    import polars as pl

    names = list(dict.fromkeys(name for part in parts for name in part.partitions))
    if not names:
        return list(frames)
    texts = {name: pl.Series(name, [part.partitions.get(name) for part in parts], pl.String) for name in names}
    columns = {
        name: values.to_frame().select(converted(name, kind_of(values, Numbers()), Numbers())).to_series()
        for name, values in texts.items()
    }
    typed = []
    for index, frame in enumerate(frames):
        own = frame.collect_schema()
        added = [
            pl.lit(columns[name][index], dtype=columns[name].dtype).alias(name) for name in names if name not in own
        ]
        typed.append(frame.with_columns(added))
    return typed


def _arrow(path: Path) -> pl.LazyFrame:
    import polars as pl

    with path.open("rb") as file:
        is_file_format = file.read(6) == b"ARROW1"
    return pl.scan_ipc(path, glob=False) if is_file_format else pl.read_ipc_stream(path).lazy()
