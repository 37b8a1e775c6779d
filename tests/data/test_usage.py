"""Who used what: reads told in memory and in the log, rolled up by day, and what lineage knows."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flyball.data.usage import Usage, UsageSettings
from flyball.errors import Corrupt
from flyball.ledger.refs import ref
from flyball.platform import Platform
from flyball.testing.clock import FakeClock

FLIGHTS = ref("dataset/flights@12")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 1, 5, 12, tzinfo=UTC))


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home")
    yield opened
    opened.close()


def test_reads_are_counted_by_who_what_for_and_which_version(
    tmp_path: Path, clock: FakeClock, platform: Platform
) -> None:
    usage = Usage(tmp_path / "usage", clock=clock)
    for _ in range(5):
        usage.record("user/alice", FLIGHTS, "training", ["a", "b"])
        clock.advance(10)
    usage.record("user/alice", FLIGHTS, "training", ["c"])
    usage.record("user/bob", "dataset/flights@11")
    usage.record("user/bob", "dataset/flights-old@1")
    (alice,) = usage.of(FLIGHTS, platform.ledger)
    assert (alice.who, alice.how, alice.times, alice.columns) == (
        "user/alice", "read for training", 6, ("a", "b", "c"),
    )  # fmt: skip
    assert alice.last - alice.first == timedelta(seconds=50)
    assert {(u.who, u.of) for u in usage.of(ref("dataset/flights"), platform.ledger)} == {
        ("user/alice", "dataset/flights@12"), ("user/bob", "dataset/flights@11"),
    }  # fmt: skip
    assert alice.to_dict()["first"] == "2026-01-05T12:00:00.000000Z"
    usage.close()


def test_repeats_within_a_minute_make_one_row(tmp_path: Path, clock: FakeClock, platform: Platform) -> None:
    usage = Usage(tmp_path / "usage", clock=clock)
    for _ in range(10_000):
        usage.record("user/alice", FLIGHTS)
    usage.close()
    assert sum(p.stat().st_size for p in (tmp_path / "usage").glob("*.seg")) < 500
    (use,) = Usage(tmp_path / "usage", clock=clock).of(FLIGHTS, platform.ledger)
    assert use.times == 10_000


def test_the_first_read_is_known_to_others_at_once_and_repeats_after_a_minute(
    tmp_path: Path, clock: FakeClock, platform: Platform
) -> None:
    usage, other = (Usage(tmp_path / "usage", clock=clock) for _ in range(2))
    usage.record("user/alice", FLIGHTS)
    usage._settle()
    assert [u.times for u in other.of(FLIGHTS, platform.ledger)] == [1]
    usage.record("user/alice", FLIGHTS)
    clock.advance(61)
    usage.record("user/bob", FLIGHTS)  # whoever comes next tells what is due
    usage._settle()
    assert {u.who: u.times for u in other.of(FLIGHTS, platform.ledger)} == {"user/alice": 2, "user/bob": 1}


def test_a_read_never_fails_because_its_note_cannot_be_written(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "usage").write_text("a file where the folder should be")
    usage = Usage(tmp_path / "usage", clock=clock)
    usage.record("user/alice", FLIGHTS)
    usage.record("user/alice", FLIGHTS, columns=object())  # type: ignore[arg-type]
    usage.close()


def test_threads_at_once_lose_no_read(tmp_path: Path, clock: FakeClock, platform: Platform) -> None:
    usage = Usage(tmp_path / "usage", clock=clock)

    def read(number: int) -> None:
        for _ in range(500):
            usage.record(f"user/{number % 2}", FLIGHTS)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {u.who: u.times for u in usage.of(FLIGHTS, platform.ledger)} == {"user/0": 1000, "user/1": 1000}


def test_days_gone_by_are_rolled_up_and_nothing_is_counted_twice(
    tmp_path: Path, clock: FakeClock, platform: Platform
) -> None:
    folder = tmp_path / "usage"
    usage = Usage(folder, clock=clock)
    for _day in range(5):
        usage.record("user/alice", FLIGHTS, columns=["a"])
        usage.record("user/alice", FLIGHTS)
        clock.advance(86_400)
    usage.flush()
    usage._settle()
    segments = {p.name: p.read_bytes() for p in folder.glob("*.seg")}
    assert usage.roll_up() == 4
    assert sorted(p.name for p in (folder / "rolled").iterdir()) == [f"2026010{d}.json" for d in (5, 6, 7, 8)]
    (use,) = usage.of(FLIGHTS, platform.ledger)
    assert (use.times, use.first.day, use.last.day) == (10, 5, 9)
    # A crash after the day's file was written and before the segments were removed:
    for name, content in segments.items():
        (folder / name).write_bytes(content)
    (use,) = usage.of(FLIGHTS, platform.ledger)
    assert use.times == 10
    assert usage.roll_up() == 0
    assert [u.times for u in usage.of(FLIGHTS, platform.ledger)] == [10]
    assert len(list(folder.glob("*.seg"))) < len(segments)
    clock.advance(500 * 86_400)
    usage.roll_up()
    assert usage.of(FLIGHTS, platform.ledger) == []


def test_a_segment_of_a_late_process_joins_its_day(tmp_path: Path, clock: FakeClock, platform: Platform) -> None:
    usage = Usage(tmp_path / "usage", clock=clock)
    late = Usage(tmp_path / "usage", clock=FakeClock(clock.now()))
    usage.record("user/alice", FLIGHTS)
    usage.flush()
    clock.advance(5 * 86_400)
    usage.roll_up()
    late.record("user/alice", FLIGHTS)
    late.close()
    usage.roll_up()
    assert [u.times for u in usage.of(FLIGHTS, platform.ledger)] == [2]


def test_a_damaged_day_is_an_error_that_names_the_file(tmp_path: Path, clock: FakeClock, platform: Platform) -> None:
    usage = Usage(tmp_path / "usage", clock=clock)
    (tmp_path / "usage" / "rolled").mkdir(parents=True)
    (tmp_path / "usage" / "rolled" / "20260101.json").write_text("{not json")
    with pytest.raises(Corrupt, match=r"20260101\.json cannot be read"):
        usage.of(FLIGHTS, platform.ledger)


def test_a_fork_counts_for_itself(tmp_path: Path, platform: Platform) -> None:
    code = f"""
