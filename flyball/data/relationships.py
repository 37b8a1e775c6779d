"""Read the `relationships` of an ODCS document into rules of the check `reference`.

    property level   relationships: [{to: airlines.carrier}]
    schema level     relationships: [{from: [flights.origin, flights.hour], to: [weather.origin, weather.hour]}]

A target is written `table.column` or, by the ids in the document, `schema/<id>/properties/<id>`. The table named is a
dataset; `customProperties: [{property: dataset, value: airlines@3}]` names another one, or a version of it. Targets in
another file are not enforced. Source: ODCS v3.1.0, "Relationships".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput, did_you_mean, listed

__all__ = ["relationship_rule"]

_FIELDS = {"type", "from", "to", "customProperties"}


def relationship_rule(
    entry: Mapping[str, Any],
    column: Column | None,
    document: Mapping[str, Any],
    table: Mapping[str, Any],
    columns: tuple[Column, ...],
) -> Rule | str:
    """Return the rule of one entry of a property (None: of the table), or in words why there is none.

    Raises:
        InvalidInput: an unknown field or type, an unknown column, or sides that do not fit each other.
    """
    where = f"a relationship of {column.name if column else table['name']}"
    if not isinstance(entry, Mapping):
        raise InvalidInput(f"{where} is {entry!r}; write it like {{to: table.column}}")
    for name in entry:
        if name not in _FIELDS:
            raise InvalidInput(f'{where} has the unknown field "{name}"{did_you_mean(name, _FIELDS)}')
    kind = entry.get("type") or "foreignKey"
    if kind != "foreignKey":
        raise InvalidInput(f'{where} has the unknown type "{kind}"; expected foreignKey')
    if not entry.get("to"):
        raise InvalidInput(f"{where} names no target; add to: table.column")
    if column is not None and entry.get("from"):
        raise InvalidInput(f"{where} has a from, which is the property itself; remove it")
    if column is None and not entry.get("from"):
        raise InvalidInput(f"{where} has no from; add from: {table['name']}.column")
    targets = [_read(text, document, where) for text in _list(entry["to"])]
    if any(target is None for target in targets):
        return f"{where} to {entry['to']}, which is in another file"
    tables = {target[0] for target in targets if target}
    if len(tables) != 1:
        raise InvalidInput(f"{where} leads to several tables ({listed(sorted(tables))}); expected one")
    here = [column.name] if column else [_ours(text, document, table, columns, where) for text in _list(entry["from"])]
    there = [target[1] for target in targets if target]
    if len(here) != len(there):
        raise InvalidInput(f"{where} compares {len(here)} columns with {len(there)}; expected as many on both sides")
    custom = {p.get("property"): p.get("value") for p in entry.get("customProperties") or []}
    params = {"dataset": str(custom.get("dataset") or tables.pop()), "columns": tuple(here), "to": tuple(there)}
    about = here[0] if len(here) == 1 else None
    return Rule(
        f"{about or 'table'}.reference", "reference", about, params, description=str(custom.get("description") or "")
    )


def _list(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]


def _read(text: str, document: Mapping[str, Any], where: str) -> tuple[str, str] | None:
    """Return (table, column) of a reference, or None when it leads to another file."""
    if "/" in text or "#" in text:
        return _by_id(text.removeprefix("#").removeprefix("/"), document, where) if ".yaml#" not in text else None
    owner, dot, name = text.partition(".")
    if not dot or not owner or not name:
        raise InvalidInput(f'{where} names "{text}"; expected table.column')
    return owner, name


def _by_id(path: str, document: Mapping[str, Any], where: str) -> tuple[str, str]:
    parts = path.split("/")
    if len(parts) < 4 or parts[0] != "schema" or any(word != "properties" for word in parts[2::2]):
        raise InvalidInput(f'{where} names "{path}"; expected table.column or schema/<id>/properties/<id>')
    items, names = list(document.get("schema") or []), []
    for wanted in parts[1::2]:
        found = next((item for item in items if wanted in (item.get("id"), item.get("name"))), None)
        if found is None:
            known = [str(item.get("id") or item.get("name")) for item in items]
            raise InvalidInput(f'{where}: nothing has the id "{wanted}"{did_you_mean(wanted, known)}')
        names.append(str(found["name"]))
        items = list(found.get("properties") or [])
    return names[0], ".".join(names[1:])


def _ours(
    text: str, document: Mapping[str, Any], table: Mapping[str, Any], columns: tuple[Column, ...], where: str
) -> str:
    """Return the column of this table that the left side names."""
    target = _read(text, document, where) if "." in text or "/" in text else (str(table["name"]), text)
    known = [c.name for c in columns]
    if target is None or target[0] not in (table.get("name"), table.get("physicalName"), table.get("id")):
        raise InvalidInput(f'{where} starts from "{text}", which is not in {table["name"]}')
    column = next((c.name for c in columns if target[1] in (c.name, c.physical_name)), None)
    if column is None:
        raise InvalidInput(
            f'{where} is on the unknown column "{target[1]}"{did_you_mean(target[1], known)} (known: {listed(known)})'
        )
    return column
