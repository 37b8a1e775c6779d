"""The composition root: settings → backends → `Platform`, and the one table that says who may do what.

Everything that a person or a program can do to Flyball is a method here; `cli`, `web`, `wire` and the Python API only
parse, call and show. Only this module chooses backends.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flyball import settings
from flyball.clock import SYSTEM, Clock
from flyball.errors import Forbidden, Incompatible, InvalidInput, NotFound, listed
from flyball.governance.identity import Principal, local_user
from flyball.ledger import Fence, Ledger, Transaction, kinds
from flyball.ledger.journal import Event
from flyball.ledger.lineage import Graph
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource
from flyball.ledger.runs import Artifact, MetricPoint, Run
from flyball.ledger.versions import AliasChange, Version

if TYPE_CHECKING:
    import polars as pl

    from flyball.control import Controller
    from flyball.control.loop import Loop
    from flyball.data.datasets import Datasets, Published
    from flyball.delivery.documents import Document
    from flyball.delivery.plan import Plan
    from flyball.models.bundle import LoadedModel
    from flyball.monitoring.results import Results
    from flyball.serving.engine import Engine
    from flyball.storage.blobs import BlobStore
    from flyball.storage.online import OnlineStore
    from flyball.storage.tables import TableStore
    from flyball.tracking.live import LiveTraffic
    from flyball.tracking.runs import ActiveRun
    from flyball.tracking.traffic import Prediction

__all__ = ["MAY", "Platform"]

HOME_FORMAT = 1

KIND_MODULES = (
    "flyball.data.kinds",
    "flyball.features.kinds",
    "flyball.models.kinds",
    "flyball.monitoring.kinds",
    "flyball.pipelines.kinds",
    "flyball.serving.kinds",
)

# Of a thing's events, those that `why` starts from when there are any: what people ask about.
TELLING = frozenset(
    {"promoted", "rolled back", "serves", "drifting", "decayed", "fired", "aliased", "published", "refused", "passed"}
)

# Who may do what: the lowest role that each act needs.
MAY: Mapping[str, str] = {
    "read": "viewer",
    "predict": "operator",
    "label": "operator",
    "rollback": "operator",
    "silence": "operator",
    "start": "operator",
    "publish": "editor",
    "record": "editor",
    "register": "editor",
    "push": "editor",
    "apply": "editor",
    "delete": "editor",
    "approve": "editor",
}


class Platform:
    """One home, seen by one principal. Cheap to make for another principal: `platform.as_(principal)`."""

    def __init__(self, home: Path, ledger: Ledger, principal: Principal, clock: Clock = SYSTEM) -> None:
        self.home = home
        self.ledger = ledger
        self.principal = principal
        self.clock = clock

    # -- opening and closing

    @classmethod
    def open(
        cls,
        home: str | os.PathLike[str] | None = None,
        principal: Principal | None = None,
        clock: Clock = SYSTEM,
        *,
        create: bool = True,
    ) -> Platform:
        """Open a home, creating it when it is not there.

        Raises:
            NotFound: it is not there and `create` is false.
            Incompatible: it was made by a newer release; nothing was touched.
            InvalidInput: the path is a file, or a setting is wrong.
        """
        path = cls.home_of(home, create=create)
        from flyball.ledger.sql import LedgerSettings, open_ledger

        for module in KIND_MODULES:
            importlib.import_module(module)
        ledger = open_ledger(path, settings.load(LedgerSettings, "ledger", path), clock)
        return cls(path, ledger, principal or local_user(), clock)

    @staticmethod
    def home_of(home: str | os.PathLike[str] | None = None, *, create: bool = True) -> Path:
        """Return the folder of a home, making it when allowed, without opening anything in it; raises as `open`."""
        path = settings.home_directory(home)
        _check_home(path, create=create)
        return path

    def close(self) -> None:
        """Close what is open."""
        self.ledger.close()

    def as_(self, principal: Principal) -> Platform:
        """Return the same home as another principal sees it."""
        other = Platform(self.home, self.ledger, principal, self.clock)
        other.__dict__.update({k: v for k, v in self.__dict__.items() if k not in other.__dict__})
        return other

    # -- backends

    @property
    def project(self) -> Path:
        """The folder that declarations' paths are relative to: what `flyball.json` says, else the home's parent."""
        marked = _home_facts(self.home).get("project")
        return Path(marked) if marked else self.home.parent

    def belongs_to(self, project: Path) -> None:
        """Remember the project's folder, where it is not the home's parent."""
        self._may("apply")
        if project.absolute() != self.project:
            _write_json(self.home / "flyball.json", {**_home_facts(self.home), "project": str(project.absolute())})

    @cached_property
    def blobs(self) -> BlobStore:
        from flyball.storage.blobs.files import FileBlobs

        return FileBlobs(self.home / "blobs")

    @cached_property
    def tables(self) -> TableStore:
        from flyball.storage.tables.parquet import ParquetTables

        return ParquetTables(self.blobs)

    @cached_property
    def online(self) -> OnlineStore:
        from flyball.storage.online.sqlite import SqliteOnline

        return SqliteOnline(self.home / "online.sqlite")

    @cached_property
    def datasets(self) -> Datasets:
        from flyball.data.datasets import Datasets

        return Datasets(self.ledger, self.tables, self.project, self.clock)

    @cached_property
    def traffic(self) -> LiveTraffic:
        from flyball.tracking.live import LiveTraffic

        return LiveTraffic(self.home / "traffic", self.clock)

    @cached_property
    def monitor_results(self) -> Results:
        from flyball.monitoring.results import Results

        return Results(self.home / "streams")

    @property
    def actor(self) -> str:
        """Who acts, as the journal names them."""
        return self.principal.actor

    # -- resources

    def resources(self, kind: str | None = None, labels: Mapping[str, str] | None = None) -> list[Resource]:
        """Return resources, of one kind or of all."""
        with self._reading() as world:
            return world.resources.all(kinds.kind_of(kind).word if kind else None, labels)

    def resource(self, target: str | Ref) -> Resource:
        """Return one resource. Raises NotFound."""
        found = self._ref(target)
        with self._reading() as world:
            return world.resources.get(found.kind, found.name)

    def referrers(self, target: str | Ref) -> list[Ref]:
        """Return the resources whose spec refers to a resource."""
        with self._reading() as world:
            return world.resources.referrers(self._ref(target))

    def plan(self, documents: Iterable[Document]) -> Plan:
        """Return what applying the documents would change. Raises InvalidInput."""
        from flyball.delivery.plan import make_plan

        with self._reading() as world:
            return make_plan(documents, world)

    def apply(self, documents: Iterable[Document]) -> Plan:
        """Make the documents so, all or nothing, and return what was changed. Raises InvalidInput, Conflict."""
        from flyball.delivery.plan import carry_out, make_plan

        with self._writing("apply") as world:
            plan = make_plan(documents, world)
            carry_out(plan, world)
        return plan

    def declare(self, kind: str, name: str, **spec: Any) -> Resource:
        """Apply one resource given as fields."""
        from flyball.delivery.documents import Document

        word = kinds.kind_of(kind).word
        self.apply([Document(word, name, spec, source="declared in code")])
        return self.resource(Ref(word, name))

    def delete(self, target: str | Ref) -> list[Ref]:
        """Delete a resource and what it owns, or a finished run. Raises NotFound, Conflict."""
        found = self._ref(target)
        with self._writing("delete") as world:
            if found.kind == "run":
                run = world.runs.get(found.name)
                world.runs.delete(run.id)
                return [run.ref]
            return world.resources.delete(found.kind, found.name)

    # -- data

    def publish(self, dataset: str, source: Any = None, **options: Any) -> Published:
        """Publish rows as the dataset's next version; see `Datasets.publish`."""
        self._may("publish")
        return self.datasets.publish(dataset, source, actor=self.actor, **options)

    def frame(self, target: str | Ref) -> pl.LazyFrame:
        """Return the rows of a version of a dataset or a quarantine, lazily. Raises NotFound."""
        self._may("read")
        found = ref(str(target)) if "/" in str(target) else ref(str(target), "dataset")
        return self.datasets.frame(found.name, found.version or "latest", found.kind)

    # -- runs

    def start_run(self, name: str, kind: str = "training", **options: Any) -> ActiveRun:
        """Start recording a run; see `Runs.start` for the options."""
        from flyball.tracking.runs import ActiveRun, environment, source

        with self._writing("record") as world:
            run = world.runs.start(kind, name, source=source(), environment=environment(), **options)
        return ActiveRun(run, self.ledger, self.blobs, self.actor, self.clock)

    def start_pipeline(self, name: str, params: Mapping[str, Any] | None = None) -> Run:
        """Put a run of a pipeline in the queue; whoever acts on this home carries it out. Raises NotFound."""
        with self._writing("start") as world:
            pipeline = world.resources.get("pipeline", ref(name, "pipeline").name)
            given = {**pipeline.spec.get("params", {}), **(params or {})}
            return world.runs.start("pipeline", pipeline.name, of=str(pipeline.ref), status="pending", params=given)

    def runs(self, **filters: Any) -> list[Run]:
        """Return runs, newest first; see `Runs.find` for the filters."""
        with self._reading() as world:
            return world.runs.find(**filters)

    def run(self, id: str) -> Run:
        """Return one run by its id or the beginning of it. Raises NotFound."""
        with self._reading() as world:
            return world.runs.get(id.removeprefix("run/"))

    def metric(self, run: str, key: str) -> list[MetricPoint]:
        """Return the points of one metric of a run. Raises NotFound."""
        with self._reading() as world:
            found = world.runs.get(run.removeprefix("run/"))
            if key not in found.metrics:
                raise NotFound(f"run {found.id[:8]} has no metric {key!r} (it has: {listed(found.metrics)})")
            return world.runs.history(found.id, key)

    def run_log(self, run: str) -> str:
        """Return what a run and its steps printed: the worker's log, then each step's own."""
        found = self.run(run)
        path = self.home / "logs" / f"run-{found.id}.log"
        parts = [path.read_text(encoding="utf-8", errors="replace")] if path.exists() else []
        steps = sorted(self.runs(parent=found.id, limit=1000), key=lambda r: r.started_at)
        for step in [found, *steps]:
            for kept in self.artifacts(step.id):
                if kept.path == "log.txt":
                    text = self.blobs.get(kept.digest).decode(errors="replace")
                    parts.append(f"── {step.name} ({step.id[:8]}) ──\n{text}")
        return "\n".join(part.rstrip("\n") for part in parts if part.strip())

    def artifacts(self, run: str) -> list[Artifact]:
        """Return what a run left."""
        with self._reading() as world:
            return world.runs.artifacts(run)

    # -- versions

    def versions(self, kind: str, name: str | None = None, limit: int = 1000) -> list[Version]:
        """Return versions, newest first."""
        with self._reading() as world:
            return world.versions.all(kind, name, limit)

    def version(self, target: str | Ref) -> Version:
        """Return one version: `model/late@champion`, `dataset/flights@12`. Raises NotFound."""
        found = ref(str(target))
        with self._reading() as world:
            return world.versions.get(found.kind, found.name, found.version or "latest")

    def aliases(self, kind: str, name: str, at: datetime | None = None) -> dict[str, int]:
        """Return where each alias points, or pointed at an instant."""
        with self._reading() as world:
            return world.versions.aliases(kind, name, at)

    def alias_changes(self, kind: str, name: str) -> list[AliasChange]:
        """Return every change of a name's aliases, oldest first."""
        with self._reading() as world:
            return world.versions.alias_history(kind, name)

    # -- models and deployments

    def register(self, name: str, model: Any, **options: Any) -> Version:
        """Publish a model's next version; see `training.registering.register`."""
        from flyball.training.registering import register

        self._may("register")
        return register(self.ledger, self.blobs, name, model, actor=self.actor, **options)

    def load(self, target: str | Ref) -> LoadedModel:
        """Load a model version, its digests verified. Raises NotFound, Corrupt, MissingExtra."""
        from flyball.models import bundle

        found = ref(str(target)) if "/" in str(target) else ref(str(target), "model")
        return bundle.load(self.blobs, self.version(found if found.version else f"{found}@champion").digest)

    def approve(self, target: str | Ref) -> Version:
        """Agree to a model version that waits for a person. Raises NotFound."""
        from flyball.delivery.promotion import approve

        found = ref(str(target)) if "/" in str(target) else ref(str(target), "model")
        with self._writing("approve") as world:
            version = world.versions.get("model", found.name, found.version or "latest")
            approve(version, world)
        return version

    def rollback(self, target: str | Ref) -> str:
        """Send a deployment back: end its rollout, or else give the champion's place back to the champion before.

        Returns:
            The version that serves from now on, like `late@1`.

        Raises:
            NotFound: no such deployment.
            Conflict: there is nothing to go back to.
        """
        from flyball.delivery.promotion import roll_back

        found = ref(str(target)) if "/" in str(target) else ref(str(target), "deployment")
        with self._writing("rollback") as world:
            return roll_back(found.name, world)

    def predict(self, deployment: str, records: Any, key: str | None = None) -> list[dict[str, Any]]:
        """Answer records as the data plane would, and log them; see `serving.engine`. Raises NotFound, InvalidInput."""
        self._may("predict")
        rows = [records] if isinstance(records, Mapping) else list(records)
        self.engine.refresh()
        return self.engine.predict(deployment, rows, key=key).records()

    def label(self, labels: Iterable[tuple[str, Any]] | Mapping[str, Any], source: str = "") -> int:
        """Append the truth of predictions by their ids; return how many. Durable on return. Raises InvalidInput."""
        from flyball.tracking.predictions import Label, LabelLog

        self._may("label")
        pairs = labels.items() if isinstance(labels, Mapping) else labels
        now = self.clock.now()
        rows = [Label(prediction, value, now, source or self.actor) for prediction, value in pairs]
        log = LabelLog(self.home / "traffic", "platform")
        try:
            log.append_wait(rows)
        finally:
            log.close()
        return len(rows)

    @cached_property
    def engine(self) -> Engine:
        """The data plane's own engine in this process, for notebooks without a server."""
        from flyball.serving.engine import Engine

        return Engine(self.home)

    def prediction(self, id: str) -> Prediction:
        """Return one logged prediction; looks through the whole log. Raises NotFound."""
        from flyball.tracking.traffic import TrafficReader

        self._may("read")
        found = TrafficReader(self.home / "traffic").find(id)
        if found is None:
            raise NotFound(f"the prediction log holds no prediction {id[:64]!r}")
        return found

    # -- explaining

    def why(self, target: str | Ref) -> list[Event]:
        """Return the newest event of a thing that has a cause worth telling, and its causes, newest first.

        Raises:
            NotFound: nothing has happened to it.
        """
        from flyball.delivery.explain import causes

        found = self._ref(target)
        with self._reading() as world:
            if found.kind == "event":
                if not found.name.isdecimal():
                    raise InvalidInput(f"{found} is not an event; write its number: event/812")
                return causes(int(found.name), world)
            if found.kind == "run":
                found = world.runs.get(found.name).ref  # its id may be written short
            events = world.journal.find(ref=str(found), limit=200)
            if not events:
                raise NotFound(f"the journal knows nothing of {found}")
            told = [e for e in events if e.action in TELLING] or events
            return causes(told[0].seq, world)

    def events(self, **filters: Any) -> list[Event]:
        """Return journal events, newest first; see `Journal.find` for the filters."""
        with self._reading() as world:
            return world.journal.find(**filters)

    def story(self, events: Sequence[Event]) -> list[str]:
        """Return a chain of causes as sentences, newest first, as `delivery.explain` words them."""
        from flyball.delivery.explain import story

        with self._reading() as world:
            return story(events, world, self.clock)

    def event(self, seq: int) -> Event:
        """Return one journal event. Raises NotFound."""
        with self._reading() as world:
            return world.journal.get(seq)

    def events_since(self, seq: int, limit: int = 1000) -> list[Event]:
        """Return journal events after a number, oldest first."""
        with self._reading() as world:
            return world.journal.since(seq, limit)

    def last_event(self) -> int:
        """Return the number of the journal's newest event, 0 when it is empty."""
        with self._reading() as world:
            return world.journal.last()

    def sentences(self, events: Iterable[Event]) -> list[str]:
        """Return what each event says, as `delivery.explain` words it."""
        from flyball.delivery.explain import sentence

        with self._reading() as world:
            return [sentence(event, world) for event in events]

    def verify_journal(self) -> int:
        """Check the journal's hashes; return how many events there are. Raises Corrupt."""
        with self._reading() as world:
            return world.journal.verify()

    def lineage(
        self,
        target: str | Ref,
        direction: Literal["upstream", "downstream", "both"] = "both",
        depth: int = 12,
        limit: int = 500,
    ) -> Graph:
        """Return the lineage graph around a reference."""
        with self._reading() as world:
            return world.lineage.walk(ref(str(target)), direction, depth, limit)

    # -- acting by itself

    def controllers(self) -> list[Controller]:
        """Return the controllers of all rooms over this platform's backends."""
        from flyball.delivery.promotion import PromotionController
        from flyball.monitoring.monitors import MonitorController
        from flyball.pipelines.controller import PipelineController
        from flyball.pipelines.triggers import TriggerController
        from flyball.serving.deployments import DeploymentController
        from flyball.serving.evidence import TrafficEvidence

        serving = self.home / "serving"
        return [
            PromotionController(),
            DeploymentController(serving, TrafficEvidence(self.traffic, serving / "status.json")),
            MonitorController(self.traffic, self.datasets, self.monitor_results),
            PipelineController(self.home, worker_command),
            TriggerController(self.traffic),
        ]

    def loop(self) -> Loop:
        """Return the loop that keeps this home as wanted; start it or settle it."""
        from flyball.control.loop import ControlSettings, Loop

        chosen = settings.load(ControlSettings, "control", self.home)
        return Loop(self.ledger, self.controllers(), self.clock, chosen)

    # -- authorisation

    def _may(self, act: str) -> None:
        role = MAY[act]
        if not self.principal.has(role):
            raise Forbidden(f"{self.principal.actor} is {self.principal.role} and may not {act}; that needs {role}")

    def _reading(self) -> AbstractContextManager[Transaction]:
        self._may("read")
        return self.ledger.read()

    def _writing(
        self, act: str, cause: int | None = None, fence: Fence | None = None
    ) -> AbstractContextManager[Transaction]:
        self._may(act)
        return self.ledger.write(self.actor, cause, fence)

    def _ref(self, target: str | Ref) -> Ref:
        """Return a reference whose kind may be written as people write it: `Datasets/flights`, `deployment/late`."""
        text = str(target)
        kind, slash, rest = text.partition("/")
        if not slash:
            raise InvalidInput(f'"{text}" is not a reference; write it like deployment/late')
        return ref(f"{kind}/{rest}" if kind in ("run", "event") else f"{kinds.kind_of(kind).word}/{rest}")


