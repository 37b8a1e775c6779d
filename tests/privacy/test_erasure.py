"""Erasure: one person leaves every place of a home, nobody else loses anything, and a crash anywhere does no harm."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from flyball.data.masking import home_key
from flyball.errors import Corrupt, InvalidInput, NotFound, Unavailable
from flyball.features.offline import StoredView, merged_rows
from flyball.models import bundle
from flyball.pipelines.results import Stored, load
from flyball.platform import Platform
from flyball.privacy import requests
from flyball.privacy.certificates import verify
from flyball.privacy.suppression import suppression_of
from flyball.storage.streams.log import Reader
from flyball.tracking.predictions import PredictionBatch, PredictionLog, new_id
from tests.privacy.full_home import COLUMN, NOW, OTHER, PERSON, eraser, fill, habits, people, places_with

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("filled") / "home"
    platform = Platform.open(home)
    ids = fill(platform)
    platform.close()
    (home.parent / "ids.json").write_text(json.dumps(ids), encoding="utf-8")
    return home


@pytest.fixture
def platform(filled: Path, tmp_path: Path) -> Iterator[Platform]:
    shutil.copytree(filled, tmp_path / "home")
    opened = Platform.open(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def ids(filled: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads((filled.parent / "ids.json").read_text(encoding="utf-8"))
    return found


def test_after_an_erasure_no_file_of_the_home_holds_the_person(platform: Platform) -> None:
    assert len(places_with(platform.home)) > 10
    done = eraser(platform).erase(PERSON, [COLUMN])
    assert done.certificate["left"] == []
    assert places_with(platform.home) == []
    assert platform.verify_journal() > 0


def test_nobody_else_loses_a_row_and_versions_keep_their_numbers(platform: Platform, ids: dict[str, list[str]]) -> None:
    before = {str(v.ref): platform.tables.scan(v.digest).collect() for v in platform.versions("dataset", "people")}
    assert platform.traffic.count("open") == 4  # a copy in memory, from which the rows must go too
    made = {str(v.ref): (v.created_at, v.actor, v.run, v.event) for v in platform.versions("dataset", "people")}
    eraser(platform).erase(PERSON, [COLUMN])
    for version in platform.versions("dataset", "people"):
        left = platform.tables.scan(version.digest).collect()
        assert left.equals(before[str(version.ref)].filter(pl.col(COLUMN) != PERSON))
        assert version.metadata["rows"] == left.height
        assert made[str(version.ref)] == (version.created_at, version.actor, version.run, version.event)
    logged = pl.concat([platform.traffic.frame("open"), platform.traffic.frame("masked")], how="diagonal")
    assert sorted(logged["id"]) == sorted(ids["others"])
    assert logged["label"].to_list() == [1] * 3
    assert platform.online.get("habits@1", [PERSON, OTHER])[0] is None
    assert platform.online.get("habits@1", [PERSON, OTHER])[1] is not None
    assert platform.online.count("visits@1") == len({*people(18)[COLUMN], *people(3, 20)[COLUMN]}) - 1 + 1
    run = platform.runs(kind="step")[0]
    assert (run.params, run.error) == (
        {"depth": 3, "who": "for *********************"},
        "cannot reach *********************",
    )
    files = {kept.path: platform.blobs.get(kept.digest) for kept in platform.artifacts(run.id)}
    assert files["rows.csv"].count(b"\n") == 201
    assert pl.read_parquet(files["rows.parquet"]).equals(people(300).filter(pl.col(COLUMN) != PERSON))
    assert json.loads(files["answer.json"]) == [{"email": OTHER, "x": 2}]
    results = [Stored.from_dict(kept) for kept in run.result["outputs"]]
    assert load(results[0], platform.blobs).height == 200
    assert [stored.is_there(platform.blobs) for stored in results] == [True, True, False, False, True]


def test_a_stored_view_can_be_read_and_added_to_afterwards(platform: Platform) -> None:
    eraser(platform).erase(PERSON, [COLUMN])
    version = platform.version("feature/habits")
    stored = StoredView.from_dict(version.digest, version.metadata, version.number)
    rows = pl.concat(merged_rows(stored, platform.tables))
    wanted = habits.compute(platform.frame("people")).collect().sort("at")
    assert rows.select("email", "at", "doubled").sort("at").equals(wanted)
    assert stored.rows == wanted.height
    assert stored.source_table == platform.version("dataset/people").digest
    assert stored.source_rows == wanted.height


def test_the_model_that_learnt_from_the_person_is_named_and_still_loads(platform: Platform) -> None:
    done = eraser(platform).erase(PERSON, [COLUMN])
    assert done.certificate["models_that_learnt_from_it"] == ["model/m@1"]
    loaded = bundle.load(platform.blobs, platform.version("model/m@1").digest)
    assert loaded.bundle.manifest["example"]["email"] == [OTHER, "user2@example.org"]
    loaded.warm_up()


def test_the_data_plane_s_document_names_the_new_bundle_at_once(platform: Platform) -> None:
    snapshot = platform.home / "serving" / "snapshot.json"
    snapshot.parent.mkdir()
    old = platform.version("model/m@1").digest
    snapshot.write_text(json.dumps({"bundle": old}), encoding="utf-8")
    eraser(platform).erase(PERSON, [COLUMN])
    assert json.loads(snapshot.read_text(encoding="utf-8")) == {"bundle": platform.version("model/m@1").digest}
    assert platform.version("model/m@1").digest != old
    assert not platform.blobs.has(old)


def test_the_certificate_holds_nothing_personal_and_shows_when_it_was_changed(platform: Platform) -> None:
    done = eraser(platform).erase(PERSON, [COLUMN])
    assert done.version is not None
    text = platform.blobs.get(done.version.digest).decode()
    assert PERSON not in text and "quux" not in text
    shown = eraser(platform).show(done.version.name[:6])
    assert shown == json.loads(text)
    assert {v["version"] for v in shown["versions"]} >= {"dataset/people@1", "feature/habits@1", "quarantine/people@1"}
    assert platform.event(shown["journal"]["event"]).hash == shown["journal"]["hash"]
    with pytest.raises(Corrupt, match="signature does not hold"):
        verify({**shown, "complete": False}, home_key(platform.home))
    with pytest.raises(NotFound, match="no certificate begins"):
        eraser(platform).show("zz")
    for event in platform.events(limit=1000):
        assert "quux" not in str(event.detail)


def test_a_dry_run_counts_what_goes_and_changes_nothing(platform: Platform) -> None:
    digests = set(platform.blobs.digests())
    events = platform.last_event()
    counted = eraser(platform).erase(PERSON, [COLUMN], dry_run=True)
    assert (set(platform.blobs.digests()), platform.last_event()) == (digests, events)
    assert counted.version is None
    done = eraser(platform).erase(PERSON, [COLUMN])
    different = {"orphans", "journal", "metadata"}
    assert {k: v for k, v in counted.certificate["removed"].items() if k not in different} == {
        k: v for k, v in done.certificate["removed"].items() if k not in different
    }
    assert counted.certificate["removed"]["dataset"] == 4 + 6 + 7


def test_a_subject_that_is_nowhere_gets_a_certificate_of_zeros(platform: Platform) -> None:
    digests = {str(v.ref): v.digest for v in platform.versions("dataset", "people")}
    done = eraser(platform).erase("nobody@example.org", [COLUMN])
    assert (done.rows, done.certificate["versions"], done.is_complete) == (0, [], True)
    assert digests == {str(v.ref): v.digest for v in platform.versions("dataset", "people")}
    assert eraser(platform).erase("nobody@example.org", ["no_such_column"]).rows == 0


def test_blobs_that_nothing_refers_to_go_once_they_are_old_enough(platform: Platform) -> None:
    left_behind = platform.tables.write(people(30)).parts[0].digest  # as by a publisher that was killed
    young = eraser(platform, grace_s=3600).erase(PERSON, [COLUMN])
    assert not young.is_complete
    assert "younger than 3600 s" in young.certificate["left"][0]
    assert platform.blobs.has(left_behind)
    assert eraser(platform).erase(PERSON, [COLUMN]).certificate["removed"]["orphans"] == 1
    assert not platform.blobs.has(left_behind)
    assert places_with(platform.home) == []


def test_a_table_that_cannot_be_read_is_told_and_the_others_are_erased(platform: Platform) -> None:
    table = platform.tables.read(platform.version("quarantine/people@1").digest)
    platform.blobs.delete(table.parts[0].digest)
    platform.declare("dataset", "odd")
    odd = platform.publish("odd", people(5)).version
    path = platform.blobs.path(platform.tables.read(odd.digest).parts[0].digest)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-40])
    done = eraser(platform).erase(PERSON, [COLUMN])
    unread = [sentence.partition(" could not be read")[0] for sentence in done.certificate["left"][:2]]
    assert unread == ["dataset/odd@1", "quarantine/people@1"]
    assert done.certificate["left"][2].endswith(
        "holds the value as it is"
    )  # the last look finds it in the damaged file
    assert done.certificate["removed"]["dataset"] == 17


def test_erasing_again_finds_nothing(platform: Platform) -> None:
    eraser(platform).erase(PERSON, [COLUMN])
    again = eraser(platform).erase(PERSON, [COLUMN])
    assert (again.rows, again.certificate["versions"]) == (0, [])


_KILLED = """
import os, signal, sys
from flyball.ledger.sql.database import SqlLedger
from flyball.platform import Platform
from flyball.storage.streams import rewriting
from tests.privacy.full_home import COLUMN, PERSON, eraser
left = int(sys.argv[2])
def counting(function):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
SqlLedger.write = counting(SqlLedger.write)
rewriting._put = counting(rewriting._put)
os.pwrite = counting(os.pwrite)
platform = Platform.open(sys.argv[1])
eraser(platform).erase(PERSON, [COLUMN])
print("done")
"""


@pytest.mark.parametrize("writes", [2, 6, 12, 20, 27, 32])
def test_a_killed_erasure_is_carried_on_without_the_value_and_ends_as_if_nothing_had_happened(
    filled: Path, tmp_path: Path, writes: int
) -> None:
    home = tmp_path / "home"
    shutil.copytree(filled, home)
    command = [sys.executable, "-c", _KILLED, str(home), str(writes)]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    for path in (home / "erasures").iterdir():  # what the crash left says nothing of the person
        assert PERSON.encode() not in path.read_bytes()
    platform = Platform.open(home)
    for version in platform.versions("dataset", "people"):
        platform.tables.scan(version.digest).collect()
    Reader(home / "traffic" / "predictions").read()
    done = eraser(platform).resume()
    assert len(done) == 1
    assert done[0].certificate["left"] == []
    assert places_with(home) == []
    assert {v["version"] for v in done[0].certificate["versions"]} >= {
        "dataset/people@1",
        "dataset/people@3",
        "model/m@1",
    }
    assert platform.verify_journal() > 0
    assert eraser(platform).resume() == []
    assert eraser(platform).erase(PERSON, [COLUMN]).rows == 0
    platform.close()


def test_two_erasures_at_once_both_end_and_both_are_gone(platform: Platform) -> None:
    other = Platform.open(platform.home)
    failures: list[BaseException] = []

    def erase(mine: Platform, who: str) -> None:
        try:
            assert eraser(mine).erase(who, [COLUMN]).certificate["left"] == []
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=erase, args=pair) for pair in ((platform, PERSON), (other, OTHER))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    other.close()
    assert not failures
    assert places_with(platform.home) == []
    assert places_with(platform.home, OTHER) == []
    assert platform.frame("people@1").collect().height == 4


def test_a_second_erasure_says_so_when_it_has_waited_too_long(platform: Platform) -> None:
    with requests.alone(platform.home / "erasures", 0), pytest.raises(Unavailable, match="another erasure"):
        eraser(platform, wait_s=0.01).erase(PERSON, [COLUMN])


def test_predictions_that_are_appended_meanwhile_are_neither_lost_nor_spared(platform: Platform) -> None:
    log = PredictionLog(platform.home / "traffic", "busy", durability="os")
    stop, appended = threading.Event(), []

    def append() -> None:
        while not stop.is_set() and len(appended) < 20_000:
            prediction = new_id()
            inputs = {"email": [OTHER], "n": [len(appended)]}
            log.append_wait(PredictionBatch("open", 1, "champion", "m@1", NOW, [prediction], inputs, {"p": [1]}))
            appended.append(prediction)

    writer = threading.Thread(target=append)
    writer.start()
    try:
        done = eraser(platform).erase(PERSON, [COLUMN])
    finally:
        stop.set()
        writer.join(30)
        log.close()
    assert done.certificate["removed"]["predictions"] == 3
    platform.traffic.refresh()
    found = set(platform.traffic.frame("open")["id"])
    assert found >= set(appended)
    assert places_with(platform.home) == []


def test_a_whole_number_and_its_digits_are_one_subject_and_leading_zeros_another(tmp_path: Path) -> None:
    platform = Platform.open(tmp_path / "home")
    platform.declare("dataset", "numbers", subject="id")
    platform.declare("dataset", "texts", subject="id")
    platform.declare("dataset", "floats", subject="id")
    platform.publish("numbers", pl.DataFrame({"id": [1, 10, 2], "x": [1, 2, 3]}))
    platform.publish("texts", pl.DataFrame({"id": ["1", "01", "1.0", " 1", "１"], "x": range(5)}))
    platform.publish("floats", pl.DataFrame({"id": [1.0, 1.5, None], "x": range(3)}))
    done = eraser(platform).erase("1", ["id"])
    assert done.certificate["removed"]["dataset"] == 3
    assert platform.frame("numbers").collect()["id"].to_list() == [10, 2]
    assert platform.frame("texts").collect()["id"].to_list() == ["01", "1.0", " 1", "１"]
    assert platform.frame("floats").collect()["id"].to_list() == [1.5, None]
    assert eraser(platform).erase("01", ["id"]).certificate["removed"]["dataset"] == 1
    composed, decomposed = "\u00e9", "e\u0301"
    platform.publish("texts", pl.DataFrame({"id": [composed, decomposed], "x": [1, 2]}))
    assert eraser(platform).erase(composed, ["id"]).certificate["removed"]["dataset"] == 1
    platform.close()


def test_a_version_of_nobody_else_keeps_its_columns(tmp_path: Path) -> None:
    platform = Platform.open(tmp_path / "home")
    platform.declare("dataset", "people", subject=COLUMN)
    platform.publish("people", people(3).filter(pl.col(COLUMN) == PERSON))
    eraser(platform).erase(PERSON, [COLUMN])
    left = platform.frame("people").collect()
    assert (left.height, left.schema) == (0, people(1).schema)
    platform.close()


@pytest.mark.parametrize(
    ("value", "columns", "message"),
    [
        ("", ["email"], "the subject is empty"),
        (True, ["email"], "a subject is a bool"),
        ("x", [], "no column says where"),
    ],
)
def test_a_silly_subject_is_refused(platform: Platform, value: str, columns: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        eraser(platform).erase(value, columns)


def test_an_erased_subject_does_not_come_back_until_it_is_allowed(platform: Platform) -> None:
    eraser(platform).erase(PERSON, [COLUMN])
    eraser(platform).erase(17, ["age"])
    suppression = suppression_of(platform.ledger, home_key(platform.home))
    assert suppression is not None
    again = people(9).with_columns(age=pl.Series([17, 17, *range(7)]))
    assert suppression.count(again.lazy()) == 4
    kept = suppression.keep(again.lazy()).collect()
    assert kept.equals(again.filter((pl.col(COLUMN) != PERSON) & (pl.col("age") != 17)))
    assert eraser(platform).allow_again(PERSON, [COLUMN]) == 1
    lifted = suppression_of(platform.ledger, home_key(platform.home))
    assert lifted is not None
    assert lifted.count(again.lazy()) == 2
    with pytest.raises(NotFound, match="nothing to allow"):
        eraser(platform).allow_again(PERSON, [COLUMN])
