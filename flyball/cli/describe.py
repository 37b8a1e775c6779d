"""`flyball describe`: all that is known of one resource, version or run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyball.cli.app import Home, Json, app, opened, reference
from flyball.cli.columns import aliases_cell, facts_cell, maker_cell, took_cell
from flyball.cli.show import ago, emit, heading, say, state, table, yaml_text

if TYPE_CHECKING:
    from flyball.platform import Platform

__all__ = ["describe"]


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
    from flyball.delivery.states import reason_of, state_of

    say(f"{resource.ref}: {state_of(resource)}")
    if reason_of(resource):
        say(f"because: {reason_of(resource)}")
    facts = {"owner": resource.owner, "labels": dict(resource.labels) or None}
    say(f"generation {resource.generation}, revision {resource.revision}, made {ago(resource.created_at)}")
    say("\n".join(f"{key}: {value}" for key, value in facts.items() if value)) if any(facts.values()) else None
    _section("spec", resource.spec)
    _section("status", resource.status)
    if versions:
        heading("versions")
        rows = [
            [v.ref.short, aliases_cell(v, aliases), facts_cell(v), maker_cell(v), ago(v.created_at)] for v in versions
        ]
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
    say(f"aliases: {aliases_cell(version, aliases) or 'none'}")
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
    say(f"started {ago(run.started_at)} by {run.actor}, took {took_cell(run)}")
    for title, values in (("params", run.params), ("metrics", run.metrics), ("tags", run.tags)):
        _section(title, values)
    _section("result", run.result)
    if steps:
        heading("steps")
        table(["run", "step", "state", "took"], [[s.id[:8], s.name, state(s.status), took_cell(s)] for s in steps])
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
