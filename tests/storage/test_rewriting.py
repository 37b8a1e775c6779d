"""Taking rows out of logs and tables: in place while writers live, only the parts concerned, whatever is killed."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import polars as pl
import pytest

from flyball.errors import InvalidInput, Unavailable
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.streams import rewriting
from flyball.storage.streams.log import Log, Reader
from flyball.storage.streams.rewriting import rewrite
from flyball.storage.tables.parquet import ParquetTables
from flyball.storage.tables.rewriting import Remover


def without_odd(payload: bytes) -> bytes | None:
    """Drop odd numbers, shorten those that divide by four."""
    number = json.loads(payload)["n"]
    if number % 2:
        return None
    return b'{"n":%d}' % number if number % 4 == 0 else payload


def payload(number: int) -> bytes:
    return b'{"n":%d,"note":"%s"}' % (number, b"x" * (number % 700))


def numbers(folder: Path, cursor: dict[str, int] | None = None) -> list[int]:
    found, reader = [], Reader(folder)
    while True:
        payloads, after = reader.read(cursor, limit_bytes=20_000)
        if not payloads:
            return found
        found += [json.loads(p)["n"] for p in payloads]
        cursor = after


def test_what_goes_is_gone_from_the_file_and_positions_hold(tmp_path: Path) -> None:
    log = Log(tmp_path / "s", "one", "os", segment_bytes=50_000)
    log.append_wait([payload(n) for n in range(500)])
    _, middle = Reader(tmp_path / "s").read(limit_bytes=60_000)
    seen = len(Reader(tmp_path / "s").read(limit_bytes=60_000)[0])
    sizes = {p.name: p.stat().st_size for p in (tmp_path / "s").glob("*.seg")}
    done = rewrite(tmp_path / "s", without_odd)
    assert (done.changed, done.gone, done.damaged) == (125, 250, 0)
    assert sizes == {p.name: p.stat().st_size for p in (tmp_path / "s").glob("*.seg")}
    assert numbers(tmp_path / "s") == list(range(0, 500, 2))
    assert numbers(tmp_path / "s", middle) == [n for n in range(seen, 500) if n % 2 == 0]
    data = b"".join(p.read_bytes() for p in (tmp_path / "s").iterdir())
    assert b'{"n":7,' not in data and b'{"n":2,' in data
    log.append_wait([payload(1000)])
    log.close()
    assert numbers(tmp_path / "s")[-1] == 1000
    assert rewrite(tmp_path / "s", without_odd)[:3] == (1, 0, 0)  # the new one; shortened ones stay as they are


def test_only_counting_changes_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path / "s", "one", "os")
    log.append_wait([payload(n) for n in range(10)])
    log.close()
    before = {p: p.read_bytes() for p in (tmp_path / "s").iterdir()}
    assert rewrite(tmp_path / "s", without_odd, dry_run=True)[:2] == (3, 5)
    assert before == {p: p.read_bytes() for p in (tmp_path / "s").iterdir()}
    assert rewrite(tmp_path / "none", without_odd)[:2] == (0, 0)


def test_a_log_of_which_all_is_gone_reads_as_empty_and_goes_on(tmp_path: Path) -> None:
    log = Log(tmp_path / "s", "one", "os")
    log.append_wait([payload(n) for n in range(2000)])
    assert rewrite(tmp_path / "s", lambda _p: None).gone == 2000
    assert Reader(tmp_path / "s").read(limit_bytes=1000)[0] == []
    log.append_wait([b"next"])
    log.close()
    assert Reader(tmp_path / "s").read(limit_bytes=1000)[0] == [b"next"]


def test_writers_and_readers_at_work_meanwhile_notice_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    log = Log(folder, "one", "os", segment_bytes=200_000)
    stop = threading.Event()
    written = [0]
    problems: list[object] = []

    def write() -> None:
        while not stop.is_set() and written[0] < 40_000:
            log.append_wait([payload(n) for n in range(written[0], written[0] + 10)])
            written[0] += 10

    def read() -> None:
        while not stop.is_set():
            try:
                numbers(folder)
            except Exception as error:
                problems.append(error)

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    cursor = None
    for _ in range(25):
        cursor = rewrite(folder, without_odd, cursor).cursor
    stop.set()
    for thread in threads:
        thread.join(30)
    log.close()
    rewrite(folder, without_odd, cursor)
    assert problems == []
    assert numbers(folder) == list(range(0, written[0], 2))


def test_a_crash_between_the_redo_file_and_the_segment_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path / "s", "one", "os")
    log.append_wait([payload(n) for n in range(50)])
    log.close()
    real = os.pwrite
    calls = [0]

    def torn(descriptor: int, data: bytes, offset: int) -> int:
        calls[0] += 1
        if calls[0] == 7:
            real(descriptor, data[:10], offset)
            raise KeyboardInterrupt
        return real(descriptor, data, offset)

    monkeypatch.setattr(rewriting.os, "pwrite", torn)
    with pytest.raises(KeyboardInterrupt):
        rewrite(tmp_path / "s", without_odd)
    monkeypatch.setattr(rewriting.os, "pwrite", real)
    assert list((tmp_path / "s").glob("*.redo"))
    assert rewrite(tmp_path / "s", without_odd).damaged == 0
    assert numbers(tmp_path / "s") == list(range(0, 50, 2))
    assert not list((tmp_path / "s").glob("*.redo"))


def test_a_payload_may_only_shrink_and_one_rewrites_at_a_time(tmp_path: Path) -> None:
    log = Log(tmp_path / "s", "one", "os")
    log.append_wait([b"short"])
    log.close()
    with pytest.raises(InvalidInput, match="may only shrink"):
        rewrite(tmp_path / "s", lambda p: p + b"!")
    with rewriting._alone(tmp_path / "s"), pytest.raises(Unavailable, match="another process"):
        rewrite(tmp_path / "s", lambda _p: None)
    assert Reader(tmp_path / "s").read()[0] == [b"short"]


def test_damage_is_counted_and_passed_by(tmp_path: Path) -> None:
    log = Log(tmp_path / "s", "one", "os")
    log.append_wait([payload(n) for n in range(9)])
    log.close()
    segment = next((tmp_path / "s").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    data[data.index(b'{"n":4') + 2] ^= 1
    segment.write_bytes(data)
    assert rewrite(tmp_path / "s", without_odd)[:3] == (2, 4, 1)


def test_only_the_parts_that_hold_such_rows_are_written_anew(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "blobs")
    tables = ParquetTables(blobs, part_rows=100)
    frame = pl.DataFrame({"id": range(1000), "x": [f"é{n}" for n in range(1000)]})
    first = tables.write(frame.lazy())
    second = tables.write(pl.DataFrame({"id": [42, 5000], "x": ["a", None]}), after=first.digest)
    remover = Remover(tables, blobs, lambda schema: pl.col("id") == 42 if "id" in schema else None)
    removed = [remover.remove(table.digest) for table in (first, second)]
    assert [r.rows for r in removed] == [1, 2]
    shared = {p.digest for p in first.parts} & {p.digest for p in removed[0].table.parts}
    assert len(shared) == len(first.parts) - 1
    assert {p.digest for p in removed[0].table.parts} <= {p.digest for p in removed[1].table.parts}
    assert tables.scan(removed[0].table.digest).collect().equals(frame.filter(pl.col("id") != 42))
    assert tables.scan(removed[1].table.digest).collect()["id"].to_list()[-1] == 5000
    assert tables.scan(first.digest).collect().equals(frame)
    again = Remover(tables, blobs, lambda _schema: pl.col("id") == 42)
    assert again.remove(removed[1].table.digest).rows == 0


def test_all_rows_and_no_rows_and_unknown_conditions(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "blobs")
    tables = ParquetTables(blobs)
    table = tables.write(pl.DataFrame({"id": [1, None, 3], "x": ["a", "b", "c"]}))
    everything = Remover(tables, blobs, lambda _schema: pl.lit(True)).remove(table.digest)
    assert (everything.rows, everything.table.rows) == (3, 0)
    assert tables.scan(everything.table.digest).collect().schema == {"id": pl.Int64, "x": pl.String}
    unknown = Remover(tables, blobs, lambda _schema: pl.col("id") < 2).remove(table.digest)
    assert tables.scan(unknown.table.digest).collect()["id"].to_list() == [None, 3]
    counting = Remover(tables, blobs, lambda _schema: pl.col("id") < 2, dry_run=True).remove(table.digest)
    assert (counting.rows, counting.table) == (1, table)
    assert Remover(tables, blobs, lambda _schema: None).remove(table.digest).rows == 0
