"""The sweep over real homes: what goes, what stays, what a crash leaves, and writers beside it."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from flyball.control.lease import Lease
from flyball.errors import InvalidInput, NotFound, Unavailable
from flyball.governance.identity import Principal
from flyball.ledger.logged_models import ModelPoint
from flyball.ledger.points import Point
from flyball.ledger.sql.database import SqlLedger
from flyball.ledger.traces import Assessment, Trace
from flyball.llm.spans import Span
from flyball.platform import Platform
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.blobs.multipart import Uploads
from flyball.testing.clock import FakeClock
from flyball.tracking.sweep_timer import SweepTimer
from flyball.tracking.sweeping import RETENTION_TAG, TRACES_TAG, Swept

DAY = 86400.0
MONTH = 31 * DAY


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def platform(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    monkeypatch.setenv("FLYBALL_SWEEP_GRACE_S", "0")
    with closing(Platform.open(tmp_path / "home", clock=clock)) as opened:
        yield opened


def a_run(platform: Platform, experiment: str = "0", **files: bytes) -> str:
    """A run that logged points and left files, whose names have `_` for a slash."""
    run = platform.recorder.create_run(experiment, "fit").result().id
    platform.recorder.log(run, points=[Point("loss", 0.5, n, n) for n in range(3)]).result()
    for name, data in files.items():
        platform.keep_bytes(f"{experiment}/{run}/artifacts/{name.replace('_', '/')}", data)
    return run


def a_model(platform: Platform, experiment: str = "0", run: str = "", **files: bytes) -> str:
    model = platform.create_logged_model(experiment, "net", run=run).id
    measured = [ModelPoint(model, "acc", 0.5, 0, 1, run)]
    platform.recorder.change(lambda world: world.logged_models.log(measured)).result()
    for name, data in files.items():
        platform.keep_bytes(f"{experiment}/models/{model}/artifacts/{name}", data)
    return model


def contents(platform: Platform) -> set[bytes]:
    """The contents of all blobs."""
    return {platform.blobs.get(digest) for digest in platform.blobs.digests()}


def gone(swept: Swept) -> list[str]:
    return [one.ref for one in swept.removed]


def test_what_was_deleted_long_ago_goes_with_its_bytes(platform: Platform, clock: FakeClock) -> None:
    run, stays = a_run(platform, a_b=b"mine", c=b"shared"), a_run(platform, c=b"shared")
    model = a_model(platform, run=run, MLmodel=b"model", w=b"shared")
    platform.delete_run(run)
    platform.delete_logged_model(model)
    assert gone(platform.sweep(dry_run=False)) == []
    clock.advance(MONTH)
    told = platform.sweep(dry_run=True)
    assert contents(platform) == {b"mine", b"shared", b"model"}
    done = platform.sweep(dry_run=False)
    assert gone(done) == [f"run/{run}", f"logged-model/{model}"]
    assert (done.files, done.blobs, done.blob_bytes) == (4, 2, len(b"mine" + b"model"))
    assert told == done
    assert contents(platform) == {b"shared"}
    for lost in (lambda: platform.run_whole(run), lambda: platform.logged_model(model, deleted=True)):
        with pytest.raises(NotFound):
            lost()
    assert [file.path for file in platform.artifacts(stays)] == ["c"]
    stone = platform.tombstone(f"run/{run}")
    assert stone is not None
    assert (stone.name, stone.files) == ("fit", 2)
    with platform.ledger.read() as world:
        last = world.journal.find(limit=3)
    assert [event.action for event in last] == ["swept", "removed", "removed"]
    assert last[0].detail == {"blobs": 2, "size_bytes": len(b"mine" + b"model")}


def test_a_second_sweep_finds_nothing_and_notes_nothing(platform: Platform, clock: FakeClock) -> None:
    platform.delete_run(a_run(platform, a=b"x"))
    clock.advance(MONTH)
    platform.sweep(dry_run=False)
    last = platform.last_event()
    assert platform.sweep(dry_run=False) == Swept()
    assert platform.last_event() == last


def test_an_experiment_says_how_long_what_was_deleted_in_it_stays(platform: Platform, clock: FakeClock) -> None:
    runs = {}
    for name, tag in (("default", None), ("short", "2d"), ("long", "90 d"), ("ever", "forever"), ("odd", "soon")):
        experiment = platform.create_experiment(name, tags=None if tag is None else {RETENTION_TAG: tag}).id
        runs[a_run(platform, experiment)] = name
    for run in runs:
        platform.delete_run(run)

    def names(older_than: str | None = None) -> list[str]:
        return [runs[one.id] for one in platform.sweep(older_than).removed]

    clock.advance(3 * DAY)
    assert names() == ["short"]
    assert sorted(names("1d")) == ["default", "short"]
    assert names("forever") == ["short"]
    clock.advance(40 * DAY)
    assert sorted(names()) == ["default", "short"]
    clock.advance(60 * DAY)
    swept = platform.sweep()
    assert sorted(runs[one.id] for one in swept.removed) == ["default", "long", "short"]
    assert ["soon" in problem for problem in swept.problems] == [True]
    with pytest.raises(InvalidInput, match="older_than"):
        platform.sweep("banana")


def test_a_deleted_experiment_goes_with_all_that_is_in_it(platform: Platform, clock: FakeClock) -> None:
    experiment = platform.create_experiment("old").id
    run, model = a_run(platform, experiment, a=b"1"), a_model(platform, experiment, w=b"2")
    platform.delete_experiment(experiment)
    clock.advance(MONTH)
    done = platform.sweep(dry_run=False)
    assert gone(done) == [f"run/{run}", f"logged-model/{model}", f"experiment/{experiment}"]
    assert contents(platform) == set()
    with pytest.raises(NotFound):
        platform.experiment(experiment)
    platform.create_experiment("old")


def test_an_experiment_stays_with_what_stays_in_it(platform: Platform, clock: FakeClock) -> None:
    experiment = platform.create_experiment("old").id
    run, other = a_run(platform, experiment, a=b"1"), a_run(platform, experiment)
    with platform.recording() as world:
        world.versions.publish("model", "a", "0" * 64, metadata={"source": f"runs:/{run}/a"})
    platform.delete_experiment(experiment)
    clock.advance(MONTH)
    done = platform.sweep(dry_run=False)
    assert gone(done) == [f"run/{other}"]
    assert done.kept[1:] == [f"experiment/{experiment} stays, because something in it does"]
    assert platform.run_whole(run).id == run


def test_files_that_a_registered_model_is_made_of_stay(platform: Platform, clock: FakeClock) -> None:
    run, other = a_run(platform, model_w=b"1"), a_run(platform)
    model = a_model(platform, w=b"2")
    with platform.recording() as world:
        world.versions.publish(
            "model", "a", "0" * 64, metadata={"source": f"mlflow-artifacts:/0/{run}/artifacts/model"}
        )
        world.versions.publish("model", "b", "1" * 64, metadata={"source": f"models:/{model}"})
    for id in (run, other):
        platform.delete_run(id)
    platform.delete_logged_model(model)
    clock.advance(MONTH)
    done = platform.sweep(dry_run=False)
    assert gone(done) == [f"run/{other}"]
    assert sorted(done.kept) == [
        f"logged-model/{model} stays, because model/b@1 is made of its files",
        f"run/{run} stays, because model/a@1 is made of its files",
    ]
    assert contents(platform) == {b"1", b"2"}
    assert done.problems == []


def test_tables_bundles_and_results_are_not_touched(platform: Platform) -> None:
    from sklearn.linear_model import LogisticRegression

    platform.declare("dataset", "flights", target="late")
    platform.declare("model", "late", dataset="flights")
    for rows in (20, 30, 40):
        platform.publish("flights", [{"distance": float(n), "late": n % 2} for n in range(rows)])
    fitted = LogisticRegression().fit(np.array([[0.0], [1.0]]), [0, 1])
    version = platform.register("late", fitted, example=np.array([[0.0]]))
    before = set(platform.blobs.digests())
    orphan = platform.blobs.put(b"of a publisher who was killed")
    done = platform.sweep("0s", dry_run=False)
    assert (done.blobs, done.problems) == (1, [])
    assert set(platform.blobs.digests()) == before
    assert orphan not in before
    assert [platform.read(f"flights@{n}").collect().height for n in (1, 2, 3)] == [20, 30, 40]
    assert platform.load(f"late@{version.number}") is not None
    platform.delete_version("late", version.number)
    done = platform.sweep(dry_run=False)
    assert done.problems == []
    left = set(platform.blobs.digests())
    assert version.digest not in left
    assert left < before
    assert platform.read("flights").collect().height == 40


def test_nothing_is_deleted_while_a_list_of_parts_cannot_be_read(platform: Platform) -> None:
    platform.declare("dataset", "flights")
    version = platform.publish("flights", [{"n": 1}]).version
    platform.blobs.put(b"orphan")
    path = platform.blobs.path(version.digest)
    assert path is not None
    damaged = path.read_bytes()
    path.unlink()
    done = platform.sweep(dry_run=False)
    assert done.blobs == 0
    assert ["dataset/flights@1" in problem for problem in done.problems] == [True]
    path.write_bytes(damaged)
    assert platform.sweep(dry_run=False).blobs == 1
    assert platform.read("flights").collect().height == 1


def test_bytes_that_are_missing_are_told_and_stop_nothing(platform: Platform, clock: FakeClock) -> None:
    run, old = a_run(platform, a=b"lost", b=b"there"), a_run(platform, c=b"old")
    (lost,) = (file.digest for file in platform.artifacts(run) if file.path == "a")
    assert platform.blobs.delete(lost)
    platform.delete_run(old)
    clock.advance(MONTH)
    done = platform.sweep(dry_run=False)
    assert (gone(done), done.missing, done.blobs) == ([f"run/{old}"], 1, 1)
    assert run in done.problems[0]


def test_a_young_blob_waits(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYBALL_SWEEP_GRACE_S", "3600")
    digest = platform.blobs.put(b"its row may still come")
    swept = platform.sweep(dry_run=False)
    assert (swept.blobs, swept.waiting) == (0, 1)
    os.utime(platform.blobs.path(digest) or "", (1000, 1000))
    assert platform.sweep(dry_run=False).blobs == 1


def test_only_who_may_erase_may_sweep(platform: Platform) -> None:
    from flyball.errors import Forbidden

    editor = platform.as_(Principal("user/ed", "editor"))
    assert editor.sweep() == Swept()
    with pytest.raises(Forbidden):
        editor.sweep(dry_run=False)


def test_who_was_removed_takes_no_more_files(platform: Platform, clock: FakeClock) -> None:
    run = a_run(platform)
    platform.delete_run(run)
    platform.keep_bytes(f"0/{run}/artifacts/late", b"x")  # deleted, not gone
    clock.advance(MONTH)
    platform.sweep(dry_run=False)
    with pytest.raises(NotFound, match="removed for good"):
        platform.keep_bytes(f"0/{run}/artifacts/late", b"x")


def test_writers_beside_a_sweep_lose_nothing(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers bring contents that lie about as orphans of old; whoever recorded a file can read it."""
    monkeypatch.setenv("FLYBALL_SWEEP_GRACE_S", "600")
    bodies = [b"body %d" % n for n in range(120)]
    for body in bodies:
        os.utime(platform.blobs.path(platform.blobs.put(body)) or "", (1000, 1000))
    run = platform.recorder.create_run("0", "fit").result().id
    errors: list[BaseException] = []
    begun, done = threading.Event(), threading.Event()
    swept = 0
    plain = FileBlobs.delete_unless_put_since

    def delete(blobs: FileBlobs, digest: str, since: float) -> bool:
        begun.set()
        return plain(blobs, digest, since)

    monkeypatch.setattr(FileBlobs, "delete_unless_put_since", delete)

    def write(part: int) -> None:
        try:
            assert begun.wait(60)
            for number in range(part, len(bodies), 3):
                platform.keep_bytes(f"0/{run}/artifacts/{number}", bodies[number])
        except BaseException as error:
            errors.append(error)

    def sweep() -> None:
        nonlocal swept
        while not done.is_set():
            swept += platform.sweep(dry_run=False).blobs

    sweeper = threading.Thread(target=sweep)
    writers = [threading.Thread(target=write, args=(part,)) for part in range(3)]
    for thread in (*writers, sweeper):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    sweeper.join()
    assert errors == []
    assert swept > 0
    files = platform.artifacts(run)
    assert {platform.blobs.get(file.digest) for file in files} == set(bodies)


