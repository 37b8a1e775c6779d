"""Register a model: bundle it, judge it, compare it with the champion on the same rows, publish it as a version.

What is published carries all that later decisions need: what it was trained on, and how those rows vary over time
(monitors compare with that and never read them again), how good it was and how much its windows differed (decay is
judged by that), and how it did against the champion (gates).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.data.rows import Rows
from flyball.errors import FlyballError, InvalidInput
from flyball.evaluation.evaluate import Evaluation, answers_for, evaluate, task_of, truth_for
from flyball.ledger import Ledger
from flyball.ledger.refs import Ref
from flyball.ledger.versions import Version
from flyball.models import bundle
from flyball.models.bundle import Bundle, LoadedModel
from flyball.stats.comparison import compare
from flyball.stats.intervals import interval
from flyball.stats.metrics import metric
from flyball.storage.blobs import BlobStore

if TYPE_CHECKING:
    from flyball.data.datasets import Datasets

__all__ = ["answer", "compare_with", "judge", "publish", "register", "windows_of"]

WINDOW_ROWS = 1000  # of the test rows, consecutive in time, whose spread tells how much the metric varies by itself


def answer(model: Any, rows: Rows) -> dict[str, np.ndarray[Any, Any]]:
    """Return a model's outputs by name for rows; `model` is an estimator or a `LoadedModel`."""
    if isinstance(model, LoadedModel):
        names = [field.name for field in model.signature.inputs]
        return dict(model.predict(model.signature.columns_from({n: rows.frame[n].to_list() for n in names})))
    return dict(bundle.answers(model, rows.X))


def judge(model: Any, rows: Rows, *, metric_name: str | None = None, slices: Sequence[str] = ()) -> Evaluation:
    """Evaluate a model on rows. Raises InvalidInput as `evaluate` does."""
    if not len(rows):
        raise InvalidInput("there are no rows to evaluate on")
    outputs = answer(model, rows)
    return evaluate(task_of(rows.y), rows.y, outputs, deciding=metric_name, frame=rows.frame, slices=slices)


def compare_with(champion: LoadedModel, challenger: Any, rows: Rows, metric_names: Sequence[str]) -> dict[str, Any]:
    """Return, by metric, the comparison of two models on the same rows as JSON values."""
    task = task_of(rows.y)
    truth = truth_for(task, rows.y)
    ours, theirs = answer(challenger, rows), answer(champion, rows)
    found = {n: compare(metric(n, task), truth, _part(n, ours), _part(n, theirs)) for n in metric_names}
    return {name: comparison.as_dict() for name, comparison in found.items()}


def windows_of(model: Any, rows: Rows, metric_name: str, size: int = WINDOW_ROWS) -> dict[str, Any]:
    """Return the metric on consecutive windows of unseen rows in time order, with standard errors, as JSON values."""
    ordered = rows.frame.sort(rows.event_time, maintain_order=True) if rows.event_time else rows.frame
    whole = Rows(ordered, rows.target, rows.inputs, rows.event_time)
    truth, outputs = truth_for(task_of(rows.y), whole.y), answer(model, whole)
    answers = _part(metric_name, outputs)
    values, errors = [], []
    for start in range(0, len(whole) - size + 1, size):
        part = slice(start, start + size)
        if np.unique(truth[part]).size < 2 and metric(metric_name).needs == "score":
            continue
        found = interval(metric_name, truth[part], answers[part])
        values.append(found.value)
        errors.append((found.high - found.low) / (2 * 1.96))
    return {"metric": metric_name, "rows": size, "values": values, "errors": errors}


Permit = Callable[[Sequence[str], Sequence[Ref]], None]  # inputs, versions learnt from; raises Forbidden