def worker_command(home: Path, run: str) -> list[str]:
    """Return the command that executes a pipeline run."""
    return [sys.executable, "-m", "flyball.worker", "--home", str(home), "--run", run]


def _check_home(home: Path, *, create: bool) -> None:
    """Make sure that `home` is a home that this release understands, making one when allowed."""
    facts = _home_facts(home)
    found = facts.get("format")
    if found is None:
        if home.is_dir() and any(home.iterdir()) and not (home / "flyball.toml").exists():
            raise InvalidInput(f"{home} is not empty and not a Flyball home; choose another folder with --home")
        if not create:
            raise NotFound(f"there is no Flyball home in {home}; make one with: flyball init, or name it with --home")
        home.mkdir(parents=True, exist_ok=True)
        _write_json(home / "flyball.json", {"format": HOME_FORMAT})
    elif not isinstance(found, int) or found > HOME_FORMAT:
        raise Incompatible(
            f"the home {home} has format {found} of a newer Flyball; this one reads up to {HOME_FORMAT}. "
            "Nothing was changed; install the newer release"
        )


def _home_facts(home: Path) -> dict[str, Any]:
    try:
        facts = json.loads((home / "flyball.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        raise InvalidInput(f"{home} is a file; a home is a folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidInput(f"{home / 'flyball.json'} cannot be read: {error}") from error
    return facts if isinstance(facts, dict) else {}


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)
