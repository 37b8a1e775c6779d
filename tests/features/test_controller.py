"""The controller of feature views over a real home: what is due, how failures are told, conditions, crashes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from flyball.control.loop import Loop
from flyball.delivery.states import reason_of, state_of
from flyball.errors import FlyballError, InvalidInput
from flyball.features.controller import FeatureViewController
from flyball.ledger.resources import Resource
from flyball.platform import Platform
from flyball.platform.acting import view_command
from flyball.runners import Process
from flyball.runners.local import LocalRunner
from flyball.storage.online import OnlineValue
from flyball.testing.clock import FakeClock

VIEWS = '''
import polars as pl
import flyball as fb


@fb.feature_view(entity="key", event_time="at", ttl="2h", incremental=True)
def doubled(readings: pl.LazyFrame) -> pl.LazyFrame:
    """Twice what was read."""
    if readings.collect_schema().get("x") == pl.String:
        raise ValueError("words cannot be doubled")
    return readings.filter(pl.col("ok")).select("key", "at", twice=pl.col("x") * 2)
'''


class Here:
    """A runner that keeps the view in this process, at the test's own time."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.commands: list[list[str]] = []

    def start(self, command: list[str], log: Path, environment: dict[str, str] | None = None) -> Process:
        del log, environment
        self.commands.append(command)
        cause = int(command[-1]) if "--cause" in command else None
        with contextlib.suppress(FlyballError):  # it is written down in the view's status
            self.platform.keep_view(command[command.index("--view") + 1], cause=cause)
        return Process("here", len(self.commands))

    def is_running(self, process: Process) -> bool:
        del process
        return False

    def stop(self, process: Process) -> None:
        del process


class World:
    """A home with a project, its loop, and a clock that is moved by hand."""

    def __init__(self, folder: Path) -> None:
        (folder / "features.py").write_text(VIEWS)
        self.clock = FakeClock(datetime.now(UTC))
        self.start = self.clock.now()
        self.platform = Platform.open(folder / "home", clock=self.clock)
        self.platform.declare("Dataset", "readings", entity=["key"], event_time="at")
        self.runner = Here(self.platform)
        self.use(self.runner)

    def use(self, runner: Here | LocalRunner) -> None:
        at = self.platform
        self.loop = Loop(at.ledger, [FeatureViewController(at.home, view_command, at.view_failed, runner)], self.clock)

    def publish(self, rows: int = 3, *, minute: int = 0, mode: str = "append", words: bool = False) -> None:
        x = pl.Series([str(n) if words else n for n in range(rows)])
        frame = pl.DataFrame({"key": [f"k{n}" for n in range(rows)], "x": x, "ok": True})
        frame = frame.with_columns(at=pl.lit(self.start + timedelta(minutes=minute)))
        self.platform.publish("readings", frame, mode=mode)

    def declare(self, **materialise: object) -> None:
        (view,) = self.platform.views_in("features.py", "doubled")
        self.platform.declare_view(view, materialise={"every": "10m", **materialise})

    @property
    def view(self) -> Resource:
        return self.platform.resource("feature-view/doubled")

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.loop.settle()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.loop.lease.release()
    made.platform.close()


def test_a_view_is_kept_only_when_its_declaration_asks_for_it(world: World) -> None:
    world.publish()
    (view,) = world.platform.views_in("features.py")
    world.platform.declare_view(view)
    world.loop.settle()
    world.pass_time(3_600)
    assert world.runner.commands == []
    world.declare()
    world.loop.settle()
    assert len(world.runner.commands) == 1
    status = world.view.status
    assert status["stored"]["rows"] == status["online"]["entities"] == 3
    assert status["measured"]["agree"]["value"] == 1.0
    assert status["columns"]["twice"] == [["readings", "ok", "indirect"], ["readings", "x", "direct"]]
    assert state_of(world.view) == "fresh"


