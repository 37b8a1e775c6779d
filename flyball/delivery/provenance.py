"""Where one prediction comes from: its deployment as it stood then, the model version, the run, the data versions.

Read from the prediction's log row, the journal and the lineage graph; `flyball why prediction/ID` and the prediction's
page show it.
"""

from __future__ import annotations

from typing import NamedTuple

from flyball.errors import NotFound
from flyball.ledger import Transaction
from flyball.ledger.journal import Event
from flyball.ledger.refs import Ref, ref, shown_name
from flyball.tracking.traffic import Prediction

__all__ = ["Link", "provenance"]

_ROUTING = frozenset({"serves", "rollout started", "rollout stepped", "promoted", "rolled back", "reported"})
_LOOKED_AT = 500  # events of a deployment
_DATA = ("dataset", "data", "labels", "feature-view")


class Link(NamedTuple):
    """A thing that a prediction comes from: `what` it is to the prediction, its reference, and what is known of it."""

    what: str
    ref: str
    said: str


def provenance(found: Prediction, world: Transaction) -> list[Link]:
    """Return everything behind a prediction, nearest first; what is no longer in the ledger is left out."""
    asked = f"answered as {found.variant} in {found.latency_us / 1000:.1f} ms at {found.at:%Y-%m-%d %H:%M:%S} UTC"
    links = [Link("prediction", f"prediction/{found.id}", asked)]
    deployment = Ref("deployment", found.deployment)
    event = _routed_by(found, deployment, world)
    links.append(Link("deployment", str(deployment), f"revision {found.revision}"))
    if event is not None:
        links.append(Link("routed by", f"event/{event.seq}", f"{event.action} at {event.at:%Y-%m-%d %H:%M:%S} UTC"))
    for part in found.version.split("+"):  # a routine answers with a version of each of its models
        links += _of_version(ref(part, "model"), world)
    return list(dict.fromkeys(links))


def _routed_by(found: Prediction, deployment: Ref, world: Transaction) -> Event | None:
    """Return the event since when the traffic table was so: the newest before the answer that names its version."""
    own = found.version.partition("+")[0]  # a routine's parts follow their own aliases
    for event in world.journal.find(ref=str(deployment), limit=_LOOKED_AT):
        if event.at <= found.at and event.action in _ROUTING:
            named = [row.get("version") for row in event.detail.get("traffic", ())]
            if own in named or own == event.detail.get("version"):
                return event
    return None


def _of_version(version: Ref, world: Transaction) -> list[Link]:
    try:
        made = world.versions.get(version.kind, version.name, int(version.version or 0))
    except (NotFound, ValueError):
        return [Link("model", str(version), "no longer in the ledger")]
    digest = f"bundle {made.digest[:12]}" if made.digest else "without a bundle"
    links = [Link("model", str(made.ref), f"{digest}, made at {made.created_at:%Y-%m-%d %H:%M:%S} UTC")]
    if made.run is not None:
        try:
            run = world.runs.get(made.run)
            code = str(run.source.get("commit") or run.source.get("digest") or "")[:12]
            links.append(Link("run", str(run.ref), f"{shown_name(run.name)}, {run.status}{code and f', code {code}'}"))
        except NotFound:
            pass
    graph = world.lineage.walk(made.ref, "upstream")
    known = {link.ref for link in links}
    roles = {edge.source: edge.role for edge in reversed(graph.edges)}
    for node, distance in sorted(graph.nodes.items(), key=lambda item: item[1]):
        kind = node.partition("/")[0]
        if node not in known and distance and (kind in _DATA or kind == "run"):
            links.append(Link("data" if kind in _DATA else kind, node, roles.get(node, "")))
    return links
