"""What is there: `get` lists, `describe` tells all of one thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyball.cli.app import Before, Home, Json, Limit, WrongUse, app, opened, reference
from flyball.cli.show import ago, emit, heading, more, say, state, table, yaml_text
from flyball.errors import InvalidInput, did_you_mean, listed

if TYPE_CHECKING:
    from flyball.ledger.resources import Resource
    from flyball.ledger.runs import Run
    from flyball.ledger.versions import Version
    from flyball.platform import Platform

Row = Sequence[Any]

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


@app.command()
def describe(
    what: Annotated[str, typer.Argument(help="A reference: deployment/late, model/late@2, run/41f3; or a kind.")],
    name: Annotated[str | None, typer.Argument(help="The name, when the first argument is a kind.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Tell all that is known of one resource, version or run."""
    with opened(home) as platform:
        found = reference(what, name)
        if found.startswith("run/"):
            _describe_run(platform, found, json)
        elif "@" in found:
            _describe_version(platform, found, json)
        else:
            _describe_resource(platform, found, json)


# -- lists


def _get_resources(
    platform: Platform, kind: str | None, name: str | None, limit: int, before: str | None, json: bool
) -> None:
    from flyball.ledger import kinds
    from flyball.wire.native import listings
    from flyball.wire.native.values import listing, resource_value

    try:
        word = kinds.kind_of(kind).word if kind is not None else None
    except InvalidInput:
        known = [*(f"{k.word}s" for k in kinds.all_kinds()), *_LISTS]
        raise WrongUse(f'unknown kind "{kind}"{did_you_mean(str(kind), known)} (known: {listed(known)})') from None
    page, next = listings.resources(platform, word, limit, before)
    if name is not None:
        page, next = [platform.resource(f"{word}/{name}")], None
    if json:
        emit(listing(map(resource_value, page), next))
        return
    columns: dict[str, _Cell] = {"name": lambda _, r: r.name} if word else {"ref": lambda _, r: str(r.ref)}
    columns["state"] = lambda _, r: state(_state(r))
    columns.update(_COLUMNS.get(word or "", _REASON))
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
    rows = [[r.id[:8], r.kind, r.name, state(r.status), ago(r.started_at), _took(r), _metrics(r)] for r in page]
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
    rows = [[v.ref.short, _aliases(v, aliases[v.name]), _facts(v), _run_of(v), ago(v.created_at)] for v in page]
    table(["version", "aliases", "what", "made by", "age"], rows, f"there is no version of {name} yet")
    more(next)


# -- one thing


def _describe_resource(platform: Platform, found: str, json: bool) -> None:
    from flyball.wire.native.values import event_value, resource_value, version_value

    resource = platform.resource(found)
    events = platform.events(ref=found, limit=10)
    versions = platform.versions(resource.kind, resource.name, 20)
    aliases = platform.aliases(resource.kind, resource.name) if versions else {}
    if json:
        value = resource_value(resource)
        value["versions"] = [version_value(v, aliases) for v in versions]
        value["events"] = list(map(event_value, events, platform.sentences(events)))
        emit(value)
        return
    from flyball.delivery.states import reason_of

    say(f"{resource.ref}: {_state(resource)}")
    if reason_of(resource):
        say(f"because: {reason_of(resource)}")
    facts = {"owner": resource.owner, "labels": dict(resource.labels) or None}
    say(f"generation {resource.generation}, revision {resource.revision}, made {ago(resource.created_at)}")
    say("\n".join(f"{key}: {value}" for key, value in facts.items() if value)) if any(facts.values()) else None
    _section("spec", resource.spec)
    _section("status", resource.status)
    if versions:
        heading("versions")
        rows = [[v.ref.short, _aliases(v, aliases), _facts(v), _run_of(v), ago(v.created_at)] for v in versions]
        table(["version", "aliases", "what", "made by", "age"], rows)
    _last_events(platform, events)


def _describe_version(platform: Platform, found: str, json: bool) -> None:
    from flyball.ledger.refs import ref
    from flyball.wire.native.values import event_value, graph_value, version_value

    version = platform.version(found)
    aliases = platform.aliases(version.kind, version.name)
    graph = platform.lineage(version.ref, depth=1)
    events = platform.events(ref=str(version.ref), limit=10)
    if json:
        value = {**version_value(version, aliases), "lineage": graph_value(graph)}
        emit({**value, "events": list(map(event_value, events, platform.sentences(events)))})
        return
    say(f"{version.ref}, made {ago(version.created_at)} by {version.actor}")
    say(f"aliases: {_aliases(version, aliases) or 'none'}")
    say(f"digest: {version.digest}")
    _section("metadata", version.metadata)
    heading("lineage")
    rows = [[ref(e.source).short, e.role, ref(e.target).short] for e in graph.edges]
    table(["from", "role", "to"], rows, "nothing is linked with it")
    _last_events(platform, events)


