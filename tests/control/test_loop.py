"""The loop over a real ledger: who is woken, what an outcome does, and that only one control plane acts."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flyball.control import Blocked, Outcome, Retry, World
from flyball.control.lease import Lease
from flyball.control.loop import Loop
from flyball.errors import InvalidInput, Unavailable
from flyball.ledger.sql import open_ledger
from flyball.ledger.sql.database import SqlLedger
from flyball.testing.clock import FakeClock
from flyball.testing.ledger import KIND


class Recorder:
    """A controller that writes down what it was asked and does what the test says."""

    kind = KIND

    def __init__(self, act: Callable[[str, World], Outcome] = lambda _name, _world: None) -> None:
        self.looked: list[str] = []
        self.act = act

    def reconcile(self, name: str, world: World) -> Outcome:
        self.looked.append(name)
        return self.act(name, world)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: FakeClock) -> Iterator[SqlLedger]:
    opened = open_ledger(tmp_path, clock=clock)
    yield opened
    opened.close()


def apply(ledger: SqlLedger, name: str, **spec: object) -> None:
    owner = spec.pop("owner", None)
    with ledger.write("user/a") as tx:
        tx.resources.apply(KIND, name, spec, owner=str(owner) if owner else None)


def test_at_the_start_everything_is_looked_at_and_then_only_what_changed(ledger: SqlLedger, clock: FakeClock) -> None:
    apply(ledger, "a")
    apply(ledger, "b")
    seen = Recorder()
    loop = Loop(ledger, [seen], clock)
    loop.settle()
    assert sorted(seen.looked) == ["a", "b"]
    seen.looked.clear()
    loop.settle()
    assert seen.looked == []
    apply(ledger, "b", size=7)
    loop.settle()
    assert seen.looked == ["b"]


def test_controllers_are_made_when_the_loop_first_needs_them(ledger: SqlLedger, clock: FakeClock) -> None:
    apply(ledger, "a")
    made: list[Recorder] = []

    def make() -> list[Recorder]:
        made.append(Recorder())
        return made

    loop = Loop(ledger, make, clock)
    assert made == []
    loop.settle()
    loop.settle()
    assert [each.looked for each in made] == [["a"]]


def test_a_change_wakes_the_thing_its_owner_and_whoever_refers_to_it(ledger: SqlLedger, clock: FakeClock) -> None:
    apply(ledger, "owner")
    apply(ledger, "thing", owner=f"{KIND}/owner")
    apply(ledger, "referrer", uses="thing")
    apply(ledger, "stranger")
    seen = Recorder()
    loop = Loop(ledger, [seen], clock)
    loop.settle()
    seen.looked.clear()
    apply(ledger, "thing", owner=f"{KIND}/owner", size=9)
    loop.settle()
    assert sorted(seen.looked) == ["owner", "referrer", "thing"]


def test_a_finished_run_wakes_what_it_is_a_run_of(ledger: SqlLedger, clock: FakeClock) -> None:
    apply(ledger, "a")
    seen = Recorder()
    loop = Loop(ledger, [seen], clock)
    loop.settle()
    seen.looked.clear()
    with ledger.write("user/a") as tx:
        tx.runs.finish(tx.runs.start("training", "x", of=f"{KIND}/a").id, "succeeded")
    loop.settle()
    assert seen.looked == ["a"]


def test_a_new_version_wakes_its_resource_and_who_refers_to_it(ledger: SqlLedger, clock: FakeClock) -> None:
    apply(ledger, "a")
    apply(ledger, "b", uses="a@champion")
    seen = Recorder()
    loop = Loop(ledger, [seen], clock)
    loop.settle()
    seen.looked.clear()
    with ledger.write("user/a") as tx:
        tx.versions.publish(KIND, "a", "f" * 64)
    loop.settle()
    assert sorted(seen.looked) == ["a", "b"]


def test_a_deleted_thing_is_looked_at_once_more_so_that_its_controller_can_clean_up(
    ledger: SqlLedger, clock: FakeClock
) -> None:
    apply(ledger, "a")
    seen = Recorder()
    loop = Loop(ledger, [seen], clock)
    loop.settle()
    with ledger.write("user/a") as tx:
        tx.resources.delete(KIND, "a")
    loop.settle()
    assert seen.looked == ["a", "a"]


def test_a_loop_that_writes_an_equal_value_settles(ledger: SqlLedger, clock: FakeClock) -> None:
    apply(ledger, "a")

    def act(name: str, world: World) -> None:
        with world.write() as tx:
            tx.resources.set_status(KIND, name, {"seen": True}, action="seen")

    seen = Recorder(act)
    assert Loop(ledger, [seen], clock).settle(limit=50) == 2
    with ledger.read() as tx:
        assert tx.journal.find(action="seen")[0].actor == f"controller/{KIND}"


def test_retry_is_a_timer(ledger: SqlLedger, clock: FakeClock) -> None:
    apply(ledger, "a")
    seen = Recorder(lambda _name, _world: Retry(30))
    loop = Loop(ledger, [seen], clock)
    loop.settle()
    clock.advance(29)
    assert loop.settle() == 0
    clock.advance(1)
    assert loop.settle() == 1


def test_blocked_shows_in_the_status_and_goes_when_it_is_over(ledger: SqlLedger, clock: FakeClock) -> None:
    apply(ledger, "a")
    seen = Recorder(lambda _name, _world: Blocked("approval needed"))
    loop = Loop(ledger, [seen], clock)
    loop.settle()
    with ledger.read() as tx:
        assert tx.resources.get(KIND, "a").status == {"blocked": "approval needed"}
    seen.act = lambda _name, _world: None
    apply(ledger, "a", size=3)
    loop.settle()
    with ledger.read() as tx:
        assert tx.resources.get(KIND, "a").status == {}
        assert tx.journal.find(kind=KIND, limit=1)[0].action == "unblocked"


def test_a_failure_is_shown_retried_with_back_off_and_forgotten(ledger: SqlLedger, clock: FakeClock) -> None:
    apply(ledger, "a")

    def fail(_name: str, _world: World) -> None:
        raise InvalidInput("the bundle is gone")

    seen = Recorder(fail)
    loop = Loop(ledger, [seen], clock)
    loop.settle(limit=5)
    with ledger.read() as tx:
        assert tx.resources.get(KIND, "a").status == {"error": "the bundle is gone"}
    before = len(seen.looked)
    seen.act = lambda _name, _world: None
    clock.advance(120)
    loop.settle()
    assert len(seen.looked) > before
    with ledger.read() as tx:
        assert tx.resources.get(KIND, "a").status == {}


def test_an_unforeseen_error_tells_nothing_of_its_insides(ledger: SqlLedger, clock: FakeClock) -> None:
    apply(ledger, "a")

    def fail(_name: str, _world: World) -> None:
        raise RuntimeError("password=hunter2")

    Loop(ledger, [Recorder(fail)], clock).settle(limit=3)
    with ledger.read() as tx:
        assert tx.resources.get(KIND, "a").status == {"error": "internal error (RuntimeError); see the log"}


def test_a_restart_between_any_two_writes_ends_in_the_same_state(ledger: SqlLedger, clock: FakeClock) -> None:
    """A controller of three steps, each its own transaction; the process 'dies' after each number of looks."""
    apply(ledger, "a")

    def act(name: str, world: World) -> Outcome:
        with world.read() as tx:
            done = tx.resources.get(KIND, name).status.get("done", 0)
        if done == 3:
            return None
        with world.write() as tx:
            tx.resources.set_status(KIND, name, {"done": done + 1}, action="stepped")
        return Retry(0)

    for looks in (1, 1, 1, 1, 10):
        clock.advance(60)  # the lease of the one that died runs out
        Loop(ledger, [Recorder(act)], clock).settle(limit=looks)
    with ledger.read() as tx:
        assert tx.resources.get(KIND, "a").status == {"done": 3}
        assert len(tx.journal.find(action="stepped")) == 3


def test_two_control_planes_never_act_at_once(ledger: SqlLedger, clock: FakeClock) -> None:
    apply(ledger, "a")
    first, second = Loop(ledger, [Recorder()], clock), Loop(ledger, [Recorder()], clock)
    first.settle()
    with pytest.raises(Unavailable, match="another control plane"):
        second.settle()
    clock.advance(60)
    second.settle()  # the first has not renewed its lease: the second takes over
    with pytest.raises(Unavailable, match="taken over"), ledger.write("late", fence=first.lease.fence) as tx:
        tx.journal.note("late", "x/y")


def test_in_threads_it_follows_what_other_processes_write_and_stops(tmp_path: Path) -> None:
    opened = open_ledger(tmp_path)
    done = threading.Event()

    def act(name: str, _world: World) -> None:
        if name == "from-outside":
            done.set()

    loop = Loop(opened, [Recorder(act)])
    loop.start()
    code = (
        "import sys, flyball.testing.ledger as t\nfrom pathlib import Path\n"
        "from flyball.ledger.sql import open_ledger\nledger = open_ledger(Path(sys.argv[1]))\n"
        "with ledger.write('user/b') as tx: tx.resources.apply(t.KIND, 'from-outside', {})"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    assert done.wait(30)
    loop.stop()
    assert not any(t.name.startswith("control-") and t.is_alive() for t in loop._threads)
    opened.close()


def test_the_lease_of_a_process_that_died_is_taken_over_at_once(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom flyball.ledger.sql import open_ledger\n"
        "from flyball.control.lease import Lease\n"
        "lease = Lease(open_ledger(Path(sys.argv[1])), ttl_s=3600)\nassert lease.renew()\n"
        "print('held', flush=True)\nsys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    opened = open_ledger(tmp_path)
    lease = Lease(opened)
    assert not lease.renew()
    holder.kill()
    holder.wait(30)
    assert lease.renew()
    opened.close()
