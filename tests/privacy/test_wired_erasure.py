"""Erasure in a home that people made by the public API: it ends as a home that never had the person."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import flyball as fb
from flyball.cli import main
from flyball.data.files import read_file
from flyball.data.masking import home_key
from flyball.data.usage import Usage
from flyball.ledger.refs import ref
from flyball.platform import Platform
from flyball.privacy.certificates import verify
from flyball.testing.clock import FakeClock
from flyball.wire.openlineage.sending import Exporter, FileReceiver
from tests.privacy.full_home import COLUMN, OTHER, PERSON, eraser
from tests.privacy.wired_home import NAMED, START, build, holding, rows, spending
from tests.services import redis_server

ROOT = Path(__file__).resolve().parents[2]
TABLES = ("dataset", "quarantine", "labels")


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Platform]]:
    """Give the home with the person, closed, and the one without, open."""
    folder = tmp_path_factory.mktemp("wired")
    build(folder / "with" / "home").close()
    without = build(folder / "without" / "home", person=False)
    yield folder / "with" / "home", without
    without.close()


@pytest.fixture
def platform(homes: tuple[Path, Platform], tmp_path: Path) -> Iterator[Platform]:
    shutil.copytree(homes[0], tmp_path / "home")
    opened = Platform.open(tmp_path / "home")
    yield opened
    opened.close()


def test_no_file_holds_the_person_and_the_certificate_counts_where_they_were(platform: Platform) -> None:
    home = platform.home
    Exporter(platform.ledger, FileReceiver(home / "lineage" / "events.ndjson"), home).run_once()
    clock = FakeClock(START)
    usage = Usage(home / "usage", clock=clock)
    usage.record(f"user/{PERSON}", "dataset/people@1")
    usage.close()
    clock.advance(3 * 86_400)
    assert Usage(home / "usage", clock=clock).roll_up() == 1
    names = " ".join(holding(home))
    for place in ("blobs/", "lineage/", "usage/rolled/", "pushes/", "ledger.db:versions", "ledger.db:search_entries"):
        assert place in names, place
    assert "online" in names
    counted = eraser(platform).erase(PERSON, NAMED, dry_run=True).certificate["removed"]
    done = eraser(platform).erase(PERSON, NAMED)
    assert done.certificate["left"] == []
    assert holding(home) == []
    assert platform.search("quux").hits == ()
    removed = done.certificate["removed"]
    assert {place: count for place, count in counted.items() if place not in ("journal", "metadata", "orphans")} == {
        place: removed[place] for place in counted if place not in ("journal", "metadata", "orphans")
    }
    swept = {v["version"]: v["rows"] for v in done.certificate["versions"]}
    for kind in (*TABLES, "feature"):
        assert removed[kind] == sum(count for name, count in swept.items() if name.startswith(f"{kind}/"))
    assert swept["dataset/renamed_again@1"] == swept["dataset/copied@1"]  # found under another name
    assert (removed["packs of files"], removed["contracts"], removed["online"], removed["labels"]) == (1, 1, 1, 1)
    assert done.certificate["made_from_it"] == ["dataset/totals@1"]
    verify(done.certificate, home_key(home))
    assert platform.verify_journal() > 0


def test_the_home_is_then_as_if_the_person_had_never_been_there(
    platform: Platform, homes: tuple[Path, Platform]
) -> None:
    without = homes[1]
    eraser(platform).erase(PERSON, NAMED)
    for kind in TABLES:
        mine = {str(v.ref): v for v in platform.versions(kind) if v.name != "totals"}
        others = {str(v.ref): v for v in without.versions(kind) if v.name != "totals"}
        assert mine.keys() == others.keys()
        for name, version in mine.items():
            left, wanted = platform.frame(name).collect(), without.frame(name).collect()
            places = ["blob", "offset", "modified"] if "blob" in left.columns else []
            assert left.drop(places).equals(wanted.drop(places)), name
            assert version.metadata["rows"] == wanted.height
            if not places:
                found = [at.datasets.summary(version.name, version.number, kind) for at in (platform, without)]
                assert found[0] == found[1], name
    looked_up = [at.look_up([spending], {"email": [OTHER]}) for at in (platform, without)]
    assert looked_up[0]["spent"] == looked_up[1]["spent"] == [9.0]
    assert platform.look_up([spending], {"email": [PERSON]})["spent"] == [None]
    asked = rows(2_000).select("email", "id").with_columns(asked_at=START + timedelta(days=400))
    trained = [at.training_set(asked.lazy(), ["spending"]).collect() for at in (platform, without)]
    assert trained[0].equals(trained[1])
    assert trained[0].filter(email=PERSON)["spent"].null_count() == len(range(0, 2_000, 7))
    for before, after in ((1, 2), (2, 3), (3, 4)):
        one, two = (at.diff("people", before, after) for at in (platform, without))
        for count in ("added", "removed", "changed", "unchanged", "changed_by_column"):
            assert getattr(one, count) == getattr(two, count)
        assert one.distribution == pytest.approx(two.distribution, abs=1e-9)
    agreed = platform.agreement(spending)
    assert agreed.agree.value == 1.0


def test_the_files_of_others_are_still_there_and_the_person_s_bytes_are_not(platform: Platform) -> None:
    before = {v.number: platform.frame(str(v.ref)).collect() for v in platform.versions("dataset", "letters")}
    old = set(before[1]["blob"])
    eraser(platform).erase(PERSON, NAMED)
    for number, told in before.items():
        left = platform.frame(f"letters@{number}").collect()
        assert left["path"].to_list() == told.filter(pl.col("label") != PERSON)["path"].to_list()
        for row in left.iter_rows(named=True):
            assert f"of {row['label']}".encode() in read_file(row, platform.blobs)
    new = set(platform.frame("letters@1").collect()["blob"])
    assert not new & old
    assert not any(platform.blobs.has(blob) for blob in old)
    pack = platform.blobs.get(new.pop())
    assert PERSON.encode() not in pack
    assert len(pack) == platform.frame("letters@1").collect()["size_bytes"].sum()


_KILLED = """
import os, signal, sys
from flyball.ledger.sql.database import SqlLedger
from flyball.platform import Platform
from flyball.storage.blobs.files import FileBlobs
from tests.privacy.full_home import PERSON, eraser
from tests.privacy.wired_home import NAMED
left, count = int(sys.argv[2]), 0
def counting(function):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == left:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
SqlLedger.write = counting(SqlLedger.write)
FileBlobs.delete = counting(FileBlobs.delete)
os.pwrite = counting(os.pwrite)
platform = Platform.open(sys.argv[1])
eraser(platform).erase(PERSON, NAMED)
print(count)
"""


@pytest.mark.parametrize("share", [0.02, 0.2, 0.36, 0.6, 0.97])
def test_a_killed_erasure_ends_as_one_that_was_not(
    homes: tuple[Path, Platform], tmp_path: Path, share: float, writes: int
) -> None:
    home = tmp_path / "home"
    shutil.copytree(homes[0], home)
    killed = _erase_in_a_process(home, max(2, round(share * writes)))
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    platform = Platform.open(home)
    for row in platform.frame("letters@1").collect().iter_rows(named=True):
        read_file(row, platform.blobs)
    done = eraser(platform).resume()
    assert [one.certificate["left"] for one in done] == [[]]
    assert holding(home) == []
    for version in homes[1].versions("dataset"):
        if version.name not in ("totals", "letters"):
            found = [at.datasets.summary(version.name, version.number) for at in (platform, homes[1])]
            assert found[0] == found[1], version.ref
    for row in platform.frame("letters@2").collect().iter_rows(named=True):
        assert f"of {row['label']}".encode() in read_file(row, platform.blobs)
    assert eraser(platform).erase(PERSON, NAMED).rows == 0
    platform.close()


@pytest.fixture(scope="module")
def writes(homes: tuple[Path, Platform], tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many writes an erasure is that nobody kills."""
    home = tmp_path_factory.mktemp("counted") / "home"
    shutil.copytree(homes[0], home)
    return int(_erase_in_a_process(home, 0).stdout)


