"""Data on the command line: read versions, and tell how they differ.

A version is written as everywhere: `flights`, `flights@3`, `flights@golden`, with or without `dataset/` before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flyball.cli.app import Home, Json, Limit, app, opened
from flyball.cli.columns import aliases_cell, maker_cell
from flyball.cli.publish import publish
from flyball.cli.rows import (
    At,
    Columns,
    Name,
    Purpose,
    Target,
    instant_of,
    name_of,
    refuse_existing,
    save,
    show_rows,
    target_of,
    words_of,
)
from flyball.cli.show import ago, emit, note, say, state, table, working

if TYPE_CHECKING:
    pass

__all__ = ["data"]

data = typer.Typer(
    help="Data: read, compare and profile versions; quarantine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(data, name="data")

Before = Annotated[str, typer.Argument(metavar="BEFORE", help="The earlier version: a number or an alias.")]
After = Annotated[str, typer.Argument(metavar="AFTER", help="The later version; default: the newest.")]

data.command("publish", hidden=True)(publish)  # for who looks for it here


@data.command()
def read(
    dataset: Target,
    columns: Columns = None,
    at: At = None,
    purpose: Purpose = None,
    limit: Limit = 20,
    to: Annotated[
        Path | None, typer.Option("--to", help="Write all rows to a .parquet, .csv, .ndjson, .arrow.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show some rows of a version, or write all of them to a file. Masked as the policies say."""
    with opened(home) as platform, working(f"reading {dataset}"):
        rows = platform.frame(target_of(dataset), purpose=purpose, at=instant_of(at), columns=words_of(columns))
        if to is not None:
            save(rows, to)
        else:
            show_rows(rows, limit, json)


@data.command()
def versions(dataset: Name, limit: Limit = 20, home: Home = None, json: Json = False) -> None:
    """List a dataset's versions, newest first."""
    with opened(home) as platform:
        name = name_of(dataset)
        platform.resource(f"dataset/{name}")
        found, aliases = platform.versions("dataset", name, limit), platform.aliases("dataset", name)
    if json:
        from flyball.wire.native.values import version_value

        emit({"items": [version_value(v, aliases) for v in found], "next": None})
        return
    from flyball.web.formats import bytes_text

    rows = []
    for v in found:
        facts = v.metadata
        report = facts.get("contract")
        verdict = "not checked" if report is None else "passed" if report["passed"] else "failed"
        rows.append(
            (
                v.ref.short,
                aliases_cell(v, aliases),
                f"{facts['rows']:,}",
                bytes_text(facts.get("size_bytes", 0)),
                facts.get("mode") or "overwrite",
                state(verdict),
                maker_cell(v),
                ago(v.created_at),
                facts.get("note") or facts.get("query"),
            )
        )
    titles = ("version", "aliases", "rows", "size", "how", "contract", "made by", "age", "note")
    table(titles, rows, f"dataset/{name} has no version yet: flyball publish {name} FILE")


