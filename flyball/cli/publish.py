"""`flyball publish`: give a declared dataset its next version."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flyball.cli.app import Home, Json, WrongUse, app, opened
from flyball.cli.rows import Name, Purpose, name_of, words_of
from flyball.cli.show import emit, say, working
from flyball.errors import NotFound, did_you_mean

__all__ = ["publish"]


@app.command()
def publish(
    dataset: Name,
    source: Annotated[
        str | None,
        typer.Argument(help="A path, a glob, or SQL over other datasets; default: the dataset's own source."),
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Put the rows behind those of the newest version.")] = False,
    upsert: Annotated[
        bool, typer.Option("--upsert", help="Replace rows of the same key, put the others behind.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Read the dataset's own source whole, not what is new.")
    ] = False,
    key: Annotated[
        str | None, typer.Option("--key", metavar="A,B", help="Of --upsert; default: the dataset's.")
    ] = None,
    files: Annotated[
        bool, typer.Option("--files", help="SOURCE is a folder or glob of files to be kept as such.")
    ] = False,
    label: Annotated[
        bool, typer.Option("--label-by-folder", help="Of --files: the folder's name is the label.")
    ] = False,
    purpose: Purpose = None,
    message: Annotated[str, typer.Option("--note", help="A sentence that stays with the version.")] = "",
    home: Home = None,
    json: Json = False,
) -> None:
    """Publish rows as a dataset's next version. They must keep its contract."""
    modes = [word for word, wanted in (("append", append), ("upsert", upsert), ("overwrite", overwrite)) if wanted]
    if len(modes) > 1:
        raise WrongUse(f"choose one of --{' and --'.join(modes)}")
    if label and not files:
        raise WrongUse("--label-by-folder goes with --files")
    with opened(home) as platform, working(f"checking and publishing {dataset}"):
        given = _files(source, label) if files else source
        options: dict[str, Any] = {"mode": modes[0] if modes else None, "key": words_of(key) or (), "note": message}
        name = name_of(dataset)
        if not any(known.name == name for known in platform.resources("dataset")):
            near = did_you_mean(name, [known.name for known in platform.resources("dataset")])
            raise NotFound(f'there is no dataset "{name}"{near}; declare it in flyball.yaml and run: flyball apply')
        found = platform.publish(name, given, purpose=purpose, **options)
    if json:
        from flyball.wire.native.values import version_value

        report = found.report.to_dict() if found.report is not None else None
        aside = version_value(found.quarantined) if found.quarantined is not None else None
        version = version_value(found.version)
        emit({"version": version, "changes": dict(found.changes), "contract": report, "quarantined": aside})
        return
    changes = ", ".join(f"{count:,} {word}" for word, count in found.changes.items() if count)
    say(f"{found.version.ref} has {found.version.metadata['rows']:,} rows" + (f": {changes}" if changes else ""))
    if found.report is not None:
        say(f"{found.report.checks} checks, {found.report.rows_failed:,} rows failed")
    if found.quarantined is not None:
        say(f"kept aside: {found.quarantined.ref}")


def _files(source: str | None, label: bool) -> Any:
    from flyball import api

    if source is None:
        raise WrongUse("--files needs a folder or a glob")
    return api.files(source, label="folder" if label else None)
