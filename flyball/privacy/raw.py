"""Bytes without structure: printed logs, what databases leave behind, and the last look over every file of a home.

A value is looked for as a whole word, so that `ann` is not found in `annual`: the bytes beside it must not be letters
or digits of any script; and in the forms that JSON gives it, whose escapes differ from the text. What is found in a
text is overwritten by as many asterisks, in place, while others append.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from flyball.errors import Unavailable

__all__ = ["compact", "files_with", "found_in", "redact_files", "redacted"]

_CHUNK = 4 << 20
_WORD = rb"[0-9A-Za-z_\x80-\xff]"
_BUSY_S = 30.0
_TEXTS = frozenset({".csv", ".json", ".jsonl", ".log", ".ndjson", ".txt"})
_NOT_TEXTS = frozenset({"blobs", "erasures"})  # folders whose files are cleaned by what they are


def found_in(data: bytes, value: bytes) -> int:
    """Return how often a value stands in bytes as a whole word."""
    return len(_pattern(value).findall(data))


def redacted(data: bytes, value: bytes) -> bytes | None:
    """Return text with asterisks for the value, None when it is not in it."""
    text, count = _pattern(value).subn(lambda found: b"*" * len(found[0]), data)
    return text if count else None


def redact_files(home: Path, value: bytes, *, dry_run: bool = False) -> int:
    """Overwrite a value in every text file of a home that is no blob; return how often it was there.

    These are what processes printed, lineage events written to a file, and the days of the usage log.
    """
    total = 0
    for path in _texts_below(home):
        try:
            places = list(_places(path, value))
            total += len(places)
            if places and not dry_run:
                _overwrite(path, places)
        except FileNotFoundError:  # it went meanwhile
            continue
    return total


def files_with(home: Path, value: bytes) -> list[str]:
    """Return the files of a home, by their path in it, that hold a value as it is (not compressed)."""
    found = []
    for path in sorted(p for p in home.rglob("*") if p.is_file() and not p.is_symlink()):
        try:
            if next(iter(_places(path, value)), None) is not None:
                found.append(path.relative_to(home).as_posix())
        except FileNotFoundError:  # it went meanwhile
            continue
    return found


def compact(path: Path) -> None:
    """Make a SQLite database give up the bytes of deleted rows: in its file and in its write-ahead log.

    Raises:
        Unavailable: others kept it busy for half a minute; nothing is lost.
    """
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)) as connection:
            connection.execute("VACUUM")
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise Unavailable(
                    f"{path.name} is read by others, so its write-ahead log could not be emptied; try again"
                )
    except sqlite3.OperationalError as error:
        raise Unavailable(f"{path.name} could not be compacted: {error}; try again") from error


def _texts_below(home: Path) -> list[Path]:
    found = [p for p in home.rglob("*") if p.suffix in _TEXTS and p.relative_to(home).parts[0] not in _NOT_TEXTS]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def _overwrite(path: Path, places: list[tuple[int, int]]) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        for place, size in places:
            os.pwrite(descriptor, b"*" * size, place)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _places(path: Path, value: bytes) -> Iterator[tuple[int, int]]:
    """Yield where a value stands in a file and how many bytes it takes there, a piece in memory at a time."""
    pattern, longest = _pattern(value), max(map(len, _forms(value)))
    with path.open("rb") as stream:
        start, kept, last = 0, b"", -1
        while True:
            chunk = stream.read(_CHUNK)
            data = kept + chunk
            # What ends at the edge may go on in the next piece; a match at the start of `kept` was seen with the last.
            done = len(data) - 1 if chunk else len(data)
            for match in pattern.finditer(data):
                place = start + match.start()
                if match.end() <= done and place > last and (match.start() or not start):
                    last = place
                    yield place, len(match[0])
            if not chunk:
                return
            cut = max(0, len(data) - longest - 1)
            start, kept = start + cut, data[cut:]


def _forms(value: bytes) -> list[bytes]:
    """Return the ways in which a text is written, the longest first: as it is, and with the escapes of JSON."""
    text = value.decode("utf-8", "surrogateescape")
    escaped = [json.dumps(text, ensure_ascii=to_ascii)[1:-1] for to_ascii in (True, False)]
    forms = {value, *(form.encode("utf-8", "surrogateescape") for form in escaped)}
    return sorted(forms, key=lambda form: (-len(form), form))


def _pattern(value: bytes) -> re.Pattern[bytes]:
    forms = b"|".join(re.escape(form) for form in _forms(value))
    return re.compile(rb"(?<!" + _WORD + rb")(?:" + forms + rb")(?!" + _WORD + rb")")
