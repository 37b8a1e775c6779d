"""The trigger controller: queues a run of a pipeline when something has happened, within a budget.

What may have happened: a monitor's condition began, a dataset has a new version, a schedule fell due. Looking at the
world and writing are here; what follows from what was seen is decided by `decide`, which is pure.

A condition counts once when it begins. If it still holds after the run that it started has ended, it counts again only
after the cool-down, and not before an hour: a retraining that did not help is not repeated at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol
from zoneinfo import ZoneInfo

from flyball.clock import format_instant, parse_duration, parse_instant
from flyball.control import Blocked, Outcome, Retry, World
from flyball.errors import NotFound
from flyball.ledger import Transaction
from flyball.ledger.refs import Ref, ref
from flyball.ledger.runs import Run
from flyball.ledger.versions import Version
from flyball.pipelines.kinds import Condition, Cron, Trigger

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Happening", "Nothing", "Observed", "Skip", "Start", "TriggerController", "Wait", "decide", "fires"]

STANDING = timedelta(hours=1)  # the least time after a run before the condition that started it counts again
PUNCTUAL = timedelta(minutes=1)  # a schedule noticed later than this was missed
_LOOK_S = 1.0  # how often what wakes nobody is looked at: labels that come, a rollout that ends
_WINDOWS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}
_MANY = 1000


@dataclass(frozen=True)
class Happening:
    """Something in `on` that is so now: a condition, a version, a due time.

    `token` tells one occurrence from the next; `kind` is condition, version or schedule; `since` is when it came to be;
    `cause` the journal's event; `tags` go with the run that is started because of it.
    """

    source: str
    token: str
    kind: str
    summary: str
    since: datetime
    cause: int | None = None
    labels: int | None = None  # labelled answers since the condition's first window; None: not counted
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Observed:
    """What a decision is made from."""

    happenings: Sequence[Happening] = ()
    handled: Mapping[str, str] = field(default_factory=dict)  # by source: the token that has been dealt with
    starts: Sequence[datetime] = ()
    is_running: bool = False  # a run that this trigger started has not ended
    trying: str | None = None  # a version that the pipeline made and that is out by a rollout, like late@2
    ended_at: datetime | None = None  # when the last one did
    next_due: datetime | None = None  # the next time of a schedule


@dataclass(frozen=True)
class Start:
    """Queue a run because of this."""

    because: Happening


@dataclass(frozen=True)
class Wait:
    """Something has happened, but not now: `until` an instant, or until something wakes the trigger.

    `shown` is what the status keeps where the reason counts up: a status is written when it changes.
    """

    reason: str
    until: datetime | None = None
    shown: str = ""


@dataclass(frozen=True)
class Skip:
    """A schedule was missed, or fell due while the trigger was paused: take it as dealt with."""

    missed: Happening


@dataclass(frozen=True)
class Nothing:
    """Nothing to do before `until`."""

    until: datetime | None = None


Decision = Start | Wait | Skip | Nothing


def decide(spec: Trigger, observed: Observed, now: datetime) -> Decision:
    """Return what follows from what was seen.

    A budget counts starts in the window that ends now. Of several happenings the one that came first is the cause.
    """
    cool = parse_duration(spec.cool_down)
    again = _again_at(observed, max(cool, STANDING))
    fresh = [h for h in observed.happenings if observed.handled.get(h.source) != h.token]
    for happening in fresh:
        is_missed = spec.missed == "skip" and now - happening.since > PUNCTUAL
        if happening.kind == "schedule" and (spec.paused or is_missed):
            return Skip(happening)
    standing = [h for h in observed.happenings if h.kind == "condition" and h not in fresh and not observed.is_running]
    due = fresh + [h for h in standing if again is not None and now >= again]
    if not due:
        waits = [t for t in (observed.next_due, again if standing else None) if t is not None]
        return Nothing(min(waits) if waits else None)
    if spec.paused:
        return Wait(f"paused; {due[0].summary}")
    if observed.is_running:
        return Wait("its run has not ended")
    if observed.trying is not None:
        return Wait(f"{observed.trying} is being tried", now + timedelta(seconds=_LOOK_S))
    because = min(due, key=lambda h: h.since)
    if observed.ended_at is not None and now < observed.ended_at + cool:
        until = observed.ended_at + cool
        return Wait(f"cools down until {format_instant(until)} ({spec.cool_down} after its last run)", until)
    allowed, window = _budget(spec.budget)
    recent = sorted(start for start in observed.starts if start > now - window)
    if len(recent) >= allowed:
        until = recent[-allowed] + window
        return Wait(f"the budget of {spec.budget} is used up; the next start is free at {format_instant(until)}", until)
    enough = [h for h in due if h.labels is None or h.labels >= spec.after_labels]
    if not enough:
        return Wait(
            f"{because.labels or 0:,} of {spec.after_labels:,} labelled answers are there",
            now + timedelta(seconds=_LOOK_S),
            "for labelled answers",
        )
    return Start(min(enough, key=lambda h: h.since))


def fires(schedule: Cron, after: datetime) -> datetime:
    """Return the first time after an instant at which a schedule falls due, in UTC.

    In a zone with summer time a fixed hour that is left out fires right after the gap, and one that comes twice fires
    once (as Debian's cron does).
    """
    from cronsim import CronSim

    zone = ZoneInfo(schedule.zone)
    return next(CronSim(schedule.cron, after.astimezone(zone))).astimezone(after.tzinfo)


class _Traffic(Protocol):
    def frame(self, deployment: str) -> pl.DataFrame: ...


class TriggerController:
    """Controller of the kind `trigger`.

    Args:
        traffic: the prediction log, for triggers that wait for labels.
    """

    kind = "trigger"

    def __init__(self, traffic: _Traffic | None = None) -> None:
        self._traffic = traffic

    def reconcile(self, name: str, world: World) -> Outcome:
        now = world.clock.now()
        with world.read() as reading:
            resource = reading.resources.find("trigger", name)
            if resource is None:
                return None
            spec = Trigger.model_validate(resource.spec)
            status = dict(resource.status)
            status["handled"] = _first_look(spec, status.get("handled", {}), now, reading)
            observed = self._observe(spec, status, now, reading)
        decision = decide(spec, observed, now)
        if isinstance(decision, Start):
            _start(name, spec, status, decision.because, now, world)
            return Retry(0.0)
        if isinstance(decision, Skip):
            status["handled"] = {**status["handled"], decision.missed.source: decision.missed.token}
            _keep(name, status, "skipped", {"summary": decision.missed.summary}, world)
            return Retry(0.0)
        _note_next(status, observed)
        waits = (decision.shown or decision.reason) if isinstance(decision, Wait) else None
        detail = {"waiting": waits, "next": status.get("next")}
        _keep(name, _with(status, "waiting", waits), "looked", detail, world)
        if decision.until is not None:
            return Retry(max(0.0, (decision.until - now).total_seconds()))
        return Blocked(waits) if waits and spec.paused else None

    def _observe(self, spec: Trigger, status: Mapping[str, Any], now: datetime, reading: Transaction) -> Observed:
        found: list[Happening] = []
        due: list[datetime] = []
        handled: Mapping[str, str] = status["handled"]
        for item in spec.on:
            if isinstance(item, Cron):
                happening, upcoming = _schedule(item, handled[_source(item)], now)
                found += [happening] if happening else []
                due.append(upcoming)
            else:
                condition = Condition(item)
                look = self._condition if condition.name != "changed" else _version
                happening = look(spec, item, condition, handled, reading)
                found += [happening] if happening else []
        last = _run(status.get("last_run"), reading)
        return Observed(
            happenings=found,
            handled=handled,
            starts=[parse_instant(text) for text in status.get("starts", [])],
            is_running=last is not None and not last.is_finished,
            ended_at=last.finished_at if last is not None else None,
            next_due=min(due, default=None),
            trying=_trying(spec, reading),
        )

    def _condition(
        self, spec: Trigger, source: str, condition: Condition, _handled: Mapping[str, str], reading: Transaction
    ) -> Happening | None:
        """Return a monitor's condition if it holds."""
        monitor = reading.resources.find(condition.target.kind, condition.target.name)
        holds = monitor.status.get("conditions", {}).get(condition.name) if monitor else None
        if monitor is None or not holds:
            return None
        events = reading.journal.find(ref=str(condition.target), action=condition.name, limit=1)
        first = str(holds.get("from", ""))
        labels = None
        if spec.after_labels and self._traffic is not None:
            labels = _labelled(self._traffic.frame(ref(monitor.spec["of"], "deployment").name), first)
        tags = {"because": source} | ({"from": first} if first else {})
        since = holds["since"]
        cause = holds.get("event") or (events[0].seq if events else None)
        summary = holds.get("summary") or f"{condition.target} is {condition.name}"
        return Happening(source, since, "condition", summary, parse_instant(since), cause, labels, tags)


def _version(
    spec: Trigger, source: str, condition: Condition, handled: Mapping[str, str], reading: Transaction
) -> Happening | None:
    """Return the newest version since the one that was dealt with, unless the pipeline's own run made it."""
    known = int(handled.get(source, "0"))
    pipeline = str(ref(spec.start, "pipeline").resource)
    for version in reading.versions.all(condition.target.kind, condition.target.name, limit=_MANY):
        if version.number <= known:
            return None
        if not _is_made_by(version, pipeline, reading):
            text = f"{version.ref.short} was published"
            tags = {"because": str(version.ref)}
            token = str(version.number)
            return Happening(source, token, "version", text, version.created_at, version.event, None, tags)
    return None


def _schedule(schedule: Cron, handled: str, now: datetime) -> tuple[Happening | None, datetime]:
    """Return the newest due time that was not dealt with, and the next one to come."""
    source = _source(schedule)
    due = None
    at = fires(schedule, parse_instant(handled))
    if (now - at).total_seconds() > _MANY * 60:  # after a long sleep, only the newest of many due times matters
        at = _newest_before(schedule, at, now)
    while at <= now:
        due, at = at, fires(schedule, at)
    if due is None:
        return None, at
    token = format_instant(due)
    summary = f"the schedule {schedule.cron} ({schedule.zone}) fell due at {token}"
    return Happening(source, token, "schedule", summary, due, tags={"because": source}), at


def _newest_before(schedule: Cron, first: datetime, now: datetime) -> datetime:
    """Return a due time not long before `now`: look for one in ever longer spans that end there."""
    span = timedelta(minutes=1)
    while now - span > first:
        at = fires(schedule, now - span)
        if at <= now:
            return at
        span *= 4
    return first


def _first_look(spec: Trigger, handled: Mapping[str, str], now: datetime, reading: Transaction) -> dict[str, str]:
    """Return what has been dealt with: of what is new in `on`, versions that exist and times that have passed."""
    known: dict[str, str] = {}
    for item in spec.on:
        source = _source(item)
        if source in handled:
            known[source] = handled[source]
        elif isinstance(item, Cron):
            known[source] = format_instant(now)
        elif Condition(item).name == "changed":
            target = Condition(item).target
            newest = reading.versions.all(target.kind, target.name, limit=1)
            known[source] = str(newest[0].number if newest else 0)
    return known


def _start(
    name: str, spec: Trigger, status: Mapping[str, Any], because: Happening, now: datetime, world: World
) -> None:
    """Queue the run and write down that it was because of this, in one transaction."""
    pipeline = ref(spec.start, "pipeline").name
    _, window = _budget(spec.budget)
    recent = [text for text in status.get("starts", []) if parse_instant(text) > now - window]
    with world.write(because.cause) as writing:
        given = {**writing.resources.get("pipeline", pipeline).spec.get("params", {}), **spec.params}
        number = len(recent) + 1
        handled = {**status["handled"], because.source: because.token}
        kept = {**_with(status, "waiting", None), "handled": handled, "starts": [*recent, format_instant(now)]}
        run = writing.runs.start(
            "pipeline",
            pipeline,
            of=str(Ref("pipeline", pipeline)),
            status="pending",
            params=given,
            tags={"trigger": name, **because.tags},
        )
        detail = {"run": run.id, "because": because.summary, "number": number, "budget": spec.budget}
        kept["last_run"] = run.id
        writing.resources.set_status("trigger", name, kept, action="triggered", detail=detail)


def _keep(name: str, status: Mapping[str, Any], action: str, detail: Mapping[str, Any], world: World) -> None:
    """Write the status if it is another than before; what the loop itself keeps there stays."""
    with world.read() as reading:
        before = reading.resources.find("trigger", name)
    if before is not None and dict(before.status) != dict(status):
        with world.write() as writing:
            writing.resources.set_status("trigger", name, status, action=action, detail=detail)


def _note_next(status: dict[str, Any], observed: Observed) -> None:
    due = observed.next_due
    status.update(_with(status, "next", format_instant(due) if due is not None else None))


def _with(status: Mapping[str, Any], key: str, value: str | None) -> dict[str, Any]:
    rest = {k: v for k, v in status.items() if k != key}
    return rest if value is None else {**rest, key: value}


def _again_at(observed: Observed, after: timedelta) -> datetime | None:
    return None if observed.ended_at is None else observed.ended_at + after


def _budget(text: str) -> tuple[int, timedelta]:
    """Return how many starts are allowed in which window, of `3 a day`."""
    match = re.fullmatch(r"(\d+) an? (\w+)", text)
    assert match, text
    return int(match[1]), _WINDOWS[match[2]]


def _source(item: str | Cron) -> str:
    return item if isinstance(item, str) else f"{item.cron} {item.zone}"


def _trying(spec: Trigger, reading: Transaction) -> str | None:
    """Return the challenger of a model that the pipeline uses: its rollout shows what the last run was worth."""
    pipeline = reading.resources.find("pipeline", ref(spec.start, "pipeline").name)
    for target in map(ref, pipeline.spec.get("uses", []) if pipeline else []):
        aliases = reading.versions.aliases("model", target.name) if target.kind == "model" else {}
        if "challenger" in aliases:
            return f"{target.name}@{aliases['challenger']}"
    return None


def _run(id: str | None, reading: Transaction) -> Run | None:
    try:
        return reading.runs.get(id) if id else None
    except NotFound:
        return None  # deleted since


def _is_made_by(version: Version, pipeline: str, reading: Transaction) -> bool:
    """Whether a version was made by a run of the pipeline, or by one of its steps."""
    run = _run(version.run, reading)
    while run is not None and run.of is None and run.parent is not None:
        run = _run(run.parent, reading)
    return run is not None and run.of == pipeline


def _labelled(frame: pl.DataFrame, first: str) -> int:
    """Return how many answers from the one with the id `first` on have labels; ids sort by time."""
    import polars as pl

    if frame.is_empty():
        return 0
    return frame.filter((pl.col("id") >= first) & pl.col("label").is_not_null()).height
