"""The stages up to the replay, each done as a user would: declare and publish, train and register, wait, ask."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flyball.data.datasets import Published
from flyball.data.rows import Rows
from flyball.delivery.documents import read_documents
from flyball.demo.declared import write_project
from flyball.demo.job import Job
from flyball.demo.planes import Planes
from flyball.demo.replay import Replayed, replay
from flyball.demo.report import Printer, relative
from flyball.demo.watcher import Seen, Watcher
from flyball.errors import FlyballError, InvalidInput, Unavailable
from flyball.evaluation.evaluate import Evaluation
from flyball.features.pushes import push
from flyball.ledger.refs import Ref
from flyball.ledger.versions import Version
from flyball.pipelines.claims import process_of
from flyball.platform import Platform
from flyball.runners.local import LocalRunner
from flyball.serving.status import read_status
from flyball.training.registering import judge, windows_of

if TYPE_CHECKING:
    from flyball.features.lookup import ViewSpec

__all__ = ["end_runs", "publish", "replay_stream", "serve", "train"]

_EXAMPLE_ROWS = 20
_SERVE_S = 60.0
_REST_S = 90.0
_PROGRESS_REQUESTS = 5000


def publish(platform: Platform, job: Job, printer: Printer) -> Published:
    """Write the project, declare what it wants, publish the sources and then the rows to learn from."""
    project = write_project(platform.home / "project", job)
    platform.belongs_to(project)
    plan = platform.apply(read_documents([project / "flyball.yaml"]))
    printer.stage("declared", f"{len(plan.changes)} resources, as {relative(project / 'flyball.yaml')} says")
    made_from = []
    for name, source in job.sources.items():
        version = platform.publish(name, source.frame, made_from=[(Ref("file", source.file), "read from")]).version
        made_from.append((version.ref, "joined"))
        printer.stage("data", f"{version.ref.short}: {source.frame.height:,} rows of {source.file}")
    made_from += [(Ref("feature-view", view.name), "defines") for view in job.views]
    if job.views:
        views = ", ".join(view.name for view in job.views)
        printer.stage(
            "features",
            f"{len(job.views)} as-of joins on {job.rows.height:,} rows ({views}); requests look the same views up",
        )
    published = platform.publish(job.dataset, job.rows, made_from=made_from)
    _tell_contract(published, printer)
    return published


def train(platform: Platform, job: Job, data: Version, printer: Printer) -> Version:
    """Fit, judge and register the first version, in a recorded run."""
    from flyball.demo.project.pipelines import fit

    with platform.start_run(f"first-{job.name}", params={"fit": "pipelines.py:fit"}) as run:
        run.use(data.ref)
        frame = platform.frame(data.ref).collect()
        learnt, unseen = (
            Rows.of(
                frame.filter(part),
                str(job.spec["target"]),
                event_time=job.spec.get("event_time"),
                inputs=job.inputs,
                origin=data.ref,
            )
            for part in (~job.test, job.test)
        )
        if not len(learnt) or not len(unseen):
            raise InvalidInput(f"{data.ref.short} leaves {len(learnt):,} rows to fit on and {len(unseen):,} to judge")
        began = time.monotonic()
        model = fit(learnt)
        fitted_s = time.monotonic() - began
        evaluation = judge(model, unseen, metric_name=job.metric, slices=job.slices)
        run.log({name: found.value for name, found in evaluation.metrics.items()})
        version = platform.register(
            job.name,
            model,
            example=unseen.X.head(_EXAMPLE_ROWS),
            evaluation=evaluation,
            windows=windows_of(model, unseen, evaluation.metric, job.sizes.quality_window),
            trained_on=data.ref,
            run=run.id,
            note=f"the first; fitted on {len(learnt):,} rows, judged on {len(unseen):,}",
        )
        run.result(version=str(version.ref))
    printer.stage(
        "training", f"{version.ref.short} by run {run.id[:8]}, fitted on {len(learnt):,} rows in {fitted_s:.1f} s"
    )
    _tell_evaluation(evaluation, printer)
    return version


def serve(platform: Platform, job: Job, version: Version, planes: Planes, printer: Printer) -> str:
    """Wait until the first version has passed its gates and answers; return it like `late@1`.

    Raises:
        Unavailable: it did not pass, or nothing came to answer within a minute.
    """
    deadline = time.monotonic() + _SERVE_S
    status_path = platform.home / "serving" / "status.json"
    while time.monotonic() < deadline:
        planes.check()
        decided = platform.resource(f"model/{job.name}").status.get("decided", {}).get(str(version.number))
        if decided is not None and decided["outcome"] == "refused":
            reasons = [gate["reason"] for gate in decided["gates"] if not gate["passed"]]
            raise Unavailable(f"{version.ref.short} did not pass its gates: {'; '.join(reasons)}")
        if decided is not None and _answers(status_path, job.name):
            gates = "; ".join(f"{gate['gate']} ({gate['reason']})" for gate in decided["gates"])
            printer.stage("gates", f"{version.ref.short} passed: {gates}")
            address = f"{planes.predictions}/v1/models/{job.name}:predict"
            printer.stage("deployed", f"{version.ref.short} answers at {address}; pages at {planes.pages}")
            return version.ref.short
        time.sleep(0.05)
    raise Unavailable(f"deployment/{job.name} did not come to serve within {_SERVE_S:g} s")


def replay_stream(platform: Platform, job: Job, planes: Planes, printer: Printer) -> tuple[Replayed, Seen]:
    """Replay the stream while the platform acts by itself; return what was sent and what was seen.

    Raises:
        StepFailed, Unavailable: as `replay`.
    """
    state = Replayed.of(len(job.stream))
    watcher = Watcher(platform, job, state, printer.stage)

    def push_rows(spec: ViewSpec, rows: Sequence[dict[str, Any]]) -> int:
        return push(spec, rows, platform.online)

    watcher.start()
    try:
        asyncio.run(replay(job, planes.predictions, state, push_rows, watcher, _Progress(job, planes, printer).tell))
        deadline = time.monotonic() + _REST_S
        while time.monotonic() < deadline and not watcher.is_done(state.sent):
            planes.check()
            time.sleep(0.1)
    finally:
        watcher.stop()
    seen = watcher.seen
    rate = state.answered / max(state.seconds, 1e-9)
    printer.stage(
        "replay",
        f"{state.answered:,} answered ({state.retries:,} asked again), {state.labelled:,} truths told and "
        f"{state.pushed:,} feature values pushed in {state.seconds:.1f} s: {rate:,.0f} requests a second",
    )
    printer.stage(
        "replay",
        f"time is compressed: the replay waited {seen.waited_s:.1f} s for the platform, and {seen.slowed_s:.1f} s by "
        "going slower while something was noticed, retrained or let in; real traffic would not wait",
    )
    return state, seen


def end_runs(platform: Platform) -> None:
    """End what is still retrained when the demo ends: a worker outlives the control plane, but not the demo."""
    for run in platform.runs(kind="pipeline", status=("pending", "running")):
        process = process_of(run)
        if process is not None:
            LocalRunner().stop(process)
        with platform.ledger.write(platform.actor) as world:
            world.runs.finish(run.id, "cancelled", error="the demo ended before it was done")


class _Progress:
    """Tells how far the replay is, and when the fault sets in."""

    def __init__(self, job: Job, planes: Planes, printer: Printer) -> None:
        self._job, self._planes, self._printer = job, planes, printer
        self._next = _PROGRESS_REQUESTS
        self._last = (0, time.monotonic())
        self._is_fault_told = job.fault is None
        self._starts = [tick.start for tick in job.stream.ticks]

    def tell(self, sent: int) -> None:
        fault, total = self._job.fault, len(self._job.stream)
        if fault is not None and not self._is_fault_told and sent >= fault.since:
            self._is_fault_told = True
            self._printer.stage("fault", fault.sentence)
        if sent < self._next and sent < total:
            return
        self._planes.check()
        self._next = sent - sent % _PROGRESS_REQUESTS + _PROGRESS_REQUESTS
        now = time.monotonic()
        rate = (sent - self._last[0]) / max(now - self._last[1], 1e-9)
        self._last = (sent, now)
        at = self._job.stream.ticks[bisect.bisect_left(self._starts, sent) - 1].label
        self._printer.stage("replay", f"{sent:,} of {total:,} requests, {rate:,.0f} a second{', ' if at else ''}{at}")


def _tell_contract(published: Published, printer: Printer) -> None:
    version, report, aside = published.version, published.report, published.quarantined
    printer.stage("data", f"{version.ref.short}: {version.metadata['rows']:,} rows to learn from")
    if report is None:
        return
    kept = f"; {aside.metadata['rows']:,} rows were set aside as {aside.ref}" if aside else ""
    printer.stage("contract", f"{report.checks} checks, {report.rows_failed:,} rows break one{kept}")
    for failure in report.failures[:3]:
        printer.stage("contract", f"  {failure.id}: {failure.message}")


def _tell_evaluation(evaluation: Evaluation, printer: Printer) -> None:
    found, name = evaluation.value, evaluation.metric
    shown = f"{name} {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
    printer.stage("training", f"  {shown} on {evaluation.rows:,} rows that it has not seen")
    for part in evaluation.worst_slices[:2]:
        of = part.interval
        shown = f"{name} {of.value:.3f} [{of.low:.3f}, {of.high:.3f}]"
        printer.stage("training", f"  worst: {part.column} = {part.value} ({part.rows:,} rows): {shown}")


def _answers(status_path: Any, name: str) -> bool:
    with contextlib.suppress(FlyballError):
        served = read_status(status_path).deployments.get(name)
        return served is not None and bool(served.variants)
    return False
