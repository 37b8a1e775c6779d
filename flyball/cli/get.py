"""What is there: `get` lists resources of a kind, runs, versions, events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flyball.cli.app import Before, Home, Json, Limit, WrongUse, app, opened, reference
from flyball.cli.columns import COLUMNS, REASON, Cell, aliases_cell, facts_cell, maker_cell, metrics_cell, took_cell
from flyball.cli.show import ago, emit, more, state, table
from flyball.errors import InvalidInput, did_you_mean, listed

if TYPE_CHECKING:
    from flyball.platform import Platform

__all__ = ["get", "number_of"]

_LISTS = ("all", "runs", "versions", "events")


@app.command()
def get(
    kind: Annotated[str, typer.Argument(help="A kind, such as deployments; or all, runs, versions, events.")] = "all",
    name: Annotated[str | None, typer.Argument(help="One of them; of versions: model/late.")] = None,
    status: Annotated[list[str] | None, typer.Option("--status", help="Of runs: only these.")] = None,
    of: Annotated[str | None, typer.Option("--of", help="Of runs: those of a resource, pipeline/late.")] = None,
    home: Home = None,
    json: Json = False,
    limit: Limit = 50,
    before: Before = None,
) -> None:
    """List resources of a kind, runs, versions or events."""
    with opened(home) as platform:
        plural = kind if kind == "all" or kind.endswith("s") else f"{kind}s"
        if plural == "runs":
            _get_runs(platform, name, status, of, limit, before, json)
        elif plural == "versions":
            _get_versions(platform, name, limit, before, json)
        elif plural == "events":
            from flyball.cli.journal import list_events

            list_events(platform, {"ref": reference(name) if name else None}, limit, number_of(before), json)
        else:
            _get_resources(platform, None if plural == "all" else kind, name, limit, before, json)


def number_of(before: str | None) -> int | None:
    """Return `--before` as a number. Raises WrongUse."""
    if before is None or before.isdecimal():
        return int(before) if before is not None else None
    raise WrongUse(f"--before is {before!r}; expected the number of the last item of the page before")


def _get_resources(
    platform: Platform, kind: str | None, name: str | None, limit: int, before: str | None, json: bool
) -> None:
    from flyball.delivery.states import state_of
    from flyball.ledger import kinds
    from flyball.wire.native import listings
    from flyball.wire.native.values import listing, resource_value

    try:
        word = kinds.kind_of(kind).word if kind is not None else None
    except InvalidInput:
        known = [*(k.plural for k in kinds.all_kinds()), *_LISTS]
        raise WrongUse(f'unknown kind "{kind}"{did_you_mean(str(kind), known)} (known: {listed(known)})') from None
    page, next = listings.resources(platform, word, limit, before)
    if name is not None:
        page, next = [platform.resource(f"{word}/{name}")], None
    if json:
        emit(listing(map(resource_value, page), next))
        return
    columns: dict[str, Cell] = {"name": lambda _, r: r.name} if word else {"ref": lambda _, r: str(r.ref)}
    columns["state"] = lambda _, r: state(state_of(r))
    columns.update(COLUMNS.get(word or "", REASON))
    columns["age"] = lambda _, r: ago(r.created_at)
    rows = [[cell(platform, r) for cell in columns.values()] for r in page]
    table(list(columns), rows, f"there is no {word or 'resource'} yet; flyball apply declares some")
    more(next)


def _get_runs(
    platform: Platform,
    name: str | None,
    status: list[str] | None,
    of: str | None,
    limit: int,
    before: str | None,
    json: bool,
) -> None:
    from flyball.wire.native import listings
    from flyball.wire.native.values import listing, run_value

    given = reference(of) if of is not None and "/" in of else of
    page, next = listings.runs(platform, limit, before, status, name=name, of=given)
    if json:
        emit(listing((run_value(r, whole=False) for r in page), next))
        return
    rows = [[r.id[:8], r.kind, r.name, state(r.status), ago(r.started_at), took_cell(r), metrics_cell(r)] for r in page]
    table(["run", "kind", "name", "state", "started", "took", "metrics"], rows, "there is no such run yet")
    more(next)


def _get_versions(platform: Platform, name: str | None, limit: int, before: str | None, json: bool) -> None:
    from flyball.wire.native import listings
    from flyball.wire.native.values import listing, version_value

    if name is None:
        raise WrongUse("versions of what? write flyball get versions model/late, or only model for the newest of all")
    kind, _, named = (reference(name) if "/" in name else reference(f"{name}/x").partition("/")[0]).partition("/")
    page, next = listings.versions(platform, kind, named or None, limit, number_of(before))
    aliases = {v.name: platform.aliases(kind, v.name) for v in page}
    if json:
        emit(listing((version_value(v, aliases[v.name]) for v in page), next))
        return
    rows = [
        [v.ref.short, aliases_cell(v, aliases[v.name]), facts_cell(v), maker_cell(v), ago(v.created_at)] for v in page
    ]
    table(["version", "aliases", "what", "made by", "age"], rows, f"there is no version of {name} yet")
    more(next)