# -- traces


def a_trace(platform: Platform, number: int, experiment: str = "0", at_ms: int = 1000, **files: bytes) -> str:
    """A trace with a span, an assessment and files."""
    id = f"tr-{number:032x}"
    platform.add_spans(experiment, [Span(f"{number:032x}", f"{1:016x}", "answer", at_ms * 10**6, (at_ms + 1) * 10**6)])
    platform.assess(Assessment(f"a-{number}", id, "correct", "feedback", True, "HUMAN", "ann", 1, 1))
    for name, data in files.items():
        platform.keep_bytes(f"{experiment}/traces/{id}/artifacts/{name}", data)
    return id


def rows_of_traces(platform: Platform) -> int:
    """How many rows the tables of traces have."""
    from flyball.ledger.sql import trace_tables as tables

    assert isinstance(platform.ledger, SqlLedger)
    with platform.ledger.engine.connect() as connection:
        names = ("traces", "trace_spans", "trace_marks", "trace_links", "assessments", "scorers")
        return sum(len(connection.execute(getattr(tables, name).select()).all()) for name in names)


def test_a_deleted_experiment_takes_its_traces_with_their_bytes(platform: Platform, clock: FakeClock) -> None:
    old, other = platform.create_experiment("old").id, platform.create_experiment("other").id
    for number in range(50):
        a_trace(platform, number, old, image=b"image %d" % number)
    stays = a_trace(platform, 99, other, image=b"stays")
    platform.register_scorer(old, "judge", "{}")
    before = rows_of_traces(platform)
    platform.delete_experiment(old)
    clock.advance(MONTH)
    told = platform.sweep(dry_run=True)
    assert (rows_of_traces(platform), told.traces, told.blobs) == (before, 50, 50)
    assert platform.sweep(dry_run=False) == told
    assert contents(platform) == {b"stays"}
    assert [trace.id for trace in platform.traces([stays, f"tr-{1:032x}"])] == [stays]
    assert rows_of_traces(platform) == 4
    platform.create_experiment("old")


