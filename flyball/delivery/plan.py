"""A plan: what applying documents would change, and what that would start. A value: print it, test it, run it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from flyball.delivery.documents import Document
from flyball.errors import InvalidInput, did_you_mean
from flyball.ledger import Transaction, kinds
from flyball.ledger.refs import Ref
from flyball.ledger.resources import Applied

__all__ = ["Change", "Plan", "carry_out", "make_plan"]


@dataclass(frozen=True)
class Change:
    """What would happen to one resource. `fields` maps each changed field to its old and new value."""

    action: Literal["create", "change", "keep"]
    document: Document
    fields: Mapping[str, tuple[Any, Any]]
    wakes: tuple[Ref, ...]
    revision: int


@dataclass(frozen=True)
class Plan:
    """Changes in an order in which each finds what it refers to."""

    changes: tuple[Change, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        return all(change.action == "keep" for change in self.changes)

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the plan as JSON values."""
        return [
            {
                "action": c.action,
                "ref": str(c.document.ref),
                "fields": {k: {"from": old, "to": new} for k, (old, new) in c.fields.items()},
                "wakes": [str(w) for w in c.wakes],
            }
            for c in self.changes
        ]

    def __str__(self) -> str:
        lines = []
        marks = {"create": "+", "change": "~", "keep": " "}
        for change in self.changes:
            lines.append(
                f"{marks[change.action]} {change.document.ref}" + (" (as it is)" if change.action == "keep" else "")
            )
            for name, (old, new) in change.fields.items():
                lines.append(
                    f"    {name}: {_short(new)}"
                    if change.action == "create"
                    else f"    {name}: {_short(old)} → {_short(new)}"
                )
            if change.action == "change" and change.wakes:
                lines.append(f"    looks again: {', '.join(map(str, change.wakes))}")
        count = {a: sum(c.action == a for c in self.changes) for a in ("create", "change", "keep")}
        lines.append(f"{count['create']} to create, {count['change']} to change, {count['keep']} as they are")
        return "\n".join(lines)


def make_plan(documents: Iterable[Document], world: Transaction) -> Plan:
    """Compare documents with the ledger.

    Raises:
        InvalidInput: a document refers to a resource that neither exists nor is among the documents.
    """
    by_ref = {d.ref: d for d in documents}
    typed = {r: kinds.validate(d.kind, d.name, d.spec) for r, d in by_ref.items()}
    needs = {r: {t.resource for t in spec.references()} for r, spec in typed.items()}
    for source, targets in needs.items():
        for target in sorted(targets - set(by_ref)):
            if world.resources.find(target.kind, target.name) is None:
                near = [r.name for r in world.resources.all(target.kind)] + [
                    r.name for r in by_ref if r.kind == target.kind
                ]
                raise InvalidInput(
                    f"{source} refers to {target}, which is neither declared nor there{did_you_mean(target.name, near)}"
                )
    changes = []
    for found in _in_order(needs):
        document, before = by_ref[found], world.resources.find(found.kind, found.name)
        after = orjson.loads(orjson.dumps(typed[found].model_dump(mode="json", exclude_defaults=True)))
        old = dict(before.spec) if before else {}
        fields = {k: (old.get(k), after.get(k)) for k in sorted({*old, *after}) if old.get(k) != after.get(k)}
        relabelled = before is not None and dict(document.labels) != dict(before.labels) and bool(document.labels)
        if relabelled and before is not None:
            fields["labels"] = (dict(before.labels), dict(document.labels))
        action: Literal["create", "change", "keep"] = "create" if before is None else ("change" if fields else "keep")
        wakes = tuple(world.resources.referrers(found)) if before else ()
        changes.append(Change(action, document, fields, wakes, before.revision if before else 0))
    return Plan(tuple(changes))


def carry_out(plan: Plan, world: Transaction) -> list[Applied]:
    """Apply a plan within one transaction.

    Raises:
        Conflict: a resource has changed since the plan was made; nothing is applied.
    """
    return [
        world.resources.apply(
            c.document.kind,
            c.document.name,
            c.document.spec,
            labels=c.document.labels or None,
            revision=c.revision,
        )
        for c in plan.changes
    ]


def _in_order(needs: Mapping[Ref, set[Ref]]) -> list[Ref]:
    """Return references so that each comes after those it needs; cycles are kept in their given order."""
    ordered: list[Ref] = []
    visiting: set[Ref] = set()

    def visit(found: Ref) -> None:
        if found in ordered or found in visiting or found not in needs:
            return
        visiting.add(found)
        for needed in sorted(needs[found]):
            visit(needed)
        ordered.append(found)

    for found in needs:
        visit(found)
    return ordered


def _short(value: Any) -> str:
    text = orjson.dumps(value, default=str).decode() if not isinstance(value, str) else value
    return text if len(text) <= 80 else text[:77] + "…"
