"""The demo, stage by stage. `flyball demo` calls `run_demo`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from flyball.demo.job import Job
from flyball.errors import FlyballError, InvalidInput, Unavailable

__all__ = ["DemoOptions", "Misuse", "run_demo"]

DEFAULT_HOME = "flyball-demo"
MARK = "demo.json"  # in a home: it is a demo's, and may be replaced by the next
_SERVE_S = 60.0
_REST_S = 90.0
_PROGRESS_REQUESTS = 5000


class Misuse(InvalidInput):
    """Options that do not go together, or name what is not there: exit code 2."""


@dataclass(frozen=True)
class DemoOptions:
    """The options of `flyball demo`.

    Attributes:
        no_fault: nothing goes wrong, so nothing must be found. seasons: a whole year of natural change.
        data, target, time, label_time, entity: a table of one's own and what its columns are.
        home: where the project is left; default: `flyball-demo` in the current folder.
        as_json: print one JSON object as the last line.
        seed: an odd one swaps the rows that teach and those that are replayed.
    """

    no_fault: bool = False
    seasons: bool = False
    data: str | Path | None = None
    target: str | None = None
    time: str | None = None
    label_time: str | None = None
    entity: str | None = None
    home: str | Path | None = None
    as_json: bool = False
    seed: int = 0


def run_demo(options: DemoOptions) -> int:
    """Run the demo and return its exit code: 0 fine, 1 a stage did not do what it should, 2 wrong use."""
    from flyball.demo.report import Printer

    # Threads of OpenMP that spin while they wait would take the cores from the planes: on two busy cores a fit of one
    # second took eighteen. Set before scikit-learn is loaded; what the demo starts inherits it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    printer = Printer()
    try:
        with _ended_by_signals():
            job, home = _prepared(options)
            return _run(job, home, options, printer)
    except FlyballError as error:
        print(f"error: {error}", file=sys.stderr)
        if options.as_json:
            print(json.dumps({"ok": False, "seconds": round(printer.seconds, 2), "error": str(error)}), flush=True)
        return 2 if isinstance(error, Misuse) else 1


# -- before anything is started


def _prepared(options: DemoOptions) -> tuple[Job, Path]:
    table = {"--target": options.target, "--time": options.time}
    table |= {"--label-time": options.label_time, "--entity": options.entity}
    if options.data is None:
        given = next((name for name, value in table.items() if value is not None), None)
        if given is not None:
            raise Misuse(f"{given} says what a column of your own table is; give the table with --data FILE")
    elif options.target is None:
        raise Misuse(f"--data {options.data} needs --target COL: the column to predict")
    if options.seasons and (options.data is not None or options.no_fault):
        other = "--data" if options.data is not None else "--no-fault"
        raise Misuse(f"--seasons is about the flights of a year as they were; leave {other} out")
    home = _home(Path(options.home or DEFAULT_HOME).absolute())
    if options.data is None:
        from flyball.demo.flights import flights_job

        return flights_job(seasons=options.seasons, fault=not options.no_fault, seed=options.seed), home
    from flyball.demo.table import table_job

    return table_job(
        options.data,
        target=str(options.target),
        time=options.time,
        label_time=options.label_time,
        entity=options.entity,
        fault=not options.no_fault,
        seed=options.seed,
    ), home


def _home(path: Path) -> Path:
    """Return the folder to use after checking that it may be: new, empty, or a former demo's."""
    if path.is_file():
        raise Misuse(f"{path} is a file; give --home a folder")
    if path.is_dir() and any(path.iterdir()) and not (path / MARK).exists():
        raise Misuse(f"{path} holds something else than a former demo; give --home another folder")
    return path


def _cleared(home: Path) -> Path:
    if home.is_dir():
        for entry in home.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    home.mkdir(parents=True, exist_ok=True)
    return home


# -- the stages


