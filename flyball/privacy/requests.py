"""Requests of erasure: one at a time in a home, kept so that a crash loses none, without personal data.

A request is a run of kind `erasure` whose parameters are the keyed hash of the subject and the columns. Whoever takes
up an interrupted one asks the rows that are left whose hash it is.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import polars as pl

from flyball.data.masking import keyed_hash
from flyball.data.rewriting import NOT_TABLES
from flyball.errors import FlyballError, Unavailable
from flyball.ledger import Ledger
from flyball.ledger.runs import Run
from flyball.privacy.sealed_traffic import matching_rows
from flyball.privacy.subjects import column_of
from flyball.privacy.suppression import texts_of
from flyball.storage.streams.log import Reader
from flyball.storage.tables import TableStore

__all__ = ["KIND", "alone", "begin", "recover", "unfinished"]

KIND = "erasure"
_LOOK_S = 0.1


@contextmanager
def alone(folder: Path, wait_s: float) -> Iterator[None]:
    """Hold the home's erasures for this process; the kernel lets go of them when it dies.

    Raises:
        Unavailable: another erasure did not end within `wait_s` seconds.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as stream:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Unavailable(
                        f"another erasure has been at work for {wait_s:g} s; this one changed nothing, try again later"
                    ) from None
                time.sleep(_LOOK_S)
        yield


def unfinished(ledger: Ledger) -> list[Run]:
    """Return the requests that were not carried out to the end, oldest first."""
    with ledger.read() as world:
        return world.runs.find(kind=KIND, status=("running",), limit=1000)[::-1]


def begin(ledger: Ledger, actor: str, hash: str, columns: Iterable[str]) -> Run:
    """Return the request for a subject: the interrupted one if there is one, else a new one."""
    wanted = {"subject": hash, "columns": sorted(columns)}
    for run in unfinished(ledger):
        if dict(run.params) == wanted:
            return run
    with ledger.write(actor) as world:
        return world.runs.start(KIND, "erasure", params=wanted)


def recover(ledger: Ledger, tables: TableStore, traffic: Path, key: bytes, request: Run) -> str | None:
    """Return the subject of an interrupted request, found by its hash among the rows that are left; None: in none."""
    hash, columns = str(request.params["subject"]), list(request.params["columns"])
    with ledger.read() as world:
        digests = dict.fromkeys(v[3] for v in world.versions.digests() if v[0] not in NOT_TABLES)
    for digest in digests:
        try:
            found = _in_table(tables.scan(digest), columns, key, hash)
        except (FlyballError, pl.exceptions.PolarsError):
            continue  # no table, or one that cannot be read
        if found is not None:
            return found
    return _in_traffic(traffic, columns, key, hash)


def _in_table(rows: pl.LazyFrame, columns: list[str], key: bytes, hash: str) -> str | None:
    schema = rows.collect_schema()
    for name in columns:
        column = column_of(name, schema)
        if column is None or column[1].is_nested():
            continue
        values = rows.select(column[0].alias("value").drop_nulls().unique()).collect(engine="streaming")["value"]
        for text in texts_of(values):
            if text is not None and keyed_hash(key, text) == hash:
                return text
    return None


def _in_traffic(folder: Path, columns: list[str], key: bytes, hash: str) -> str | None:
    reader, cursor, seen = Reader(folder / "predictions", on_damage=lambda _damage: None), None, set[str]()
    while True:
        payloads, after = reader.read(cursor)
        for payload in payloads:
            document = orjson.loads(payload)
            for part in ("inputs", "features"):
                for name in columns:
                    value = document[part].get(name)
                    for each in value if isinstance(value, list) else [value]:
                        text = str(int(each)) if isinstance(each, float) and each.is_integer() else str(each)
                        if text not in seen and keyed_hash(key, text) == hash:
                            return text
                        seen.add(text)
        if after == (cursor or {}):
            return matching_rows(folder, columns, lambda text: keyed_hash(key, text) == hash)
        cursor = after
