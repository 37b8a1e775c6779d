"""Bad input and real faults, as a user of the Python API meets them.

Each ends in one clear sentence or in a quarantine, never in half a version: the last version reads as before.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import flyball as fb
from flyball.api import _session
from tests.services import postgres_server, web_server

GOOD = {"id": [1, 2, 3], "delay": [5.0, -2.5, 0.0]}


@pytest.fixture
def flights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fb.Dataset]:
    """A dataset with one version, in a home of its own; whatever was tried, this version must be as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLYBALL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLYBALL_SOURCES_ATTEMPTS", "2")
    fb.open_home(tmp_path / "home")
    made = fb.dataset("flights", key=["id"])
    made.publish(GOOD)
    yield made
    _session.close()


def refused(flights: fb.Dataset, *words: str, **publish: Any) -> str:
    """Publish what must not be published; return the sentence, having looked that nothing has changed."""
    before = [(v.ref, v.digest) for v in flights.versions()]
    with pytest.raises(fb.FlyballError) as caught:
        flights.publish(**publish)
    sentence = str(caught.value)
    assert sentence and "\n" not in sentence and len(sentence) < 700, sentence
    for word in words:
        assert word in sentence, sentence
    assert [(v.ref, v.digest) for v in flights.versions()] == before
    assert flights.frame(1).collect().to_dict(as_series=False) == GOOD
    whole(flights)
    return sentence


def whole(flights: fb.Dataset) -> None:
    """Every blob that is there is what its name says, and the journal's hashes hold."""
    home = fb.home()
    for digest in home.blobs.digests():
        home.blobs.get(digest)
    assert home.verify_journal() > 0
    for version in flights.versions():
        assert flights.frame(version.number).collect().height == version.metadata["rows"]


def write(name: str, content: str | bytes, encoding: str = "utf-8") -> str:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return name


# -- files that are not what they seem


def test_a_file_of_two_encodings_says_at_which_line(flights: fb.Dataset) -> None:
    path = write("two.csv", "id,name\n1,Zürich\n".encode() + "2,Köln\n".encode("latin-1"))
    sentence = refused(flights, "two.csv", source=path)
    assert "encoding" in sentence or "UTF-8" in sentence
    assert "line 3" in sentence or "byte" in sentence


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_column(flights: fb.Dataset, encoding: str) -> None:
    version = fb.dataset("cities").publish(write("bom.csv", "id,name\n1,Zürich\n", encoding))
    assert fb.dataset("cities").frame(version.number).collect().to_dicts() == [{"id": 1, "name": "Zürich"}]
    whole(flights)


def test_ragged_lines_are_told_by_number(flights: fb.Dataset) -> None:
    sentence = refused(flights, "ragged.csv", "line 3", source=write("ragged.csv", "id,delay\n1,5\n2,3,9\n4,1\n"))
    assert "3" in sentence and "2" in sentence
    refused(flights, "short.csv", "line 3", source=write("short.csv", "id,delay\n1,5\n2\n4,1\n"))


def test_decimal_commas_are_noticed_and_read_when_they_are_named(flights: fb.Dataset) -> None:
    path = write("comma.csv", "id;delay\n1;5,25\n2;-3,5\n")
    sentence = refused(flights, "comma", source=path)
    assert "decimal" in sentence
    own = fb.dataset("own", source={"files": path, "options": {"decimal": ",", "separator": ";"}})
    own.publish()
    assert own.frame().collect()["delay"].to_list() == [5.25, -3.5]


def test_numbers_too_large_for_their_column_are_never_cut(flights: fb.Dataset) -> None:
    huge = 2**70
    made = fb.dataset("huge")
    version = made.publish(write("huge.csv", f"id\n1\n{huge}\n"))
    read = made.frame(version.number).collect()["id"]
    assert [int(value) for value in read.cast(pl.String).to_list()] == [1, huge], "kept exactly, whatever its type"
    refused(flights, "schema drift", source=write("huge.csv", f"id,delay\n{huge},1.0\n"), mode="append")
    refused(flights, source=[{"id": huge, "delay": 1.0}], mode="append")
    refused(flights, source=[{"id": 2**200, "delay": 1.0}])