def register(
    ledger: Ledger,
    blobs: BlobStore,
    name: str,
    model: Any,
    *,
    actor: str,
    example: Any,
    evaluation: Evaluation | None = None,
    windows: Mapping[str, Any] | None = None,
    comparison: Mapping[str, Any] | None = None,
    trained_on: Ref | None = None,
    also_from: Sequence[tuple[Ref, str]] = (),
    run: str | None = None,
    note: str = "",
    cause: int | None = None,
    permit: Permit | None = None,
    features: Mapping[str, Any] | None = None,
    datasets: Datasets | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Version:
    """Publish a model as the next version of `model/<name>`, which must have been declared.

    Args:
        ledger, blobs: where it is kept.
        name: the model.
        model: an estimator that a flavour recognises.
        actor: who registers.
        example: rows of inputs; the bundle is proved to answer them as the model does.
        evaluation: how good it is.
        windows: how much its metric varies over windows of unseen rows (`windows_of`).
        comparison: `{"champion": "late@1", "metrics": {name: comparison}}`.
        trained_on: the version of the data that it learnt from.
        also_from: further lineage as (reference, role).
        run: the run that made it.
        note: a sentence that stays with the version.
        cause: the event because of which this is done.
        features: the pinned feature service that it was trained with (`FeatureService.pinned()`); it travels in the
            bundle, so that whoever loads the model can tell whether the views at hand are still those.
        permit: asked, with its inputs and what it learnt from, whether the model may be registered at all.
        files: what else belongs into the bundle, path → bytes.
        datasets: where the rows of `trained_on` are, of which the reference is made that monitors compare with; without
            it, or when those rows cannot be counted, the version has none and says why.

    Raises:
        NotFound: the model was not declared.
        Forbidden: `permit` says so.
        InvalidInput, StepFailed: the model cannot be bundled; see `models.bundle.save`.
    """
    with ledger.read() as world:
        world.resources.get("model", name)
    pinned = {} if features is None else {"features": dict(features)}
    described = {"name": name, "run": run, **pinned}
    kept: Bundle = bundle.save(blobs, model, example=example, metadata=described, files=files)
    return publish(
        ledger,
        blobs,
        name,
        kept,
        actor=actor,
        evaluation=None if evaluation is None else evaluation.to_dict(),
        windows=windows,
        comparison=comparison,
        trained_on=trained_on,
        also_from=also_from,
        run=run,
        note=note,
        cause=cause,
        permit=permit,
        datasets=datasets,
    )


def publish(
    ledger: Ledger,
    blobs: BlobStore,
    name: str,
    kept: Bundle,
    *,
    actor: str,
    evaluation: Mapping[str, Any] | None = None,
    windows: Mapping[str, Any] | None = None,
    comparison: Mapping[str, Any] | None = None,
    trained_on: Ref | None = None,
    also_from: Sequence[tuple[Ref, str]] = (),
    run: str | None = None,
    note: str = "",
    cause: int | None = None,
    permit: Permit | None = None,
    datasets: Datasets | None = None,
    also: Mapping[str, Any] | None = None,
) -> Version:
    """Publish a stored bundle as the next version of a declared model; arguments and errors as `register`.

    Args:
        evaluation: as `Evaluation.to_dict` returns it.
        also: further metadata of the version.
    """
    pinned = {"features": kept.manifest["metadata"]["features"]} if "features" in kept.manifest["metadata"] else {}
    sources = ([(trained_on, "trained on")] if trained_on else []) + list(also_from)
    views = [view["definition"]["name"] for view in pinned.get("features", {}).get("views", [])]
    sources += [(Ref("feature-view", view), "looked up") for view in views]
    inputs = [field.name for field in kept.signature.inputs]
    if permit is not None:
        permit(inputs, [source for source, _ in sources])
    metadata: dict[str, Any] = {
        "flavor": kept.manifest["flavor"],
        "signature": kept.signature.to_dict(),
        "size_bytes": kept.size_bytes,
        "served_by": bundle.served_by(blobs, kept),
        "trained_on": str(trained_on) if trained_on else None,
        "note": note or None,
        "comparison": dict(comparison) if comparison else None,
        "reference": _reference(ledger, datasets, blobs, trained_on, inputs) if datasets and trained_on else None,
        **pinned,
        **(also or {}),
    }
    if evaluation is not None:
        metadata |= {"task": evaluation["task"], "metric": evaluation["metric"]}
        metadata["evaluation"] = {**evaluation, "windows": dict(windows or {})}
    metadata = {k: v for k, v in metadata.items() if v is not None}
    with ledger.write(actor, cause) as world:
        return world.versions.publish("model", name, kept.digest, metadata=metadata, run=run, made_from=sources)


def _reference(
    ledger: Ledger, datasets: Datasets, blobs: BlobStore, trained_on: Ref, inputs: Sequence[str]
) -> dict[str, Any]:
    """Keep the blocks of the rows that were learnt from; return what the metadata says of them, or why there are none.

    A model is not lost because its data cannot be read any more.
    """
    from polars.exceptions import PolarsError

    from flyball.data.blocks import blocks_of
    from flyball.data.profiles import TableProfile
    from flyball.data.reasons import reason_of

    try:
        with ledger.read() as world:
            made = world.versions.get(trained_on.kind, trained_on.name, trained_on.version or "latest")
        place = made.name, made.number, made.kind
        summary = datasets.summary(*place)
        found = blocks_of(
            datasets.frame(*place),
            inputs,
            event_time=made.metadata.get("event_time"),
            profile=TableProfile.from_bytes(summary) if summary is not None else None,
        )
    except FlyballError as error:
        return {"why": str(error)}
    except PolarsError as error:  # its message may hold rows
        return {"why": f"the rows of {trained_on} cannot be read: {reason_of(error)}"}
    return {"blob": blobs.put(found.to_bytes()), "rows": found.rows}


def _part(metric_name: str, outputs: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    return answers_for(metric(metric_name), outputs)