def test_traces_stay_as_long_as_their_experiment_says(platform: Platform, clock: FakeClock) -> None:
    """Also those that nobody deleted; without a tag or a setting, for ever."""
    now = int(clock.now().timestamp() * 1000)
    kept, short = platform.create_experiment("kept").id, platform.create_experiment("s", tags={TRACES_TAG: "7d"}).id
    odd = platform.create_experiment("odd", tags={TRACES_TAG: "soon"}).id
    for number, experiment in enumerate((kept, short, odd)):
        a_trace(platform, 2 * number, experiment, now - int(8 * DAY * 1000), image=b"%d" % number)
        a_trace(platform, 2 * number + 1, experiment, now - int(6 * DAY * 1000))
    told = platform.sweep(dry_run=True)
    assert (told.traces, told.blobs, ["soon" in problem for problem in told.problems]) == (1, 1, [True])
    done = platform.sweep(dry_run=False)
    assert (done.traces, done.blobs) == (1, 1)
    assert [len(platform.search_traces([id])[0]) for id in (kept, short, odd)] == [2, 1, 2]
    assert contents(platform) == {b"0", b"2"}


def test_the_setting_says_how_long_traces_stay(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYBALL_SWEEP_TRACES", "1d")
    ever = platform.create_experiment("ever", tags={TRACES_TAG: "forever"}).id
    a_trace(platform, 1)
    a_trace(platform, 2, ever)
    assert platform.sweep(dry_run=False).traces == 1
    assert [len(platform.search_traces([id])[0]) for id in ("0", ever)] == [0, 1]


def test_traces_that_are_deleted_by_id_leave_no_bytes(platform: Platform) -> None:
    gone, stays = a_trace(platform, 1, image=b"gone"), a_trace(platform, 2, image=b"stays")
    assert platform.delete_traces("0", [gone]) == 1
    assert platform.sweep(dry_run=False).blobs == 1
    assert contents(platform) == {b"stays"}
    assert [trace.id for trace in platform.traces([gone, stays])] == [stays]


def test_a_trace_cannot_take_files_of_others_with_it(platform: Platform) -> None:
    """Whatever its tag says of where its files are, and however it is called."""
    run = a_run(platform, keep=b"of a run")
    platform.keep_bytes("0/other/file", b"of nobody")
    for id in ("tr-1", f"../{run}", f"x/../../{run}/artifacts", "%2e%2e"):
        tags = {"mlflow.artifactLocation": f"mlflow-artifacts:/0/{run}/artifacts"}
        platform.tell_trace(Trace(id, "0", 1, 1, "OK", tags=tags))
        platform.tag_trace(id, "mlflow.artifactLocation", "mlflow-artifacts:/0/other")
    platform.delete_traces("0", until_ms=10)
    platform.sweep(dry_run=False)
    assert contents(platform) == {b"of a run", b"of nobody"}


# -- by itself


def test_a_round_takes_so_many_and_bytes_go_with_the_last(platform: Platform, clock: FakeClock) -> None:
    for number in range(5):
        platform.delete_run(a_run(platform, a=b"%d" % number))
    experiment = platform.create_experiment("old").id
    a_trace(platform, 1, experiment)
    platform.delete_experiment(experiment)
    clock.advance(MONTH)
    rounds = [platform.sweep(dry_run=False, most=3) for _ in range(3)]
    assert [(len(one.removed), one.traces, one.blobs, one.is_more) for one in rounds] == [
        (2, 1, 0, True),
        (3, 0, 0, True),
        (1, 0, 5, False),
    ]
    assert platform.sweep(dry_run=False) == Swept()


def test_it_ends_when_it_is_told_to(platform: Platform, clock: FakeClock) -> None:
    platform.delete_run(a_run(platform, a=b"x"))
    clock.advance(MONTH)
    stopping = threading.Event()
    stopping.set()
    done = platform.sweep(dry_run=False, stopping=stopping)
    assert (done.removed, done.is_more, contents(platform)) == ([], True, {b"x"})


def test_two_never_sweep_at_once(platform: Platform) -> None:
    other = Lease(platform.ledger, "sweep", 60)
    assert other.renew()
    with pytest.raises(Unavailable, match="another sweep"):
        platform.sweep(dry_run=False)
    platform.sweep(dry_run=True)
    other.release()
    assert platform.sweep(dry_run=False) == Swept()


def test_the_control_plane_sweeps_every_so_often(
    platform: Platform, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyball.tracking.sweep_timer.MOST", 2)
    for _ in range(3):
        platform.delete_run(a_run(platform))
    timer, stopping = platform.sweeping_timer(), threading.Event()
    assert timer.look(stopping) is None  # there is no hurry at the start
    clock.advance(MONTH)
    first = timer.look(stopping)
    assert first is not None
    assert (len(first.removed), first.is_more) == (2, True)
    assert timer.look(stopping) is None
    clock.advance(60)  # the rest soon, and then not before a day has passed
    second = timer.look(stopping)
    assert second is not None
    assert (len(second.removed), second.is_more) == (1, False)
    clock.advance(DAY / 2)
    assert timer.look(stopping) is None
    clock.advance(DAY / 2)
    held = Lease(platform.ledger, "sweep", 60)
    assert held.renew()
    assert timer.look(stopping) is None  # another sweeps: put off
    held.release()
    clock.advance(3600)
    assert timer.look(stopping) == Swept()
    with platform.ledger.read() as world:
        assert world.journal.find(action="removed", limit=1)[0].actor == "controller/sweep"


def test_it_can_be_switched_off(platform: Platform, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYBALL_SWEEP_EVERY", "0")
    timer = platform.sweeping_timer()
    clock.advance(MONTH)
    timer.run(threading.Event())  # which ends at once
    with pytest.raises(InvalidInput, match="every"):
        SweepTimer(lambda _most, _stopping: Swept(), "often", clock)


# -- kill -9


def killed_at(step: int, home: Path, clock: FakeClock, act: Callable[[Platform], object]) -> bool:
    """Do something in a process that is killed before its step number `step`; whether it came so far."""
    child = os.fork()
    if child == 0:
        try:
            count = 0

            def counted(kind: type, name: str) -> None:
                plain = getattr(kind, name)

                def call(*args: object, **options: object) -> object:
                    nonlocal count
                    count += 1
                    if count > step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return plain(*args, **options)

                setattr(kind, name, call)

            counted(SqlLedger, "write")
            counted(FileBlobs, "delete_unless_put_since")
            counted(FileBlobs, "delete_unfinished")
            counted(Uploads, "sweep")
            counted(Uploads, "forget")
            act(Platform.open(home, clock=clock))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_a_sweep_killed_anywhere_is_finished_by_the_next(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYBALL_SWEEP_GRACE_S", "0")
    monkeypatch.setattr("flyball.tracking.sweeping._AT_ONCE", 1)
    home, step, kept = tmp_path / "home", 0, set()
    while True:
        with closing(Platform.open(home, clock=clock)) as platform:
            experiment = platform.create_experiment(f"old {step}").id
            run, model = a_run(platform, experiment, a=b"1%d" % step), a_model(platform, experiment, w=b"2%d" % step)
            a_trace(platform, step, experiment, image=b"3%d" % step)
            a_run(platform, keep=b"kept %d" % step)
            kept.add(b"kept %d" % step)
            platform.blobs.put(b"orphan %d" % step)
            platform.delete_experiment(experiment)
        clock.advance(MONTH)
        was_killed = killed_at(step, home, clock, lambda platform: platform.sweep(dry_run=False))
        with closing(Platform.open(home, clock=clock)) as platform:
            for owner in (run, model):  # what is recorded can be read, in the middle too
                with platform.ledger.read() as world:
                    assert all(platform.blobs.has(file.digest) for file in world.artifacts.below(owner))
            platform.sweep(dry_run=False)
            assert contents(platform) == kept
            assert platform.sweep(dry_run=False) == Swept()
            for ref in (f"run/{run}", f"logged-model/{model}", f"experiment/{experiment}"):
                assert platform.tombstone(ref) is not None
            with platform.ledger.read() as world:
                assert len(world.journal.find(ref=f"run/{run}", action="removed")) == 1
        step += 1
        if not was_killed:
            break
    assert step > 7  # three removals, uploads, three blobs, the journal


def test_a_writer_killed_between_bytes_and_row_leaves_an_orphan_for_the_sweep(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYBALL_SWEEP_GRACE_S", "0")
    home = tmp_path / "home"
    with closing(Platform.open(home, clock=clock)) as platform:
        run = a_run(platform)
    path = f"0/{run}/artifacts/a"
    assert killed_at(0, home, clock, lambda platform: platform.keep_bytes(path, b"never acknowledged"))
    with closing(Platform.open(home, clock=clock)) as platform:
        assert contents(platform) == {b"never acknowledged"}
        assert platform.artifacts(run) == []
        platform.sweep(dry_run=False)
        assert contents(platform) == set()
    assert not killed_at(9, home, clock, lambda platform: platform.keep_bytes(path, b"kept"))
    with closing(Platform.open(home, clock=clock)) as platform:
        platform.sweep(dry_run=False)
        assert contents(platform) == {b"kept"}


def test_an_upload_killed_while_it_is_completed_can_be_completed_again(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYBALL_SWEEP_GRACE_S", "0")
    home = tmp_path / "home"
    with closing(Platform.open(home, clock=clock)) as platform:
        run = a_run(platform)
        path = f"0/{run}/artifacts/big"
        upload = platform.begin_upload(path)
        part = platform.upload_part(upload, 1)
        part.write(b"all of it")
        parts = [(1, part.finish())]
    for step in (0, 1):  # before the row, and before the upload is forgotten
        assert killed_at(step, home, clock, lambda platform: platform.complete_upload(path, upload, parts))
        with closing(Platform.open(home, clock=clock)) as platform:
            assert len(platform.artifacts(run)) == step
            platform.sweep(dry_run=False)
    with closing(Platform.open(home, clock=clock)) as platform:
        platform.complete_upload(path, upload, parts)
        (file,) = platform.artifacts(run)
        assert platform.blobs.get(file.digest) == b"all of it"
        with pytest.raises(NotFound):
            platform.complete_upload(path, upload, parts)
