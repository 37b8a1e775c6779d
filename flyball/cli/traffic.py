"""Live traffic: what a deployment was asked and what it answered, by version, time and slice."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyball.cli.app import Home, Json, Limit, WrongUse, app, opened
from flyball.cli.show import ago, emit, note, say, table

if TYPE_CHECKING:
    import polars as pl

    from flyball.tracking.exploring import Summary

_OUTPUTS = 3
_INPUTS = 4


@app.command()
def traffic(
    deployment: Annotated[str, typer.Argument(help="Its name: late, or deployment/late.")],
    version: Annotated[str | None, typer.Option("--version", help="Answered by this one, as late@2.")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="champion, canary, baseline or shadow.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="An instant, or an age such as 2h.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="An instant, or an age.")] = None,
    where: Annotated[
        str | None, typer.Option("--where", help="A slice: \"input.carrier = 'UA' AND input.hour >= 17\".")
    ] = None,
    labelled: Annotated[bool | None, typer.Option("--labelled/--unlabelled", help="Whose truth is known.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Sum up by a column: version, input.carrier, label…")] = None,
    seal: Annotated[bool, typer.Option("--seal", help="Put what is new into the tables first.")] = False,
    pinot: Annotated[
        str | None,
        typer.Option(metavar="KAFKA", help="Print Apache Pinot's schema and table for kafka://host:9092/topic."),
    ] = None,
    limit: Limit = 20,
    home: Home = None,
    json: Json = False,
) -> None:
    """Look through what a deployment was asked and answered, the newest first, or sum it up."""
    from flyball.tracking.exploring import Slice

    if pinot is not None:
        _print_pinot(deployment, pinot, home)
        return

    name = _name(deployment)
    with opened(home) as platform:
        now = platform.clock.now()
        wanted = Slice(version, variant, _instant(since, now), _instant(until, now), labelled, where)
        if seal:
            done = platform.seal_traffic()
            note(f"sealed {done.predictions:,} rows and {done.labels:,} labels")
        summary = platform.predictions_summary(name, wanted, by)
        rows = platform.predictions(name, wanted, limit) if by is None else None
    if json:
        emit(_value(summary, rows))
        return
    if rows is None:
        _show_groups(summary, by or "")
    else:
        _show_rows(rows)
    if summary.rows:
        took = ", ".join(f"{name} {value:.3g} ms" for name, value in summary.latency_ms.items())
        say(f"{summary.rows:,} rows; answered within {took}")


def _print_pinot(deployment: str, topic: str, home: Any) -> None:
    from urllib.parse import urlsplit

    from flyball.tracking.sinks import pinot

    parts = urlsplit(topic)
    if parts.scheme != "kafka" or not parts.netloc or not parts.path.strip("/"):
        raise WrongUse(f"--pinot is {topic!r}; expected kafka://host:9092/topic")
    name = _name(deployment)
    with opened(home) as platform:
        columns = platform.predictions_schema(name)
    if not columns:
        raise WrongUse(f"deployment/{name} was never asked anything, so its columns are not known yet")
    table = f"flyball_{name.replace('-', '_').replace('.', '_')}"
    schema = pinot.schema(table, columns)
    emit({"schema": schema, "table": pinot.table(table, name, parts.netloc, parts.path.strip("/"))})


def _name(deployment: str) -> str:
    from flyball.ledger.refs import ref

    return ref(deployment, "deployment").name if "/" in deployment else deployment


def _instant(text: str | None, now: datetime) -> datetime | None:
    from flyball.clock import parse_since
    from flyball.errors import InvalidInput

    if text is None:
        return None
    try:
        return parse_since(text, now)
    except InvalidInput as error:
        raise WrongUse(
            f"{text!r} is neither an instant such as 2026-03-01T12:00Z nor an age such as 2h: {error}"
        ) from None


def _show_rows(rows: pl.DataFrame) -> None:
    outputs = [name for name in rows.columns if name.startswith("output.")][:_OUTPUTS]
    inputs = [name for name in rows.columns if name.startswith(("input.", "feature."))][:_INPUTS]
    shown = [
        (
            ago(row["at"]),
            row["id"],
            row["version"],
            row["variant"],
            *(row[name] for name in outputs),
            row["label"],
            *(row[name] for name in inputs),
        )
        for row in rows.iter_rows(named=True)
    ]
    names = [name.partition(".")[2] for name in outputs], [name.partition(".")[2] for name in inputs]
    table(("when", "id", "version", "variant", *names[0], "label", *names[1]), shown, "no request is like this")


def _show_groups(summary: Summary, by: str) -> None:
    outputs = [name for name in summary.groups[0] if name.startswith("output.")] if summary.groups else []
    shown = [
        (
            group["value"],
            f"{group['rows']:,}",
            f"{group['rows'] / summary.rows:.1%}",
            f"{group['labelled']:,}",
            f"{group['latency_p50_ms']:.3g}",
            *(f"{group[name]:.4g}" if group[name] is not None else None for name in outputs),
        )
        for group in summary.groups
    ]
    means = [f"mean {name.partition('.')[2]}" for name in outputs]
    table((by, "rows", "share", "labelled", "p50 ms", *means), shown, "no request is like this")


def _value(summary: Summary, rows: pl.DataFrame | None) -> dict[str, Any]:
    value: dict[str, Any] = {
        "rows": summary.rows,
        "first": summary.first,
        "last": summary.last,
        "latency_ms": dict(summary.latency_ms),
    }
    return value | ({"groups": summary.groups} if rows is None else {"items": rows.to_dicts()})
