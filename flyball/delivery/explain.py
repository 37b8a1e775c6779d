"""The journal in sentences: what happened, to what, because of what.

`flyball why`, `fb.why` and the pages use this, so that the same event reads the same everywhere. An event is told from
its own detail; where the ledger still knows more (how many rows, which run) that is added, and where the thing is gone
the event alone must do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from flyball.clock import SYSTEM, Clock
from flyball.errors import FlyballError, NotFound, listed
from flyball.ledger import Transaction
from flyball.ledger.journal import Event
from flyball.ledger.refs import Ref, ref, shown_name
from flyball.ledger.runs import Run
from flyball.ledger.versions import Version

__all__ = ["causes", "sentence", "story", "told"]

# Links of a chain that say nothing which their neighbours do not say; left out of a story unless it begins with them.
_PASSING = frozenset({"rollout started", "aliased"})

# What a person decides, when a person did it.
_DECIDED = frozenset({"aliased", "approved", "changed", "created", "deleted", "rolled back"})

_Teller = Callable[[Event, Transaction], str]


def causes(seq: int, world: Transaction) -> list[Event]:
    """Return an event and its causes, newest first; a version's cause is the run that made it, a run's its parent.

    Raises:
        NotFound: there is no such event.
    """
    found = world.journal.chain(seq)
    while (before := _behind(found[-1], world)) is not None and before < found[-1].seq:
        found += world.journal.chain(before)
    return found


def sentence(event: Event, world: Transaction) -> str:
    """Return what an event says, without its time: `late@2 passed 3 of 3 gates`."""
    teller = _TELLERS.get(event.action)
    return teller(event, world) if teller is not None else _plainly(event, world)


def story(events: Sequence[Event], world: Transaction, clock: Clock = SYSTEM) -> list[str]:
    """Return a chain of causes, newest first, as one sentence a link; it may begin with how things stand now.

    Args:
        events: as `Journal.chain` returns them.
        world: a transaction for reading.
        clock: tells which times are today's.
    """
    lines = []
    if events:
        standing = _standing(events[0], clock)
        if standing is not None:
            lines.append(standing)
        if standing is None or events[0].action != "serves":
            lines.append(_led(events[0], world, clock))
    telling = [e for e in events[1:] if e.action not in _PASSING or e.actor.startswith("user/")]
    return lines + [_led(event, world, clock) for event in telling]


def told(events: Sequence[Event], world: Transaction, clock: Clock = SYSTEM) -> str:
    """Return a chain of causes as a tree of text, each cause below and to the right of its effect."""
    lines = story(events, world, clock)
    return "\n".join(("   " * (depth - 1) + "└─ " if depth else "") + line for depth, line in enumerate(lines))


def _behind(event: Event, world: Transaction) -> int | None:
    """Return the event behind one that names no cause of its own."""
    subject = ref(event.ref)
    if subject.kind == "run":
        run = _run(subject.name, world)
        behind = run.parent if run is not None else None
    else:
        version = _version(subject, world) if event.action == "published" else None
        behind = version.run if version is not None else None
    maker = _run(behind, world) if behind is not None else None
    return maker.event if maker is not None else None


def _standing(event: Event, clock: Clock) -> str | None:
    """Return who serves since when, where the event decided that."""
    served = {"serves": "version", "promoted": "challenger", "rolled back": "champion"}.get(event.action)
    version = event.detail.get(served) if served else None
    return f"{version} has served {event.ref} since {_time(event.at, clock, seconds=True)}" if version else None


def _led(event: Event, world: Transaction, clock: Clock) -> str:
    """Return the sentence with its time, where people ask for it: alarms and what a person did."""
    text = sentence(event, world)
    is_decided = event.action in _DECIDED and event.actor.startswith("user/")
    is_timed = is_decided or event.action in ("drifting", "decayed", "fired")
    return f"{text}, at {_time(event.at, clock)}" if is_timed else text


def _time(at: datetime, clock: Clock, seconds: bool = False) -> str:
    local, today = at.astimezone(), clock.now().astimezone().date()
    clock_time = local.strftime("%H:%M:%S" if seconds else "%H:%M")
    return clock_time if local.date() == today else f"{local:%Y-%m-%d} {clock_time}"


# -- resources


def _created(event: Event, _world: Transaction) -> str:
    return f"{event.ref} was declared by {_who(event)}"


def _changed(event: Event, _world: Transaction) -> str:
    fields: Mapping[str, Any] = event.detail.get("fields", {})
    changes = [f"{name} {_short(old)} → {_short(new)}" for name, (old, new) in fields.items()]
    return f"{event.ref} was changed by {_who(event)}" + (f": {listed(changes, 3)}" if changes else "")


def _deleted(event: Event, _world: Transaction) -> str:
    owner = event.detail.get("with")
    return f"{_short_ref(event.ref)} was deleted " + (f"with {owner}" if owner else f"by {_who(event)}")


def _blocked(event: Event, _world: Transaction) -> str:
    return f"{event.ref} waits: {event.detail.get('blocked', 'no reason was given')}"


def _unblocked(event: Event, _world: Transaction) -> str:
    return f"{event.ref} goes on"


# -- versions


def _published(event: Event, world: Transaction) -> str:
    made = ref(event.ref)
    version = _version(made, world)
    metadata: Mapping[str, Any] = version.metadata if version is not None else {}
    if made.kind == "quarantine":
        return f"a batch of dataset/{made.name} was quarantined as {made}{_broken(metadata)}"
    if made.kind == "model":
        return _trained(event, made, version, metadata, world)
    rows = f" with {metadata['rows']:,} rows" if "rows" in metadata else ""
    note = f": {metadata['note']}" if metadata.get("note") else ""
    return f"{made.short} was published{rows} by {_maker(event, version, world)}{note}"


def _trained(event: Event, made: Ref, version: Version | None, metadata: Mapping[str, Any], world: Transaction) -> str:
    trained_on = metadata.get("trained_on")
    verb = "trained" if trained_on else "registered"
    return f"{made.short} was {verb} by {_maker(event, version, world)}{_on(trained_on, world)}"


def _on(trained_on: str | None, world: Transaction) -> str:
    if trained_on is None:
        return ""
    data = ref(trained_on)
    version = _version(data, world)
    facts = []
    if version is not None and "rows" in version.metadata:
        facts.append(f"{version.metadata['rows']:,} rows")
    if version is not None and version.metadata.get("note"):
        facts.append(str(version.metadata["note"]))
    return f" on {data.short}" + (f" ({'; '.join(facts)})" if facts else "")


def _broken(metadata: Mapping[str, Any]) -> str:
    report = metadata.get("contract") or {}
    failed = [r["id"] for r in report.get("results", []) if not r["passed"] and r.get("severity") == "error"]
    return f": it breaks {len(failed)} of {report['checks']} rules ({listed(failed, 3)})" if failed else ""


def _maker(event: Event, version: Version | None, world: Transaction) -> str:
    """Return who made a version: the run, with the pipeline that it is a run of, else the actor."""
    if version is None or version.run is None:
        return _who(event)
    run = _run(version.run, world)
    return f"run {version.run[:8]}" + (f" of {run.of}" if run is not None and run.of else "")


def _aliased(event: Event, _world: Transaction) -> str:
    name = shown_name(ref(event.ref).name)
    alias, before, after = shown_name(str(event.detail.get("alias"))), event.detail.get("from"), event.detail.get("to")
    if after is None:
        return f"{name}@{before} is no longer {alias}"
    return f"{name}@{after} became {alias}" + (f" after {name}@{before}" if before is not None else "")


def _passed(event: Event, world: Transaction) -> str:
    gates = event.detail.get("gates", [])
    passed = f"passed {len(gates)} of {len(gates)} gates" if gates else "has no gates to pass"
    agreed = [str(r["by"]).removeprefix("user/") for r in event.detail.get("reviews", []) if r["verdict"] == "approved"]
    by = f"{listed(agreed, 3)} agreed" if agreed else "no approval needed"
    if not agreed:  # events of earlier releases do not say who agreed
        resource = world.resources.find("model", ref(event.ref).name)
        is_asked = resource is not None and (resource.spec.get("approve") or {}).get("by") == "person"
        by = "a person agreed" if is_asked else by
    return f"{event.detail.get('version', event.ref)} {passed}; {by}"


def _refused(event: Event, _world: Transaction) -> str:
    if event.detail.get("comment") is not None:
        return f"{_who(event)} refused {_short_ref(event.ref)}{_into(event)}{_said(event)}"
    failed = [f"{g['gate']}: {g['reason']}" for g in event.detail.get("gates", []) if not g["passed"]]
    failed += [f"{r['by']}: {r['comment']}" for r in event.detail.get("reviews", []) if r["verdict"] == "refused"]
    return f"{event.detail.get('version', event.ref)} was refused" + (f"; {listed(failed, 3)}" if failed else "")


def _approved(event: Event, _world: Transaction) -> str:
    return f"{_who(event)} agreed to {_short_ref(event.ref)}{_into(event)}{_said(event)}"


def _asked(event: Event, _world: Transaction) -> str:
    detail = event.detail
    why = f": {detail['reason']}" if detail.get("reason") else ""
    return f"{_who(event)} asked that {_short_ref(event.ref)} goes from {detail.get('from')} to {detail.get('to')}{why}"


def _ended(event: Event, _world: Transaction) -> str:
    how = "ran out" if event.action == "expired" else f"was withdrawn by {_who(event)}"
    return f"the request for {_short_ref(event.ref)}{_into(event)} {how}{_said(event)}"


def _staged(event: Event, _world: Transaction) -> str:
    before, to = event.detail.get("from"), event.detail.get("to")
    entered = f"came to {to}" if to else "left all stages"
    return f"{_short_ref(event.ref)} {entered}" + (f" from {before}" if before and to else "")


def _written(event: Event, _world: Transaction) -> str:
    what = "model card" if event.action == "card written" else "risk assessment"
    note = f": {event.detail['note']}" if event.detail.get("note") else ""
    return f"{_who(event)} wrote edit {event.detail.get('revision')} of the {what} of {_short_ref(event.ref)}{note}"


def _into(event: Event) -> str:
    return f" for {event.detail['to']}" if event.detail.get("request") and event.detail.get("to") else ""


def _said(event: Event) -> str:
    return f": {event.detail['comment']}" if event.detail.get("comment") else ""


# -- deployments


def _serves(event: Event, _world: Transaction) -> str:
    return f"{event.detail.get('version', 'a version')} serves {event.ref}"


def _rollout_started(event: Event, _world: Transaction) -> str:
    detail = event.detail
    share, champion = detail.get("share", 0), detail.get("champion")
    if detail.get("strategy") == "shadow":
        return f"{detail.get('challenger')} shadows {champion} on {share:g} % of {event.ref}"
    return f"{detail.get('challenger')} was let into {event.ref} at {share:g} % beside {champion}"


def _rollout_stepped(event: Event, _world: Transaction) -> str:
    detail = event.detail
    return f"{detail.get('challenger')} went on to {detail.get('share', 0):g} % of {event.ref}{_because(detail)}"


def _promoted(event: Event, _world: Transaction) -> str:
    by = _STRATEGIES.get(str(event.detail.get("strategy", "canary")), "rollout")
    return f"{event.detail.get('challenger')} was promoted by its {by}{_because(event.detail)}"


def _reported(event: Event, _world: Transaction) -> str:
    return f"{event.detail.get('challenger')} was tried in the shadow of {event.ref}{_because(event.detail)}"


def _rolled_back(event: Event, _world: Transaction) -> str:
    by = f" by {_who(event)}" if event.actor.startswith("user/") else ""
    return f"{event.detail.get('challenger')} was rolled back{by}{_because(event.detail)}"


# -- monitors


def _watches(event: Event, _world: Transaction) -> str:
    return f"{event.ref} watches {event.detail.get('version')}"


def _alarmed(event: Event, _world: Transaction) -> str:
    return f"{event.ref}: {event.detail.get('summary', event.action)}"


def _fired(event: Event, _world: Transaction) -> str:
    return f"{event.ref} fired: {event.detail.get('summary', '')}".rstrip(": ")


def _resolved(event: Event, _world: Transaction) -> str:
    because = event.detail.get("because")
    return f"{event.ref} is resolved" + (f": {because}" if because else "")


def _measured(event: Event, _world: Transaction) -> str:
    return f"{event.ref} is up to date: {event.detail.get('summary', 'it was measured')}"


def _no_longer(event: Event, _world: Transaction) -> str:
    return f"{event.ref} is {event.action}"


# -- runs and triggers


def _queued(event: Event, world: Transaction) -> str:
    run = _run(ref(event.ref).name, world)
    trigger = run.tags.get("trigger") if run is not None else None
    by = f"trigger/{trigger}{_which_start(event, trigger, world)}" if trigger else _who(event)
    return f"{_short_ref(event.ref)}{_of(event)} was started by {by}"


def _which_start(event: Event, trigger: str, world: Transaction) -> str:
    """Return which start of its budget a trigger's run was: ` (1st of 3 a day)`."""
    run = ref(event.ref).name
    starts = world.journal.find(ref=f"trigger/{trigger}", action="triggered", limit=100)
    detail = next((e.detail for e in starts if e.detail.get("run") == run), {})
    if "number" not in detail:
        return ""
    number = int(detail["number"])
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f" ({number}{ending} of {detail.get('budget')})"


