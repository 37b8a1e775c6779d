"""What was made of a subject's rows by SQL: columns that hold the subject under another name, versions made from it.

A version that SQL made says of each column which columns it came from (`data.queries`). So a subject's column is
followed through `select email as contact` without anybody naming `contact`. Only for texts: a count or a sum comes from
a column of numbers just as its own values do, and a total of 42 is not user 42; for such a subject name every column.

What was made from rows of the subject and has no column of it (totals, averages, features) stays, as what a model
learnt stays, and the certificate lists it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from flyball.ledger import Transaction
from flyball.ledger.refs import ref
from flyball.privacy.subjects import Subject

__all__ = ["made_from", "other_names"]

_KINDS = ("dataset", "quarantine")
_MADE = ("dataset", "feature", "labels")
_MOST = 10_000_000
_MOST_NODES = 5_000

Columns = Mapping[str, Collection[tuple[str, str]]]


def other_names(world: Transaction, who: Subject) -> dict[tuple[str, str], frozenset[str]]:
    """Return the columns, by kind and name of versions, that hold the subject though they are called otherwise."""
    if who.number is not None:
        return {}
    made: dict[str, Columns] = {}
    for kind in _KINDS:
        for version in world.versions.all(kind, limit=_MOST):
            columns = version.metadata.get("columns")
            if isinstance(columns, Mapping):
                made[str(version.ref)] = {name: _direct(sources) for name, sources in columns.items()}
    told: dict[tuple[str, str], bool] = {}

    def is_subject(version: str, column: str) -> bool:
        if column in who.columns:
            return True
        if (version, column) not in told:
            told[version, column] = False  # until it is known, so that nothing goes round
            sources = made.get(version, {}).get(column, ())
            told[version, column] = any(is_subject(source, name) for source, name in sources)
        return told[version, column]

    found: dict[tuple[str, str], set[str]] = {}
    for source, columns in made.items():
        names = {column for column in columns if column not in who.columns and is_subject(source, column)}
        if names:
            name = ref(source).name
            for kind in _KINDS:  # rows of the same query that were kept aside are in the quarantine
                found.setdefault((kind, name), set()).update(names)
    return {place: frozenset(names) for place, names in found.items()}


def made_from(world: Transaction, held: Iterable[str]) -> list[str]:
    """Return the versions that were made, directly or through others, from versions with the subject's rows."""
    wanted = set(held)
    found: set[str] = set()
    for version in sorted(wanted):
        if ref(version).kind == "model":
            continue
        nodes = world.lineage.walk(ref(version), "downstream", limit=_MOST_NODES).nodes
        found.update(node for node in nodes if node.partition("/")[0] in _MADE and "@" in node)
    return sorted(found - wanted)


def _direct(sources: Any) -> tuple[tuple[str, str], ...]:
    return tuple((str(source), str(name)) for source, name, how in sources if how == "direct")
