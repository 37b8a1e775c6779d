"""`flyball demo`: the whole loop on real flights, or on the user's own table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flyball.cli.app import Home, app

_Column = str | None


@app.command()
def demo(
    context: typer.Context,
    no_fault: Annotated[bool, typer.Option("--no-fault", help="The same without a fault: nothing may alarm.")] = False,
    seasons: Annotated[bool, typer.Option("--seasons", help="Train on three months, go on through the year.")] = False,
    data: Annotated[Path | None, typer.Option("--data", metavar="FILE", help="Your own table: CSV, Parquet.")] = None,
    target: Annotated[_Column, typer.Option("--target", metavar="COL", help="Its column to predict.")] = None,
    time: Annotated[_Column, typer.Option("--time", metavar="COL", help="Its column of time.")] = None,
    label_time: Annotated[_Column, typer.Option("--label-time", metavar="COL", help="When a label is known.")] = None,
    entity: Annotated[_Column, typer.Option("--entity", metavar="COL", help="Whom a row is about.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of all that is random.")] = 0,
    home: Home = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Run the whole loop on real flights, or on your own table. Leaves a project for `flyball up`."""
    from flyball.demo.main import DemoOptions, run_demo

    chosen = home or context.find_root().obj
    options = DemoOptions(no_fault, seasons, data, target, time, label_time, entity, chosen, json, seed)
    raise typer.Exit(run_demo(options))
