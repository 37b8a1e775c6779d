"""`flyball score`: a table or a topic answered by a model. `flyball sql`: models inside queries. `flyball topic`."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyball.cli.app import Home, Json, Limit, WrongUse, app, opened
from flyball.cli.rows import Purpose, words_of
from flyball.cli.show import emit, note, say, table, working

if TYPE_CHECKING:
    import polars as pl

    from flyball.platform import Platform

__all__ = ["score", "sql"]


@app.command()
def score(
    target: Annotated[str, typer.Argument(help="A deployment, whose champion answers; or a model: late, late@2.")],
    input: Annotated[
        str | None, typer.Option("--input", help="A data set, flights@3, or a path or glob; its rows are scored.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", help="The data set that becomes the answers; default: they are printed.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="TOPIC", help="stream://name or kafka://host:9092/topic.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="TOPIC", help="Where the answers go.")] = None,
    dead_letters: Annotated[
        str | None, typer.Option("--dead-letters", metavar="TOPIC", help="Where messages go that cannot be answered.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option("--keep", metavar="A,B", help="Columns or fields to stand beside the answers.")
    ] = None,
    errors: Annotated[
        str, typer.Option("--errors", help="Of a table: refuse it for a wrong row, or answer that with null.")
    ] = "refuse",
    at: Annotated[
        str | None, typer.Option("--at", help="Of a table: features as of an instant, or of each row's COLUMN.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Of a table: calls at once.")] = 1,
    log: Annotated[bool, typer.Option("--log", help="Tell the prediction log of each answer too.")] = False,
    group: Annotated[str | None, typer.Option("--group", help="Of a topic: who shares it.")] = None,
    client: Annotated[
        list[str] | None, typer.Option("--client", metavar="NAME=VALUE", help="A setting of Kafka's client; repeat it.")
    ] = None,
    until_idle: Annotated[
        float | None, typer.Option("--until-idle", metavar="S", help="Of a topic: end when nothing came for S seconds.")
    ] = None,
    purpose: Purpose = None,
    limit: Limit = 20,
    home: Home = None,
    json: Json = False,
) -> None:
    """Score a table into a data set, or a topic into another. Started again, it goes on where it was."""
    if (input is None) == (source is None):
        raise WrongUse("give a table with --input, or a topic with --from")
    kept = words_of(keep) or []
    with opened(home) as platform:
        if source is not None:
            if to is None or output is not None:
                raise WrongUse("--from goes with --to, another topic")
            options: dict[str, Any] = {"dead_letters": dead_letters, "group": group, "keep": kept, "log": log}
            options |= {"client": _settings(client or []), "until_idle_s": until_idle}
            _stream(platform, target, source, to, options, json)
            return
        asked: dict[str, Any] = {"keep": kept, "errors": errors, "at": at, "threads": threads, "purpose": purpose}
        if output is None:
            if log:
                raise WrongUse("--log goes with --output, so that what was logged can be told from what was not")
            with working(f"scoring {input}"):
                rows = platform.score(target, input, **asked)
            _show(rows, limit, json)
            return
        with working(f"scoring {input} into {output}"):
            version = platform.score_into(target, input, output, log=log, **asked)
    if json:
        from flyball.wire.native.values import version_value

        emit(version_value(version))
        return
    say(f"{version.ref} has {version.metadata['rows']:,} rows, one for each of {input}")


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="A SELECT over data sets: \"SELECT predict('late') FROM flights\".")],
    errors: Annotated[
        str, typer.Option("--errors", help="Rows that a model cannot answer: refuse the query, or null.")
    ] = "refuse",
    external: Annotated[
        bool, typer.Option("--external", help="Let the query read files and the network; for admins.")
    ] = False,
    purpose: Purpose = None,
    limit: Limit = 20,
    home: Home = None,
    json: Json = False,
) -> None:
    """Ask data sets by SQL, in which models answer by predict('model', …) and anomaly('model', …)."""
    with opened(home) as platform:
        rows = platform.sql(query, errors=errors, purpose=purpose, external=external)  # type: ignore[arg-type]
    _show(rows, limit, json)


topic = typer.Typer(help="Topics of this home, stream://NAME: put messages in, look at them.", no_args_is_help=True)
app.add_typer(topic, name="topic")


@topic.command("put")
def topic_put(
    name: Annotated[str, typer.Argument(help="The topic; made when it is new.")],
    file: Annotated[Path | None, typer.Argument(help="One message a line; default: standard input.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Put messages into a topic, one a line; they are on disk when this ends."""
    data = sys.stdin.buffer.read() if file is None else file.read_bytes()
    with opened(home) as platform:
        ids = platform.topic_put(name, [line for line in data.split(b"\n") if line.strip()])
    if json:
        emit({"ids": ids})
        return
    say(f"{len(ids):,} messages are in stream://{name}")


@topic.command("show")
def topic_show(
    name: Annotated[str, typer.Argument(help="The topic.")],
    limit: Limit = 20,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show the first messages of a topic; nobody's place in it is moved."""
    with opened(home) as platform:
        found = platform.topic_read(name, limit)
    values = [
        {"id": one.id, "value": one.value.decode(errors="replace"), "headers": dict(one.headers)} for one in found
    ]
    if json:
        emit({"items": values})
        return
    rows = [(one["id"], one["value"], ", ".join(f"{k}={v}" for k, v in one["headers"].items())) for one in values]  # type: ignore[attr-defined]
    table(("id", "message", "headers"), rows, "the topic is empty")


def _stream(platform: Platform, target: str, source: str, to: str, options: dict[str, Any], json: bool) -> None:
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    note(f"{source} is answered into {to} until this is told to stop")
    try:
        tally = platform.score_stream(target, source, to, stop=stop, **options)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if json:
        emit({"answered": tally.answered, "dead": tally.dead})
        return
    say(f"{tally.answered:,} messages answered, {tally.dead:,} dead letters")


def _settings(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise WrongUse(f"--client is {name[:40]!r}; expected NAME=VALUE")
        found[name] = value
    return found


def _show(rows: pl.DataFrame, limit: int, json: bool) -> None:
    if json:
        emit({"rows": rows.height, "items": rows.head(limit).to_dicts()})
        return
    table(tuple(rows.columns), rows.head(limit).rows(), "no rows")
    if rows.height > limit:
        note(f"the first {limit} of {rows.height:,} rows")
