"""Continuous training: learn again from the old rows and from what production has taught since, and register.

    what the champion learnt from ─┐
                                   ├─ new dataset version ─ fit ─ judge ─ compare with the champion ─ register
    labelled production rows ──────┘      (contract)              (on the newest labelled rows)

The newest labelled rows are held out: nothing is fitted on them, and champion and challenger are compared on them.
Gates, approval, canary and promotion follow from the registered version by themselves.

Rows are read as a person reads them: for a purpose, as policies show them, and noted, in the name of the run
(`run/<id>`). Where a policy forbids it, or hides a column that the dataset would get back hidden, the run fails and
says which.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from flyball.data.datasets import Datasets
from flyball.data.kinds import Dataset
from flyball.data.rows import Rows
from flyball.errors import Forbidden, InvalidInput, NotFound, listed
from flyball.governance.identity import Principal
from flyball.ledger import Ledger
from flyball.ledger.refs import Ref, ref
from flyball.ledger.versions import Version
from flyball.models.bundle import LoadedModel
from flyball.models.kinds import Model
from flyball.pipelines.execution import current_run, workbench
from flyball.pipelines.loading import load_function
from flyball.pipelines.steps import pipeline, step
from flyball.storage.blobs import BlobStore, digest_of
from flyball.tracking.live import LiveTraffic
from flyball.training.registering import compare_with, judge, windows_of

__all__ = ["code_of", "continuous_training", "production_rows"]

HELD_OUT = 0.3  # share of the labelled production rows, the newest, that judge and do not teach
LEAST_LABELS = 300  # labelled production rows below which there is nothing new to learn from
EXAMPLE_ROWS = 20


class Workbench(Protocol):
    """What a recipe needs of the platform."""

    @property
    def ledger(self) -> Ledger: ...
    @property
    def blobs(self) -> BlobStore: ...
    @property
    def datasets(self) -> Datasets: ...
    @property
    def traffic(self) -> LiveTraffic: ...
    @property
    def project(self) -> Path: ...
    @property
    def actor(self) -> str: ...
    @property
    def principal(self) -> Principal: ...

    def as_(self, principal: Principal) -> Workbench: ...

    def looked_at(self, version: Ref, columns: Sequence[str], purpose: str | None = None) -> Mapping[str, str]: ...

    def load(self, target: str | Ref) -> LoadedModel: ...
    def register(self, name: str, model: Any, **options: Any) -> Version: ...


@pipeline
def continuous_training(
    model: str,
    deployment: str,
    fit: str,
    held_out: float = HELD_OUT,
    newest: int | None = None,
    purpose: str | None = None,
) -> str:
    """Retrain `model` and return the new version's reference.

    A run that drift or decay has started learns from the answers since the first window of that alarm; any other run
    learns from all answers that the log keeps.

    Args:
        model: name of the model; its champion says which data it learnt from.
        deployment: whose labelled traffic is learnt from.
        fit: `module:name` or `file.py:name` of a function from `Rows` to a fitted model.
        held_out: share of the newest labelled rows kept for judging.
        newest: learn from at most so many labelled production rows, the newest; default: all.
        purpose: what the rows are read for, where the dataset or a policy asks for it.

    Raises:
        InvalidInput: there are too few labelled rows, or the fit function cannot be found.
        Forbidden: a policy does not allow the dataset to be read for this, or hides a column of it from the run.
    """
    learnt, unseen = collect(model, deployment, held_out, newest, purpose)
    project = str(_bench().project)
    fitted = fit_rows(fit, project, code_of(fit, project), learnt)
    return judge_and_register(model, fitted, learnt, unseen)


@step(cache=False)
def collect(
    model: str, deployment: str, held_out: float, newest: int | None, purpose: str | None = None
) -> tuple[Rows, Rows]:
    """Publish what is learnt from as a version of the dataset; return it and the rows held out."""
    bench = _bench()
    facts, champion, before = _champion(bench, model, purpose)
    frame = production_rows(bench, deployment, facts, before, since=_alarm(bench))
    if newest is not None:
        frame = frame.tail(newest)
    if frame.height < LEAST_LABELS:
        raise InvalidInput(
            f"deployment/{deployment} has {frame.height:,} labelled answers to learn from; "
            f"retraining needs {LEAST_LABELS:,}"
        )
    cut = frame.height - max(1, round(frame.height * held_out))
    published = bench.datasets.publish(
        facts["dataset"],
        pl.concat([before.frame, frame.head(cut)], how="diagonal_relaxed").select(before.frame.columns),
        actor=bench.actor,
        run=current_run(),
        made_from=[(ref(champion.metadata["trained_on"]), "extended to"), (Ref("deployment", deployment), "taught by")],
        note=f"{before.frame.height:,} rows as before and {cut:,} labelled answers of deployment/{deployment}",
    )
    data = published.version.ref
    learnt = Rows.of(_read(bench, data, purpose), **_roles(before), origin=data)
    return learnt, Rows.of(frame.slice(cut), **_roles(before))


@step
def fit_rows(function: str, project: str, code: str, rows: Rows) -> Any:  # noqa: ARG001
    """Fit a model with the user's function; `code` is its file's digest, so that a changed function is run again."""
    return load_function(function, Path(project))(rows)


@step(cache=False)
def judge_and_register(model: str, fitted: Any, learnt: Rows, unseen: Rows) -> str:
    """Judge the fitted model on the rows held out, beside the champion, and register it."""
    bench = _bench()
    facts, champion = _facts(bench, model)
    metric_name = facts["metric"] or champion.metadata.get("metric")
    evaluation = judge(fitted, unseen, metric_name=metric_name)
    compared = compare_with(bench.load(champion.ref), fitted, unseen, [evaluation.metric])
    version = bench.register(
        model,
        fitted,
        example=learnt.X.head(EXAMPLE_ROWS),
        evaluation=evaluation,
        windows=windows_of(fitted, unseen, evaluation.metric),
        comparison={"champion": champion.ref.short, "metrics": compared},
        trained_on=learnt.origin,
        run=current_run(),
        cause=_cause(bench),
    )
    return str(version.ref)


def production_rows(
    bench: Workbench, deployment: str, facts: Mapping[str, Any], like: Rows, since: str | None = None
) -> pl.DataFrame:
    """Return the labelled answers of a deployment as rows of its dataset, oldest first.

    Each column comes from the prediction log as it was received, or as it was looked up; the target is the label.

    Args:
        bench: the platform.
        deployment: whose answers.
        facts: of the dataset: the column of the time at which a label is known.
        like: rows of the dataset; their columns and types are taken.
        since: id of the first prediction that counts; None or one that is no longer kept: all.
    """
    traffic = bench.traffic.frame(deployment)
    if traffic.is_empty():
        return like.frame.clear()
    if since is not None and (traffic["id"] == since).any():
        traffic = traffic.slice(int((traffic["id"] == since).arg_max() or 0))
    traffic = traffic.filter(pl.col("label").is_not_null())
    columns: dict[str, pl.Series] = {}
    for name in like.frame.columns:
        for prefix in ("feature.", "input."):
            if prefix + name in traffic.columns:
                columns[name] = traffic[prefix + name]
    columns[like.target] = traffic["label"]
    if like.event_time and like.event_time not in columns:
        columns[like.event_time] = traffic["at"]
    label_time = facts.get("label_time")
    if label_time and label_time not in columns:
        columns[label_time] = traffic["label_at"]
    missing = [name for name in like.inputs if name not in columns]
    if missing:
        raise InvalidInput(f"the log of deployment/{deployment} does not hold the input {missing[0]!r} of its model")
    schema = like.frame.schema
    return pl.DataFrame({name: _as(column, schema[name]) for name, column in columns.items() if name in schema})


def _as(column: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Return a column of the log as the dataset has it; instants are logged as RFC 3339."""
    if isinstance(dtype, pl.Datetime) and column.dtype == pl.String:
        return column.str.to_datetime(time_unit="us", time_zone="UTC", strict=False).cast(dtype)
    return column.cast(dtype, strict=False)


