"""Build the index of words anew: for a ledger made before there was one, or when words are cut differently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Engine, delete, select, text, update

from flyball.ledger.notes import NO_NOTE, Note
from flyball.ledger.sql import entries as of
from flyball.ledger.sql.entries import FORMAT, Entry
from flyball.ledger.sql.registry_tables import note_tags, notes
from flyball.ledger.sql.resources import as_resource
from flyball.ledger.sql.runs import as_run
from flyball.ledger.sql.search import insert_entries
from flyball.ledger.sql.tables import resources, runs, search_entries, search_format, versions
from flyball.ledger.sql.versions import as_version

__all__ = ["reindex"]

_BATCH = 1000


def reindex(engine: Engine) -> None:
    """Build the index of a ledger unless it is that of this release; many processes may call this at once."""
    with engine.connect().execution_options(flyball_begin="BEGIN") as connection:  # no lock to look
        if connection.execute(select(search_format.c.format)).scalar_one() == FORMAT:
            return
    with engine.begin() as connection:  # SQLite has one writer; PostgreSQL locks the row
        if connection.execute(select(search_format.c.format).with_for_update()).scalar_one() != FORMAT:
            connection.execute(text("DELETE FROM search_text"))
            connection.execute(delete(search_entries))
            found = _everything(connection)
            while batch := list(islice(found, _BATCH)):
                insert_entries(connection, batch)
            connection.execute(update(search_format).values(format=FORMAT))


def _everything(connection: Connection) -> Iterator[Entry]:
    """Yield all entries, oldest first within a form: their numbers will say what came last."""
    paged = {"yield_per": _BATCH}
    for row in connection.execute(select(runs).order_by(runs.c.started_at, runs.c.id), execution_options=paged):
        yield of.of_run(as_run(row))
    said = _said(connection)
    newest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in connection.execute(
        select(versions).where(versions.c.deleted_at.is_(None)).order_by(versions.c.created_at, versions.c.number),
        execution_options=paged,
    ):
        version = as_version(row)
        newest[version.kind, version.name] = {k: version.metadata.get(k) for k in ("schema", "signature")}
        yield of.of_version(version, said.get((version.kind, version.name, version.number), NO_NOTE))
    for row in connection.execute(
        select(resources).order_by(resources.c.updated_at, resources.c.name), execution_options=paged
    ):
        resource = as_resource(row)
        note = said.get((resource.kind, resource.name, 0), NO_NOTE)
        yield of.of_resource(resource, newest.get((resource.kind, resource.name)), note)


def _said(connection: Connection) -> dict[tuple[str, str, int], Note]:
    """Return all notes by kind, name and number, as far as a search looks at them."""
    tags: dict[tuple[str, str, int], dict[str, str]] = {}
    for row in connection.execute(select(note_tags)):
        tags.setdefault((row.kind, row.name, row.number), {})[row.key] = row.value[:_BATCH]
    found = {}
    for row in connection.execute(select(notes)):
        at = (row.kind, row.name, row.number)
        found[at] = Note(row.description, tags.get(at, {}))
    return found
