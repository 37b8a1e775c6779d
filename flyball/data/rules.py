"""From what an ODCS document says about a table to the rules that Flyball checks.

Called by `contracts.read_contract`. A property's own statements (`required`, `unique`, `logicalTypeOptions`, …)
are read here, `quality` entries by `quality`, and each resulting rule is shown to its check, which refuses
parameters it cannot work with.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from flyball import plugins
from flyball.clock import parse_duration
from flyball.data.quality import rule_of
from flyball.data.relationships import relationship_rule
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput, NotFound, did_you_mean, listed

__all__ = ["find_check", "rules_of"]

_RANGE = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_TIME = {*_RANGE, "format", "timezone", "defaultTimezone"}
_NUMBER = {*_RANGE, "multipleOf", "format"}
_OPTIONS: Mapping[str, set[str]] = {
    "string": {"minLength", "maxLength", "pattern", "format"},
    "integer": _NUMBER,
    "number": _NUMBER,
    "date": {*_RANGE, "format"},
    "timestamp": _TIME,
    "time": _TIME,
    "array": {"minItems", "maxItems", "uniqueItems"},
    "object": {"minProperties", "maxProperties", "required"},
    "boolean": set(),
}
_SPAN_UNITS = {"d": "d", "day": "d", "days": "d", "h": "h", "hr": "h", "hour": "h", "hours": "h", "m": "m",
               "min": "m", "minute": "m", "minutes": "m", "s": "s", "second": "s", "seconds": "s",
               "w": "w", "week": "w", "weeks": "w"}  # fmt: skip


def rules_of(
    document: Mapping[str, Any], table: Mapping[str, Any], columns: tuple[Column, ...]
) -> tuple[list[Rule], list[str]]:
    """Return the rules of one schema object, and in words what the document states that no rule enforces.

    Raises:
        InvalidInput: an unknown option, metric or column, or a rule that nothing can meet.
    """
    rules: list[Rule] = []
    unenforced: list[str] = []
    for item, column in _with_columns(table.get("properties") or [], columns):
        rules += _property_rules(item, column)
        for entry in item.get("quality") or []:
            _add(rule_of(entry, column, columns), rules, unenforced)
        for entry in item.get("relationships") or []:
            _add(relationship_rule(entry, column, document, table, columns), rules, unenforced)
        if item.get("items") or item.get("map"):
            unenforced.append(f"{column.name}: the type of its items")
    rules += _primary_key(table.get("properties") or [])
    for entry in table.get("quality") or []:
        _add(rule_of(entry, None, columns), rules, unenforced)
    for entry in table.get("relationships") or []:
        _add(relationship_rule(entry, None, document, table, columns), rules, unenforced)
    for entry in document.get("slaProperties") or []:
        if entry.get("property") == "freshness":
            rules += _freshness(entry, document, table, columns)
        else:
            unenforced.append(f"service level: {entry.get('property')}")
    for rule in rules:
        _validate(rule, columns)
    return _with_distinct_ids(rules), unenforced


def _with_columns(
    properties: list[dict[str, Any]], columns: tuple[Column, ...], prefix: str = ""
) -> Iterable[tuple[dict[str, Any], Column]]:
    by_name = {c.name: c for c in columns}
    for item in properties:
        name = f"{prefix}{item['name']}"
        yield item, by_name[name]
        yield from _with_columns(item.get("properties") or [], columns, prefix=f"{name}.")


def _property_rules(item: Mapping[str, Any], column: Column) -> list[Rule]:
    logical, options = column.logical_type, column.options
    if logical is not None and logical not in _OPTIONS:
        raise InvalidInput(
            f'{column.name} has the unknown logicalType "{logical}"{did_you_mean(logical, _OPTIONS)} '
            f"(known: {listed(_OPTIONS)})"
        )
    known = _OPTIONS[logical] if logical else set().union(*_OPTIONS.values())
    for option in options:
        if option not in known:
            raise InvalidInput(
                f'{column.name}: logicalTypeOptions of {logical} have no "{option}"{did_you_mean(option, known)} '
                f"(known: {listed(sorted(known))})"
            )

    def rule(check: str, **params: Any) -> Rule:
        return Rule(
            f"{column.name}.{check}", check, column.name, params, description=str(item.get("description") or "")
        )

    # An option named `format` of a date says how to read it, which is part of its type.
    is_text = logical in ("string", None)
    rules = [rule("type", logical=logical, format=None if is_text else options.get("format"))]
    if item.get("required"):
        rules.append(rule("required"))
    if logical in ("number", "integer"):
        rules.append(rule("finite"))
    if item.get("unique"):
        rules.append(rule("unique", columns=(column.name,)))
    limits = {k: options[k] for k in _RANGE if k in options}
    if limits:
        rules.append(rule("range", logical=logical, **limits))
    if "multipleOf" in options:
        rules.append(rule("multiple_of", divisor=options["multipleOf"]))
    if is_text and "format" in options:
        rules.append(rule("format", format=options["format"]))
    if "pattern" in options:
        rules.append(rule("pattern", pattern=options["pattern"]))
    for least, most in (("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties")):
        if least in options or most in options:
            unit = least.removeprefix("min").lower()
            rules.append(rule("length", unit=unit, minimum=options.get(least), maximum=options.get(most)))
    if options.get("uniqueItems"):
        rules.append(rule("unique_items"))
    if options.get("required") is not None:
        rules.append(rule("fields", names=options["required"]))
    if item.get("enum") is not None:
        rules.append(rule("enum", values=[v["value"] if isinstance(v, dict) else v for v in item["enum"]]))
    return rules


def _primary_key(properties: list[dict[str, Any]]) -> list[Rule]:
    parts = sorted((p for p in properties if p.get("primaryKey")), key=lambda p: p.get("primaryKeyPosition") or 0)
    if not parts:
        return []
    names = tuple(str(p["name"]) for p in parts)
    column = names[0] if len(names) == 1 else None
    return [Rule(f"{column or 'table'}.primary_key", "primary_key", column, {"columns": names})]


def _freshness(
    entry: Mapping[str, Any], document: Mapping[str, Any], table: Mapping[str, Any], columns: tuple[Column, ...]
) -> list[Rule]:
    element = entry.get("element") or document.get("slaDefaultElement")
    if not element:
        raise InvalidInput("the service level freshness names no element; say which time column, as table.column")
    tables = {t.get(k): t for t in document.get("schema") or [] for k in ("name", "physicalName")}
    rules = []
    for part in str(element).split(","):
        owner, _, name = part.strip().rpartition(".")
        if owner and owner not in tables:
            raise InvalidInput(
                f'freshness is about "{part.strip()}", but there is no table "{owner}"'
                f"{did_you_mean(owner, [str(t) for t in tables if t])}"
            )
        if owner and tables[owner] is not table:
            continue
        column = next((c.name for c in columns if name in (c.name, c.physical_name)), None)
        if column is None:
            raise unknown_column(name, columns, "the service level freshness")
        rules.append(Rule(f"{column}.freshness", "freshness", column, {"seconds": _seconds(entry)}, scope="table"))
    return rules


def _seconds(entry: Mapping[str, Any]) -> float:
    value, unit = entry.get("value"), str(entry.get("unit") or "").lower()
    if isinstance(value, str) and not unit and not value.strip().isdigit():
        return parse_duration(value).total_seconds()
    if unit not in _SPAN_UNITS:
        raise InvalidInput(f'freshness has the unit "{unit}"; expected one of {listed(_SPAN_UNITS, 30)}')
    try:
        return parse_duration(f"{float(str(value)):f}{_SPAN_UNITS[unit]}").total_seconds()
    except ValueError:
        raise InvalidInput(f"freshness is {value!r} {unit}; expected a number that is not negative") from None


@functools.cache  # a contract has many rules of the same check, and looking through installed distributions takes time
def find_check(name: str) -> ModuleType:
    """Return the check of this name. Raises NotFound."""
    return plugins.find("flyball.data.checks", name)


def unknown_column(name: str, columns: Iterable[Column], where: str) -> InvalidInput:
    """Return the error for a rule on a column that the contract does not have."""
    names = [c.name for c in columns]
    return InvalidInput(
        f'{where} is on the unknown column "{name}"{did_you_mean(name, names)} (known: {listed(names)})'
    )


def _add(rule: Rule | str, rules: list[Rule], unenforced: list[str]) -> None:
    if isinstance(rule, str):
        unenforced.append(rule)
    else:
        rules.append(rule)


def _validate(rule: Rule, columns: tuple[Column, ...]) -> None:
    try:
        check = find_check(rule.check)
    except NotFound as error:
        raise InvalidInput(f"{rule.id}: {error}") from None
    check.validate(rule, columns)


def _with_distinct_ids(rules: list[Rule]) -> list[Rule]:
    """Number rules of the same id: `x.enum`, `x.enum-2`."""
    import dataclasses

    seen: dict[str, int] = {}
    numbered = []
    for rule in rules:
        seen[rule.id] = seen.get(rule.id, 0) + 1
        n = seen[rule.id]
        numbered.append(rule if n == 1 else dataclasses.replace(rule, id=f"{rule.id}-{n}"))
    return numbered
