"""A prediction from rows to logged answer, step by step; no HTTP and no event loop in it.

`Engine.plan` checks the rows, routes them and looks features up; someone calls the models (`Engine.predict` at once,
the server through its batchers); `Engine.log` makes the answer durable. So a notebook and the server answer alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

from flyball import settings
from flyball.clock import SYSTEM, Clock
from flyball.errors import InvalidInput, Unavailable, listed
from flyball.features.freshness import Freshness
from flyball.features.functions import load_function
from flyball.models.bundle import LoadedModel, load
from flyball.models.explaining import MOST_ROWS
from flyball.models.trust import Trust
from flyball.serving.batcher import Columns, call_model
from flyball.serving.keys import Callers, ServingSettings
from flyball.serving.lineup import Lineup, ServedVariant, prepare
from flyball.serving.questions import Answer, Part, Plan, Question, check_names, checked, count_rows, route
from flyball.serving.residence import Residence
from flyball.serving.router import SLOTS, slot
from flyball.serving.snapshot import CallerKey, Snapshot, read
from flyball.storage.blobs import BlobStore
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.online import OnlineStore
from flyball.storage.online.opening import open_online
from flyball.storage.streams import OnDone, Ticket
from flyball.tracking.predictions import Columns as LogColumns
from flyball.tracking.predictions import Label, LabelLog, PredictionBatch, PredictionLog, new_ids

__all__ = ["Answer", "Engine", "Places", "Question"]


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
        self.freshness = Freshness()
        self._home = home
        self._writer = writer
        self._deliver = deliver
        self._blobs = blobs if blobs is not None else FileBlobs(self.places.blobs)
        self._online = online
        self._clock = clock
        self._settings = settings.load(ServingSettings, "serving", home)
        self.lineup = Lineup(callers=self._callers(()))  # nobody comes in before the first snapshot is read
        loads = partial(load, self._blobs, trust=Trust(home))
        budget = self._settings.memory_budget_mb
        self.residence = None if budget is None else Residence(budget << 20, loads)
        self._load: Callable[[str], LoadedModel] = self.residence or loads
        self._logs: dict[str, PredictionLog] = {}
        self._label_log: LabelLog | None = None

    # what is served

    def prepare(self, snapshot: Snapshot) -> Lineup:
        """Load what a snapshot needs, beside what is served; see `lineup.prepare`. May run on any thread."""
        found = prepare(snapshot, self.lineup, self._load, lambda spec: load_function(spec, self._home))
        return replace(found, callers=self._callers(snapshot.keys))

    def _callers(self, keys: Sequence[CallerKey]) -> Callers:
        return Callers(keys, self._settings.keys_required, self._settings.metrics_open, self._clock)

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
        if self.residence is not None:
            self.residence.keep(lineup.models)

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

    @property
    def clock(self) -> Clock:
        """What tells when an answer was given."""
        return self._clock

    @property
    def online(self) -> OnlineStore:
        """Where features are looked up: what was given, else what the home's settings say; opened when first asked."""
        if self._online is None:
            self._online = open_online(self._home)
        return self._online

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
        explain: bool = False,
        is_approximate: bool = False,
    ) -> Answer:
        """Answer rows and return when the answer is logged.

        Arguments: see `Question`.

        Raises:
            NotFound: no such deployment, version or variant.
            InvalidInput: a row is wrong; the message names it.
            StepFailed: the model failed.
            Unavailable: the answer could not be logged.
        """
        question = Question(deployment, records, columns, key, request_id, variant, version, at)
        question.explain, question.is_approximate = explain, is_approximate
        plan = self.plan(question)
        if explain:
            self.explain(plan)
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
        count = count_rows(question, served)
        ids = new_ids(count)
        groups = route(served, question, ids)
        parts = [self._part(question, by, rows, keys, ids) for by, rows, keys, _ in groups]
        for part, (_, _, _, odds) in zip(parts, groups, strict=True):
            part.propensities = odds
        share = served.deployment.log.requests
        is_logged = count > 0 and (share >= 1 or slot(ids[0], "log") < share * SLOTS)
        return Plan(question, served, ids, parts, is_logged)

    def explain(self, plan: Plan) -> None:
        """Find out what each input did for a plan's answers. Takes milliseconds a row: never on an event loop.

        Raises:
            InvalidInput: too many rows, or a model that cannot be explained so; see `models.explaining`.
            StepFailed: the model failed.
        """
        began = time.perf_counter()
        if len(plan.ids) > MOST_ROWS:
            raise InvalidInput(f"{len(plan.ids)} rows are to be explained; at most {MOST_ROWS} are at once")
        approximate = plan.question.is_approximate
        plan.explanations = (
            [part.by.model.explain(part.columns, approximate) for part in plan.parts] if plan.ids else ()
        )
        # The latency that is logged and compared between versions is that of the answer.
        plan.question.received += time.perf_counter() - began

    def mirrored(self, plan: Plan) -> list[Part]:
        """Return the parts that mirrors get of a planned question: the same rows and ids, to be logged only."""
        found = []
        for mirror in plan.served.mirrors:
            if plan.ids and slot(plan.ids[0], f"mirror {mirror.variant.name}") < mirror.variant.weight * 100:
                keys = plan.parts[0].keys if len(plan.parts) == 1 else None
                found.append(self._part(plan.question, mirror, None, keys, plan.ids))
        return found

    def part(self, question: Question, by: ServedVariant, ids: list[str]) -> Part:
        """Return all rows of a question as one variant takes them, whoever would be asked; raises as `predict`."""
        return self._part(question, by, None, None, ids)

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
        log = self._logs[plan.served.deployment.log.durability]
        return log.append_encoded([self._encoded(log, plan, part, outputs)], on_done)

    def encoded(self, plan: Plan, outputs: Sequence[Columns]) -> list[bytes]:
        """Return a plan's answer as `append` takes it; empty when it is not to be logged.

        Raises:
            InvalidInput: a value that the log cannot hold.
        """
        log = self._logs.get(plan.served.deployment.log.durability)
        if log is None or not plan.is_logged:
            return []
        return [self._encoded(log, plan, part, out) for part, out in zip(plan.parts, outputs, strict=True)]

    def append(self, durability: str, payloads: Sequence[bytes], on_done: OnDone) -> None:
        """Queue encoded answers to several questions as one; `on_done` is called once for all of them.

        Raises:
            Unavailable: the log takes no more; none was queued.
        """
        self._logs[durability].append_encoded(payloads, on_done)

    def append_now(self, durability: str, payloads: Sequence[bytes]) -> bool:
        """Log encoded answers at once, if that takes no longer than to have it done; see `Log.append_now`.

        Raises:
            Unavailable: the disk took none of them.
        """
        return self._logs[durability].append_now(payloads)

    def is_logging(self, durability: str) -> bool:
        """Whether what deployments of this durability answer goes into a log."""
        return durability in self._logs

    def _encoded(self, log: PredictionLog, plan: Plan, part: Part, outputs: Columns) -> bytes:
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
            propensities=part.propensities,
            is_forced=plan.question.is_forced,
        )
        return log.encode(batch)

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
            check_names(by, question.columns or {})
            return Part(by, rows, own_ids, keys, {}, {}, {})
        inputs, extra = checked(question, by, rows)
        if not extra and by.looked_up is None:
            return Part(by, rows, own_ids, keys, inputs, {}, inputs)
        features = self._look_up(question, by, inputs, extra, len(own_ids))
        columns = {
            f.name: features[f.name] if f.name in features else inputs[f.name] for f in by.model.signature.inputs
        }
        return Part(by, rows, own_ids, keys, {**inputs, **extra}, features, columns)

    def _look_up(
        self, question: Question, by: ServedVariant, inputs: Columns, extra: Mapping[str, Any], count: int
    ) -> Columns:
        if by.looked_up is None or by.features is None:
            return {}
        fields: dict[str, Any] = {}
        for name in by.features.fields:
            values = inputs.get(name, extra.get(name))
            if values is None:
                if name in by.features.optional:
                    continue
                features = listed(f.name for f in by.looked_up.inputs)
                raise InvalidInput(f'{by.variant.version}: the rows lack "{name}", by which it looks up {features}')
            fields[name] = values
        instant = question.at or self._clock.now()
        found = by.features.look_up(self.online, fields, instant, count, freshness=self.freshness)
        wanted = {f.name: found[f.name] for f in by.looked_up.inputs}
        return by.looked_up.columns_from(wanted, subject=f"{by.variant.version}, looked up for {count} rows")
