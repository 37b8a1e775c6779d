"""The project's declarations: init, plan, apply, delete."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyball.cli.app import Home, Json, app, opened, reference
from flyball.cli.show import emit, note, say, working
from flyball.errors import NotFound

if TYPE_CHECKING:
    from flyball.delivery.documents import Document

Files = Annotated[list[Path] | None, typer.Argument(help="Files or folders; default: flyball.yaml here.")]


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="Where; default: here.")] = Path(), home: Home = None) -> None:
    """Write a new project: flyball.yaml, contracts, pipelines.py. Overwrites nothing."""
    from flyball.delivery.scaffold import scaffold
    from flyball.platform import Platform

    chosen = home or os.environ.get("FLYBALL_HOME") or folder / ".flyball"
    path = Platform.home_of(chosen)  # a home of a newer release is refused before anything is written
    written = scaffold(folder)
    with opened(path) as platform:
        platform.belongs_to(folder)
    for file in written:
        say(f"wrote {file}")
    say("next: look into flyball.yaml, then flyball apply and flyball up")


@app.command()
def plan(files: Files = None, home: Home = None, json: Json = False) -> None:
    """Show what applying the declarations would change. It says too what that would wake."""
    with opened(home) as platform, working("planning"):
        found = platform.plan(_documents(files))
    emit({"items": found.to_dict(), "next": None}) if json else say(str(found))


@app.command()
def apply(files: Files = None, home: Home = None, json: Json = False) -> None:
    """Make the declarations so, all of them or none."""
    from flyball.cli.supervisor import control_plane

    with opened(home) as platform, working("applying"):
        done = platform.apply(_documents(files))
        acting = control_plane(platform.home)
    if json:
        emit({"items": done.to_dict(), "next": None})
        return
    say(str(done))
    if not done.is_empty and acting is None:
        note("nobody acts on this home at the moment: flyball up does")


@app.command()
def delete(
    what: Annotated[list[str], typer.Argument(help="References such as deployment/late or run/41f3a2b1.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Delete resources, with what they own, or finished runs."""
    with opened(home) as platform:
        named = [reference(text) for text in what]
        wholes = [platform.run(text).ref if text.startswith("run/") else text for text in named]
        gone = [str(ref) for whole in wholes for ref in platform.delete(whole)]
    if json:
        emit({"items": [{"ref": text} for text in gone], "next": None})
        return
    for text in gone:
        say(f"deleted {text}")


def _documents(files: list[Path] | None) -> list[Document]:
    from flyball.delivery.documents import read_documents

    if not files and not Path("flyball.yaml").exists():
        raise NotFound("there is no flyball.yaml here; name a file or folder, or write one with: flyball init")
    return read_documents(files or [Path("flyball.yaml")])
