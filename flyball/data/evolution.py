"""What changed between two versions of a contract, and whether its number says so.

A change is *breaking* when rows that kept the old contract may break the new one, or when those who read by it cannot
go on as they did: a column is gone, a type means something else, the key that they join by is another.

    breaking      needs a new major version: a column removed, renamed or added as required; a type narrowed or
                  changed; a rule added as an error, a warning made one; a range, list, length, pattern or bound
                  tightened or changed; the primary key or a reference changed
    compatible    needs a new minor version: an optional column or a warning added; a type widened; a rule loosened,
                  made a warning or taken back
    wording       descriptions, tags, owners: any version

`check_version` refuses a contract whose version does not say what its changes are. Called when a Dataset's contract
changes and by `flyball contract diff`. Source: Semantic Versioning 2.0.0, items 6 to 8; ODCS v3.1.0, "Fundamentals",
`version`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flyball.data.terms import Column, Contract, Rule
from flyball.errors import InvalidInput

__all__ = ["Change", "changes", "check_version"]

Step = Literal["major", "minor", "patch"]
_SEMANTIC = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:[-+].*)?")
_WIDER = {("integer", "number"), ("date", "timestamp")}  # every value of the first is one of the second
_ALIKE = 0.75  # share of rules in common by which a removed and an added column are taken for a renamed one


@dataclass(frozen=True)
class Change:
    """One difference. `what` is a sentence without its subject: `amount: the maximum fell from 10 to 5`."""

    subject: str
    what: str
    is_breaking: bool
    kind: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.what}"

    def to_dict(self) -> dict[str, Any]:
        """Return the change as JSON values."""
        return {"subject": self.subject, "what": self.what, "breaking": self.is_breaking, "kind": self.kind}


def changes(old: Contract, new: Contract) -> list[Change]:
    """Return how `new` differs from `old`, breaking changes first; nothing when both mean the same."""
    found: list[Change] = []
    before, after = {c.name: c for c in old.columns}, {c.name: c for c in new.columns}
    gone = [n for n in before if n not in after and _parent(n) not in _missing(before, after)]
    come = [n for n in after if n not in before and _parent(n) not in _missing(after, before)]
    renamed = _renamed(old, new, gone, come)
    for name in gone:
        if name in renamed:
            found.append(Change(name, f"renamed to {renamed[name]}", True, "renamed"))
        else:
            found.append(Change(name, "removed", True, "removed"))
    for name in come:
        if name not in renamed.values():
            must = any(r.column == name and r.severity == "error" and r.check in _DEMANDS for r in new.rules)
            what = "added as a required column" if must else "added as an optional column"
            found.append(Change(name, what, must, "added"))
    for name in (n for n in before if n in after):
        found += _type_changes(before[name], after[name])
    found += _rule_changes(old, new, set(gone) | set(come))
    if old.strict != new.strict:
        found.append(Change("table", f"columns beyond the contract are {'refused' if new.strict else 'allowed'}",
                            new.strict, "strict"))  # fmt: skip
    return sorted(found, key=lambda change: not change.is_breaking)


def check_version(old: Contract, new: Contract) -> list[Change]:
    """Return the changes if the new contract's version says what they are.

    Raises:
        InvalidInput: a breaking change without a new major version, an addition without a new minor one, a change
            under the same version, or a version that went back; the message lists the changes.
    """
    found = changes(old, new)
    one, two = _numbers(old), _numbers(new)
    if two < one:
        raise InvalidInput(f"the version of {new.name} went back from {old.version} to {new.version}; number it higher")
    breaking = [str(change) for change in found if change.is_breaking]
    if breaking and two[0] == one[0]:
        raise InvalidInput(
            f"{new.name} {new.version} breaks what {old.version} promised: {'; '.join(breaking)}. "
            f"Number it {one[0] + 1}.0.0, or take these changes back"
        )
    if found and two[:2] == one[:2]:
        raise InvalidInput(
            f"{new.name} changed under version {new.version}: {'; '.join(map(str, found))}. "
            f"Number it {one[0]}.{one[1] + 1}.0"
        )
    return found


_DEMANDS = {"required", "primary_key", "missing", "fields"}  # a column without which rows fail


def _numbers(contract: Contract) -> tuple[int, int, int]:
    match = _SEMANTIC.fullmatch(contract.version.strip())
    if match is None:
        raise InvalidInput(f"the version of {contract.name} is {contract.version!r}; write three numbers like 1.4.0")
    major, minor, patch = (int(part or 0) for part in match.groups())
    return major, minor, patch


def _missing(here: Mapping[str, Column], there: Mapping[str, Column]) -> set[str]:
    return {name for name in here if name not in there}


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _renamed(old: Contract, new: Contract, gone: list[str], come: list[str]) -> dict[str, str]:
    """Return removed columns that stand under another name now: the same physical column, or the same rules."""
    found: dict[str, str] = {}
    for name in gone:
        one = old.column(name)
        assert one is not None
        for other in (c for c in come if c not in found.values()):
            two = new.column(other)
            assert two is not None
            physical = {one.physical_name or one.name} & {two.physical_name or two.name, two.physical_name}
            if one.logical_type == two.logical_type and (physical or _alike(old, new, name, other)):
                found[name] = other
                break
    return found


def _alike(old: Contract, new: Contract, name: str, other: str) -> bool:
    one = {(r.check, _frozen(r.params)) for r in old.rules if r.column == name and name not in str(r.params)}
    two = {(r.check, _frozen(r.params)) for r in new.rules if r.column == other and other not in str(r.params)}
    telling = [check for check, _ in one & two if check not in ("type", "finite", "required")]
    return bool(telling) and len(one & two) / len(one | two) >= _ALIKE


def _frozen(value: Any) -> str:
    return repr(sorted(value.items()) if isinstance(value, Mapping) else value)


def _type_changes(one: Column, two: Column) -> list[Change]:
    found = []
    before, after = one.logical_type, two.logical_type
    if before != after:
        if after is None:
            what, breaking = f"may be of any type, was {before}", False
        elif before is None:
            what, breaking = f"must be of type {after}, was any", True
        elif (before, after) in _WIDER:
            what, breaking = f"widened from {before} to {after}", False
        else:
            word = "narrowed" if (after, before) in _WIDER else "changed"
            what, breaking = f"{word} from {before} to {after}", True
        found.append(Change(one.name, what, breaking, "type"))
    elif one.options.get("format") != two.options.get("format") and after in ("date", "timestamp", "time"):
        what = f"its format changed from {one.options.get('format')} to {two.options.get('format')}"
        found.append(Change(one.name, what, True, "type"))
    if (one.physical_name or one.name) != (two.physical_name or two.name):
        what = f"its column in the data is now {two.physical_name or two.name}, not {one.physical_name or one.name}"
        found.append(Change(one.name, what, True, "renamed"))
    return found


def _rule_changes(old: Contract, new: Contract, without: set[str]) -> list[Change]:
    found: list[Change] = []
    skipped = {"type", "finite", "columns"}
    before = {_identity(r): r for r in old.rules if r.check not in skipped and r.column not in without}
    after = {_identity(r): r for r in new.rules if r.check not in skipped and r.column not in without}
    for identity, rule in before.items():
        if identity not in after:
            found.append(_removed(rule))
    for identity, rule in after.items():
        if identity not in before:
            breaking = rule.severity == "error"
            tail = "" if breaking else ", as a warning"
            found.append(Change(rule.column or "table", f"{_said(rule)} was added{tail}", breaking, rule.check))
            continue
        found += _changed(before[identity], rule)
    return found


def _identity(rule: Rule) -> tuple[Any, ...]:
    """Return what makes two rules of two contracts the same rule, though its limits may differ."""
    named = {"cross_field": ("expression",), "sql": ("query",), "aggregate": ("aggregate",), "unique": ("columns",),
             "reference": ("dataset", "columns", "to"), "depends_on": ("columns",), "length": ("unit",)}  # fmt: skip
    return rule.check, rule.column, *(_frozen(rule.params.get(name)) for name in named.get(rule.check, ()))


def _removed(rule: Rule) -> Change:
    is_key = rule.check == "primary_key"
    return Change(rule.column or "table", f"{_said(rule)} was taken back", is_key, rule.check)


def _changed(one: Rule, two: Rule) -> list[Change]:
    found: list[Change] = []
    subject = one.column or "table"
    if one.severity != two.severity:
        found.append(
            Change(subject, f"{_said(one)} is now {_article(two.severity)}", two.severity == "error", one.check)
        )
    if one.params != two.params:
        judge = _JUDGES.get(one.check, _different)
        found += [Change(subject, what, breaking, one.check) for what, breaking in judge(one.params, two.params)]
    if one.bounds != two.bounds:
        was, now = (str(r.bounds) if r.bounds else "none" for r in (one, two))
        breaking = not _contains(_interval(two), _interval(one))
        word = "tightened" if breaking else "loosened"
        found.append(Change(subject, f"the bound of {_said(one)} was {word} from {was} to {now}", breaking, one.check))
    if one.severity == two.severity == "warning":
        return [Change(c.subject, c.what, False, c.kind) for c in found]
    return found


def _interval(rule: Rule) -> tuple[float, float, Any]:
    """Return the least and the most that a rule's number may be, and what an interval cannot say."""
    if rule.bounds is None:
        return 0.0, 0.0, False
    low, high, others = -math.inf, math.inf, []
    for operator, limit in rule.bounds.conditions:
        if operator == "mustBeBetween":
            low, high = max(low, limit[0]), min(high, limit[1])
        elif operator in ("mustBe", "mustBeGreaterThan", "mustBeGreaterOrEqualTo"):
            low = max(low, limit)
        elif operator not in ("mustBeLessThan", "mustBeLessOrEqualTo"):
            others.append((operator, limit))
        if operator in ("mustBe", "mustBeLessThan", "mustBeLessOrEqualTo"):
            high = min(high, limit)
    counts = rule.check not in ("aggregate", "sql", "row_count")  # failing rows: fewer are always better
    return (
        (0.0 if counts and not others else low),
        high,
        (rule.bounds.percent and high > 0, others) if others else False,
    )


