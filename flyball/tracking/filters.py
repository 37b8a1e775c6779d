"""What a filter or an order asks for: text in MLflow's language, read into values that every search understands.

Which names, operators and types an entity has is its `Grammar` (`flyball.tracking.grammars`). `holds` says whether one
value satisfies a comparison: NaN differs from every number (`!=`) and satisfies nothing else, a value that is missing
satisfies `IS NULL` alone. Refusals begin with the words that MLflow's clients look for. Source: PROTOCOLS.md §2.5.

Beyond MLflow 3.17: operators are words in any case everywhere, a key may be any word (MLflow's parser stumbles over
those of SQL, such as `metrics.from`), and a quote within quotes is written twice.
"""

from __future__ import annotations

import operator as signs
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyball.errors import InvalidInput, listed
from flyball.tracking.clauses import Clause, Token, cut_clauses, cut_order, pieces, shown, unquoted
from flyball.tracking.grammars import Field, Grammar, unknown
from flyball.tracking.likeness import like, matching
from flyball.tracking.operands import read_value

__all__ = ["Comparison", "Order", "holds", "parse_filter", "parse_order", "parse_order_objects", "judge"]

_OF_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": signs.eq, "!=": signs.ne, ">": signs.gt, ">=": signs.ge, "<": signs.lt, "<=": signs.le,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition: `kind` "attribute", "metric", "param", "tag", "dataset", … and `key` say of what.

    `operator` is one of = != > >= < <= LIKE ILIKE RLIKE IN "NOT IN" "IS NULL" "IS NOT NULL"; `value` a tuple for the
    lists, None for the last two.
    """

    kind: str
    key: str
    operator: str
    value: str | float | int | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Order:
    """One thing to sort by; of a logged model's metric also the data set that it was measured on."""

    kind: str
    key: str
    ascending: bool
    dataset: str | None = None
    digest: str | None = None


def parse_filter(text: str | None, grammar: Grammar) -> tuple[Comparison, ...]:
    """Return the comparisons of a filter, all of which must hold; of an empty one none.

    Raises:
        InvalidInput: the text is no filter of this grammar, or has more than 100,000 characters or 500 comparisons.

    >>> from flyball.tracking.grammars import RUNS
    >>> parse_filter("metrics.loss < 0.1 AND params.`model name` LIKE 'res%'", RUNS)[1]
    Comparison(kind='param', key='model name', operator='LIKE', value='res%')
    """
    return tuple(_comparison(clause, grammar) for clause in cut_clauses(text)) if text else ()


def parse_order(items: Sequence[str] | None, grammar: Grammar) -> tuple[Order, ...]:
    """Return what items such as `metrics.loss DESC` order by.

    Raises:
        InvalidInput: an item is no order of this grammar, or a key stands twice.
    """
    orders = []
    for item in items or ():
        token, is_ascending = cut_order(item)
        orders.append(Order(*_order_key(token, grammar), is_ascending))
    return _without_repeats(orders, grammar)


def parse_order_objects(items: Sequence[Mapping[str, Any]] | None, grammar: Grammar) -> tuple[Order, ...]:
    """Return what objects {field_name, ascending, dataset_name, dataset_digest} order by, as logged models have it.

    Raises:
        InvalidInput: an object lacks its name, names what cannot be ordered by, or has a value of another type.
    """
    orders = []
    for item in items or ():
        if not isinstance(item, Mapping):
            raise InvalidInput("`order_by` must be a list of dictionaries.")
        name, is_ascending = item.get("field_name"), item.get("ascending", True)
        dataset, digest = item.get("dataset_name") or None, item.get("dataset_digest") or None
        if not isinstance(name, str) or not name.strip():
            raise InvalidInput("`field_name` in the `order_by` clause must be specified.")
        if not isinstance(is_ascending, bool):
            raise InvalidInput(
                f"Value of `ascending` in the `order_by` clause must be a boolean, got {is_ascending!r:.100}"
            )
        if digest and not dataset:
            raise InvalidInput("`dataset_digest` can only be specified if `dataset_name` is also specified.")
        prefix, dot, key = name.strip().partition(".")
        if dot and (grammar.prefixes.get(prefix) not in grammar.order_kinds or not key):
            raise InvalidInput(
                f"Invalid order by field name: {shown(name)}. Only metrics.<name> is allowed beside attributes."
            )
        if not dot and prefix not in grammar.orders:
            raise InvalidInput(unknown("Invalid order by field name: {key}. Valid names are", prefix, grammar.orders))
        place = (grammar.prefixes[prefix], unquoted(key)) if dot else grammar.orders[prefix]
        orders.append(Order(*place, is_ascending, dataset, digest))
    return tuple(orders)