def _run(job: Job, home: Path, options: DemoOptions, printer: Any) -> int:
    from flyball.demo.planes import Planes
    from flyball.demo.report import lineage_of, quality_of, summary
    from flyball.platform import Platform

    printer.stage("job", job.title)
    for note in job.notes:
        printer.stage("job", note)
    platform = Platform.open(_cleared(home))
    (home / MARK).write_text(json.dumps({"job": job.name, "title": job.title}) + "\n", encoding="utf-8")
    planes = Planes(home)
    try:
        published = _publish(platform, job, printer)
        model = _train(platform, job, published.version, printer)
        planes.wait()
        old = _deployed(platform, job, model, planes, printer)
        state, seen = _replayed(platform, job, planes, printer)
    finally:
        planes.stop()
        platform.close()
    platform = Platform.open(home)
    try:
        new = str(platform.version(f"model/{job.name}@champion").ref.short)
        split = job.fault.since if job.fault is not None else job.stream.tick_of(job.sizes.fault_at).start
        quality = quality_of(platform, job, state, old, new, split)
        logged = platform.traffic.count(job.name)
        why = _why(platform, job)
        result = _result(job, published, old, new, state, logged, seen, quality, why)
        failures = _failures(platform, job, result, seen, quality)
        printer.lines("\n" + summary(quality, old, new))
        printer.lines(f"\none prediction, and all that it came from:\n{lineage_of(platform, job, new)}")
        printer.lines(f"\nwhy deployment/{job.name} serves {new}:")
        printer.lines("\n".join("   " * n + ("└─ " if n else "") + line for n, line in enumerate(why)))
    finally:
        platform.close()
    result = {"ok": not failures, "seconds": round(printer.seconds, 2), **result}
    if failures:
        result["failures"] = failures
    (home / MARK).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    printer.lines("")
    for failure in failures:
        printer.stage("error", failure)
    verdict = "all stages did what they should" if not failures else "not all stages did what they should"
    printer.stage("done", f"{verdict}; look at all of it with: flyball up --home {_relative(home)}")
    if options.as_json:
        print(json.dumps(result), flush=True)
    return 1 if failures else 0


def _publish(platform: Any, job: Job, printer: Any) -> Any:
    """Write the project, declare it, publish the sources and the rows to learn from."""
    from flyball.delivery.documents import read_documents
    from flyball.demo.declared import write_project
    from flyball.ledger.refs import Ref

    project = write_project(platform.home / "project", job)
    platform.belongs_to(project)
    plan = platform.apply(read_documents([project / "flyball.yaml"]))
    printer.stage("declared", f"{len(plan.changes)} resources of {_relative(project / 'flyball.yaml')}")
    made_from = []
    for name, source in job.sources.items():
        version = platform.publish(name, source.frame, made_from=[(Ref("file", source.file), "read from")]).version
        made_from.append((version.ref, "joined"))
        printer.stage("data", f"{version.ref.short}: {source.frame.height:,} rows of {source.file}")
    made_from += [(Ref("feature-view", view.name), "defines") for view in job.views]
    if job.views:
        printer.stage(
            "features",
            f"{len(job.views)} as-of joins ({', '.join(v.name for v in job.views)}) on {job.rows.height:,} rows; "
            "the same views are looked up inside requests",
        )
    published = platform.publish(job.dataset, job.rows, made_from=made_from)
    report, aside = published.report, published.quarantined
    printer.stage("data", f"{published.version.ref.short}: {published.version.metadata['rows']:,} rows to learn from")
    kept = f"; {aside.metadata['rows']:,} rows were set aside as {aside.ref}" if aside else ""
    printer.stage("contract", f"{report.checks} checks, {report.rows_failed:,} rows break one{kept}")
    for failure in report.failures[:3]:
        printer.stage("contract", f"  {failure.id}: {failure.message}")
    return published


