"""Blobs that nothing refers to: what a killed publisher, a merge of parts or a deleted run left behind.

They are no version of anything, but their bytes are on the disk. Those with the subject in them are deleted, unless
they are so young that somebody may be about to refer to them.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import orjson
import polars as pl

from flyball.errors import FlyballError
from flyball.privacy.raw import files_with, found_in
from flyball.privacy.subjects import Subject
from flyball.storage.blobs import BlobStore

__all__ = ["Orphans", "orphans_of", "workshops_of"]

_PARQUET, _ARROW = b"PAR1", b"ARROW1"
_PROFILE, _PROFILE_HEAD = b"FBPF", 5  # as `data.profiling.packing` writes them


class Orphans(NamedTuple):
    """The digests of those that hold the subject and are old enough, and how many are too young to tell."""

    old: list[str]
    young: int


def orphans_of(blobs: BlobStore, live: Iterable[str], subject: Subject, grace_s: float) -> Orphans:
    """Find blobs that nothing refers to and that hold the subject.

    Args:
        live: the digests that something refers to.
        grace_s: seconds that a blob may be without reference while a version of it is made.
    """
    known = set(live)
    old, young = [], 0
    for digest in blobs.digests():
        if digest in known:
            continue
        try:
            if not _holds(blobs, digest, subject):
                continue
            path = blobs.path(digest)
        except FlyballError:  # it went meanwhile
            continue
        if path is not None and time.time() - path.stat().st_mtime >= grace_s:
            old.append(digest)
        else:
            young += 1  # of a store that does not say how old it is, none is known to be old
    return Orphans(old, young)


def workshops_of(folder: Path, subject: Subject) -> int:
    """Return how many unfinished files of publishers there are that hold the subject or cannot be read."""
    count = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        if path.is_file():
            try:
                count += _rows(pl.scan_parquet(path, glob=False), subject) > 0
            except (pl.exceptions.PolarsError, OSError):
                count += path.exists() and path.stat().st_size > 0
    return count if count or subject.raw is None else len(files_with(folder, subject.raw)) if folder.is_dir() else 0


def _holds(blobs: BlobStore, digest: str, subject: Subject) -> bool:
    with blobs.open(digest) as stream:
        head = stream.read(8)
    path = blobs.path(digest)
    source = path if path is not None else blobs.get(digest)
    try:
        if head.startswith(_PARQUET):
            return _rows(pl.scan_parquet(source), subject) > 0
        if head.startswith(_ARROW):
            return _rows(pl.scan_ipc(source), subject) > 0
        if head.startswith(_PROFILE):
            return _in_profile(blobs.get(digest), subject)
    except pl.exceptions.PolarsError:
        return subject.raw is not None and found_in(blobs.get(digest), subject.raw) > 0
    return subject.raw is not None and found_in(blobs.get(digest), subject.raw) > 0


def _in_profile(data: bytes, subject: Subject) -> bool:
    """Whether a profile may hold the subject: of a number one of its columns is enough, because values are packed."""
    try:
        text = zlib.decompress(data[_PROFILE_HEAD:])
    except zlib.error:
        return False
    if subject.number is not None:
        return any(orjson.dumps(name) in text for name in subject.columns)
    return any(needle in text for needle in subject.needles)


def _rows(frame: pl.LazyFrame, subject: Subject) -> int:
    condition = subject.condition(frame.collect_schema())
    if condition is None:
        return 0
    return int(frame.filter(condition).select(pl.len()).collect(engine="streaming").item())