def test_times_without_a_zone_and_in_two_zones_are_not_guessed(flights: fb.Dataset) -> None:
    refused(
        flights, "zone", source=write("mixed.csv", "id,at\n1,2026-03-01T10:00:00Z\n2,2026-03-01T10:00:00\n"),
    )  # fmt: skip
    two = write("two.csv", "id,at\n1,2026-03-01T10:00:00+01:00\n2,2026-03-01T10:00:00+05:00\n")
    times = fb.dataset("times", event_time="at")
    times.publish(two)
    found = times.frame().collect()["at"]
    assert found.dtype == pl.Datetime("us", "UTC")
    assert [t.hour for t in found] == [9, 5], "of one instant each, whatever the zone it was written in"
    zoned = [{"id": 1, "at": datetime(2026, 3, 1, 10, tzinfo=timezone(timedelta(hours=1)))}]
    naive = [{"id": 2, "at": datetime(2026, 3, 1, 10)}]
    fb.dataset("zoned").publish(zoned)
    with pytest.raises(fb.FlyballError, match=r"schema drift|zone"):
        fb.dataset("zoned").publish(naive, mode="append")
    assert fb.dataset("zoned").frame().collect().height == 1
    with pytest.raises(fb.FlyballError, match=r"."):
        fb.dataset("zoned").publish([*zoned, *naive])


def test_two_columns_of_one_name_are_refused_from_wherever(flights: fb.Dataset) -> None:
    refused(flights, "delay", source=write("double.csv", "id,delay,delay\n1,5,6\n"))
    import pandas as pd
    import pyarrow as pa

    refused(flights, "delay", source=pd.DataFrame([[1, 2.0, 3.0]], columns=["id", "delay", "delay"]))
    table = pa.table([pa.array([1]), pa.array([2.0]), pa.array([3.0])], names=["id", "delay", "delay"])
    refused(flights, "delay", source=table)


@pytest.mark.parametrize(
    "content", ["", "\n", "id,delay\n", "id,delay\n\n\n", b"PAR1", b"\x00\x01\x02", "{", "<html><body>not found</body>"]
)
@pytest.mark.parametrize("ending", ["csv", "parquet", "ndjson", "json"])
def test_a_file_with_nothing_or_nonsense_in_it_publishes_nothing(
    flights: fb.Dataset, content: str | bytes, ending: str
) -> None:
    refused(flights, source=write(f"odd.{ending}", content), mode="append")


def test_an_empty_batch_is_no_version(flights: fb.Dataset) -> None:
    no_rows = pl.DataFrame(GOOD).clear()
    nothing: tuple[Any, ...] = ([], {}, {"id": []}, pl.DataFrame(), no_rows)
    for empty in nothing:
        for mode in ("overwrite", "append", "upsert"):
            refused(flights, source=empty, mode=mode)
    refused(flights, "no rows", source="select * from flights where id > 99")


def test_nonsense_instead_of_rows_is_refused(flights: fb.Dataset) -> None:
    ragged = {"id": [1, 2], "delay": [1.0]}
    nested = {"id": {"a": object()}}
    for nonsense in (7, object(), b"bytes", ragged, [1, 2], [{"id": 1}, 7], nested, np.zeros((2, 2, 2))):
        refused(flights, source=nonsense)


# -- schema drift


def test_files_of_a_glob_that_do_not_fit_together_are_named(flights: fb.Dataset) -> None:
    Path("in").mkdir()
    write("in/1.csv", "id,delay\n4,1.0\n")
    write("in/2.csv", "id,dealy\n5,1.0\n")
    refused(flights, "2.csv", source="in/*.csv")
    write("in/2.csv", "id,delay\n5,late\n")  # types are found over all files, so this is a column of texts
    refused(flights, "schema drift", '"delay" is String, not Float64', source="in/*.csv", mode="append")