def _started(event: Event, world: Transaction) -> str:
    # A queued run notes "started" once more, without its kind, when it is taken up.
    return _queued(event, world) if "kind" in event.detail else f"{_short_ref(event.ref)}{_of(event)} began"


def _succeeded(event: Event, _world: Transaction) -> str:
    metrics = [f"{k} {v:.3g}" for k, v in event.detail.get("metrics", {}).items() if isinstance(v, float | int)]
    return f"{_short_ref(event.ref)}{_of(event)} succeeded" + (f" ({listed(metrics, 3)})" if metrics else "")


def _failed(event: Event, _world: Transaction) -> str:
    error = str(event.detail.get("error", "")).strip()
    reason = f": {error.splitlines()[-1]}" if error else ""
    if not event.ref.startswith("run/"):
        return f"{event.ref} could not be brought to what is wanted{reason}"
    return f"{_short_ref(event.ref)}{_of(event)} {'was ' if event.action != 'failed' else ''}{event.action}{reason}"


def _triggered(event: Event, _world: Transaction) -> str:
    detail = event.detail
    run = f" run {str(detail['run']).removeprefix('run/')[:8]}" if detail.get("run") else " a run"
    return f"{event.ref} started{run}{_because(detail)}"


def _ran(event: Event, _world: Transaction) -> str:
    run = str(event.detail.get("run", "")).removeprefix("run/")[:8]
    return f"{event.ref} ran: run {run} {event.detail.get('status')}"


