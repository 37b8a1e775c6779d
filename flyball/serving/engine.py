"""A prediction from rows to logged answer, step by step; no HTTP and no event loop in it.

`Engine.plan` checks the rows, routes them and looks features up; someone calls the models (`Engine.predict` at once,
the server through its batchers); `Engine.log` makes the answer durable. So a notebook and the server answer alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from flyball.clock import SYSTEM, Clock
from flyball.errors import InvalidInput, Unavailable, did_you_mean, listed
from flyball.models.bundle import load
from flyball.serving.batcher import Columns, call_model
from flyball.serving.lineup import Lineup, Served, ServedVariant, prepare
from flyball.serving.router import SLOTS, choose, named, slot
from flyball.serving.snapshot import Snapshot, read
from flyball.storage.blobs import BlobStore
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.online import OnlineStore
from flyball.storage.online.sqlite import SqliteOnline
from flyball.storage.streams import OnDone, Ticket
from flyball.tracking.predictions import Columns as LogColumns
from flyball.tracking.predictions import Label, LabelLog, PredictionBatch, PredictionLog, new_ids

__all__ = ["Answer", "AnsweredPart", "Engine", "Part", "Places", "Plan", "Question"]


@dataclass(frozen=True)
class Places:
    """Where the data plane finds things in a home."""

    blobs: Path
    online: Path
    traffic: Path  # the prediction log and the label log
    snapshot: Path
    status: Path

    @classmethod
    def of(cls, home: Path) -> Places:
        """Return the embedded layout."""
        serving = home / "serving"
        return cls(
            home / "blobs", home / "online.sqlite", home / "traffic", serving / "snapshot.json", serving / "status.json"
        )


@dataclass(slots=True)
class Question:
    """Rows to predict: `records` (a list of objects) or `columns` (values or arrays by name).

    Attributes:
        key: routes all rows; without it each row's own key field does, or the request's id.
        request_id: routes when there is no key, so that a repeated request meets the same variant.
        variant, version: for testers: who must answer, whatever the traffic table says.
        at: the instant whose features are wanted, if not now.
        is_whole: the answer can hold only one version: the first row's key routes all rows.
        received: `time.perf_counter()` when the request was complete; latency counts from here.
    """

    deployment: str
    records: Sequence[Mapping[str, Any]] | None = None
    columns: Mapping[str, Any] | None = None
    key: str | None = None
    request_id: str | None = None
    variant: str | None = None
    version: str | None = None
    at: datetime | None = None
    trace: str | None = None
    is_whole: bool = False
    received: float = field(default_factory=time.perf_counter)


@dataclass(slots=True)
class Part:
    """The rows of a question that one variant answers."""

    by: ServedVariant
    rows: Sequence[int] | None  # their places in the question; None: all of them
    ids: list[str]
    keys: list[str | None] | None
    inputs: Columns  # as received, keys of views included
    features: Columns  # as looked up
    columns: Columns  # what the model takes


@dataclass(slots=True)
class Plan:
    """A question, checked and routed."""

    question: Question
    served: Served
    ids: list[str]
    parts: list[Part]
    is_logged: bool

    def answer(self, outputs: Sequence[Columns]) -> Answer:
        """Return the answer, given what the variant of each part said."""
        parts = [
            AnsweredPart(part.by.variant.name, part.by.variant.version, part.rows, out)
            for part, out in zip(self.parts, outputs, strict=True)
        ]
        return Answer(self.served.name, self.ids, parts)


@dataclass(slots=True)
class AnsweredPart:
    """What one variant answered: its outputs for the given rows (None: all)."""

    variant: str
    version: str
    rows: Sequence[int] | None
    outputs: Columns


@dataclass(slots=True)
class Answer:
    """The answer to a question: an id for each row, and the parts, one for each variant that answered."""

    deployment: str
    ids: list[str]
    parts: list[AnsweredPart]

    def records(self) -> list[dict[str, Any]]:
        """Return for each row `{id, version, variant, outputs: {name: value}}`, in the order of the rows."""
        found: list[dict[str, Any]] = [{}] * len(self.ids)
        for part in self.parts:
            lists = {name: _plain_values(values) for name, values in part.outputs.items()}
            places = part.rows if part.rows is not None else range(len(self.ids))
            for row, place in enumerate(places):
                found[place] = {
                    "id": self.ids[place],
                    "version": part.version,
                    "variant": part.variant,
                    "outputs": {name: values[row] for name, values in lists.items()},
                }
        return found


class Engine:
    """Predicts from one home.

    Arguments:
        home: the home; stores that are not given are the embedded ones in it.
        writer: who writes the log, like `data_plane` (letters, digits, `_`); None answers without logging.
        deliver: how the log's acknowledgements come back, see `storage.streams.log.Log`.
        clock: tells the present, for look-ups and for the log.
    """

    def __init__(
        self,
        home: Path,
        *,
        writer: str | None = "engine",
        blobs: BlobStore | None = None,
        online: OnlineStore | None = None,
        deliver: Callable[[Callable[[], None]], object] | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.places = Places.of(home)
        self.lineup = Lineup()
        self._writer = writer
        self._deliver = deliver
        self._blobs = blobs if blobs is not None else FileBlobs(self.places.blobs)
        self._online = online
        self._clock = clock
        self._logs: dict[str, PredictionLog] = {}
        self._label_log: LabelLog | None = None

    # what is served

    def prepare(self, snapshot: Snapshot) -> Lineup:
        """Load what a snapshot needs, beside what is served; see `lineup.prepare`. May run on any thread."""
        return prepare(snapshot, self.lineup, partial(load, self._blobs))

    def adopt(self, lineup: Lineup) -> None:
        """Serve a lineup from the next question on."""
        for durability in {s.deployment.log.durability for s in lineup.served.values()} - self._logs.keys():
            if self._writer is not None:
                self._logs[durability] = PredictionLog(
                    self.places.traffic, self._writer, durability, deliver=self._deliver
                )
        masks = {name: frozenset(s.deployment.mask) for name, s in lineup.served.items()}
        for log in self._logs.values():
            log.set_masks(masks)
        self.lineup = lineup

    def refresh(self) -> Lineup:
        """Read the snapshot and serve it, if it is another than before.

        Raises:
            NotFound, Corrupt, InvalidInput, Incompatible: it cannot be served; the old lineup stays.
        """
        snapshot = read(self.places.snapshot)
        if snapshot.generation != self.lineup.generation:
            self.adopt(self.prepare(snapshot))
        return self.lineup

    def close(self) -> None:
        """Make everything logged durable."""
        for log in self._logs.values():
            log.close()
        if self._label_log is not None:
            self._label_log.close()

    # a prediction

    def predict(
        self,
        deployment: str,
        records: Sequence[Mapping[str, Any]] | None = None,
        columns: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        request_id: str | None = None,
        variant: str | None = None,
        version: str | None = None,
        at: datetime | None = None,
    ) -> Answer:
        """Answer rows and return when the answer is logged.

        Arguments: see `Question`.

        Raises:
            NotFound: no such deployment, version or variant.
            InvalidInput: a row is wrong; the message names it.
            StepFailed: the model failed.
            Unavailable: the answer could not be logged.
        """
        plan = self.plan(Question(deployment, records, columns, key, request_id, variant, version, at))
        outputs = [
            call_model(part.by.model.predict, part.columns, len(part.ids), part.by.variant.version)
            for part in plan.parts
        ]
        for ticket in self.log(plan, outputs):
            ticket.wait()
        return plan.answer(outputs)

    def plan(self, question: Question) -> Plan:
        """Check the rows, route them, look their features up.

        Raises:
            NotFound, InvalidInput: as `predict`.
        """
        served = self.lineup.find(question.deployment)
        count = _count(question, served)
        ids = new_ids(count)
        groups = _route(served, question, ids)
        parts = [self._part(question, by, rows, keys, ids) for by, rows, keys in groups]
        share = served.deployment.log.requests
        is_logged = count > 0 and (share >= 1 or slot(ids[0], "log") < share * SLOTS)
        return Plan(question, served, ids, parts, is_logged)

    def mirrored(self, plan: Plan) -> list[Part]:
        """Return the parts that mirrors get of a planned question: the same rows and ids, to be logged only."""
        found = []
        for mirror in plan.served.mirrors:
            if plan.ids and slot(plan.ids[0], f"mirror {mirror.variant.name}") < mirror.variant.weight * 100:
                keys = plan.parts[0].keys if len(plan.parts) == 1 else None
                found.append(self._part(plan.question, mirror, None, keys, plan.ids))
        return found

    def log(self, plan: Plan, outputs: Sequence[Columns], on_done: OnDone | None = None) -> list[Ticket]:
        """Queue a plan's answer for the log; empty when this deployment's share leaves it out.

        Args:
            outputs: what the variant of each part answered.
            on_done: called once for each ticket, see `PredictionLog.append`.

        Raises:
            Unavailable: the log takes no more. Parts before that may have been logged; the answer must not be given.
        """
        log = self._logs.get(plan.served.deployment.log.durability)
        if log is None or not plan.is_logged:
            return []
        return [self.log_part(plan, part, out, on_done) for part, out in zip(plan.parts, outputs, strict=True)]

    def log_part(self, plan: Plan, part: Part, outputs: Columns, on_done: OnDone | None = None) -> Ticket:
        """Queue one part's answer for the log. Raises Unavailable as `log`."""
        batch = PredictionBatch(
            deployment=plan.served.name,
            revision=plan.served.deployment.revision,
            variant=part.by.variant.name,
            version=part.by.variant.version,
            at=self._clock.now(),
            ids=part.ids,
            inputs=cast(LogColumns, part.inputs),
            outputs=cast(LogColumns, outputs),
            keys=part.keys,
            features=cast(LogColumns, part.features),
            latency_us=int((time.perf_counter() - plan.question.received) * 1e6),
            trace=plan.question.trace,
        )
        return self._logs[plan.served.deployment.log.durability].append(batch, on_done)

    def label(self, labels: Sequence[Label], on_done: OnDone | None = None) -> Ticket:
        """Queue labels for the label log.

        Raises:
            InvalidInput: see `LabelLog.append`.
            Unavailable: the log takes no more, or this engine does not log.
        """
        if self._label_log is None:
            if self._writer is None:
                raise Unavailable("this engine was opened without a log; give it a writer to log labels")
            self._label_log = LabelLog(self.places.traffic, self._writer, deliver=self._deliver)
        return self._label_log.append(labels, on_done)

    def _part(
        self,
        question: Question,
        by: ServedVariant,
        rows: Sequence[int] | None,
        keys: list[str | None] | None,
        ids: list[str],
    ) -> Part:
        own_ids = ids if rows is None else [ids[row] for row in rows]
        if not ids:
            _check_names(by, question.columns or {})
            return Part(by, rows, own_ids, keys, {}, {}, {})
        inputs, extra = _checked(question, by, rows)
        features = self._look_up(question, by, inputs, extra, len(own_ids))
        columns = {
            f.name: features[f.name] if f.name in features else inputs[f.name] for f in by.model.signature.inputs
        }
        return Part(by, rows, own_ids, keys, {**inputs, **extra}, features, columns)

    def _look_up(
        self, question: Question, by: ServedVariant, inputs: Columns, extra: Mapping[str, Any], count: int
    ) -> Columns:
        if by.looked_up is None:
            return {}
        if self._online is None:
            self._online = SqliteOnline(self.places.online)
        keys = {}
        for name in by.keys:
            values = inputs[name].tolist() if name in inputs else extra.get(name)
            if values is None:
                features = listed(f.name for f in by.looked_up.inputs)
                raise InvalidInput(f'{by.variant.version}: the rows lack "{name}", by which it looks up {features}')
            keys[name] = values
        from flyball.features.lookup import look_up

        found = look_up(self._online, by.views, keys, question.at or self._clock.now())
        wanted = {f.name: found[f.name] for f in by.looked_up.inputs}
        return by.looked_up.columns_from(wanted, subject=f"{by.variant.version}, looked up for {count} rows")


