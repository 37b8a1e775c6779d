"""Blobs that arrive piece by piece or in parts, and blobs that are deleted beside writers."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flyball.errors import InvalidInput, NotFound
from flyball.storage.blobs import digest_of
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.blobs.multipart import MOST_PARTS, Uploads
from flyball.storage.blobs.receiving import Receiving


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


@pytest.fixture
def uploads(tmp_path: Path, blobs: FileBlobs) -> Uploads:
    return Uploads(tmp_path / "uploads", blobs)


def unfinished(blobs: FileBlobs) -> list[Path]:
    return list((blobs.root / "workshops").rglob("*"))


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_what_arrives_in_pieces_is_the_blob_of_the_whole(blobs: FileBlobs, size: int) -> None:
    data = random.Random(size).randbytes(size)
    receiving = Receiving(blobs)
    for start in range(0, size, 65_537):
        receiving.write(data[start : start + 65_537])
    assert receiving.finish() == (digest_of(data), size)
    assert blobs.get(digest_of(data)) == data
    assert unfinished(blobs) == []


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_what_was_abandoned_leaves_nothing(blobs: FileBlobs, size: int) -> None:
    receiving = Receiving(blobs)
    receiving.write(b"x" * size)
    receiving.abandon()
    assert list(blobs.digests()) == []
    assert unfinished(blobs) == []


def test_a_large_body_takes_constant_memory(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.blobs.receiving import Receiving
receiving = Receiving(FileBlobs(Path(sys.argv[1])))
piece = bytes(1 << 20)
receiving.write(piece); receiving.write(piece)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(200):
    receiving.write(piece)
receiving.finish()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000  # kB, for 200 MB


def test_parts_in_any_order_and_twice_become_one_blob(uploads: Uploads, blobs: FileBlobs) -> None:
    pieces = {number: random.Random(number).randbytes(700_000) for number in range(1, 6)}
    upload = uploads.begin({"path": "a/b"})
    told = {}
    for number in (3, 1, 5, 2, 4):
        for data in (b"of an attempt that failed", pieces[number]):
            part = uploads.part(upload, number)
            part.write(data[:10])
            part.write(data[10:])
            told[number] = part.finish()
    received = uploads.complete(upload, told.items())
    whole = b"".join(pieces[number] for number in sorted(pieces))
    assert received == (digest_of(whole), len(whole))
    assert blobs.get(received.digest) == whole
    assert uploads.complete(upload, told.items()) == received  # as after a crash before it was recorded
    uploads.forget(upload)
    with pytest.raises(NotFound):
        uploads.about(upload)


def test_an_upload_is_completed_by_parts_that_arrived_as_named(uploads: Uploads, blobs: FileBlobs) -> None:
    upload = uploads.begin({"path": "a"})
    part = uploads.part(upload, 1)
    part.write(b"one")
    digest = part.finish()
    broken = uploads.part(upload, 2)
    broken.write(b"tw")
    broken.abandon()
    for parts in (
        [],
        [(1, digest), (1, digest)],
        [(1, digest), (2, digest)],
        [(1, "0" * 64)],
        [(1, "../../x")],
        [(1, "")],
    ):
        with pytest.raises(InvalidInput):
            uploads.complete(upload, parts)
    assert list(blobs.digests()) == []
    assert uploads.complete(upload, [(1, digest)]).digest == digest_of(b"one")


@pytest.mark.parametrize("upload", ["", "x", "../../blobs", "0" * 32, "a/b", "\x00"])
def test_an_upload_that_is_none_is_not_found(uploads: Uploads, upload: str) -> None:
    uploads.begin({})
    for act in (uploads.about, uploads.forget, lambda u: uploads.part(u, 1), lambda u: uploads.complete(u, [])):
        with pytest.raises(NotFound, match="there is no upload"):
            act(upload)


@pytest.mark.parametrize("number", [0, -1, MOST_PARTS + 1])
def test_a_part_has_a_number_that_there_is(uploads: Uploads, number: int) -> None:
    upload = uploads.begin({})
    with pytest.raises(InvalidInput, match="parts 1 to"):
        uploads.part(upload, number)


def test_a_part_of_an_upload_that_went_meanwhile_is_told(uploads: Uploads) -> None:
    upload = uploads.begin({})
    part = uploads.part(upload, 1)
    part.write(b"x")
    uploads.forget(upload)
    with pytest.raises(NotFound):
        part.finish()


def test_uploads_that_nobody_touched_are_swept(uploads: Uploads, tmp_path: Path) -> None:
    old, new = uploads.begin({}), uploads.begin({})
    for upload in (old, new):
        part = uploads.part(upload, 1)
        part.write(b"12345")
        part.finish()
    for path in ((tmp_path / "uploads" / old), *(tmp_path / "uploads" / old).iterdir()):
        os.utime(path, (1000, 1000))
    ((name, size),) = uploads.sweep(2000, dry_run=True)
    assert (name, size) == (old, len(b"12345") + len(b"{}"))
    assert uploads.about(old) == {}
    assert uploads.sweep(2000) == [(name, size)]
    assert uploads.sweep(2000) == []
    assert uploads.about(new) == {}


def test_a_blob_that_was_put_again_is_young_again(blobs: FileBlobs, tmp_path: Path) -> None:
    data = b"the same"
    digest = blobs.put(data)
    (tmp_path / "file").write_bytes(data)
    since = time.time() - 100

    def by_adoption() -> None:
        made = blobs.workshop() / "x"
        made.write_bytes(data)
        os.utime(made, (1000, 1000))
        blobs.adopt(made, digest)

    for put in (lambda: blobs.put(data), lambda: blobs.put(tmp_path / "file"), by_adoption):
        os.utime(blobs.path(digest) or "", (1000, 1000))
        assert [(b.digest, b.size_bytes, b.put_at) for b in blobs.ages()] == [(digest, len(data), 1000)]
        put()
        assert not blobs.delete_unless_put_since(digest, since)
        assert blobs.get(digest) == data
    os.utime(blobs.path(digest) or "", (1000, 1000))
    assert blobs.delete_unless_put_since(digest, since)
    assert not blobs.delete_unless_put_since(digest, since)
    by_adoption()
    assert not blobs.delete_unless_put_since(digest, since)


def test_what_killed_writers_left_is_deleted_when_it_is_old(blobs: FileBlobs) -> None:
    kept = blobs.put(b"kept")
    folder = blobs.root / kept[:2]
    for name, at in ((".0123456789abcdef.part", 1000), (".fedcba9876543210.part", 3000)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (at, at))
    assert blobs.delete_unfinished(2000) == 1
    assert sorted(path.name for path in folder.iterdir()) == [".fedcba9876543210.part", kept[2:]]


class Interrupted(FileBlobs):
    """A store in which something else happens between looking for a blob and taking the lock."""

    meanwhile: Callable[[], object] | None = None

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        act, self.meanwhile = self.meanwhile, None
        if act is not None:
            act()
        with super()._locked(how):
            yield


def test_a_blob_that_is_deleted_while_it_is_put_is_written_anew(blobs: FileBlobs) -> None:
    digest = blobs.put(b"old")
    os.utime(blobs.path(digest) or "", (1000, 1000))
    writer = Interrupted(blobs.root)
    writer.meanwhile = lambda: blobs.delete_unless_put_since(digest, 2000)
    assert writer.put(b"old") == digest
    assert writer.meanwhile is None
    assert blobs.get(digest) == b"old"


def test_a_blob_that_is_put_while_it_is_to_be_deleted_stays(blobs: FileBlobs) -> None:
    digest = blobs.put(b"old")
    os.utime(blobs.path(digest) or "", (1000, 1000))
    deleter = Interrupted(blobs.root)
    deleter.meanwhile = lambda: blobs.put(b"old")
    assert not deleter.delete_unless_put_since(digest, 2000)
    assert blobs.get(digest) == b"old"


def test_who_deletes_and_who_puts_wait_for_each_other(blobs: FileBlobs) -> None:
    digest = blobs.put(b"old")
    put = threading.Thread(target=lambda: FileBlobs(blobs.root).put(b"old"))
    with blobs._locked(fcntl.LOCK_EX):
        put.start()
        put.join(0.1)
        assert put.is_alive()
        (blobs.root / digest[:2] / digest[2:]).unlink()
    put.join(10)
    assert blobs.get(digest) == b"old"