def _without_repeats(orders: list[Order], grammar: Grammar) -> tuple[Order, ...]:
    places = [(order.kind, order.key) for order in orders]
    if len(set(places)) < len(places) and not grammar.is_order_repeatable:
        raise InvalidInput(f"`order_by` contains duplicate fields: {shown(', '.join(key for _, key in places))}")
    return tuple(orders)


def _comparison(clause: Clause, grammar: Grammar) -> Comparison:
    field = _left(clause.left, grammar)
    operator = clause.operator
    if operator in ("IS NULL", "IS NOT NULL"):
        if operator not in field.operators and grammar.nullable:
            noun = grammar.noun(field.kind)
            raise InvalidInput(
                f"IS NULL / IS NOT NULL is only supported for {grammar.nullable}, not for '{noun}' '{field.key}'"
            )
        value: Any = None
        _check_operator(field, operator, grammar)
    elif clause.right.sort == "list":  # what cannot be compared with a list says so
        value = read_value(field, operator, clause.right, grammar)
        _check_operator(field, operator, grammar)
    else:
        _check_operator(field, operator, grammar)
        value = read_value(field, operator, clause.right, grammar)
    return Comparison(field.kind, field.key, operator, value)


def _left(token: Token, grammar: Grammar) -> Field:
    if token.sort != "name":
        advice = "; write a key of other characters in backquotes" if token.sort == "odd" else ""
        raise InvalidInput(f"Invalid comparison clause. Expected 'Identifier' found '{shown(token.raw)}'{advice}")
    return grammar.field(*_kind_and_key(token, grammar))


def _order_key(token: Token, grammar: Grammar) -> tuple[str, str]:
    kind, key = _kind_and_key(token, grammar)
    if kind != "attribute":
        if kind not in grammar.order_kinds:
            raise InvalidInput(
                f"Invalid order_by entity: {kind}. Expected {listed(['attribute', *grammar.order_kinds])}."
            )
        return kind, key
    if key not in grammar.orders:
        raise InvalidInput(unknown(grammar.bad_order, key, grammar.orders))
    return grammar.orders[key]


def _kind_and_key(token: Token, grammar: Grammar) -> tuple[str, str]:
    prefix, *rest = pieces(token)
    if not rest:
        return "attribute", prefix
    if prefix not in grammar.prefixes:
        raise InvalidInput(unknown(grammar.bad_prefix, prefix, grammar.prefixes, "prefix"))
    return grammar.prefixes[prefix], ".".join(rest)


def _check_operator(field: Field, operator: str, grammar: Grammar) -> None:
    if operator not in field.operators:
        name = f"{grammar.noun(field.kind)}.{field.key}"
        begin = grammar.bad_operator.format(operator=operator, noun=grammar.noun(field.kind), name=shown(name))
        raise InvalidInput(f"{begin} {', '.join(sorted(field.operators))}")


def holds(actual: str | float | int | None, comparison: Comparison) -> bool:
    """Whether one value (None: missing) satisfies a comparison; for many values `judge` is quicker.

    >>> holds("ResNet50", Comparison("param", "model", "LIKE", "res%"))
    False
    """
    if comparison.operator in ("IS NULL", "IS NOT NULL"):
        return (actual is None) == (comparison.operator == "IS NULL")
    return actual is not None and judge(comparison)(actual)


def judge(comparison: Comparison) -> Callable[[Any], bool]:
    """Return a test of values that are there, for any operator but IS NULL and IS NOT NULL."""
    sign, value = comparison.operator, comparison.value
    if sign in ("IN", "NOT IN"):
        members = frozenset(value)  # type: ignore[arg-type]
        return members.__contains__ if sign == "IN" else lambda actual: actual not in members
    if sign in ("LIKE", "ILIKE"):
        return like(str(value), is_case_ignored=sign == "ILIKE")
    if sign == "RLIKE":
        return matching(str(value))
    compare = _OF_SIGNS[sign]
    return lambda actual: compare(actual, value)
