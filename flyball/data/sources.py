"""Open data of any kind as one lazy Polars table.

`open_source` takes what a user has at hand: a path or a glob (CSV, TSV, Parquet, JSON, newline-delimited JSON, Arrow
IPC), or a frame or records in memory. Whatever is wrong with it is said here, before anything is stored. Called by
`datasets` and by the demo.

Text files are read once at opening when small, so that a ragged line is found at the edge and not in the middle of
a publish; larger ones stay on disk and stream.
"""

from __future__ import annotations

import codecs
import csv
import glob
import io
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.data.reasons import reason_of
from flyball.errors import InvalidInput, NotFound, did_you_mean, listed

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FORMATS", "open_source"]

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
_SMALL_BYTES = 64 * 1024 * 1024  # text files up to here are read at once; as a table they take about as much memory
_BLOCK_BYTES = 1024 * 1024
_SEPARATORS = (",", "\t", ";", "|")


def open_source(
    source: Any, *, format: str | None = None, string_columns: Collection[str] = (), as_text: bool = False
) -> pl.LazyFrame:
    """Return `source` as a lazy table.

    Args:
        source: a path or glob, several paths; a polars, pandas or Arrow frame; `{column: values}`; or a list of
            `{column: value}`.
        format: csv, parquet, json, ndjson or arrow, when the file's name does not tell.
        string_columns: CSV columns to keep as text though they look like numbers or dates (`01001`);
            `Contract.string_columns` names those of a contract.
        as_text: keep all CSV columns as text.

    Types of CSV columns are inferred from the whole file, so a late `N/A` makes a text column and not an error.

    Raises:
        NotFound: no such file, or no file matches the glob.
        InvalidInput: an unknown format; an empty file or one with a header only; text that is not UTF-8; two columns
            of the same name; lines of different lengths; files of a glob that do not fit together; no table at all.
    """
    import polars as pl

    if isinstance(source, str | os.PathLike):
        return _open_paths(_matching(os.fspath(source)), format, string_columns, as_text)
    if isinstance(source, list | tuple) and source and all(isinstance(s, str | os.PathLike) for s in source):
        return _open_paths([p for s in source for p in _matching(os.fspath(s))], format, string_columns, as_text)
    if isinstance(source, pl.LazyFrame):
        frame = source
    else:
        frame = _guarded("the table", lambda: _in_memory(source)).lazy()
    schema = _guarded("the table", frame.collect_schema)
    if not schema:
        raise InvalidInput("the table has no columns; give one with columns and rows")
    for name, dtype in schema.items():
        if dtype == pl.Object:
            raise InvalidInput(
                f'column "{name}" holds Python objects; expected numbers, texts, times or lists of those'
            )
    return frame


def _in_memory(source: Any) -> pl.DataFrame:
    import polars as pl

    if isinstance(source, pl.DataFrame):
        return source
    module = type(source).__module__.partition(".")[0]
    names = getattr(source, "columns", None) if module == "pandas" else getattr(source, "column_names", None)
    if names is not None and not callable(names):
        _refuse_repeated([str(n) for n in names], "the table")
    if module == "pandas":
        return pl.from_pandas(source.rename(columns=str))
    if hasattr(source, "__arrow_c_stream__"):
        return pl.DataFrame(source)
    if isinstance(source, Mapping):
        for name, values in source.items():
            if not isinstance(name, str):
                raise InvalidInput(f"the column name {name!r} is not a text")
            if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
                raise InvalidInput(f'column "{name}" is of type {type(values).__name__}; expected a list of values')
        return pl.DataFrame(dict(source), strict=True)
    if isinstance(source, list | tuple):
        if not source:
            raise InvalidInput("the list of rows is empty; give at least one {column: value}")
        for position, row in enumerate(source):
            if not isinstance(row, Mapping):
                raise InvalidInput(f"row {position} is of type {type(row).__name__}; expected {{column: value}}")
        return pl.from_dicts([dict(r) for r in source], infer_schema_length=None)
    raise InvalidInput(
        f"{type(source).__name__} is not a table; give a path, a polars, pandas or Arrow frame, "
        "{column: values}, or a list of {column: value}"
    )