def _train(platform: Any, job: Job, data: Any, printer: Any) -> Any:
    """Fit, judge and register the first version, in a recorded run."""
    from flyball.data.rows import Rows
    from flyball.demo.project.pipelines import fit
    from flyball.training.registering import judge, windows_of

    with platform.start_run(f"first-{job.name}", params={"fit": "pipelines.py:fit", "seed": 0}) as run:
        run.use(data.ref)
        frame = platform.frame(data.ref).collect()
        event_time = job.spec.get("event_time")
        learnt, unseen = (
            Rows.of(part, job.spec["target"], event_time=event_time, inputs=job.inputs, origin=data.ref)
            for part in (frame.filter(~job.test), frame.filter(job.test))
        )
        began = time.monotonic()
        model = fit(learnt)
        fitted_s = time.monotonic() - began
        evaluation = judge(model, unseen, metric_name=job.metric, slices=job.slices)
        run.log({name: found.value for name, found in evaluation.metrics.items()})
        version = platform.register(
            job.name,
            model,
            example=unseen.X.head(20),
            evaluation=evaluation,
            windows=windows_of(model, unseen, evaluation.metric, job.sizes.quality_window),
            trained_on=data.ref,
            run=run.id,
            note=f"the first; fitted on {len(learnt):,} rows, judged on {len(unseen):,}",
        )
        run.result(version=str(version.ref))
    found = evaluation.value
    printer.stage(
        "training",
        f"{version.ref.short} by run {run.id[:8]}: {evaluation.metric} {found.value:.3f} "
        f"[{found.low:.3f}, {found.high:.3f}] on {len(unseen):,} rows that it has not seen; "
        f"fitted on {len(learnt):,} in {fitted_s:.1f} s",
    )
    for part in evaluation.worst_slices[:2]:
        printer.stage(
            "training",
            f"  worst: {part.column} = {part.value} ({part.rows:,} rows): {evaluation.metric} {part.interval.value:.3f} "
            f"[{part.interval.low:.3f}, {part.interval.high:.3f}]",
        )
    return version


def _deployed(platform: Any, job: Job, version: Any, planes: Any, printer: Any) -> str:
    """Wait until the first version has passed its gates and answers; return it like `late@1`."""
    from flyball.serving.status import read_status

    deadline = time.monotonic() + _SERVE_S
    status_path = platform.home / "serving" / "status.json"
    while time.monotonic() < deadline:
        planes.check()
        decided = platform.resource(f"model/{job.name}").status.get("decided", {}).get(str(version.number))
        if decided and decided["outcome"] == "refused":
            reasons = [g["reason"] for g in decided["gates"] if not g["passed"]]
            raise Unavailable(f"{version.ref.short} did not pass its gates: {'; '.join(reasons)}")
        with contextlib.suppress(FlyballError):
            served = read_status(status_path).deployments.get(job.name)
            if served is not None and served.variants:
                gates = "; ".join(f"{g['gate']} ({g['reason']})" for g in (decided or {}).get("gates", []))
                printer.stage("gates", f"{version.ref.short} passed: {gates}")
                address = f"{planes.predictions}/v1/models/{job.name}:predict"
                printer.stage("deployed", f"{version.ref.short} answers at {address}; pages at {planes.pages}")
                return str(version.ref.short)
        time.sleep(0.05)
    raise Unavailable(f"deployment/{job.name} did not come to serve within {_SERVE_S:g} s")


def _replayed(platform: Any, job: Job, planes: Any, printer: Any) -> tuple[Any, Any]:
    """Replay the stream while the platform acts by itself; return what was sent and what was seen."""
    from flyball.demo.replay import Replayed, replay
    from flyball.demo.watcher import Watcher
    from flyball.features.pushes import push

    state = Replayed.of(len(job.stream))
    watcher = Watcher(platform, job, state, printer.stage)
    marks = [*range(_PROGRESS_REQUESTS, len(job.stream), _PROGRESS_REQUESTS), len(job.stream)]
    is_told = job.fault is None
    began = time.monotonic()
    last = [0, began]

    def progress(sent: int) -> None:
        nonlocal is_told
        if not is_told and job.fault is not None and sent >= job.fault.since:
            is_told = True
            printer.stage("fault", job.fault.sentence)
        if marks and sent >= marks[0]:
            while marks and sent >= marks[0]:
                marks.pop(0)
            planes.check()
            now = time.monotonic()
            rate = (sent - last[0]) / max(now - last[1], 1e-9)
            last[:] = [sent, now]
            label = job.stream.ticks[min(_tick_at(job, sent), len(job.stream.ticks) - 1)].label
            printer.stage(
                "replay", f"{sent:,} of {len(job.stream):,} requests, {rate:,.0f} a second{', ' if label else ''}{label}"
            )

    watcher.start()
    try:
        push_to = lambda spec, rows: push(spec, rows, platform.online)  # noqa: E731
        asyncio.run(replay(job, planes.predictions, state, push_to, watcher, progress))
        _wait_for_rest(watcher, job, state, planes)
    finally:
        watcher.stop()
    seen = watcher.seen
    printer.stage(
        "replay",
        f"{state.answered:,} answered, {state.labelled:,} truths told, {state.pushed:,} feature values pushed in "
        f"{state.seconds:.1f} s ({state.answered / state.seconds:,.0f} requests a second); {state.retries:,} asked again. "
        f"Time is compressed, so the replay waited {seen.waited_s:.1f} s for the monitor and went slower for "
        f"{seen.slowed_s:.1f} s while a model was retrained or let in; real traffic would not",
    )
    return state, seen


