"""How rows become the next version: put behind, into or in place of the newest one, however many publish at once.

Rows that go behind others, or between them by key, are put behind the newest version and published only if that is
still the newest; else they are put behind the one that came in between. So writers at once neither wait nor lose.
Called by `datasets`, which has read and checked the rows by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from flyball.clock import Clock
from flyball.errors import Conflict, InvalidInput
from flyball.ledger import Ledger, Transaction
from flyball.ledger.versions import Version
from flyball.storage.tables import Table, TableStore

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ANY", "Mode", "Put", "publish_behind", "putting"]

Mode = Literal["overwrite", "append", "upsert"]
ANY: Any = object()  # of a watermark: whichever the newest version has
_ATTEMPTS = 20  # times that rows are put behind a version which is not the newest any more
_FREE_ATTEMPTS = 2  # of them without holding other publishers back
_HOLDING_S = 2.0  # others are held back only for work that took no longer than this

P = TypeVar("P")


@dataclass(frozen=True)
class Put:
    """A batch put behind (or into, or in place of) `newest`; `counts` says what became of its rows."""

    table: Table
    counts: Mapping[str, int] = field(default_factory=dict)
    newest: Version | None = None


def putting(
    tables: TableStore, name: str, frame: pl.LazyFrame, mode: Mode, key: Sequence[str], scope: ExitStack
) -> Callable[[Table | None], Put]:
    """Read the batch, once, and return what puts it behind (or into) any table, while `scope` is open.

    Raises:
        InvalidInput: the batch has no rows; an upsert has no key, or rows without one.
    """
    if mode == "upsert":
        from flyball.data.upserts import KeyedBatch

        batch = KeyedBatch(frame, key, Path(scope.enter_context(TemporaryDirectory(prefix="flyball-batch-"))))
        _check_rows(name, batch.rows)

        def merge(base: Table | None) -> Put:
            done = batch.put_into(tables, base)
            return Put(done.table, done.counts())

        return merge
    rows = tables.stage(frame)
    _check_rows(name, rows.rows)
    if mode == "overwrite":
        return lambda _: Put(tables.join(None, rows))
    return lambda base: Put(tables.join(base.digest if base else None, rows), {"appended": rows.rows})


def publish_behind(
    ledger: Ledger,
    tables: TableStore,
    clock: Clock,
    name: str,
    put: Callable[[Table | None], Put],
    publish: Callable[[Transaction, Put], P],
    *,
    actor: str,
    cause: int | None,
    since: Any = ANY,
) -> P:
    """Put rows behind the newest version until that is what it still is when they are published.

    Whoever loses a few times holds the others back for one turn, where that takes a moment only.

    Args:
        put: puts the rows behind a table; may be asked again.
        publish: publishes in a transaction, with `after` the version that they were put behind.
        since: the watermark that the newest version must have, where the rows are what a source had behind it.

    Raises:
        Conflict: others published 20 times meanwhile, or somebody else published what the source had behind `since`.
    """
    took_s = 0.0
    for attempt in range(_ATTEMPTS):
        if attempt >= _FREE_ATTEMPTS and took_s < _HOLDING_S:
            with ledger.write(actor, cause) as world:
                world.versions.hold()
                newest = _newest(world, name, since)
                return publish(world, _behind(newest, tables, put))
        with ledger.read() as world:
            newest = _newest(world, name, since)
        started = clock.monotonic()
        done = _behind(newest, tables, put)
        took_s = clock.monotonic() - started
        try:
            with ledger.write(actor, cause) as world:
                return publish(world, done)
        except Conflict:
            continue
    raise Conflict(
        f"dataset/{name}: others published {_ATTEMPTS} times while these rows were put behind the newest version; "
        "nothing was published, try again when there is less traffic"
    )


def _newest(world: Transaction, name: str, since: Any) -> Version | None:
    newest = next(iter(world.versions.all("dataset", name, limit=1)), None)
    found = newest.metadata.get("watermark") if newest else None
    if since is not ANY and found != since:
        raise Conflict(
            f"dataset/{name}: what its source has new was published by another meanwhile; nothing was published, "
            "read the source again"
        )
    return newest


def _behind(newest: Version | None, tables: TableStore, put: Callable[[Table | None], Put]) -> Put:
    done = put(tables.read(newest.digest) if newest else None)
    return Put(done.table, done.counts, newest)


def _check_rows(name: str, rows: int) -> None:
    if rows == 0:
        raise InvalidInput(f"dataset/{name}: the batch has no rows; nothing was published")