def _count(question: Question, served: Served) -> int:
    """Return how many rows there are, after checking that they are rows at all."""
    records, columns = question.records, question.columns
    count = 1
    if records is not None:
        if not isinstance(records, list | tuple) or not all(isinstance(record, Mapping) for record in records):
            raise InvalidInput(f"{served.name} was given something else than rows; expected a list of objects")
        if not records:
            raise InvalidInput(f"{served.name} was given no rows; expected at least one")
        count = len(records)
    elif columns:
        first = next(iter(columns.values()))
        if isinstance(first, list | tuple) or (isinstance(first, np.ndarray) and first.ndim > 0):
            count = len(first)
    else:
        raise InvalidInput(f"{served.name} was given neither records nor columns")
    if count > (most := served.deployment.limits.request_rows):
        raise InvalidInput(
            f"{served.name} was given {count} rows; at most {most} are taken at once, send them in parts"
        )
    return count


_Group = tuple[ServedVariant, Sequence[int] | None, list[str | None] | None]


def _route(served: Served, question: Question, ids: list[str]) -> list[_Group]:
    """Return which variant answers which rows, and the key of each."""
    keys = _row_keys(served, question, len(ids))
    if question.version is not None:
        return [(served.of_version(question.version), None, keys)]
    if question.variant is not None:
        named(question.variant, served.deployment.variants)
        return [(served.by_name[question.variant], None, keys)]
    variants = served.deployment.variants
    if len(variants) == 1:
        return [(served.variants[0], None, keys)]
    salt = served.deployment.salt
    alone = question.request_id or (ids[0] if ids else "")
    if keys is None or question.is_whole or question.key is not None:
        first = keys[0] if keys else None
        return [(served.by_name[choose(alone if first is None else first, salt, variants).name], None, keys)]
    rows_of: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        rows_of.setdefault(choose(alone if key is None else key, salt, variants).name, []).append(row)
    if len(rows_of) == 1:
        return [(served.by_name[next(iter(rows_of))], None, keys)]
    return [(served.by_name[name], rows, [keys[row] for row in rows]) for name, rows in rows_of.items()]


