"""The journal: events, why, verify."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyball.cli.app import Before, Home, Json, Limit, app, opened, reference
from flyball.cli.show import emit, more, say, table, working

if TYPE_CHECKING:
    from flyball.ledger.journal import Event
    from flyball.platform import Platform

_FOLLOW_S = 0.5


@app.command()
def events(
    what: Annotated[str | None, typer.Argument(help="Only of this: deployment/late, run/41f3…")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only of this kind.")] = None,
    actor: Annotated[str | None, typer.Option("--actor", help="Only by this actor: user/alice.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only this: promoted, drifting…")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what happens; Ctrl-C ends.")] = False,
    home: Home = None,
    json: Json = False,
    limit: Limit = 50,
    before: Before = None,
) -> None:
    """List what happened, newest first, or as it happens. With --follow, --json prints one document a line."""
    from flyball.cli.get import number_of

    with opened(home) as platform:
        target = reference(what) if what is not None else None
        if target is not None and target.startswith("run/"):
            target = str(platform.run(target).ref)
        filters = {"ref": target, "kind": _kind_word(kind), "actor": actor, "action": action}
        if follow:
            _follow(platform, filters, json)
        else:
            list_events(platform, filters, limit, number_of(before), json)


@app.command()
def why(
    what: Annotated[
        str, typer.Argument(help="A reference: deployment/late, model/late@2, event/812, prediction/ID; or a kind.")
    ],
    name: Annotated[str | None, typer.Argument(help="The name, when the first argument is a kind.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Say why a thing is as it is, back to the first cause; of a prediction, all that it comes from."""
    from flyball.delivery.explain import told

    kind, _, id = (what if name is None else f"{what}/{name}").partition("/")
    with opened(home) as platform:
        if kind in ("prediction", "predictions") and id:
            _comes_from(platform, id, json)
            return
        chain = platform.why(reference(what, name))
        if json:
            from flyball.wire.native.values import event_value

            items = list(map(event_value, chain, platform.sentences(chain)))
            emit({"items": items, "story": platform.story(chain), "next": None})
            return
        with platform.ledger.read() as world:
            say(told(chain, world))


def _comes_from(platform: Platform, id: str, as_json: bool) -> None:
    links = platform.provenance(id)
    if as_json:
        emit({"items": [link._asdict() for link in links], "next": None})
    else:
        table(["", "from", "which"], [list(link) for link in links])


@app.command()
def verify(home: Home = None, json: Json = False) -> None:
    """Check that no event of the journal was changed or removed."""
    with opened(home) as platform, working("checking the journal"):
        count = platform.verify_journal()
    emit({"ok": True, "events": count}) if json else say(f"the journal is whole: {count:,} events")


def list_events(platform: Platform, filters: Mapping[str, Any], limit: int, before: int | None, as_json: bool) -> None:
    """Print a page of events."""
    from flyball.wire.native import listings
    from flyball.wire.native.values import event_value, listing

    page, next = listings.events(platform, limit, before, **filters)
    if as_json:
        emit(listing(map(event_value, page, platform.sentences(page)), next))
        return
    table(["event", "when", "by", "what"], _rows(platform, page), "nothing of that kind has happened yet")
    more(next)


def _follow(platform: Platform, filters: Mapping[str, Any], as_json: bool) -> None:
    from flyball.wire.native.values import encode, event_value

    last = platform.last_event()
    while True:
        for event in platform.events_since(last):
            last = event.seq
            if not _is_meant(event, filters):
                continue
            (sentence,) = platform.sentences([event])
            text = encode(event_value(event, sentence)).decode()
            local = event.at.astimezone().strftime("%H:%M:%S")
            say(text if as_json else f"{event.seq}  {local}  {sentence}")
            sys.stdout.flush()
        time.sleep(_FOLLOW_S)


def _is_meant(event: Event, filters: Mapping[str, Any]) -> bool:
    ref = filters["ref"]
    is_of = ref is None or event.ref == ref or ("@" not in ref and event.ref.startswith(f"{ref}@"))
    kind = filters["kind"]
    return (
        is_of
        and (kind is None or event.ref.startswith(f"{kind}/"))
        and filters["actor"] in (None, event.actor)
        and filters["action"] in (None, event.action)
    )


def _rows(platform: Platform, page: Iterable[Event]) -> list[list[Any]]:
    found = list(page)
    times = [e.at.astimezone().strftime("%Y-%m-%d %H:%M:%S") for e in found]
    said = platform.sentences(found)
    return [[e.seq, at, e.actor, text] for e, at, text in zip(found, times, said, strict=True)]


def _kind_word(kind: str | None) -> str | None:
    return None if kind is None else reference(f"{kind}/x").partition("/")[0]
