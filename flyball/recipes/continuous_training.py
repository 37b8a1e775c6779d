"""Continuous training: learn again from the old rows and from what production has taught since, and register.

    what the champion learnt from ─┐
                                   ├─ new dataset version ─ fit ─ judge ─ compare with the champion ─ register
    labelled production rows ──────┘      (contract)              (on the newest labelled rows)

The newest labelled rows are held out: nothing is fitted on them, and champion and challenger are compared on them.
Gates, approval, canary and promotion follow from the registered version by themselves.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from flyball.data.datasets import Datasets
from flyball.data.kinds import Dataset
from flyball.data.rows import Rows
from flyball.errors import InvalidInput, NotFound
from flyball.ledger import Ledger
from flyball.ledger.refs import Ref, ref
from flyball.models import bundle
from flyball.models.kinds import Model
from flyball.pipelines.execution import workbench
from flyball.pipelines.steps import pipeline, step
from flyball.storage.blobs import BlobStore
from flyball.tracking.live import LiveTraffic
from flyball.training.registering import compare_with, judge, register, windows_of

__all__ = ["continuous_training", "production_rows"]

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


@pipeline
def continuous_training(
    model: str, deployment: str, fit: str, held_out: float = HELD_OUT, newest: int | None = None
) -> str:
    """Retrain `model` and return the new version's reference.

    Args:
        model: name of the model; its spec names the dataset.
        deployment: whose labelled traffic is learnt from.
        fit: `module:name` or `file.py:name` of a function from `Rows` to a fitted model.
        held_out: share of the newest labelled rows kept for judging.
        newest: learn from at most so many labelled production rows, the newest; default: all.

    Raises:
        InvalidInput: there are too few labelled rows, or the fit function cannot be found.
    """
    bench = _bench()
    spec, champion, before = _champion(bench, model)
    frame = production_rows(bench, deployment, spec, before)
    if newest is not None:
        frame = frame.tail(newest)
    if frame.height < LEAST_LABELS:
        raise InvalidInput(
            f"deployment/{deployment} has {frame.height:,} labelled answers; retraining needs {LEAST_LABELS:,}"
        )
    cut = frame.height - max(1, round(frame.height * held_out))
    published = bench.datasets.publish(
        spec["dataset"],
        pl.concat([before.frame, frame.head(cut)], how="diagonal_relaxed").select(before.frame.columns),
        actor=bench.actor,
        made_from=[(before.origin, "extended to"), (Ref("deployment", deployment), "labelled traffic")],
        note=f"{before.frame.height:,} rows as before and {cut:,} labelled answers of deployment/{deployment}",
    )
    data = published.version.ref
    learnt = Rows(bench.datasets.frame(data.name, int(data.version or 0)).collect(), *_rest(before), data)
    unseen = Rows(frame.slice(cut), *_rest(before))
    fitted = fit_rows(fit, str(bench.project), learnt)
    return _register(bench, model, champion, fitted, learnt, unseen, spec)


@step
def fit_rows(function: str, project: str, rows: Rows) -> Any:
    """Fit a model with the user's function."""
    return _load(function, Path(project))(rows)


def production_rows(bench: Workbench, deployment: str, spec: Mapping[str, Any], like: Rows) -> pl.DataFrame:
    """Return the labelled answers of a deployment as rows of its dataset, oldest first.

    Each input comes from the prediction log as it was received, or as it was looked up; the target is the label.
    """
    traffic = bench.traffic.frame(deployment)
    if traffic.is_empty():
        return like.frame.clear()
    traffic = traffic.filter(pl.col("label").is_not_null())
    columns: dict[str, pl.Series] = {like.target: traffic["label"]}
    for name in like.frame.columns:
        for prefix in ("feature.", "input."):
            if prefix + name in traffic.columns:
                columns[name] = traffic[prefix + name]
    if like.event_time:
        columns[like.event_time] = traffic["at"]
    label_time = spec.get("label_time")
    if label_time:
        columns[label_time] = traffic["label_at"]
    schema = like.frame.schema
    cast = {n: s.cast(schema[n], strict=False) for n, s in columns.items() if n in schema}
    missing = [n for n in like.inputs if n not in cast]
    if missing:
        raise InvalidInput(f"the log of deployment/{deployment} does not hold the input {missing[0]!r} of its model")
    return pl.DataFrame(cast)


def _champion(bench: Workbench, model: str) -> tuple[dict[str, Any], Any, Rows]:
    """Return the dataset's facts, the champion's version, and the rows that it learnt from."""
    with bench.ledger.read() as world:
        declared = Model.model_validate(world.resources.get("model", model).spec)
        champion = world.versions.get("model", model, "champion")
        trained_on = champion.metadata.get("trained_on")
        if trained_on is None:
            raise NotFound(f"{champion.ref.short} does not say which dataset it learnt from; register it with rows")
        data = ref(trained_on)
        dataset = Dataset.model_validate(world.resources.get("dataset", data.name).spec)
    inputs = [field["name"] for field in champion.metadata["signature"]["inputs"]]
    frame = bench.datasets.frame(data.name, data.version or "latest").collect()
    rows = Rows.of(frame, dataset.target, event_time=dataset.event_time, inputs=inputs, origin=data)
    return {"dataset": data.name, "label_time": dataset.label_time, "metric": declared.metric}, champion, rows


def _register(
    bench: Workbench, model: str, champion: Any, fitted: Any, learnt: Rows, unseen: Rows, spec: Mapping[str, Any]
) -> str:
    metric_name = spec["metric"] or champion.metadata.get("metric")
    evaluation = judge(fitted, unseen, metric_name=metric_name)
    loaded = bundle.load(bench.blobs, champion.digest)
    compared = compare_with(loaded, fitted, unseen, [evaluation.metric])
    version = register(
        bench.ledger,
        bench.blobs,
        model,
        fitted,
        actor=bench.actor,
        example=learnt.X.head(EXAMPLE_ROWS),
        evaluation=evaluation,
        windows=windows_of(fitted, unseen, evaluation.metric),
        comparison={"champion": champion.ref.short, "metrics": compared},
        trained_on=learnt.origin,
        run=current_run(),
    )
    return str(version.ref)


def _rest(rows: Rows) -> tuple[str, tuple[str, ...], str | None]:
    return rows.target, rows.inputs, rows.event_time


def _bench() -> Workbench:
    found: Workbench | None = workbench.get()
    if found is None:
        raise InvalidInput("continuous_training runs inside a platform; start it with flyball run or a trigger")
    return found


def _load(function: str, project: Path) -> Any:
    """Return the function that `module:name` or `file.py:name` names."""
    where, _, name = function.partition(":")
    if where.endswith(".py"):
        path = project / where
        found = importlib.util.spec_from_file_location(f"flyball_project_{path.stem}", path)
        if found is None or found.loader is None or not path.exists():
            raise InvalidInput(f"there is no file {path} to take the fit function from")
        module = importlib.util.module_from_spec(found)
        sys.modules[found.name] = module
        found.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    if not hasattr(module, name):
        raise InvalidInput(f"{where} has no function {name!r}")
    return getattr(module, name)
