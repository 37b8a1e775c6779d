"""Read one `quality` entry of an ODCS document into a rule.

    type: library   a metric of the standard (nullValues, missingValues, invalidValues, duplicateValues, rowCount)
    type: sql       a SELECT that returns one number
    type: custom    engine: flyball, with an expression that must be true of each row, an aggregate of a column, or
                    the name of any check; entries of other engines are not enforced
    type: text      documentation, not enforced

Source: ODCS v3.1.0, "Data quality"; the older `rule:` names are those of v3.0.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flyball.data.bounds import OPERATORS, Bounds, read_bounds
from flyball.data.reports import Severity
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput, did_you_mean, listed

__all__ = ["rule_of"]

_METRICS = ("nullValues", "missingValues", "invalidValues", "duplicateValues", "rowCount")
_OLD_NAMES = {
    "nullCheck": "nullValues",
    "nullCount": "nullValues",
    "missingCount": "missingValues",
    "validValues": "invalidValues",
    "invalidCount": "invalidValues",
    "duplicateCount": "duplicateValues",
    "uniqueCheck": "duplicateValues",
    "countCheck": "rowCount",
}
_SEVERITIES: Mapping[str, Severity] = {
    "error": "error", "critical": "error", "fatal": "error", "blocker": "error", "high": "error",
    "warning": "warning", "warn": "warning", "info": "warning", "medium": "warning", "low": "warning",
}  # fmt: skip
_TYPES = ("library", "sql", "custom", "text")


def rule_of(entry: Mapping[str, Any], column: Column | None, columns: tuple[Column, ...]) -> Rule | str:
    """Return the rule that a quality entry of a column (None: of the table) makes, or a text if it makes none.

    Raises:
        InvalidInput: an unknown type, metric, severity, unit, engine or argument, or missing limits.
    """
    kind = entry.get("type") or "library"
    where = f"the {kind} quality rule of {column.name if column else 'the table'}"
    if kind == "text":
        return f"text: {entry.get('description') or entry.get('name') or ''}".strip()
    if kind == "library":
        return _library(entry, column, columns, where)
    if kind == "sql":
        params = {"query": entry.get("query"), "column": column.name if column else None}
        bounds = read_bounds(entry, where)
        return _rule("sql", column, entry, params, bounds, scope_of_table=True)
    if kind == "custom":
        return _custom(entry, column, where)
    raise InvalidInput(f'{where}: unknown type "{kind}"{did_you_mean(kind, _TYPES)} (known: {listed(_TYPES)})')


def _library(entry: Mapping[str, Any], column: Column | None, columns: tuple[Column, ...], where: str) -> Rule:
    written = entry.get("metric") or entry.get("rule")
    if not written:
        raise InvalidInput(f"{where} names no metric; expected one of {listed(_METRICS)}")
    metric = _OLD_NAMES.get(written, written)
    if metric not in _METRICS:
        raise InvalidInput(
            f'{where}: unknown metric "{written}"{did_you_mean(written, [*_METRICS, *_OLD_NAMES])} '
            f"(known: {listed(_METRICS)})"
        )
    where = f"{metric} of {column.name if column else 'the table'}"
    arguments = dict(entry.get("arguments") or {})
    if "validValues" in entry:
        arguments["validValues"] = entry["validValues"]
    percent = _is_percent(entry, where)
    # `rule: validValues` of 3.0 lists the values and needs no limit: none may be invalid.
    implied = written == "validValues" and not any(op in entry for op in OPERATORS)
    bounds = read_bounds({"mustBe": 0} if implied else entry, where, percent=percent)
    if metric == "rowCount":
        if bounds.percent:
            raise InvalidInput(f"{where} is a number of rows, not a percentage; remove the unit")
        _take(arguments, set(), where)
        return _rule("row_count", None, entry, {}, bounds, scope_of_table=True)
    if metric == "duplicateValues":
        _take(arguments, {"properties"}, where)
        names = arguments.get("properties") or ([column.name] if column else [])
        if not names or isinstance(names, str):
            raise InvalidInput(f"{where} needs arguments: {{properties: [column, …]}}")
        return _rule("unique", column, entry, {"columns": tuple(map(str, names))}, bounds)
    if column is None:
        raise InvalidInput(
            f"{where} counts values of a column; move it to a property (known: {listed(c.name for c in columns)})"
        )
    if metric == "nullValues":
        _take(arguments, set(), where)
        return _rule("required", column, entry, {}, bounds)
    if metric == "missingValues":
        _take(arguments, {"missingValues"}, where)
        return _rule("missing", column, entry, {"values": arguments.get("missingValues", [None, ""])}, bounds)
    _take(arguments, {"validValues", "pattern"}, where)
    if "validValues" in arguments:
        return _rule("enum", column, entry, {"values": arguments["validValues"]}, bounds)
    if "pattern" in arguments:
        return _rule("pattern", column, entry, {"pattern": arguments["pattern"]}, bounds)
    raise InvalidInput(f"{where} does not say what is valid; give arguments: {{validValues: […]}} or {{pattern: …}}")


def _custom(entry: Mapping[str, Any], column: Column | None, where: str) -> Rule | str:
    engine = str(entry.get("engine") or "")
    if engine != "flyball":
        if did_you_mean(engine, ["flyball"]):
            raise InvalidInput(f'{where}: unknown engine "{engine}"; did you mean "flyball"?')
        return f"{column.name if column else 'table'}: a rule for the engine {engine or 'of no name'}"
    how = entry.get("implementation")
    how = {"expression": how} if isinstance(how, str) else dict(how or {})
    limits = {op: how.pop(op) for op in OPERATORS if op in how}
    if "expression" in how:
        _take(how, {"expression"}, where)
        bounds = read_bounds(limits, where, percent=_is_percent(entry, where)) if limits else None
        return _rule("cross_field", column, entry, how, bounds)
    if "aggregate" in how:
        _take(how, {"aggregate", "column"}, where)
        about = how.get("column") or (column.name if column else None)
        params = {"aggregate": how["aggregate"]}
        rule = _rule("aggregate", column, entry, params, read_bounds(limits, where), scope_of_table=True)
        return _about(rule, str(about) if about else None)
    if "check" in how:
        check = str(how.pop("check"))
        bounds = read_bounds(limits, where, percent=_is_percent(entry, where)) if limits else None
        return _rule(check, column, entry, how, bounds)
    raise InvalidInput(
        f"{where}: the implementation needs an expression, an aggregate or a check; it has {listed(how)}"
    )


def _is_percent(entry: Mapping[str, Any], where: str) -> bool:
    unit = str(entry.get("unit") or "rows").lower()
    if unit not in ("rows", "row", "percent", "percentage", "%"):
        raise InvalidInput(
            f'{where} has the unit "{unit}"{did_you_mean(unit, ["rows", "percent"])}; write rows or percent'
        )
    return unit not in ("rows", "row")


def _rule(
    check: str,
    column: Column | None,
    entry: Mapping[str, Any],
    params: Mapping[str, Any],
    bounds: Bounds | None,
    *,
    scope_of_table: bool = False,
) -> Rule:
    written = str(entry.get("severity") or "error").lower()
    if written not in _SEVERITIES:
        raise InvalidInput(f'unknown severity "{written}"{did_you_mean(written, _SEVERITIES)}; write error or warning')
    if not scope_of_table and bounds is not None and bounds.is_zero:
        bounds = None
    return Rule(
        id=f"{column.name if column else 'table'}.{check}",
        check=check,
        column=column.name if column else None,
        params=params,
        severity=_SEVERITIES[written],
        scope="table" if bounds is not None else "row",
        bounds=bounds,
        description=str(entry.get("description") or entry.get("name") or ""),
    )


def _about(rule: Rule, column: str | None) -> Rule:
    import dataclasses

    return dataclasses.replace(rule, column=column, id=f"{column or 'table'}.{rule.check}")


def _take(arguments: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in arguments:
        if name not in known:
            raise InvalidInput(
                f'{where}: unknown argument "{name}"{did_you_mean(name, known)} (known: {listed(sorted(known))})'
            )