def _contains(outer: tuple[float, float, Any], inner: tuple[float, float, Any]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1] and outer[2] == inner[2]


def _said(rule: Rule) -> str:
    detail = rule.params.get("expression") or rule.params.get("aggregate") or rule.params.get("dataset") or ""
    return f"the rule {rule.check}" + (f" ({detail})" if detail else "")


def _article(severity: str) -> str:
    return "an error" if severity == "error" else "a warning"


Judgement = list[tuple[str, bool]]


def _different(one: Mapping[str, Any], two: Mapping[str, Any]) -> Judgement:
    names = [name for name in {**one, **two} if one.get(name) != two.get(name)]
    return [(f"{name} changed from {one.get(name)!r} to {two.get(name)!r}", True) for name in names]


def _limits(one: Mapping[str, Any], two: Mapping[str, Any]) -> Judgement:
    found: Judgement = []
    for name in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
        low, high = one.get(name), two.get(name)
        if low == high:
            continue
        if high is None:
            found.append((f"the {name} {low} was taken back", False))
        elif low is None:
            found.append((f"a {name} of {high} was added", True))
        else:
            tighter = _is_tighter(name, low, high)
            found.append((f"the {name} was {'tightened' if tighter else 'loosened'} from {low} to {high}", tighter))
    return found


