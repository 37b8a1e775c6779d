"""A name with everything that is kept of it, given another name or removed, in SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from sqlalchemy import Connection, bindparam, delete, or_, select, update

from flyball.ledger.refs import Ref
from flyball.ledger.sql.lifecycle_tables import papers, promotion_requests
from flyball.ledger.sql.registry_tables import note_tags, notes, stage_changes
from flyball.ledger.sql.tables import alias_changes, edges, references, resources, versions

__all__ = ["drop_everything", "move_everything"]

Item = TypeVar("Item")

_AT_ONCE = 400  # references of one statement


def drop_everything(connection: Connection, kind: str, name: str) -> list[Ref]:
    """Remove what is kept of a resource that was deleted, but for its events and the history of its aliases.

    Its numbers will be given again, so edges must not lead to what has them then.
    """
    gone = _refs(connection, kind, name)
    for some in _chunks(gone):
        texts = [str(one) for one in some]
        connection.execute(delete(edges).where(or_(edges.c.source.in_(texts), edges.c.target.in_(texts))))
    for table in (versions, notes, note_tags, stage_changes, papers, promotion_requests):
        connection.execute(delete(table).where(table.c.kind == kind, table.c.name == name))
    return gone


def move_everything(connection: Connection, kind: str, name: str, new: str) -> None:
    """Give a resource, and all that is kept by its name, another name; nobody else may refer to the old one."""
    moved = {str(one): str(Ref(kind, new, one.version)) for one in _refs(connection, kind, name)}
    for table in (resources, versions, alias_changes, notes, note_tags, stage_changes, papers, promotion_requests):
        connection.execute(update(table).where(table.c.kind == kind, table.c.name == name).values(name=new))
    here = (references.c.source_kind == kind, references.c.source_name == name)
    connection.execute(update(references).where(*here).values(source_name=new))
    owned = update(resources).where(resources.c.owner == f"{kind}/{name}")
    connection.execute(owned.values(owner=f"{kind}/{new}"))
    for column in (edges.c.source, edges.c.target):
        change = update(edges).where(column == bindparam("old")).values({column: bindparam("new")})
        for some in _chunks(list(moved.items())):
            connection.execute(change, [{"old": old, "new": to} for old, to in some])


def _refs(connection: Connection, kind: str, name: str) -> list[Ref]:
    """Return the references of a resource and of all its versions, also of those that were forgotten."""
    query = select(versions.c.number).where(versions.c.kind == kind, versions.c.name == name)
    numbers = connection.execute(query.order_by(versions.c.number)).scalars()
    return [Ref(kind, name), *(Ref(kind, name, str(number)) for number in numbers)]


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
