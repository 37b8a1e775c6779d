"""Pages of listings: what the API and the command line ask the platform for, newest first, with where to go on.

A page is continued by naming the last item of the page before it (`before`), so nothing is shown twice or left out
while new things arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flyball.errors import InvalidInput
from flyball.ledger.journal import Event
from flyball.ledger.resources import Resource
from flyball.ledger.runs import FINISHED, Run
from flyball.ledger.versions import Version
from flyball.platform import Platform

__all__ = ["events", "resources", "runs", "versions"]

STATUSES = ("pending", "running", *sorted(FINISHED))


def resources(
    platform: Platform,
    kind: str | None,
    limit: int,
    before: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> tuple[list[Resource], str | None]:
    """Return resources by kind and name; `before` is the reference, or with `kind` the name, that the last page ended
    with."""
    found = platform.resources(kind, labels)
    if before is not None:
        last = before.partition("/")[::2] if "/" in before else (found[0].kind if found else "", before)
        found = [r for r in found if (r.kind, r.name) > tuple(last)]
    page = found[:limit]
    return page, str(page[-1].ref) if len(found) > limit else None


def runs(
    platform: Platform,
    limit: int,
    before: str | None = None,
    status: Iterable[str] | None = None,
    **filters: Any,
) -> tuple[list[Run], str | None]:
    """Return runs; filters are those of `Runs.find`, `before` is a run's id.

    Raises:
        InvalidInput: a status is unknown.
        NotFound: no run has the id.
    """
    wanted = list(status) if status is not None else None
    for word in wanted or ():
        if word not in STATUSES:
            raise InvalidInput(f'"{word}" is no status of a run; expected one of {", ".join(STATUSES)}')
    last = platform.run(before) if before is not None else None
    after = (last.started_at, last.id) if last is not None else None
    found = platform.runs(limit=limit + 1, before=after, status=wanted, **filters)
    return found[:limit], found[limit - 1].id if len(found) > limit else None


def versions(
    platform: Platform, kind: str, name: str | None, limit: int, before: int | None = None
) -> tuple[list[Version], int | None]:
    """Return versions of one name, or the newest of all names of a kind; `before` is a version's number."""
    more = 0
    if before is not None and name is not None:
        newest = platform.versions(kind, name, 1)
        more = max(0, newest[0].number - before + 1) if newest else 0  # numbers have no gaps
    found = platform.versions(kind, name, limit + 1 + more)
    kept = [v for v in found if before is None or v.number < before][: limit + 1]
    return kept[:limit], kept[limit - 1].number if len(kept) > limit and name is not None else None


def events(platform: Platform, limit: int, before: int | None = None, **filters: Any) -> tuple[list[Event], int | None]:
    """Return journal events; filters are those of `Journal.find`, `before` is an event's number."""
    found = platform.events(limit=limit + 1, before=before, **filters)
    return found[:limit], found[limit - 1].seq if len(found) > limit else None
