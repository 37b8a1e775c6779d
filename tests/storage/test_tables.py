"""Tables beyond the shipped cases: where bytes are elsewhere, summaries, faults, formats, and how parts are cut."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import Corrupt, Incompatible, InvalidInput, NotFound
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.tables._cutting import cut
from flyball.storage.tables._tiers import merge_from
from flyball.storage.tables.parquet import ParquetTables
from flyball.testing.storage import TableCases


class Elsewhere:
    """Blobs that have no path on this machine and cannot adopt a file, as in an object store."""

    def __init__(self, files: FileBlobs) -> None:
        self.put, self.get, self.open, self.has = files.put, files.get, files.open, files.has
        self.delete, self.digests = files.delete, files.digests

    def path(self, digest: str) -> Path | None:
        assert len(digest) == 64
        return None


class Sums:
    """A small summariser whose summaries add up: rows, and the sum of every whole-number column."""

    def of(self, frame: pl.DataFrame) -> bytes:
        sums = {name: int(frame[name].sum()) for name, dtype in frame.schema.items() if dtype.is_integer()}
        return orjson.dumps({"rows": frame.height, **sums}, option=orjson.OPT_SORT_KEYS)

    def merged(self, summaries: Sequence[bytes]) -> bytes:
        parts = [orjson.loads(summary) for summary in summaries]
        return orjson.dumps({k: sum(p[k] for p in parts) for k in parts[0]}, option=orjson.OPT_SORT_KEYS)


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


class TestElsewhere(TableCases):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ParquetTables:
        return ParquetTables(Elsewhere(FileBlobs(tmp_path / "blobs")), part_rows=1000)


class TestSummarised(TableCases):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ParquetTables:
        return ParquetTables(FileBlobs(tmp_path / "blobs"), Sums(), part_rows=1000, summarised_rows=10)


def test_a_table_elsewhere_has_no_paths_and_one_here_has(blobs: FileBlobs) -> None:
    table = ParquetTables(blobs, part_rows=100).write(pl.DataFrame({"n": range(250)}).lazy())
    paths = ParquetTables(blobs).paths(table.digest)
    assert paths is not None
    assert [pl.read_parquet(path).height for path in paths] == [100, 100, 50]
    assert ParquetTables(Elsewhere(blobs)).paths(table.digest) is None


@pytest.mark.parametrize("least", [0, 100])
def test_the_summary_of_a_table_is_that_of_all_rows_however_they_came(blobs: FileBlobs, least: int) -> None:
    tables = ParquetTables(blobs, Sums(), part_rows=500, summarised_rows=least)
    frame = pl.DataFrame({"n": range(2000), "text": ["x"] * 2000})
    whole = tables.write(frame.lazy())
    grown = tables.write([frame.head(1)])
    for start in range(1, 2000, 13):
        grown = tables.write([frame.slice(start, 13)], after=grown.digest)
    assert len(grown.parts) < 70
    assert all((part.summary is not None) == (part.rows >= least) for part in (*whole.parts, *grown.parts))
    assert any(part.rows < 100 for part in grown.parts)
    assert tables.summary(whole.digest) == tables.summary(grown.digest) == Sums().of(frame)


def test_parts_from_before_there_was_a_summariser_are_summarised_when_asked(blobs: FileBlobs) -> None:
    frame = pl.DataFrame({"n": range(100)})
    plain = ParquetTables(blobs)
    old = plain.write(frame.lazy())
    assert plain.summary(old.digest) is None
    tables = ParquetTables(blobs, Sums())
    assert tables.summary(tables.write([frame], after=old.digest).digest) == orjson.dumps({"n": 9900, "rows": 200})


def test_a_table_of_format_1_is_read_and_grows_and_a_later_format_is_refused(blobs: FileBlobs) -> None:
    tables = ParquetTables(blobs)
    part = tables.write(pl.DataFrame({"n": [1, 2]}).lazy()).parts[0]
    manifest = {"format": 1, "schema": [["n", "Int64"]], "parts": [[part.digest, part.rows, part.size_bytes]]}
    old = blobs.put(orjson.dumps(manifest))
    assert tables.read(old).parts == (replace(part, weight_bytes=0),)
    grown = tables.write([pl.DataFrame({"n": [3]})], after=old)
    assert tables.scan(grown.digest).collect()["n"].to_list() == [1, 2, 3]
    with pytest.raises(Incompatible, match="format 3; this release reads up to 2"):
        tables.read(blobs.put(orjson.dumps({**manifest, "format": 3})))


@pytest.mark.parametrize("bytes_", [b"PAR1", b"[]", b'{"parts": []}', b'{"format": 2, "schema": 1, "parts": []}'])
def test_a_blob_that_is_no_manifest_is_corrupt(blobs: FileBlobs, bytes_: bytes) -> None:
    with pytest.raises(Corrupt, match="is not a table"):
        ParquetTables(blobs).read(blobs.put(bytes_))


def test_a_frame_in_place_of_frames_is_what_it_seems(blobs: FileBlobs) -> None:
    frame = pl.DataFrame({"n": [1, 2]})
    tables = ParquetTables(blobs)
    assert tables.write(frame).digest == tables.write(frame.lazy()).digest  # type: ignore[arg-type]


def test_a_source_that_dies_half_way_leaves_nothing_behind(blobs: FileBlobs) -> None:
    def dying() -> object:
        yield pl.DataFrame({"n": range(1000)})
        raise ConnectionError("the peer went away")

    with pytest.raises(ConnectionError):
        ParquetTables(blobs, part_rows=100).write(dying())  # type: ignore[arg-type]
    assert list(blobs.digests()) == []
    assert list((blobs.root / "workshops").iterdir()) == []


def test_a_workshop_that_was_left_is_swept_after_a_day(blobs: FileBlobs) -> None:
    left = blobs.workshop()
    (left / "0.parquet").write_bytes(b"half")
    other = blobs.workshop()
    assert left.exists()
    os.utime(left, (0, 0))
    blobs.workshop()
    assert not left.exists()
    assert other.exists()


_ON_A_FULL_DISK = """
import json, resource, sys
from pathlib import Path
import polars as pl
from flyball.errors import Unavailable
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.tables.parquet import ParquetTables
import signal
blobs = FileBlobs(Path(sys.argv[1]))
tables = ParquetTables(blobs, part_rows=50_000)
first = tables.write(pl.DataFrame({"n": range(1000)}).lazy())
if sys.argv[2] == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    rows = pl.int_range(400_000, eager=True)
    many = (pl.DataFrame({"n": rows.hash(n).reinterpret(signed=True)}) for n in range(10))
    tables.write(many, after=first.digest)
