"""`flyball demo`: the whole loop on real flights, or on the user's own table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flyball.cli.app import Home, WrongUse, app

_Column = str | None


@app.command()
def demo(
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
    if data is None and (target or time or label_time or entity):
        raise WrongUse("--target, --time, --label-time and --entity speak of your own table; give it with --data FILE")
    if data is not None and target is None:
        raise WrongUse("--data needs --target COL, the column to predict")
    if seasons and (no_fault or data is not None):
        raise WrongUse("--seasons is a demo of its own; leave out --no-fault and --data")
    from flyball.demo.main import DemoOptions, run_demo

    options = DemoOptions(
        home=home,
        no_fault=no_fault,
        seasons=seasons,
        data=data,
        target=target,
        time=time,
        label_time=label_time,
        entity=entity,
        as_json=json,
        seed=seed,
    )
    raise typer.Exit(run_demo(options))