def test_a_column_that_changes_its_type_in_the_middle_of_a_stream_is_schema_drift(flights: fb.Dataset) -> None:
    lines = [f'{{"id": {i}, "delay": {float(i)}}}' for i in range(20_000)]
    lines[15_000] = '{"id": 15000, "delay": "late"}'
    sentence = refused(flights, source=write("drift.ndjson", "\n".join(lines)), mode="append")
    assert "delay" in sentence or "15001" in sentence.replace(",", "")
    refused(flights, '"gate" is new', source={"id": [9], "delay": [1.0], "gate": ["A"]}, mode="append")
    refused(flights, '"delay" is missing', source={"id": [9]}, mode="upsert")


# -- sources that fail


def test_a_server_that_hangs_up_half_way_publishes_nothing(flights: fb.Dataset) -> None:
    body = b"id,delay\n" + b"".join(b"%d,1.0\n" % i for i in range(50_000))

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2])
        request.wfile.flush()
        request.connection.close()

    with web_server(answer) as address:
        fb.dataset("flights", source={"url": f"{address}/flights.csv", "options": {"timeout_s": 5}})
        refused(flights, mode="overwrite")
    refused(flights, "does not answer", mode="overwrite")


def test_a_database_that_dies_in_the_middle_of_a_copy_publishes_nothing(
    flights: fb.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import psycopg

    with postgres_server(tmp_path_factory.mktemp("postgres")) as address:
        url = f"{address}/postgres"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create table departures (id bigint, delay float8)")
            connection.execute("insert into departures select i, i from generate_series(1, 1000) i")
        fb.dataset("flights", source={"sql": url, "table": "departures"})
        # A view whose rows stop coming, as a server does that dies; then it is killed while they are copied.
        with psycopg.connect(url, autocommit=True) as connection:
            stuck = "case when i = 600 then (select 0.0 from pg_sleep(600)) else i end"
            connection.execute(
                f"create view dying as select i as id, ({stuck})::float8 as delay from generate_series(1, 1000) i"
            )
        fb.dataset("flights", source={"sql": url, "table": "dying"})
        killer = subprocess.Popen([sys.executable, "-c", _KILL_BACKEND, url])
        refused(flights, mode="overwrite")
        assert killer.wait(60) == 0
        fb.dataset("flights", source={"sql": url, "table": "departures"})
        assert flights.publish(mode="overwrite").metadata["rows"] == 1000
    with pytest.raises(fb.FlyballError, match=r"127\.0\.0\.1"):
        flights.publish(mode="overwrite")
    assert flights.latest().metadata["rows"] == 1000


_KILL_BACKEND = """
import sys, time, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    end = time.monotonic() + 50
    while time.monotonic() < end:
        waiting = "from pg_stat_activity where application_name = 'flyball' and wait_event = 'PgSleep'"
        if connection.execute("select pg_terminate_backend(pid) " + waiting).fetchall():
            sys.exit(0)
        time.sleep(0.02)
sys.exit(1)
"""


def test_a_file_that_was_cut_off_publishes_nothing(flights: fb.Dataset) -> None:
    pl.DataFrame({"id": range(200_000), "delay": np.random.default_rng(0).random(200_000)}).write_parquet("cut.parquet")
    content = Path("cut.parquet").read_bytes()
    for cut in (content[: len(content) // 2], content[:500_000] + bytes(500_000) + content[1_000_000:], content[:-9]):
        refused(flights, "cut.parquet", source=write("cut.parquet", cut))


def test_a_contract_that_names_a_dataset_which_is_not_there_says_so_and_publishes_nothing(flights: fb.Dataset) -> None:
    properties = [
        {"name": "id", "logicalType": "integer", "relationships": [{"to": "airlines.code"}]},
        {"name": "delay", "logicalType": "number"},
    ]
    contract = {
        "apiVersion": "v3.1.0", "kind": "DataContract", "id": "flights", "version": "1.0.0", "status": "active",
        "schema": [{"name": "flights", "properties": properties}],
    }  # fmt: skip
    fb.dataset("flights", contract=contract)
    refused(flights, "airlines", source={"id": [4], "delay": [1.0]})
    fb.dataset("airlines").publish({"codes": [4]})
    refused(flights, "airlines", "code", source={"id": [4], "delay": [1.0]})
    fb.dataset("airlines").publish({"code": [4]})
    assert flights.publish({"id": [4], "delay": [1.0]}).number == 2
    with pytest.raises(fb.ContractBroken, match="quarantine/flights@1"):
        flights.publish({"id": [5], "delay": [1.0]})
    with pytest.raises(fb.FlyballError, match=r"contracts/none\.yaml"):
        fb.dataset("flights", contract="contracts/none.yaml")
    assert flights.latest().number == 2


# -- processes and disks that fail


def child(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


_ENDLESS = """
import sys, polars as pl, flyball as fb
flights = fb.dataset("flights")
print("begins", flush=True)
rows = 200_000
frame = pl.LazyFrame({"id": range(rows)}).with_columns(delay=(pl.col("id") * 0.7919).sin())
for mode in sys.argv[1:]:
    flights.publish(pl.concat([frame.with_columns(pl.col("id") + rows * i) for i in range(12)]), mode)
print("ended", flush=True)
"""


@pytest.mark.parametrize("mode", ["overwrite", "append", "upsert"])
def test_kill_9_while_publishing_leaves_the_last_version_and_the_next_publication_works(
    flights: fb.Dataset, tmp_path: Path, mode: str
) -> None:
    publisher = child(_ENDLESS, mode)
    assert publisher.stdout is not None
    publisher.stdout.readline()
    blobs = tmp_path / "home" / "blobs"
    known = set(blobs.rglob("*"))
    wait_for(lambda: publisher.poll() is not None or bool(set(blobs.rglob("*")) - known))
    publisher.send_signal(signal.SIGKILL)
    out, error = publisher.communicate(timeout=30)
    assert publisher.returncode == -signal.SIGKILL, f"it ended before it could be killed: {out}{error}"
    assert [v.number for v in flights.versions()] == [1]
    assert flights.frame().collect().to_dict(as_series=False) == GOOD
    whole(flights)
    after = flights.publish({"id": [4], "delay": [1.0]}, "append")
    assert (after.number, after.metadata["rows"]) == (2, 4)


_LIMITED = """
import resource, sys, numpy as np, polars as pl, flyball as fb
flights = fb.dataset("flights")
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
frame = pl.DataFrame({"id": range(900_000), "delay": np.random.default_rng(0).random(900_000)})
for mode in ("overwrite", "append", "upsert"):
    try:
        flights.publish(frame, mode)
    except fb.FlyballError as error:
        print(type(error).__name__, error)
"""


def test_a_disk_that_takes_no_more_is_said_and_nothing_is_left_behind(flights: fb.Dataset, tmp_path: Path) -> None:
    # A limit on the size of files stands for a disk that is full: both come as an error in the middle of a write.
    out, error = child(_LIMITED).communicate(timeout=120)
    told = out.splitlines()
    assert len(told) == 3, out + error
    assert all(line.startswith("Unavailable ") and "full" in line for line in told), out
    assert [v.number for v in flights.versions()] == [1]
    whole(flights)
    left = [p for p in (tmp_path / "home").rglob("*") if p.is_file() and p.stat().st_size > 1_000_000]
    assert not left, "what was half written is gone"


_APPENDING = """
import sys, flyball as fb
flights = fb.dataset("flights")
first = int(sys.argv[1])
for at in range(first, first + 15):
    flights.publish({"id": [at], "delay": [0.5]}, "append")
"""


def test_two_who_publish_at_once_lose_nothing(flights: fb.Dataset) -> None:
    both = [child(_APPENDING, "100"), child(_APPENDING, "200")]
    for publisher in both:
        _, error = publisher.communicate(timeout=120)
        assert publisher.returncode == 0, error
    found = flights.frame().collect()["id"].to_list()
    assert sorted(found) == [1, 2, 3, *range(100, 115), *range(200, 215)]
    assert [v.number for v in flights.versions()] == list(range(31, 0, -1))
    whole(flights)


def wait_for(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)