def _cause(bench: Workbench) -> int | None:
    """Return the event with which the present run began."""
    run = current_run()
    if run is None:
        return None
    with bench.ledger.read() as world:
        return world.runs.get(run).event


def _alarm(bench: Workbench) -> str | None:
    """Return the id of the first prediction in the window where the alarm began that started this run, if one did."""
    cause = _cause(bench)
    if cause is None:
        return None
    with bench.ledger.read() as world:
        alarms = [e for e in world.journal.chain(cause) if e.action in ("drifting", "decayed")]
    return str(alarms[0].detail["from"]) if alarms and "from" in alarms[0].detail else None


def _facts(bench: Workbench, model: str) -> tuple[dict[str, Any], Version]:
    """Return what is known of the dataset, and the champion's version."""
    with bench.ledger.read() as world:
        declared = Model.model_validate(world.resources.get("model", model).spec)
        champion = world.versions.get("model", model, "champion")
        trained_on = champion.metadata.get("trained_on")
        if trained_on is None:
            raise NotFound(f"{champion.ref.short} does not say which dataset it learnt from; register it with rows")
        data = ref(trained_on)
        dataset = Dataset.model_validate(world.resources.get("dataset", data.name).spec)
    facts = {"dataset": data.name, "data": data, "label_time": dataset.label_time, "metric": declared.metric}
    return {**facts, "target": dataset.target, "event_time": dataset.event_time}, champion


