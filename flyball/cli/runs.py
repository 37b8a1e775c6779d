"""Runs that were written elsewhere are taken in; runs that were made are made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flyball.cli.app import Home, Json, app, opened
from flyball.cli.show import emit, note, say, table, working

_SHOWN = 20


@app.command("import")
def import_runs(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="Folders of fb.run(offline=…), MLflow's mlruns, or MLflow's SQLite databases."
        ),
    ],
    artifacts: Annotated[
        list[Path] | None,
        typer.Option("--artifacts", metavar="DIR", help="Where the files of MLflow's runs are, when not in the store."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Take in runs, experiments and registered models that were written elsewhere. Twice is once.

    A run that was still being written is taken as it is; import again for the rest. Exit code 1 when something was
    refused; the rest was taken.
    """
    with opened(home, create=True) as platform, working("importing"):
        found = platform.import_runs(paths, artifacts or ())
    if json:
        emit(found.to_dict())
    else:
        runs = f"{found.new:,} new, {found.changed:,} with more, {found.unchanged:,} as before"
        say(f"runs: {runs}; {found.points:,} points, {found.files:,} files, {found.versions:,} versions of models")
        for one in found.refused[:_SHOWN]:
            note(f"{one.what}: {one.reason}")
        if len(found.refused) > _SHOWN:
            note(f"… and {len(found.refused) - _SHOWN:,} more; --json lists all")
    if found.refused:
        raise typer.Exit(1)


@app.command("reproduce")
def reproduce_run(
    run: Annotated[str, typer.Argument(help="A run of a script that records with fb.run(): its id or the beginning.")],
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="The largest relative difference of a metric that is none.")
    ] = 1e-6,
    directory: Annotated[
        Path | None,
        typer.Option("--directory", metavar="DIR", help="Where the script runs, if it reads files besides data sets."),
    ] = None,
    environment: Annotated[
        bool, typer.Option("--environment", help="In a virtual environment of the packages that the run recorded.")
    ] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Run a script again with the code, data versions and arguments of a run, and tell what is different.

    Nothing in the home changes. Exit code 1 when it failed, or a metric or parameter is different.
    """
    with opened(home) as platform, working("running it again"):
        found = platform.reproduce(
            run.removeprefix("run/"), tolerance=tolerance, directory=directory, environment=environment
        )
    if json:
        emit(found.to_dict())
    else:
        parts = (("metric", found.metrics), ("file", found.files), ("parameter", found.params))
        rows = [(kind, one.name, one.verdict, one.detail) for kind, several in parts for one in several]
        table(("what", "name", "now", "detail"), rows, "the run left nothing to compare")
        say(
            f"run {found.run[:8]} is {'reproduced' if found.is_same else 'not reproduced'}; it {found.status} this time"
        )
        if found.environment:
            changes = [(one.package, one.recorded, one.here or "not here") for one in found.environment]
            table(("package", "recorded", "here"), changes)
        for reason in found.reasons:
            note(f"perhaps because: {reason}")
    if not found.is_same:
        raise typer.Exit(1)