def _erase_in_a_process(home: Path, writes: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _KILLED, str(home), str(writes)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_person_does_not_come_back_by_any_door(platform: Platform) -> None:
    eraser(platform).erase(PERSON, NAMED)
    published = platform.publish("people", rows(700), mode="append").version
    assert published.metadata["suppressed_rows"] == 100
    broken = rows(14, 90_000).with_columns(age=-pl.col("age"))
    kept = platform.publish("people", pl.concat([rows(7, 91_000), broken]), mode="append").quarantined
    assert kept is not None
    platform.fix("people", kept.number, rows(14, 92_000))
    said = [{"email": PERSON, "label": "yes"}, {"email": "user3@example.org", "label": "no"}]
    assert platform.add_labels("trust", said, labeller="user/a").added == 1
    platform.publish("copied", "select email, age from people")
    platform.materialise(spending)
    for target in ("people", "copied", "labels/trust", "quarantine/people", "feature/spending"):
        assert PERSON not in platform.frame(target).collect()[COLUMN].to_list()
    assert [name for name in holding(platform.home) if not name.startswith(("usage", "ledger"))] == []


def test_a_real_redis_loses_the_person_and_keeps_the_others(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as url:
        home = tmp_path / "at" / "home"
        home.mkdir(parents=True)
        (home / "flyball.toml").write_text(f'[online]\nbackend = "redis"\nurl = "{url}"\n', encoding="utf-8")
        platform = build(home)
        import redis

        server: Any = redis.Redis.from_url(url)
        before = platform.online.count("spending@1")
        assert any(PERSON.encode() in b"".join(_everything(server, key)) for key in server.scan_iter())
        done = eraser(platform).erase(PERSON, NAMED)
        assert done.certificate["removed"]["online"] == 1
        assert platform.online.count("spending@1") == before - 1
        assert platform.online.get("spending@1", [PERSON]) == [None]
        assert platform.online.get("spending@1", [OTHER]) != [None]
        for key in server.scan_iter():
            assert PERSON.encode() not in key
            assert PERSON.encode() not in b"".join(_everything(server, key))
        platform.close()


def _everything(server: Any, key: bytes) -> list[bytes]:
    kind = server.type(key)
    if kind == b"hash":
        return [part for pair in server.hgetall(key).items() for part in pair]
    return [server.get(key)] if kind == b"string" else [server.dump(key)]


def test_the_command_line_erases_and_shows_the_certificate(
    homes: tuple[Path, Platform], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(homes[0], tmp_path / "home")
    monkeypatch.setenv("FLYBALL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLYBALL_PRIVACY_GRACE_S", "0")
    assert main(["erase", "--subject", f"email={PERSON}", "--column", "label", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["complete"] is True
    assert main(["erase", "--show", told["request"]]) == 0
    assert json.loads(capsys.readouterr().out) == told
    assert holding(tmp_path / "home") == []


@pytest.mark.parametrize("dtype", [pl.Categorical(), pl.Enum([PERSON, OTHER, "c@example.org"])])
def test_a_type_that_lists_its_values_does_not_keep_the_person(tmp_path: Path, dtype: pl.DataType) -> None:
    platform = Platform.open(tmp_path / "home")
    platform.declare("dataset", "people", subject=COLUMN)
    whose = pl.Series(COLUMN, [PERSON, OTHER, "c@example.org"] * 10, dtype=dtype)
    platform.publish("people", pl.DataFrame({COLUMN: whose, "x": range(30)}))
    platform.publish("people", pl.DataFrame({COLUMN: whose.filter(whose.cast(pl.String) != PERSON), "x": range(20)}))
    done = eraser(platform).erase(PERSON, [COLUMN])
    assert done.certificate["left"] == []
    assert holding(tmp_path / "home") == []
    assert platform.frame("people@1").collect()[COLUMN].cast(pl.String).to_list() == [OTHER, "c@example.org"] * 10
    assert platform.frame("people@2").collect().height == 20
    assert PERSON not in str(platform.frame("people@2").collect_schema())
    platform.close()


def test_what_people_declared_is_named_and_left_to_them(tmp_path: Path) -> None:
    platform = Platform.open(tmp_path / "home")
    platform.declare("dataset", "people", description=f"ask {PERSON}", subject=COLUMN)
    platform.publish("people", rows(14))
    done = eraser(platform).erase(PERSON, [COLUMN])
    assert "dataset/people says the value in its declaration; change it there and apply it" in done.certificate["left"]
    platform.declare("dataset", "people", description="ask the office", subject=COLUMN)
    assert eraser(platform).erase(PERSON, [COLUMN]).certificate["left"] == []
    assert holding(tmp_path / "home") == []
    platform.close()


def test_a_number_is_not_followed_through_sums_but_what_was_made_of_it_is_listed(tmp_path: Path) -> None:
    platform = Platform.open(tmp_path / "home")
    platform.declare("dataset", "orders", subject="buyer")
    platform.publish("orders", pl.DataFrame({"buyer": [42, 40, 2], "cents": [1, 2, 3]}))
    platform.declare("dataset", "sums")
    platform.publish("sums", "select sum(buyer) as total, cents from orders where buyer <> 42 group by cents")
    platform.publish("sums", "select 42 as total, count(*) as n from orders")
    done = eraser(platform).erase(42, ["buyer"])
    assert done.certificate["removed"]["dataset"] == 1
    assert platform.frame("sums").collect()["total"].to_list() == [42]
    assert done.certificate["made_from_it"] == ["dataset/sums@1", "dataset/sums@2"]
    platform.close()


def test_a_dropped_batch_of_files_and_expired_ones_leave_their_bytes_too(tmp_path: Path) -> None:
    clock = FakeClock(START)
    folder = tmp_path / "in"
    folder.mkdir()
    platform = Platform.open(tmp_path / "home", clock=clock)
    platform.declare("dataset", "notes", event_time="modified", retention="30d")
    for name, days in (("old", 10), ("new", 0)):
        path = folder / f"{name}.txt"
        path.write_text(f"written {name}", encoding="utf-8")
        moment = (START - timedelta(days=days)).timestamp()
        os.utime(path, (moment, moment))
    version = platform.publish("notes", fb.files(folder)).version
    pack = platform.frame("notes").collect()["blob"][0]
    clock.advance(timedelta(days=25).total_seconds())
    platform.loop().settle(10)
    left = platform.frame("notes").collect().row(0, named=True)
    assert (left["path"], read_file(left, platform.blobs)) == ("new.txt", b"written new")
    assert not platform.blobs.has(pack)
    assert platform.blobs.get(left["blob"]) == b"written new"
    assert platform.version(ref(str(version.ref))).number == 1
    platform.close()
