"""What the commands about data share: how a version, a time, columns are given; how rows are shown or saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyball.cli.app import WrongUse
from flyball.cli.show import emit, note, table
from flyball.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

    from flyball.ledger.refs import Ref

__all__ = [
    "At", "Columns", "Name", "Purpose", "Target",
    "instant_of", "refuse_existing", "save", "show_rows", "target_of", "words_of",
]  # fmt: skip

Target = Annotated[str, typer.Argument(metavar="DATASET", help="A dataset or a version of it: flights, flights@3.")]
Name = Annotated[str, typer.Argument(metavar="DATASET", help="A declared dataset.")]
At = Annotated[str | None, typer.Option("--at", metavar="TIME", help="As it was then: 2026-01-31T00:00:00Z.")]
Columns = Annotated[str | None, typer.Option("--columns", metavar="A,B", help="Only these columns.")]
Purpose = Annotated[str | None, typer.Option("--purpose", metavar="WORD", help="What the rows are read for.")]

_SINKS = {".parquet": "sink_parquet", ".csv": "sink_csv", ".ndjson": "sink_ndjson", ".arrow": "sink_ipc"}


def target_of(text: str) -> Ref:
    """Return what an argument names: a dataset, perhaps a version of it. Raises WrongUse."""
    from flyball.ledger.refs import ref

    try:
        return ref(text, "dataset")
    except InvalidInput as error:
        raise WrongUse(str(error)) from None


def name_of(text: str) -> str:
    """Return the name of a dataset, where a version would mean nothing. Raises WrongUse."""
    found = target_of(text)
    if found.version is not None:
        raise WrongUse(f'"{text}" names a version; give the dataset alone: {found.name}')
    return found.name


def instant_of(text: str | None) -> Any:
    """Return a time that was given. Raises WrongUse."""
    from flyball.clock import parse_instant

    try:
        return parse_instant(text) if text is not None else None
    except InvalidInput as error:
        raise WrongUse(f"--at: {error}") from None


def show_rows(rows: pl.LazyFrame, limit: int, json: bool) -> None:
    """Print the first rows, and say when there are more."""
    from flyball.notebook.showing import text_of

    found = rows.head(limit + 1).collect()
    shown = found.head(limit)
    if json:
        emit({"items": shown.to_dicts(), "next": None})
    else:
        table(found.columns, [[text_of(cell) for cell in row] for row in shown.iter_rows()], "no rows")
    if found.height > limit:
        note("there is more: --limit shows up to 1000 rows, --to FILE writes all")


def save(rows: pl.LazyFrame, to: Path) -> None:
    """Write all rows to a file, whole or not at all; nothing is held in memory.

    Raises:
        InvalidInput: the file is there already, its ending is unknown, or its format cannot hold the rows.
    """
    from polars.exceptions import PolarsError

    from flyball.data.reasons import reason_of

    sink = _SINKS.get(to.suffix)
    if sink is None:
        raise InvalidInput(f"{to.name} does not end in one of {', '.join(_SINKS)}")
    refuse_existing(to)
    partial = to.with_name(f".{to.name}.part")
    try:
        getattr(rows, sink)(partial)
        partial.replace(to)
    except (PolarsError, OSError) as error:
        raise InvalidInput(f"{to} cannot be written: {reason_of(error)}") from error
    finally:
        partial.unlink(missing_ok=True)
    note(f"wrote {to}")


def refuse_existing(to: Path) -> None:
    """Raise InvalidInput where a file would be overwritten."""
    if to.exists():
        raise InvalidInput(f"{to} is there already; remove it or name another file")


def words_of(text: str | None) -> Sequence[str] | None:
    """Return the words of `a,b`; None where nothing was given."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]