import os
from pathlib import Path
from flyball.data.usage import Usage
usage = Usage(Path({str(tmp_path / "usage")!r}))
usage.record("user/parent", "dataset/flights@12")
child = os.fork()
usage.record("user/child" if child == 0 else "user/parent", "dataset/flights@12")
usage.close()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60, env=dict(os.environ))
    uses = Usage(tmp_path / "usage", UsageSettings()).of(FLIGHTS, platform.ledger)
    assert {u.who: u.times for u in uses} == {"user/parent": 2, "user/child": 1}


def test_runs_and_models_are_known_from_lineage(tmp_path: Path, platform: Platform) -> None:
    with platform.ledger.write("user/a") as tx:
        version = tx.versions.publish("dataset", "flights", "a" * 64)
        run = tx.runs.start("training", "late")
        tx.lineage.link(version.ref, run.ref, "trained on")
        tx.versions.publish("model", "late", "b" * 64, run=run.id, made_from=[(version.ref, "trained on")])
        tx.versions.publish("model", "other", "c" * 64, run=run.id)
        tx.versions.publish("dataset", "joined", "d" * 64, made_from=[(version.ref, "joined")])
        tx.versions.publish("model", "far", "e" * 64, made_from=[(ref("dataset/joined@1"), "trained on")])
    usage = Usage(tmp_path / "usage")
    for target in ("dataset/flights@1", "dataset/flights"):
        assert {(u.who, u.how) for u in usage.of(ref(target), platform.ledger)} == {
            (str(run.ref), "trained on"), ("model/late@1", "trained on"), ("model/other@1", "made by"),
            ("dataset/joined@1", "joined"),
        }  # fmt: skip