def test_it_is_due_after_its_span_and_with_each_version_and_is_not_looked_at_in_between(world: World) -> None:
    world.publish()
    world.declare()
    world.loop.settle()
    world.pass_time(1.0)  # the process is found to have ended
    assert world.loop.settle() == 0
    assert world.loop.queue.next_due_s() == pytest.approx(599.0)
    world.pass_time(599.0)
    assert len(world.runner.commands) == 2
    world.pass_time(1.0)
    world.publish(5, minute=1)
    world.loop.settle()
    assert len(world.runner.commands) == 3
    assert world.view.status["stored"]["source"] == "dataset/readings@2"
    published = world.platform.version("dataset/readings@2").event
    assert world.runner.commands[-1][-1] == str(published)
    (run,) = world.platform.runs(kind="materialisation", name="doubled", limit=1)
    assert world.platform.event(int(run.event or 0)).cause == published
    kept = world.platform.runs(kind="materialisation", limit=100)
    world.pass_time(600.0)
    assert len(world.platform.runs(kind="materialisation", limit=100)) == len(kept)  # nothing new: no run of nothing


def test_a_dataset_without_a_version_is_waited_for(world: World) -> None:
    world.publish(1)
    world.declare()
    world.platform.declare("Dataset", "empty")
    world.platform.declare("FeatureView", "doubled", **{**world.view.spec, "dataset": "empty"})
    world.loop.settle()
    assert world.view.status["blocked"] == "dataset/empty has no version yet; publish one"


def test_a_failure_is_told_and_tried_again_ever_later_until_there_is_other_data(world: World) -> None:
    world.publish(words=True)
    spec = {"name": "doubled", "entity": ["key"], "event_time": "at", "features": {"twice": "int64"}, "ttl_s": 7200.0}
    world.platform.declare(
        "FeatureView", "doubled", definition=spec, dataset="readings", function="features.py:doubled", materialise={}
    )
    world.loop.settle()
    assert "words cannot be doubled" in str(reason_of(world.view))
    assert state_of(world.view) == "failed"
    for wait_s in (30, 60, 120):
        before = len(world.runner.commands)
        world.pass_time(wait_s - 2)
        assert len(world.runner.commands) == before
        world.pass_time(2)
        assert len(world.runner.commands) == before + 1
    assert world.view.status["failure"]["tries"] == 4
    world.pass_time(1.0)
    world.publish(mode="overwrite")
    world.loop.settle()
    assert "failure" not in world.view.status and state_of(world.view) != "failed"


def test_other_code_than_what_was_declared_is_refused(world: World) -> None:
    world.publish()
    world.declare()
    spec = dict(world.view.spec)
    world.platform.declare("FeatureView", "doubled", **{**spec, "digest": "0" * 64})
    world.loop.settle()
    assert "computes something else than what is declared as version 1" in str(reason_of(world.view))
    definition = {**spec["definition"], "ttl_s": 60.0}
    world.platform.declare("FeatureView", "doubled", **{**spec, "definition": definition})
    world.loop.settle()
    assert "differs from its declaration in ttl_s" in str(reason_of(world.view))


def test_a_view_whose_code_nobody_knows_cannot_be_kept_by_itself(world: World) -> None:
    definition = {"name": "x", "entity": ["key"], "event_time": "at", "features": {"y": "int64"}}
    with pytest.raises(InvalidInput, match="its function must be known"):
        world.platform.declare("FeatureView", "x", definition=definition, dataset="readings", materialise={})


def test_pushes_are_folded_in_and_served_with_the_next_round(world: World) -> None:
    world.publish()
    world.declare()
    world.loop.settle()
    world.platform.push("doubled", {"key": "k0", "at": world.clock.now() + timedelta(seconds=1), "twice": 99})
    world.clock.advance(2.0)
    assert world.platform.look_up(["doubled"], {"key": "k0"})["twice"] == [99]
    world.pass_time(600.0)
    assert world.view.status["stored"]["rows"] == 4
    assert world.platform.stored_views.get("doubled").source == "dataset/readings@1"


def test_a_value_that_nobody_may_know_yet_is_served_when_it_has_arrived(world: World) -> None:
    """A feed that is two hours late: the newest row must not hide the one that is known now."""
    world.publish()
    views = Path(world.platform.project / "features.py")
    views.write_text(VIEWS.replace('ttl="2h"', 'known_at="known", ttl="4h"').replace(
        "twice=pl.col(\"x\") * 2", "twice=pl.col(\"x\") * 2, known=pl.col(\"at\") + pl.duration(hours=2)"
    ))  # fmt: skip
    sys.modules.pop("flyball_file_features", None)
    world.declare()
    world.loop.settle()
    assert world.platform.look_up(["doubled"], {"key": "k1"})["twice"] == [None]
    world.pass_time(2 * 3600)
    assert world.platform.look_up(["doubled"], {"key": "k1"})["twice"] == [2]
    world.pass_time(1.0)
    world.publish(minute=121)
    world.loop.settle()
    assert world.platform.look_up(["doubled"], {"key": "k1"})["twice"] == [2]
    assert world.view.status["conditions"] == {}
    runs = world.platform.runs(name="doubled.online", limit=100)
    world.pass_time(600.0)
    assert len(world.platform.runs(name="doubled.online", limit=100)) == len(runs)