def _wait_for_rest(watcher: Any, job: Job, state: Any, planes: Any) -> None:
    """Wait until the last whole window is evaluated and no run or rollout is going on that can end without traffic."""
    deadline = time.monotonic() + _REST_S
    while time.monotonic() < deadline and not watcher.is_done(state.sent):
        planes.check()
        time.sleep(0.1)


# -- what came of it


def _why(platform: Any, job: Job) -> list[str]:
    from flyball.delivery.explain import story

    with platform.ledger.read() as world:
        return story(platform.why(f"deployment/{job.name}"), world)


def _result(
    job: Job, published: Any, old: str, new: str, state: Any, logged: int, seen: Any, quality: Any, why: list[str]
) -> dict[str, Any]:
    version, report, aside = published.version, published.report, published.quarantined
    drifts = [event for event, _ in seen.conditions if event.action == "drifting"]
    ends = [event for event, _ in seen.ends]
    steps = [
        {
            "share": event.detail.get("share", 100.0 if event.action == "promoted" else 0.0),
            "reason": event.detail.get("reason", ""),
        }
        for event in seen.rollout
    ]
    return {
        "dataset": {"name": job.dataset, "version": version.number, "rows": version.metadata["rows"]},
        "contract": {
            "checks": report.checks,
            "rows_failed": report.rows_failed,
            "rows_quarantined": aside.metadata["rows"] if aside else 0,
        },
        "champion_before": old,
        "champion_after": new,
        "requests": {"sent": state.sent, "answered": state.answered, "logged": logged},
        "drift": {k: drifts[0].detail[k] for k in ("feature", "test", "statistic", "threshold", "at_request")}
        if drifts
        else None,
        "alerts": [{"name": e.ref.partition("/")[2], "summary": e.detail.get("summary", "")} for e in seen.alerts],
        "retrained": list(seen.retrainings)[-1] if seen.retrainings else None,
        "canary": {"verdict": ends[-1].action, "steps": steps} if ends else None,
        "quality": quality.to_dict(),
        "why": why,
    }


def _failures(platform: Any, job: Job, result: dict[str, Any], seen: Any, quality: Any) -> list[str]:
    """Return what did not go as it should, a sentence each."""
    failures = list(seen.failures)
    requests = result["requests"]
    if not requests["sent"] == requests["answered"] == requests["logged"] == len(job.stream):
        failures.append(f"of {len(job.stream):,} requests {requests} were sent, answered and logged; expected all")
    for event in seen.decisions:
        if len(platform.why(f"event/{event.seq}")) < 1:
            failures.append(f"{event.ref} {event.action} without a reason")
    if job.is_watched_only:
        return failures
    if job.fault is None:
        found = [name for name in ("drift", "alerts", "retrained", "canary") if result[name]]
        return failures + [f"nothing was wrong, yet there is {name}: {result[name]}" for name in found]
    if result["drift"] is None:
        failures.append(f"{job.fault.column} changed and no drift was found")
    if not job.is_strict:
        return failures
    if result["retrained"] is None:
        failures.append("nothing was retrained")
    elif not seen.promotions:
        failures.append("no retrained version was promoted")
    elif quality.verdict != "better":
        failures.append(f"the new champion is not better than the old one on the same rows: {quality.verdict}")
    return failures


# -- small things


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does, so that its children are ended too."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tick_at(job: Job, request: int) -> int:
    import bisect

    return bisect.bisect_left([t.start for t in job.stream.ticks], request)


def _relative(path: Path) -> str:
    """Return a path as one would type it here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