def _plainly(event: Event, _world: Transaction) -> str:
    return f"{_short_ref(event.ref)}: {event.action}{_because(event.detail)}"


# -- words


def _because(detail: Mapping[str, Any]) -> str:
    reason = detail.get("reason") or detail.get("because") or detail.get("summary")
    return f": {reason}" if reason else ""


def _of(event: Event) -> str:
    target = event.detail.get("of") or event.detail.get("name")
    return f" of {target}" if target else ""


def _who(event: Event) -> str:
    kind, _, name = event.actor.partition("/")
    return name if kind == "user" and name else event.actor


def _short_ref(text: str) -> str:
    return ref(text).short


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _version(target: Ref, world: Transaction) -> Version | None:
    try:
        return world.versions.get(target.kind, target.name, target.version or "latest")
    except NotFound:
        return None


def _run(id: str, world: Transaction) -> Run | None:
    try:
        return world.runs.get(id)
    except FlyballError:
        return None


def _looked(event: Event, _world: Transaction) -> str:
    if event.detail.get("waiting"):
        return f"{event.ref} waits: {event.detail['waiting']}"
    if event.detail.get("next"):
        return f"{event.ref} is next due at {event.detail['next']}"
    return f"{event.ref} watches for what it is on"


_STRATEGIES = {
    "ab": "A/B experiment",
    "bandit": "bandit",
    "blue_green": "blue/green switch",
    "canary": "canary",
    "shadow": "shadow",
}