def test_stale_begins_beyond_the_time_to_live_and_ends_after_two_fresh_measurements(world: World) -> None:
    world.publish()
    world.declare()
    world.loop.settle()
    assert world.view.status["conditions"] == {}
    world.pass_time(2 * 3600 + 60)
    stale = world.view.status["conditions"]["stale"]
    assert stale["share"] == 1.0 and state_of(world.view) == "stale"
    assert [e.action for e in world.platform.events(ref="feature-view/doubled", action="stale")] == ["stale"]
    world.pass_time(1.0)
    world.publish(minute=120)
    world.loop.settle()
    assert "stale" in world.view.status["conditions"]
    world.pass_time(600.0)
    assert world.view.status["conditions"] == {} and state_of(world.view) == "fresh"
    told = world.platform.sentences(world.platform.events(ref="feature-view/doubled", action="no longer stale"))
    assert told == ["feature-view/doubled is no longer stale"]


def test_values_online_that_nobody_stored_are_found_to_disagree(world: World) -> None:
    world.publish(400)
    world.declare(sample=400)
    world.loop.settle()
    wrong = [(f"k{n}", OnlineValue(world.start + timedelta(seconds=1), {"twice": -54321})) for n in range(40)]
    world.platform.online.put("doubled@1", wrong)
    world.pass_time(600.0)
    found = world.view.status["conditions"]["disagrees"]
    assert found["share"] == pytest.approx(0.9) and found["feature"] == "twice"
    agree = world.view.status["measured"]["agree"]
    assert agree["low"] < 0.9 < agree["high"] < 0.99
    assert state_of(world.view) == "disagrees"
    assert "54321" not in str(world.view.status)  # nobody's values stand in a status


def test_a_retired_view_is_left_alone(world: World) -> None:
    world.publish()
    world.declare()
    world.loop.settle()
    world.platform.retire_view("doubled", "nobody needs it")
    before = len(world.runner.commands)
    world.pass_time(86_400)
    assert len(world.runner.commands) == before and state_of(world.view) == "retired"


def test_killed_between_offline_and_online_it_is_told_and_goes_on_where_it_was(world: World) -> None:
    """The real process, killed with its first slices written: every value is served in the end, none read twice."""
    world.use(LocalRunner())
    world.publish(400_000, mode="overwrite")
    world.declare()
    world.loop.settle()

    def half_served() -> int:
        runs = world.platform.runs(name="doubled.online", limit=1)
        return int(runs[0].result.get("entities", 0)) if runs else 0

    def processes() -> list[int]:
        marker = str(world.platform.home).encode()
        found = [p for p in Path("/proc").iterdir() if p.name.isdecimal() and p.name != str(os.getpid())]
        return [int(p.name) for p in found if _holds(p / "cmdline", marker) and _holds(p / "cmdline", b"--view")]

    wait_until(half_served)
    (pid,) = processes()
    os.kill(pid, signal.SIGKILL)
    done = half_served()
    assert 0 < done < 400_000

    def is_told() -> bool:
        world.pass_time(1.0)
        return "perhaps killed" in str(reason_of(world.view))

    wait_until(is_told)
    world.pass_time(31.0)

    def is_kept() -> bool:
        world.pass_time(1.0)
        return "kept" in world.view.status

    wait_until(is_kept)
    assert world.platform.online.count("doubled@1") == world.view.status["online"]["entities"] == 400_000
    assert world.platform.stored_views.get("doubled").number == 1
    (last, first) = world.platform.runs(name="doubled.online", limit=5)
    assert (first.status, last.status) == ("running", "succeeded")
    assert first.result["entities"] >= done and last.result["written"] <= 400_000 - done
    assert world.view.status["measured"]["agree"]["value"] == 1.0


def _holds(path: Path, part: bytes) -> bool:
    try:
        return part in path.read_bytes()
    except OSError:
        return False


def wait_until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        threading.Event().wait(0.02)