except Unavailable as error:
    rows = tables.scan(first.digest).collect().height
    print(json.dumps([str(error), rows, len(list(blobs.digests())), len(list((blobs.root / "workshops").iterdir()))]))
"""


def _mounted(folder: Path) -> bool:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_a_full_disk_is_said_and_leaves_the_last_table_and_nothing_else(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    is_small = _mounted(disk)  # where nobody may mount, the largest size of a file stands in for the disk's
    try:
        command = [sys.executable, "-c", _ON_A_FULL_DISK, str(disk / "blobs"), "disk" if is_small else "limit"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        message, rows, blobs, workshops = json.loads(done.stdout)
    finally:
        if is_small:
            subprocess.run(["umount", "-l", str(disk)], check=True)
    assert "the disk is full; the table was not written" in message
    assert (rows, blobs, workshops) == (1000, 2, 0)


def test_a_file_that_may_not_grow_is_a_full_disk_too(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    command = [sys.executable, "-c", _ON_A_FULL_DISK, str(tmp_path / "blobs"), "limit"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)[1:] == [1000, 2, 0]
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before


def test_parts_carry_statistics_by_which_a_scan_skips_row_groups(blobs: FileBlobs) -> None:
    import pyarrow.parquet as pq

    tables = ParquetTables(blobs)
    table = tables.write(pl.DataFrame({"at": range(300_000)}).lazy())
    paths = tables.paths(table.digest)
    assert paths is not None
    groups = pq.ParquetFile(paths[0]).metadata
    ends = [groups.row_group(n).column(0).statistics for n in range(groups.num_row_groups)]
    assert [(s.min, s.max, s.null_count) for s in ends] == [(0, 131071, 0), (131072, 262143, 0), (262144, 299999, 0)]


# -- how rows are cut and small parts merged

_WIDE = pl.DataFrame(
    {
        "n": range(400),
        "text": ["x" * (n * 7 % 50) for n in range(400)],
        "lists": [["y" * (n % 3)] * (n % 4) for n in range(400)],
        "pairs": [{"p": "q" * (n % 7), "z": n} if n % 5 else None for n in range(400)],
        "bytes": [b"1" * (n % 9) if n % 3 else None for n in range(400)],
        "vector": [[1.0, 2.0]] * 400,
        "nothing": [None] * 400,
    },
    schema_overrides={"vector": pl.Array(pl.Float32, 2)},
)


@settings(deadline=None, max_examples=20)
@given(
    cuts=st.sets(st.integers(0, 400), max_size=12),
    most_rows=st.integers(1, 500),
    most_bytes=st.integers(1, 30_000),
    columns=st.sampled_from([_WIDE.columns, ["n", "vector"], ["nothing"], ["text"]]),
)
def test_where_a_part_ends_follows_from_the_rows_alone(
    cuts: set[int], most_rows: int, most_bytes: int, columns: list[str]
) -> None:
    frame = _WIDE.select(columns)
    places = [0, *sorted(cuts), 400]
    pieces = [frame.slice(a, b - a) for a, b in pairwise(places)]
    whole, pieced = list(cut([frame], most_rows, most_bytes)), list(cut(pieces, most_rows, most_bytes))
    assert [(f.height, weight) for f, weight in whole] == [(f.height, weight) for f, weight in pieced]
    assert pl.concat([f for f, _ in pieced]).equals(frame)
    assert all(0 < f.height <= most_rows for f, _ in whole)


def test_heavy_rows_make_parts_of_few(blobs: FileBlobs) -> None:
    frame = pl.DataFrame({"picture": [os.urandom(1000)] * 500})
    table = ParquetTables(blobs, part_bytes=100_000).write(frame.lazy())
    assert [part.rows for part in table.parts] == [100, 100, 100, 100, 100]
    assert {part.weight_bytes for part in table.parts} == {100 * 1008}


def test_parts_that_are_full_by_weight_are_never_written_again(blobs: FileBlobs) -> None:
    tables = ParquetTables(blobs, part_bytes=10_000)
    table = tables.write(pl.DataFrame({"word": ["x" * 500] * 20}).lazy())  # many bytes in memory, few on disk
    full = table.parts
    for _ in range(70):
        table = tables.write([pl.DataFrame({"word": ["y" * 500] * 20})], after=table.digest)
        assert table.parts[:1] == full
    assert len(table.parts) == 71


@pytest.mark.parametrize("sizes", [[1000], [1], [10, 5000], [10] * 31 + [40], [1, 2, 3, 70_000], [600_000, 10]])
def test_few_parts_stay_whatever_the_sizes_and_rows_are_rarely_written_again(sizes: list[int]) -> None:
    parts: list[int] = []
    written = appended = 0
    rng = random.Random(0)
    for _ in range(5000):
        count = rng.choice(sizes)
        parts.append(count)
        appended += count
        start = merge_from(parts, 1 << 19)
        if start is not None:
            written += sum(parts[start:])
            parts[start:] = [sum(parts[start:])]
        tail = next((n for n, rows in enumerate(reversed(parts)) if rows >= 1 << 19), len(parts))
        assert tail <= 100
    assert sum(parts) == appended
    assert written <= 4 * appended


def test_nothing_is_found_where_nothing_is(blobs: FileBlobs) -> None:
    with pytest.raises(NotFound):
        ParquetTables(blobs).scan("0" * 64)
    with pytest.raises(InvalidInput, match="no columns"):
        ParquetTables(blobs).write([])