_TELLERS: Mapping[str, _Teller] = {
    "aliased": _aliased,
    "approved": _approved,
    "asked": _asked,
    "blocked": _blocked,
    "cancelled": _failed,
    "card written": _written,
    "changed": _changed,
    "created": _created,
    "decayed": _alarmed,
    "deleted": _deleted,
    "disagrees": _alarmed,
    "drifting": _alarmed,
    "expired": _ended,
    "failed": _failed,
    "fired": _fired,
    "looked": _looked,
    "lost": _failed,
    "measured": _measured,
    "no longer decayed": _no_longer,
    "no longer disagrees": _no_longer,
    "no longer drifting": _no_longer,
    "no longer stale": _no_longer,
    "passed": _passed,
    "promoted": _promoted,
    "published": _published,
    "queued": _queued,
    "ran": _ran,
    "refused": _refused,
    "reported": _reported,
    "resolved": _resolved,
    "risk assessed": _written,
    "rolled back": _rolled_back,
    "rollout started": _rollout_started,
    "rollout stepped": _rollout_stepped,
    "serves": _serves,
    "staged": _staged,
    "stale": _alarmed,
    "started": _started,
    "succeeded": _succeeded,
    "triggered": _triggered,
    "unblocked": _unblocked,
    "watches": _watches,
    "withdrawn": _ended,
}
