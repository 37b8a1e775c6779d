"""Rows leave every version that holds them: what retention and erasure have in common.

A version keeps its number, maker, lineage and aliases; its digest becomes that of a table without the rows. For each
version the order is: write the new table, note the old blobs as doomed (durably), change the ledger with its journal
event, and only at the very end delete the doomed blobs that nothing refers to any more. A crash anywhere leaves every
version readable, and doing it again finishes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flyball.data.packs import packs_of
from flyball.errors import Conflict, Corrupt, FlyballError, Incompatible, NotFound
from flyball.ledger import Ledger, Transaction
from flyball.ledger.artifacts import Without
from flyball.ledger.runs import Run
from flyball.ledger.versions import Version
from flyball.storage.blobs import BlobStore
from flyball.storage.tables import Table, TableStore
from flyball.storage.tables.rewriting import Removed, Remover

__all__ = [
    "CONTRACT_DOCUMENT",
    "NOT_TABLES",
    "Doomed",
    "Refresh",
    "Swept",
    "all_runs",
    "blobs_of",
    "collect",
    "reference_of",
    "references",
    "refreshed",
    "sweep",
]

NOT_TABLES = frozenset({"model", "erasure"})  # kinds whose versions are known to hold something else
CONTRACT_DOCUMENT = "contract_document"  # in a version's metadata: the blob of the contract that it was checked by
_AT_ONCE = 200  # versions rewritten in one transaction
_MOST = 10_000_000  # versions of a kind: all of them

Refresh = Callable[[Version, Removed], Mapping[str, Any]]
"""Takes a version, still as it was, and what was removed from its table; returns the metadata it shall have."""


class Swept(NamedTuple):
    """One version that lost rows, or that could not be read (`problem`)."""

    version: str
    rows: int
    before: str
    after: str
    problem: str = ""


class Doomed:
    """The digests of blobs that are to be deleted once nothing refers to them, in a file that survives a crash.

    Digests only: nothing of what is in the blobs.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digests: set[str] = set()
        if path.exists():
            self._digests = {line for line in path.read_text(encoding="ascii").split("\n") if len(line) == 64}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._digests))

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, digests: Iterable[str | None]) -> None:
        """Remember digests; durable on return."""
        new = sorted({digest for digest in digests if digest} - self._digests)
        if not new:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="ascii") as stream:
            stream.write("".join(f"\n{digest}\n" for digest in new))  # a torn line before does not swallow the first
            stream.flush()
            os.fsync(stream.fileno())
        self._digests.update(new)

    def close(self) -> None:
        """Forget them all."""
        self._path.unlink(missing_ok=True)
        self._digests.clear()


def sweep(
    ledger: Ledger,
    remover: Remover,
    doomed: Doomed,
    *,
    actor: str,
    action: str,
    wanted: Callable[[str, str], bool] = lambda kind, name: True,  # noqa: ARG005
    refresh: Refresh | None = None,
    detail: Mapping[str, Any] | None = None,
    cause: int | None = None,
) -> list[Swept]:
    """Take rows out of every version that has them.

    Args:
        remover: knows which rows; one that only counts changes nothing here either.
        doomed: gets the blobs of tables that were replaced.
        action: the verb of the journal's events: `erased`, `expired`.
        wanted: whether versions of a kind and name are looked at.
        refresh: the metadata of a version that lost rows; default: `refreshed`.
        detail: what the events say besides.

    Returns:
        The versions that lost rows, by kind, name and number, and those that could not be read.
    """
    with ledger.read() as world:
        versions = [v for v in world.versions.digests() if v[0] not in NOT_TABLES and wanted(v[0], v[1])]
    found: list[Swept] = []
    untouched: set[str] = set()  # digests of tables that lose nothing, and of what is no table
    changed: list[tuple[str, str, int, Removed]] = []
    for kind, name, number, digest in versions:
        label = f"{kind}/{name}@{number}"
        if digest in untouched:
            continue
        try:
            removed = remover.remove(digest)
        except (NotFound, Corrupt, Incompatible) as error:
            if _is_table(ledger, kind, name, number):
                found.append(Swept(label, 0, digest, digest, str(error)))
            untouched.add(digest)
            continue
        if not removed.rows and removed.table.digest == digest:
            untouched.add(digest)
            continue
        found.append(Swept(label, removed.rows, digest, removed.table.digest))
        if not remover.dry_run:
            after = removed.table
            packs = packs_of(remover.tables, digest) - packs_of(remover.tables, after.digest)
            doomed.add({digest, *blobs_of(removed.before), *packs} - set(blobs_of(after)))
            doomed.add(remover.left_over)
            changed.append((kind, name, number, removed))
            if len(changed) >= _AT_ONCE:
                _write(ledger, changed, refresh, actor, action, detail or {}, cause)
                changed = []
    if changed:
        _write(ledger, changed, refresh, actor, action, detail or {}, cause)
    return found


