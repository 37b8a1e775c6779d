"""A home with real content for the pages' tests: census rows, models, rollouts, drift and runs."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import uvicorn
from fastapi import FastAPI
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder
from sqlalchemy import create_engine

from flyball.clock import format_instant
from flyball.control.loop import Loop
from flyball.data.datasets import ContractBroken
from flyball.data.inference import infer_contract
from flyball.data.rows import Rows
from flyball.delivery.promotion import PromotionController
from flyball.ledger.points import Point
from flyball.ledger.refs import Ref
from flyball.ledger.sql.tables import runs
from flyball.ledger.versions import Version
from flyball.platform import Platform
from flyball.serving.deployments import DeploymentController
from flyball.serving.evidence import TrafficEvidence
from flyball.training.registering import compare_with, judge, windows_of
from flyball.web.pages import mount

HOSTILE = '<script>document.title="taken"</script>"\'><img src=x onerror=alert(1)>'
INPUTS = ["age", "education_num", "hours_per_week", "capital_gain", "sex", "occupation"]
TRAINED, UNSEEN = 4_000, 2_000


class Home:
    """A platform with its rows, and a loop of the controllers that the pages show."""

    def __init__(self, home: Path, shared_data: Path) -> None:
        self.platform = Platform.open(home)
        frame = pl.read_parquet(shared_data / "adult" / "adult.parquet").sample(fraction=1.0, shuffle=True, seed=1)
        self.frame = frame.with_columns(pl.col(c).cast(pl.Int64) for c in frame.columns if frame[c].dtype.is_integer())
        at, serving = self.platform, self.platform.home / "serving"
        controllers = [
            PromotionController(),
            DeploymentController(serving, TrafficEvidence(at.traffic, serving / "status.json")),
            at.monitor_controller(),
        ]
        self.loop = Loop(at.ledger, controllers)
        self._asked = 0

    def rows(self, start: int, count: int) -> Rows:
        return Rows.of(self.frame.slice(start, count), "over_50k", inputs=INPUTS, origin=Ref("dataset", "adult", "1"))

    def fit(self, weak: bool = False) -> Any:
        rows = self.rows(0, TRAINED)
        if weak:
            few = make_column_transformer(("passthrough", ["age", "hours_per_week"]))
            return make_pipeline(few, LogisticRegression()).fit(rows.X, rows.y)
        encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
        columns = make_column_transformer((encoder, ["sex", "occupation"]), remainder="passthrough")
        trees = HistGradientBoostingClassifier(max_iter=20, random_state=0)
        return make_pipeline(columns, trees).fit(rows.X, rows.y)

    def register(self, model: Any, name: str = "income", note: str = "") -> Version:
        unseen = self.rows(TRAINED, UNSEEN)
        with self.platform.start_run("fit-income", params={"model": type(model).__name__, "note": note}) as run:
            for step in range(60):
                run.log({"loss": 0.7 * 0.95**step, "learning/rate": 0.1 * 0.99**step}, step=step)
            run.artifact("report.html", b"<script>alert('artifact')</script>")
            run.artifact("model/notes.txt", HOSTILE.encode())
            run.use(Ref("dataset", "adult", "1"))
            evaluation = judge(model, unseen, slices=["sex", "occupation"])
            run.log({key: found.value for key, found in evaluation.metrics.items()})
            options: dict[str, Any] = {}
            if "champion" in self.platform.aliases("model", name):
                champion = self.platform.version(f"model/{name}@champion")
                metrics = compare_with(self.platform.load(f"{name}@champion"), model, unseen, ["auc"])
                options["comparison"] = {"champion": champion.ref.short, "metrics": metrics}
            version = self.platform.register(
                name,
                model,
                example=unseen.X.head(20),
                evaluation=evaluation,
                windows=windows_of(model, unseen, "auc", size=500),
                trained_on=Ref("dataset", "adult", "1"),
                run=run.id,
                note=note,
                **options,
            )
            run.result(version=str(version.ref))
        return version

    def ask(self, count: int, change: pl.Expr | None = None, label: bool = True) -> None:
        part = self.frame.slice(TRAINED + UNSEEN + self._asked, count)
        self._asked += count
        sent = part.with_columns(change) if change is not None else part
        answers = []
        for record in sent.select(INPUTS).iter_rows(named=True):
            answers += self.platform.predict("income", record)
        if label:
            self.platform.label({a["id"]: t for a, t in zip(answers, part["over_50k"].to_list(), strict=True)})

    def settle(self) -> None:
        for _ in range(50):
            before = self.platform.last_event()
            self.platform.traffic.refresh()
            for resource in self.platform.resources():
                if resource.kind not in self.loop.controllers:
                    continue
                self.loop.queue.wake(resource.ref)
            self.loop.settle()
            if self.platform.last_event() == before:
                return
        raise AssertionError("the controllers did not come to rest")

    def close(self) -> None:
        self.platform.engine.close()
        self.platform.close()


def furnish(home: Home) -> None:
    """Fill a home: data with a quarantined batch, four versions, a promotion, a rollout, drift, runs, an approval."""
    at = home.platform
    train = home.frame.head(TRAINED + UNSEEN)
    contract = infer_contract(train, name="adult")
    at.declare("Dataset", "adult", target="over_50k", entity=["person_id"], contract=contract, description=HOSTILE)
    at.publish("adult", train, note="census of 1994")
    with contextlib.suppress(ContractBroken):
        robots = pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("robot")).otherwise("sex").alias("sex")
        at.publish("adult", train.head(500).with_columns(robots, age=pl.lit(None, pl.Int64)))
    gates = [{"metric": "auc", "at_least": 0.55}, {"metric": "auc", "against": "champion", "verdict": "not worse"}]
    at.declare("Model", "income", dataset="adult", gates=gates, description="earns more than 50k")
    at.declare("Model", "reviewed", dataset="adult", approve={"by": "person"})
    steps = {"steps": [20, 50], "hold_requests": 60, "hold_labels": 60}
    at.declare("Deployment", "income", model="income@champion", rollout=steps)
    at.declare("Monitor", "income", of="deployment/income", drift={"window": 200}, quality={"window": 200})
    view = {"name": "person", "entity": ["person_id"], "event_time": "at", "features": {"age": "int64"}, "version": 1}
    at.declare("FeatureView", "person", dataset="adult", definition=view, description="what is known of a person")
    at.declare("Pipeline", "retrain", function="pipelines.py:retrain", params={"depth": 3, "name": HOSTILE})
    at.declare("Trigger", "retrain", on=["monitor/income.drifting"], start="pipeline/retrain", budget="2 a day")
    first = home.register(home.fit(weak=True), note="two columns only")
    home.settle()
    home.ask(500)
    home.settle()
    home.register(home.fit(), note="all columns")
    home.settle()
    for _ in range(6):
        home.ask(120)
        home.settle()
        if "last_rollout" in at.resource("deployment/income").status:
            break
    home.ask(450)
    home.settle()
    home.ask(450, change=(110 - pl.col("age")).alias("age"))
    home.settle()
    home.register(home.fit(), note="the same once more, " + HOSTILE)
    home.register(home.fit(), name="reviewed", note="waits for a person")
    home.settle()
    home.ask(100, label=False)
    home.settle()
    _runs(home, first)


def _runs(home: Home, version: Version) -> None:
    """Runs of other states and kinds, written as their writers would."""
    at = home.platform
    with contextlib.suppress(RuntimeError), at.start_run(HOSTILE, params={HOSTILE: HOSTILE, "depth": 4}) as run:
        run.tags(team=HOSTILE)
        raise RuntimeError(f"no more memory for {HOSTILE}")
    pipeline = at.start_pipeline("retrain", {"depth": 5})
    with at.ledger.write("user/alice") as world:
        world.runs.update(pipeline.id, status="running")
        load = world.runs.start("step", "load", parent=pipeline.id)
        fit = world.runs.start("step", "fit", parent=pipeline.id, params={"rows": "load()"})
        world.runs.finish(load.id, "succeeded")
        world.runs.log(fit.id, [Point("loss", 0.5, 0, int(at.clock.now().timestamp() * 1000))])
        steps = [
            {"number": 0, "name": "load", "run": load.id, "status": "succeeded", "cached": False, "seconds": 1.0},
            {"number": 1, "name": "fit", "run": fit.id, "status": "running", "cached": False, "seconds": None},
            {"number": 2, "name": HOSTILE, "run": None, "status": "pending", "cached": False, "seconds": None},
        ]
        graph = {"steps": steps, "edges": [[0, 1], [1, 2]]}
        world.runs.update(pipeline.id, result={"graph": graph})
        world.lineage.link(version.ref, pipeline.ref, "compared with")
    (at.home / "logs").mkdir(exist_ok=True)
    (at.home / "logs" / f"run-{pipeline.id}.log").write_text(f"began\n{HOSTILE}\n")


def many_runs(platform: Platform, count: int) -> None:
    """Put so many finished runs straight into the tables: what the pages must list, without the time to record it."""
    start = platform.clock.now() - timedelta(days=300)
    rows = [
        {
            "id": hashlib.sha256(f"sweep {number}".encode()).hexdigest()[:32],
            "kind": "training",
            "name": f"sweep-{number % 7}",
            "status": "succeeded" if number % 11 else "failed",
            "actor": "user/bob",
            "started_at": format_instant(start + timedelta(seconds=number // 3)),  # some start at the same instant
            "finished_at": format_instant(start + timedelta(seconds=number // 3 + 9)),
            "params": {"depth": number % 12, "rate": 0.1},
            "metrics": {"auc": 0.6 + number % 100 / 1000},
            "tags": {},
            "source": {"commit": "0" * 40},
            "environment": {"python": "3.11", "packages": {f"package-{k}": "1.0" for k in range(100)}},
            "result": {},
            "error": None if number % 11 else "out of memory",
        }
        for number in range(count)
    ]
    engine = create_engine(f"sqlite:///{platform.home / 'ledger.db'}")
    with engine.begin() as connection:
        connection.execute(runs.insert(), rows)
    engine.dispose()


class Server:
    """Pages over HTTP on a free port, with the API's stream of changes beside them."""

    def __init__(self, platform: Platform) -> None:
        from flyball.wire.native.app import make_app

        self.app: FastAPI = make_app(platform)
        mount(self.app, platform)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = uvicorn.Config(self.app, "127.0.0.1", port, log_level="warning", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while not self._server.started:
            assert time.monotonic() < deadline and self._thread.is_alive(), "the server did not start"
            time.sleep(0.01)

    def close(self) -> None:
        self.app.state.changes.close()
        self._server.should_exit = True
        self._thread.join(10)


@contextlib.contextmanager
def served(home: Path, shared_data: Path, *, full: bool) -> Iterator[tuple[Home, Server]]:
    """Open a home, furnish it or leave it empty, serve its pages, and close both."""
    it = Home(home, shared_data)
    if full:
        furnish(it)
    server = Server(it.platform)
    try:
        yield it, server
    finally:
        server.close()
        it.close()