def _row_keys(served: Served, question: Question, count: int) -> list[str | None] | None:
    if question.key is not None:
        return [question.key] * count
    name = served.deployment.key
    if name is None or count == 0:
        return None
    values: Any
    if question.records is not None:
        values = [record.get(name) for record in question.records]
    else:
        values = (question.columns or {}).get(name)
        if isinstance(values, np.ndarray):
            values = values.ravel().tolist()
        if not isinstance(values, list | tuple) or len(values) != count:
            return None  # absent, or of a wrong length, which the signature's check will word
    return [None if value is None else str(value) for value in values]


def _checked(
    question: Question, by: ServedVariant, rows: Sequence[int] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the inputs as checked arrays, and the values of names that are not inputs of this model."""
    subject = by.variant.version
    extra: dict[str, Any] = {}
    try:
        if question.records is not None:
            records = question.records if rows is None else [question.records[row] for row in rows]
            for name in by.extra:
                if any(name in record for record in records):
                    extra[name] = [record.get(name) for record in records]
            if extra:
                records = [{k: v for k, v in record.items() if k not in by.extra} for record in records]
            if by.request is None:
                _check_names(by, records[0])
                return {}, extra
            return by.request.columns(records, subject=subject), extra
        columns = question.columns or {}
        if rows is not None:
            columns = {name: [values[row] for row in rows] for name, values in columns.items()}
        extra = {name: _plain_values(columns[name]) for name in by.extra if name in columns}
        given = {name: values for name, values in columns.items() if name not in extra}
        if by.request is None:
            _check_names(by, given)
            return {}, extra
        return by.request.columns_from(given, subject=subject), extra
    except InvalidInput as error:
        if by.looked_up is None or "It needs" not in str(error):
            raise
        features = listed(f.name for f in by.looked_up.inputs)
        raise InvalidInput(f"{error} (and looks up {features} by {listed(by.keys)})") from None


def _check_names(by: ServedVariant, given: Mapping[str, Any]) -> None:
    """Check names where there are no values to check: no rows, or no inputs."""
    needed = [f.name for f in by.request.inputs] if by.request is not None else []
    unknown = [name for name in given if name not in needed and name not in by.extra]
    missing = [name for name in needed if name not in given]
    if unknown:
        raise InvalidInput(
            f'{by.variant.version} has no input "{unknown[0][:60]}"{did_you_mean(unknown[0], needed)} '
            f"(known: {listed(needed)})"
        )
    if missing:
        raise InvalidInput(f"{by.variant.version} needs the inputs {listed(missing)} too")


def _plain_values(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)