def _matching(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        raise InvalidInput(f"{pattern} is a folder; name its files, for instance {path / '*.parquet'}")
    if path.exists() or not glob.has_magic(pattern):
        if not path.exists():
            siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise NotFound(f"there is no file {pattern}{did_you_mean(path.name, siblings)}")
        return [path]
    found = sorted(Path(p) for p in glob.glob(pattern, recursive=True) if Path(p).is_file())  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not found:
        raise NotFound(f"no file matches {pattern}")
    return found


def _open_paths(
    paths: Sequence[Path], format: str | None, string_columns: Collection[str], as_text: bool
) -> pl.LazyFrame:
    import polars as pl

    frames = [_open_path(path, format, string_columns, as_text) for path in paths]
    if len(frames) == 1:
        return frames[0]
    first = frames[0].collect_schema()
    for path, frame in zip(paths[1:], frames[1:], strict=True):
        names = frame.collect_schema().names()
        if set(names) != set(first):
            odd = sorted(set(names) ^ set(first))
            raise InvalidInput(f"{path} and {paths[0]} have different columns ({listed(odd)}); read them one by one")
    ordered = [frame.select(first.names()) for frame in frames]
    joined = pl.concat(ordered, how="vertical_relaxed")
    _guarded(f"{paths[0]} and {len(paths) - 1} more", joined.collect_schema)
    return joined


def _open_path(path: Path, format: str | None, string_columns: Collection[str], as_text: bool) -> pl.LazyFrame:
    import polars as pl

    kinds = sorted(set(FORMATS.values()))
    kind = format or FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InvalidInput(
            f"the extension {path.suffix or 'of no name'!r} of {path} is unknown"
            f"{did_you_mean(path.suffix, FORMATS)} (known: {listed(FORMATS)}); or say format="
        )
    if kind not in kinds:
        raise InvalidInput(f'unknown format "{kind}"{did_you_mean(kind, kinds)} (known: {listed(kinds)})')
    if path.stat().st_size == 0:
        raise InvalidInput(f"{path} is empty; expected a table")
    if kind in ("csv", "json", "ndjson"):
        _refuse_other_encodings(path)
    read: dict[str, Callable[[], pl.LazyFrame]] = {
        "csv": lambda: _csv(path, string_columns, as_text),
        "parquet": lambda: pl.scan_parquet(path, glob=False),
        "json": lambda: _json(path),
        "ndjson": lambda: _ndjson(path),
        "arrow": lambda: _arrow(path),
    }
    frame: pl.LazyFrame = _guarded(str(path), read[kind])
    names = _guarded(str(path), frame.collect_schema).names()
    if not names:
        raise InvalidInput(f"{path} has no columns; expected a table")
    if not _guarded(str(path), lambda: frame.head(1).collect().height):
        raise InvalidInput(f"{path} has a header but no rows; expected at least one row")
    return frame


def _csv(path: Path, string_columns: Collection[str], as_text: bool) -> pl.LazyFrame:
    import polars as pl

    header, separator = _csv_header(path)
    _refuse_repeated(header, str(path))
    names = [name or f"column_{i}" for i, name in enumerate(header, 1)]
    options: dict[str, Any] = {
        "separator": separator,
        "infer_schema": not as_text,
        "infer_schema_length": None,
        "try_parse_dates": not as_text,
        "schema_overrides": {n: pl.String for n in header if n in string_columns},
        "new_columns": names,
    }
    if path.stat().st_size > _SMALL_BYTES:
        return pl.scan_csv(path, glob=False, **options)
    try:
        return pl.read_csv(path, glob=False, **options).lazy()
    except pl.exceptions.ComputeError as error:
        raise _ragged(path, separator, len(header)) or error from error


def _csv_header(path: Path) -> tuple[list[str], str]:
    """Return the names in the first line and the separator that parts them."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        line = next((text for text in file if text.strip()), "")
        if not line:
            raise InvalidInput(f"{path} holds only blank lines; expected a header and rows")
        counts = {s: line.count(s) for s in _SEPARATORS}
        separator = "\t" if path.suffix.lower() == ".tsv" else max(_SEPARATORS, key=lambda s: counts[s])
        # The header may go over several lines when a name in quotes holds a line break.
        record = next(csv.reader(io.StringIO(line + file.read(_BLOCK_BYTES)), delimiter=separator))
    return record, separator


def _ragged(path: Path, separator: str, width: int) -> InvalidInput | None:
    """Return an error that names the first line with too many fields, if there is one."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator)
        for record in reader:
            if len(record) > width:
                return InvalidInput(
                    f"line {reader.line_num} of {path} has {len(record)} fields, the header has {width}; "
                    "quote values that contain the separator"
                )
    return None


def _json(path: Path) -> pl.LazyFrame:
    import polars as pl

    text = path.read_bytes().removeprefix(codecs.BOM_UTF8).strip()
    if text.startswith(b"["):
        if text.removeprefix(b"[").strip() == b"]":
            raise InvalidInput(f"{path} is an empty list; expected a list of objects")
        return pl.read_json(text, infer_schema_length=None).lazy()
    if text.startswith(b"{"):
        return pl.read_ndjson(text, infer_schema_length=None).lazy()
    raise InvalidInput(f"{path} is not a table in JSON; expected a list of objects, or an object a line")


def _ndjson(path: Path) -> pl.LazyFrame:
    import polars as pl

    if path.stat().st_size > _SMALL_BYTES:
        return pl.scan_ndjson(path, infer_schema_length=None)
    text = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    if not text.strip():
        raise InvalidInput(f"{path} holds only blank lines; expected an object a line")
    return pl.read_ndjson(text, infer_schema_length=None).lazy()


def _arrow(path: Path) -> pl.LazyFrame:
    import polars as pl

    with path.open("rb") as file:
        is_file_format = file.read(6) == b"ARROW1"
    return pl.scan_ipc(path, glob=False) if is_file_format else pl.read_ipc_stream(path).lazy()


def _refuse_other_encodings(path: Path) -> None:
    """Refuse text that is not UTF-8, saying where."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines, offset = 1, 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            if offset == 0 and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise InvalidInput(f"{path} is UTF-16; save it as UTF-8")
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                at = max(error.start - pending, 0)
                lines += block.count(b"\n", 0, at)
                byte, value = offset + error.start - pending, error.object[error.start]
                raise InvalidInput(
                    f"{path} is not UTF-8: byte {byte} (line {lines}) is 0x{value:02x}; save it as UTF-8"
                ) from None
            lines += block.count(b"\n")
            offset += len(block)
    if decoder.getstate()[0]:
        raise InvalidInput(f"{path} ends in the middle of a UTF-8 character (line {lines}); it may be cut off")


def _refuse_repeated(names: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidInput(f'{where} has two columns named "{name}"; rename one')
        seen.add(name)


def _guarded(where: str, read: Callable[[], Any]) -> Any:
    """Return what `read` gives; what Polars finds wrong becomes an error in our words."""
    import polars as pl

    try:
        return read()
    except InvalidInput:
        raise
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError, OSError) as error:
        raise InvalidInput(f"{where} cannot be read: {reason_of(error)}") from error