def _is_tighter(name: str, before: Any, after: Any) -> bool:
    try:
        return bool(after > before) if "inimum" in name else bool(after < before)
    except TypeError:
        return True


def _values(one: Mapping[str, Any], two: Mapping[str, Any]) -> Judgement:
    before, after = list(one.get("values") or ()), list(two.get("values") or ())
    gone, come = [v for v in before if v not in after], [v for v in after if v not in before]
    found: Judgement = []
    if gone:
        found.append((f"{_list(gone)} may no longer occur", True))
    if come:
        found.append((f"{_list(come)} may occur now", False))
    return found


def _missing_values(one: Mapping[str, Any], two: Mapping[str, Any]) -> Judgement:
    before, after = list(one.get("values") or ()), list(two.get("values") or ())
    more, fewer = [v for v in after if v not in before], [v for v in before if v not in after]
    found: Judgement = [(f"{_list(more)} counts as missing now", True)] if more else []
    return found + ([(f"{_list(fewer)} no longer counts as missing", False)] if fewer else [])


def _newest(one: Mapping[str, Any], two: Mapping[str, Any]) -> Judgement:
    before, after = float(one["seconds"]), float(two["seconds"])
    return [(f"may be {after / 3600:g} hours old, was {before / 3600:g}", after < before)]


def _list(values: list[Any]) -> str:
    return ", ".join(map(str, values[:8])) + (f" and {len(values) - 8} more" if len(values) > 8 else "")


def _pattern(one: Mapping[str, Any], two: Mapping[str, Any]) -> Judgement:
    return [(f"the pattern changed from {one.get('pattern')} to {two.get('pattern')}", True)]


_JUDGES: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Judgement]] = {
    "range": _limits,
    "length": _limits,
    "enum": _values,
    "missing": _missing_values,
    "freshness": _newest,
    "pattern": _pattern,
}