def _describe_run(platform: Platform, found: str, json: bool) -> None:
    from flyball.wire.native.values import artifact_value, event_value, run_value

    run = platform.run(found)
    steps = sorted(platform.runs(parent=run.id, limit=1000), key=lambda r: r.started_at)
    artifacts = platform.artifacts(run.id)
    events = platform.events(ref=str(run.ref), limit=10)
    if json:
        value = {**run_value(run), "steps": [run_value(s, whole=False) for s in steps]}
        value |= {"artifacts": list(map(artifact_value, artifacts))}
        emit({**value, "events": list(map(event_value, events, platform.sentences(events)))})
        return
    say(f"{run.ref}: {run.kind} {run.name}, {run.status}" + (f", of {run.of}" if run.of else ""))
    say(f"started {ago(run.started_at)} by {run.actor}, took {_took(run)}")
    for title, values in (("params", run.params), ("metrics", run.metrics), ("tags", run.tags)):
        _section(title, values)
    _section("result", run.result)
    if steps:
        heading("steps")
        table(["run", "step", "state", "took"], [[s.id[:8], s.name, state(s.status), _took(s)] for s in steps])
    if artifacts:
        from flyball.web.formats import bytes_text

        heading("artifacts")
        table(["path", "size"], [[a.path, bytes_text(a.size_bytes)] for a in artifacts])
    if run.error:
        heading("error")
        say(run.error.rstrip())
    _last_events(platform, events)


def _section(title: str, values: Mapping[str, Any]) -> None:
    if values:
        heading(title)
        say(yaml_text(dict(values)))


def _last_events(platform: Platform, events: Sequence[Any]) -> None:
    if events:
        heading("last events")
        rows = zip([e.seq for e in events], [ago(e.at) for e in events], platform.sentences(events), strict=True)
        table(["event", "when", "what"], list(rows))


# -- cells


def _state(resource: Resource) -> str:
    from flyball.delivery.states import state_of

    return state_of(resource)


def _reason(_platform: Platform, resource: Resource) -> str | None:
    from flyball.delivery.states import reason_of

    return reason_of(resource)


def _newest(platform: Platform, resource: Resource) -> str | None:
    found = platform.versions(resource.kind, resource.name, 1)
    return found[0].ref.short if found else None


def _rows(platform: Platform, resource: Resource) -> str | None:
    found = platform.versions(resource.kind, resource.name, 1)
    return f"{found[0].metadata['rows']:,}" if found and "rows" in found[0].metadata else None


def _alias(alias: str) -> Callable[[Platform, Resource], str | None]:
    def cell(platform: Platform, resource: Resource) -> str | None:
        number = platform.aliases(resource.kind, resource.name).get(alias)
        return f"{resource.name}@{number}" if number is not None else None

    return cell


def _serves(_platform: Platform, resource: Resource) -> str | None:
    variants = resource.status.get("serving", {}).get("variants", [])
    return ", ".join(f"{v['version']} {v['weight']:g} %" for v in variants) or None


def _status_of(*path: str) -> Callable[[Platform, Resource], Any]:
    def cell(_platform: Platform, resource: Resource) -> Any:
        value: Any = resource.status
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    return cell


def _spec_of(field: str) -> Callable[[Platform, Resource], Any]:
    return lambda _platform, resource: resource.spec.get(field)


def _last_run(_platform: Platform, resource: Resource) -> str | None:
    last = resource.status.get("last_run") or resource.status.get("last", {}).get("run")
    return str(last).removeprefix("run/")[:8] if last else None


_Cell = Callable[["Platform", "Resource"], Any]

_REASON: Mapping[str, _Cell] = {"why": _reason}

_COLUMNS: Mapping[str, Mapping[str, _Cell]] = {
    "dataset": {"newest": _newest, "rows": _rows, "target": _spec_of("target")},
    "model": {"champion": _alias("champion"), "challenger": _alias("challenger"), "newest": _newest, **_REASON},
    "deployment": {"serves": _serves, **_REASON},
    "monitor": {"of": _spec_of("of"), "watches": _status_of("watching", "version"), **_REASON},
    "alert": {"severity": _spec_of("severity"), "what": _spec_of("summary"), "since": _status_of("since")},
    "pipeline": {"function": _spec_of("function"), "last run": _last_run},
    "trigger": {"starts": _spec_of("start"), "last run": _last_run, **_REASON},
    "feature-view": {"dataset": _spec_of("dataset"), "function": _spec_of("function")},
}


def _took(run: Run) -> str | None:
    from flyball.web.formats import duration_text

    return duration_text((run.finished_at - run.started_at).total_seconds()) if run.finished_at else None


def _metrics(run: Run) -> str:
    from flyball.web.formats import number_text

    return listed([f"{key} {number_text(value)}" for key, value in run.metrics.items()], 3) if run.metrics else ""


def _aliases(version: Version, aliases: Mapping[str, int]) -> str:
    return ", ".join(sorted(a for a, number in aliases.items() if number == version.number))


def _facts(version: Version) -> str | None:
    """Return the one figure of a version that people look for."""
    from flyball.web.formats import interval_texts

    metadata = version.metadata
    if "rows" in metadata:
        return f"{metadata['rows']:,} rows"
    name = metadata.get("metric")
    found = metadata.get("evaluation", {}).get("metrics", {}).get(name)
    if found is None:
        return metadata.get("flavor")
    value, low, high = interval_texts(found["value"], found["low"], found["high"])
    return f"{name} {value} [{low}, {high}]"


def _run_of(version: Version) -> str:
    return f"run {version.run[:8]}" if version.run else version.actor


def number_of(before: str | None) -> int | None:
    """Return `--before` as a number. Raises WrongUse."""
    if before is None or before.isdecimal():
        return int(before) if before is not None else None
    raise WrongUse(f"--before is {before!r}; expected the number of the last item of the page before")