def refreshed(metadata: Mapping[str, Any], removed: Removed) -> dict[str, Any]:
    """Return metadata with the figures of the rows that are left."""
    table = removed.table
    figures = {"rows": table.rows, "size_bytes": table.size_bytes, "schema": table.schema}
    return {**metadata, **{name: value for name, value in figures.items() if name in metadata}}


def collect(ledger: Ledger, tables: TableStore, blobs: BlobStore, doomed: Doomed) -> tuple[int, list[str]]:
    """Delete the doomed blobs that nothing refers to; return how many are gone, and the digests of those that stay."""
    wanted = set(doomed)
    if not wanted:
        return 0, []
    held = {digest for digest in references(ledger, tables, blobs) if digest in wanted}
    gone = sum(blobs.delete(digest) for digest in sorted(wanted - held))
    return gone, sorted(held)


def reference_of(version: Version) -> str | None:
    """Return the blob of what is kept of the rows that a model's version learnt from (`data.blocks`), if there is."""
    kept = version.metadata.get("reference")
    return str(kept["blob"]) if isinstance(kept, Mapping) and "blob" in kept else None


def references(
    ledger: Ledger,
    tables: TableStore,
    blobs: BlobStore,
    *,
    without: Without = lambda owner, path: False,  # noqa: ARG005
    unreadable: Callable[[str], None] = lambda what: None,  # noqa: ARG005
) -> Iterator[str]:
    """Yield the digest of every blob that something in the ledger refers to, some of them several times.

    Args:
        without: which files do not count, by owner (a run, a logged model, or nobody) and path; of a run all that it
            has when it holds for the path "".
        unreadable: gets the reference of each version whose own list of blobs cannot be read, so that what it refers
            to is not known.
    """
    with ledger.read() as world:
        seen: set[str] = set()
        for kind, name, number, digest in world.versions.digests():
            yield digest
            if digest in seen:
                continue
            seen.add(digest)
            if kind == "model":
                files = _files_of(blobs, digest)
                if files is None and "flavor" in world.versions.get(kind, name, number).metadata:
                    unreadable(f"{kind}/{name}@{number}")  # a bundle, not one whose files are those of a run
                yield from files or ()
            elif kind not in NOT_TABLES:
                try:
                    yield from blobs_of(tables.read(digest))
                except FlyballError:
                    if _says_table(world, kind, name, number):
                        unreadable(f"{kind}/{name}@{number}")
                    continue  # not a table, or one whose parts cannot be told
                yield from packs_of(tables, digest)
        for kind in ("dataset", "quarantine"):
            documents = (version.metadata.get(CONTRACT_DOCUMENT) for version in world.versions.all(kind, limit=_MOST))
            yield from (str(document) for document in documents if document)
        kept = (reference_of(version) for version in world.versions.all("model", limit=_MOST))
        yield from (blob for blob in kept if blob)
        yield from (digest for _, digest in world.artifacts.digests(without))
        for run, outputs in world.runs.outputs():
            if not without(run, ""):
                yield from (str(kept.get("digest")) for kept in outputs if isinstance(kept, dict))


def all_runs(world: Transaction, kind: str | None = None) -> Iterator[Run]:
    """Yield every run, newest first, a page at a time."""
    before = None
    while page := world.runs.find(kind=kind, limit=500, before=before):
        yield from page
        before = (page[-1].started_at, page[-1].id)


def _write(
    ledger: Ledger,
    changed: Iterable[tuple[str, str, int, Removed]],
    refresh: Refresh | None,
    actor: str,
    action: str,
    detail: Mapping[str, Any],
    cause: int | None,
) -> None:
    prepared = []
    with ledger.read() as world:
        for kind, name, number, removed in changed:
            version = world.versions.get(kind, name, number)
            metadata = refresh(version, removed) if refresh else refreshed(version.metadata, removed)
            prepared.append((version, removed, metadata))
    with ledger.write(actor, cause) as world:
        for version, removed, metadata in prepared:
            digest = removed.table.digest
            if world.versions.get(version.kind, version.name, version.number).digest != removed.before.digest:
                raise Conflict(f"{version.ref} was rewritten by somebody else meanwhile; nothing was lost, try again")
            world.versions.rewrite(
                version.kind,
                version.name,
                version.number,
                digest,
                metadata,
                action=action,
                detail={"rows": removed.rows, **detail},
            )


def _is_table(ledger: Ledger, kind: str, name: str, number: int) -> bool:
    with ledger.read() as world:
        return _says_table(world, kind, name, number)


def _says_table(world: Transaction, kind: str, name: str, number: int) -> bool:
    version: Version = world.versions.get(kind, name, number)
    return kind in ("dataset", "quarantine", "feature") or "schema" in version.metadata


def blobs_of(table: Table) -> Collection[str]:
    """Return the digests of a table's parts and of their summaries."""
    return [digest for part in table.parts for digest in (part.digest, part.summary) if digest]


def _files_of(blobs: BlobStore, digest: str) -> set[str] | None:
    """Return the files of a bundle; None when its manifest cannot be read."""
    import orjson

    try:
        manifest = orjson.loads(blobs.get(digest))
        return {str(entry["digest"]) for entry in manifest["files"].values()}
    except (FlyballError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