def _champion(bench: Workbench, model: str, purpose: str | None) -> tuple[dict[str, Any], Version, Rows]:
    """Return the dataset's facts, the champion's version, and the rows that it learnt from."""
    facts, champion = _facts(bench, model)
    inputs = [field["name"] for field in champion.metadata["signature"]["inputs"]]
    frame = _read(bench, facts["data"], purpose)
    target, event_time = facts["target"], facts["event_time"]
    rows = Rows.of(frame, target, event_time=event_time, inputs=inputs, origin=facts["data"], purpose=purpose)
    return facts, champion, rows


def _read(bench: Workbench, data: Ref, purpose: str | None) -> pl.DataFrame:
    """Return the rows of a version, none of whose columns is hidden from the run. Raises Forbidden.

    What is read is published again, so that a hidden column would be hidden from everybody for ever.
    """
    rows = bench.datasets.frame(data.name, data.version or "latest")
    hidden = bench.looked_at(data, rows.collect_schema().names(), purpose)
    if hidden:
        raise Forbidden(
            f"{listed(sorted(set(hidden.values())))} hides {listed(sorted(hidden))} of {data} from {bench.actor}, and "
            "retraining would publish it hidden; except the run in the policy (unless_actor: [run/*])"
        )
    return rows.collect()


def _roles(rows: Rows) -> dict[str, Any]:
    return {"target": rows.target, "event_time": rows.event_time, "inputs": rows.inputs, "purpose": rows.purpose}


def _bench() -> Workbench:
    found: Workbench | None = workbench.get()
    if found is None:
        raise InvalidInput("continuous_training runs inside a platform; start it with flyball run or a trigger")
    run = current_run()
    return found if run is None else found.as_(Principal(f"run/{run}", found.principal.role))


def code_of(function: str, project: str) -> str:
    """Return the digest of the file that `file.py:name` or `module:name` stands in."""
    where = function.partition(":")[0]
    if where.endswith(".py"):
        path = Path(project) / where
    else:
        found = importlib.util.find_spec(where)
        if found is None or found.origin is None:
            raise InvalidInput(f"there is no module {where} to take the fit function from")
        path = Path(found.origin)
    if not path.exists():
        raise InvalidInput(f"there is no file {path} to take the fit function from")
    return digest_of(path.read_bytes())
