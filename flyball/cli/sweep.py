"""The sweep: what was deleted long enough ago goes for good."""

from __future__ import annotations

from typing import Annotated

import typer

from flyball.cli.app import Home, Json, app, opened
from flyball.cli.show import ago, emit, note, say, table, working

_SHOWN = 50


@app.command()
def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go.")] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            help="How long deleted things are kept, like 30d; an experiment's tag flyball.retention wins.",
        ),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Remove for good what was deleted long ago: experiments, runs and logged models, and all bytes nothing refers to.

    Lineage keeps their names. Exit code 1 when something could not be told or is missing.
    """
    from flyball.web.formats import bytes_text

    with opened(home) as platform, working("sweeping"):
        found = platform.sweep(older_than, dry_run=dry_run)
    if json:
        emit(found.to_dict())
    else:
        rows = [(one.ref, one.name, one.experiment, ago(one.deleted_at), one.files) for one in found.removed[:_SHOWN]]
        table(("what", "name", "experiment", "deleted", "files"), rows, "nothing was deleted long enough ago")
        if len(found.removed) > _SHOWN:
            say(f"… and {len(found.removed) - _SHOWN:,} more; --json lists all")
        going = "would go" if dry_run else "went"
        say(f"{found.blobs:,} blobs without reference {going}, {bytes_text(found.blob_bytes)}")
        if found.uploads:
            say(f"{found.uploads:,} unfinished uploads {going}, {bytes_text(found.upload_bytes)}")
        if found.waiting:
            note(f"{found.waiting:,} blobs without reference are too young to go; sweep again later")
        for sentence in (*found.kept, *found.problems):
            note(sentence)
        if dry_run:
            note("nothing was changed; do it with: flyball sweep")
    if found.problems:
        raise typer.Exit(1)