@data.command()
def diff(
    dataset: Name,
    before: Before,
    after: After = "latest",
    key: Annotated[
        str | None, typer.Option("--key", metavar="A,B", help="What names a row; '': none. Default: the dataset's.")
    ] = None,
    sample: Annotated[int, typer.Option("--sample", min=0, max=100, help="Rows to show of each sort.")] = 5,
    purpose: Purpose = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Tell how two versions differ: columns, rows by key, distributions."""
    from flyball.notebook.showing import difference_text

    with opened(home) as platform, working(f"comparing {before} with {after}"):
        name = name_of(dataset)
        found = platform.diff(name, before, after, key=words_of(key), sample=sample, purpose=purpose)
    emit(found.to_dict()) if json else say(difference_text(found))


@data.command()
def profile(dataset: Target, purpose: Purpose = None, home: Home = None, json: Json = False) -> None:
    """Show what a version's rows look like, column by column."""
    from flyball.notebook.showing import PROFILE_TITLES, profile_cells, profile_head

    with opened(home) as platform, working(f"profiling {dataset}"):
        found = platform.profile(target_of(dataset), purpose=purpose)
    if json:
        emit(found.to_dict())
        return
    say(profile_head(found))
    table(PROFILE_TITLES, map(profile_cells, found.columns.values()))


@data.command()
def compare(
    dataset: Name,
    before: Before,
    after: After = "latest",
    purpose: Purpose = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Put the profiles of two versions side by side; reads no row."""
    with opened(home) as platform, working(f"comparing {before} with {after}"):
        name = name_of(dataset)
        found = platform.compare_profiles(f"dataset/{name}@{before}", f"dataset/{name}@{after}", purpose)
    if json:
        emit({"items": [column.to_dict() for column in found], "next": None})
        return
    table(("column", "change", "what"), [(c.name, c.change, c.summary) for c in found])


@data.command()
def drift(
    dataset: Name,
    before: Before,
    after: After = "latest",
    columns: Columns = None,
    exact: Annotated[bool, typer.Option("--exact", help="Read and sort the rows; default: from the profiles.")] = False,
    purpose: Purpose = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Measure how far each column of a version is from an earlier one's: PSI, Jensen-Shannon, KS, Wasserstein-1."""
    from flyball.notebook.showing import text_of

    with opened(home) as platform, working(f"comparing {before} with {after}"):
        name = name_of(dataset)
        method: Literal["exact", "profile"] = "exact" if exact else "profile"
        pair = f"dataset/{name}@{before}", f"dataset/{name}@{after}"
        found = platform.drift(*pair, words_of(columns), method=method, purpose=purpose)
    if json:
        emit({"items": [column.to_dict() for column in found], "next": None})
        return
    rows = []
    for column in found:
        figures = [getattr(column.distances, figure, None) for figure in ("psi", "js", "ks", "w1")]
        missing = f"{column.nulls[0]:.1%} → {column.nulls[1]:.1%}"
        rows.append((column.column, *(None if f is None else text_of(f) for f in figures), missing, column.why))
    table(("column", "psi", "js", "ks", "w1", "missing", "why not"), rows)


@data.command()
def probe(dataset: Name, home: Home = None, json: Json = False) -> None:
    """Look whether a dataset's own source can be read, is fresh and has the expected columns. Exit code 1 if not."""
    with opened(home) as platform, working(f"looking at the source of {dataset}"):
        found = platform.probe(name_of(dataset))
    if json:
        seen = {"origin": found.origin, "reachable": found.reachable, "newest": found.newest}
        emit({**seen, "columns": dict(found.columns), "problems": list(found.problems), "good": found.is_good})
    else:
        word = "unavailable" if not found.reachable else "ready" if found.is_good else "degraded"
        newest = f", newest {ago(found.newest)}" if found.newest is not None else ""
        table(("", "source", "columns"), [(state(word), f"{found.origin}{newest}", f"{len(found.columns)}")])
        for problem in found.problems:
            say(f"  {problem}")
    if not found.is_good:
        raise typer.Exit(1)


@data.command()
def uses(dataset: Target, home: Home = None, json: Json = False) -> None:
    """List which runs, models and people read a dataset or a version of it, the last first."""
    with opened(home) as platform:
        found = platform.uses(target_of(dataset))
    if json:
        emit({"items": [use.to_dict() for use in found], "next": None})
        return
    rows = [(u.who, u.how, u.of, f"{u.times:,}", ago(u.last)) for u in found]
    table(("who", "how", "of", "times", "last"), rows, "nobody has read it yet")


@data.command("file")
def get_file(
    dataset: Target,
    path: Annotated[str, typer.Argument(help="Of the file, as the column path has it.")],
    to: Annotated[Path, typer.Option("--to", help="Where to write it.")],
    purpose: Purpose = None,
    home: Home = None,
) -> None:
    """Write one file of a dataset of files, its bytes verified."""
    from flyball.notebook.datasets import Dataset

    refuse_existing(to)
    with opened(home) as platform:
        target = target_of(dataset)
        content = Dataset(target.name, lambda: platform).file(path, target.version or "latest", purpose=purpose)
    to.write_bytes(content)
    note(f"wrote {to}")
