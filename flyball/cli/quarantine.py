"""Batches that broke their contract, on the command line: look at them, then fix, release or drop each, once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyball.cli.app import Home, Json, Limit, WrongUse, opened
from flyball.cli.data import data
from flyball.cli.rows import save, show_rows
from flyball.cli.show import ago, emit, say, state, table, working
from flyball.errors import InvalidInput

if TYPE_CHECKING:
    from flyball.data.quarantine import Held
    from flyball.ledger.versions import Version

__all__ = ["quarantine"]

quarantine = typer.Typer(
    help="Batches kept aside: list, show, fix, release, drop.", no_args_is_help=True, rich_markup_mode=None
)
data.add_typer(quarantine, name="quarantine")

Batch = Annotated[str, typer.Argument(metavar="BATCH", help="A batch: flights@2; of a dataset alone, its newest.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stays with the batch.")]
Append = Annotated[bool, typer.Option("--append", help="Put the rows behind the newest version's, not in their place.")]


@quarantine.command("list")
def list_batches(
    dataset: Annotated[str | None, typer.Argument(metavar="DATASET", help="Only of this dataset.")] = None,
    only: Annotated[str | None, typer.Option("--state", help="Only held, fixed, released or dropped.")] = None,
    limit: Limit = 50,
    home: Home = None,
    json: Json = False,
) -> None:
    """List the batches that were kept aside, newest first."""
    with opened(home) as platform:
        found = platform.held(dataset and _batch(dataset)[0], only, limit)
    if json:
        from flyball.wire.native.data import held_value

        emit({"items": [held_value(held) for held in found], "next": None})
        return
    rows = [
        (h.ref.short, state(h.state), f"{h.rows:,}", _broken(h), ago(h.version.created_at), h.reason) for h in found
    ]
    table(("batch", "state", "rows", "breaks", "age", "reason"), rows, "nothing was kept aside")


@quarantine.command()
def show(
    batch: Batch,
    every: Annotated[bool, typer.Option("--all", help="All rows, not only those that break a rule.")] = False,
    limit: Limit = 20,
    to: Annotated[Path | None, typer.Option("--to", help="Write the rows to a file, to correct them there.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show a batch: which rules it breaks, and the rows that break them."""
    name, number = _batch(batch)
    with opened(home) as platform, working(f"reading {batch}"):
        held = platform.held_batch(name, number)
        if held.state == "dropped":
            _tell(held, json)
            return
        rows = platform.inspect(name, held.version.number, failing=not every)
        if to is not None:
            save(rows.drop("_failed"), to)
            return
        if json:
            from flyball.wire.native.data import held_value

            emit({**held_value(held), "items": rows.head(limit).collect().to_dicts()})
            return
        _tell(held, json)
        show_rows(rows, limit, json)


@quarantine.command()
def fix(
    batch: Batch,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COLUMN=SQL", help="A new value, such as age=abs(age); may be given again."),
    ] = None,
    rows: Annotated[Path | None, typer.Option("--rows", help="A file whose rows take the batch's place.")] = None,
    reason: Reason = "",
    append: Append = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Publish a batch after a change, if it keeps its contract then; else it stays held."""
    from flyball.data.sources import open_source

    if (not change) == (rows is None):
        raise WrongUse("say what to change: --set COLUMN=SQL, or --rows FILE")
    name, number = _batch(batch)
    changes = _changes(change)
    with opened(home) as platform, working(f"fixing {batch}"):
        held = platform.held_batch(name, number).version.number
        made = changes if rows is None else open_source(rows)
        options: dict[str, Any] = {"mode": "append"} if append else {}
        _published(platform.fix(name, held, made, reason=reason, **options), json)


@quarantine.command()
def release(batch: Batch, reason: Reason, append: Append = False, home: Home = None, json: Json = False) -> None:
    """Publish a batch as it is, although it breaks its contract. Needs a reason."""
    name, number = _batch(batch)
    with opened(home) as platform:
        held = platform.held_batch(name, number).version.number
        options: dict[str, Any] = {"mode": "append"} if append else {}
        _published(platform.release(name, held, reason, **options), json)


@quarantine.command()
def drop(batch: Batch, reason: Reason, home: Home = None, json: Json = False) -> None:
    """Delete the rows of a batch, bytes too; its report stays. Needs a reason."""
    name, number = _batch(batch)
    with opened(home) as platform:
        held = platform.held_batch(name, number).version.number
        _tell(platform.drop(name, held, reason), json)


def _batch(text: str) -> tuple[str, str]:
    """Return dataset and number of `flights@2`, `quarantine/flights@2` or `flights`. Raises WrongUse."""
    from flyball.ledger.refs import ref

    try:
        found = ref(text, "quarantine")
    except InvalidInput as error:
        raise WrongUse(str(error)) from None
    return found.name, found.version or "latest"


def _changes(given: list[str] | None) -> dict[str, str]:
    found = {}
    for text in given or ():
        column, equals, expression = text.partition("=")
        if not equals or not column.strip() or not expression.strip():
            raise WrongUse(f"--set {text!r} is not COLUMN=SQL; write it like --set 'age=abs(age)'")
        found[column.strip()] = expression
    return found


def _published(version: Version, json: bool) -> None:
    if json:
        from flyball.wire.native.values import version_value

        emit(version_value(version))
    else:
        say(f"{version.ref} has {version.metadata['rows']:,} rows")


def _tell(held: Held, json: bool) -> None:
    if json:
        from flyball.wire.native.data import held_value

        emit(held_value(held))
        return
    became = f" by {held.actor}" if held.actor else ""
    outcome = f", now {held.outcome}" if held.outcome else ""
    say(f"{held.ref}: {held.state}{became}{outcome}, {held.rows:,} rows" + (f" ({held.reason})" if held.reason else ""))
    for result in _failures(held):
        say(f"  {result['id']}: {result['message']}")


def _broken(held: Held) -> str:
    return ", ".join(result["id"] for result in _failures(held))


def _failures(held: Held) -> list[dict[str, Any]]:
    return [r for r in held.report.get("results", []) if not r["passed"] and r["severity"] == "error"]
