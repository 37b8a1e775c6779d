"""The right side of a comparison: text, a number or a list, as the field on its left asks for."""

from __future__ import annotations

import math
import re

from flyball.errors import InvalidInput
from flyball.tracking.clauses import Token, is_quoted, shown, unquoted
from flyball.tracking.grammars import Field, Grammar
from flyball.tracking.likeness import check_expression

__all__ = ["read_value"]

_LARGEST_DIGITS = 400  # an integer beyond the range of a double is as good as infinite
_ID = re.compile(r"-?\d{1,18}", re.ASCII)
_WHOLE = re.compile(r"-?\d+", re.ASCII)
_ORDERED = (">", ">=", "<", "<=")


def read_value(field: Field, operator: str, token: Token, grammar: Grammar) -> str | float | int | tuple[str, ...]:
    """Return the value that a field is compared with.

    Raises:
        InvalidInput: the value is of another sort than the field takes.
    """
    if token.sort == "list" and field.type not in ("number", "integer", "score"):
        return _list(field, operator, token, grammar)
    if field.type == "score":
        is_ordered = operator in _ORDERED
        return _number(field, token, grammar) if is_ordered else _text(field, token, grammar)
    if field.type in ("number", "integer"):
        return _number(field, token, grammar)
    value = _text(field, token, grammar)
    if field.type == "id" and not _ID.fullmatch(value):
        raise InvalidInput(f"Invalid experiment ID '{shown(value)}'. Experiment ID must be a valid integer.")
    if field.type == "prompt" and (operator != "=" or value.count("/") != 1):
        raise InvalidInput(
            f"Invalid prompts filter value '{shown(value)}'. Expected format: prompt = \"name/version\", with '=' only"
        )
    if operator == "RLIKE":
        check_expression(value)
    return value


def _text(field: Field, token: Token, grammar: Grammar) -> str:
    if is_quoted(token):
        return unquoted(token.raw)
    if field.type == "pattern" and token.sort in ("name", "odd", "number", "word"):
        return token.raw
    raw = shown(token.raw)
    if token.sort in ("name", "odd"):
        raise InvalidInput(
            "Parameter value is either not quoted or unidentified quote types used for string value "
            f"{raw}. Use either single or double quotes."
        )
    if field.kind != "attribute":
        raise InvalidInput(
            f"Expected a quoted string value for {grammar.noun(field.kind)} (e.g. 'my-value'). Got value {raw}"
        )
    either = " or a list of quoted string values" if "IN" in field.operators else ""
    raise InvalidInput(f"Expected a quoted string value{either} for attributes. Got value {raw}")


def _number(field: Field, token: Token, grammar: Grammar) -> float | int:
    raw = token.raw
    if field.is_number_quoted and is_quoted(token):
        raw = unquoted(raw)
        if not _WHOLE.fullmatch(raw):
            raise InvalidInput(
                f"Invalid value for numeric attribute '{field.key}': '{shown(raw)}'; expected a whole number"
            )
    elif token.sort != "number":
        if field.type == "score":
            noun = grammar.noun(field.kind)
            raise InvalidInput(
                f"Expected a numeric value for {noun}, quoted by nothing, beside < or >. Got value {shown(raw)}"
            )
        of = "metric" if field.kind == "metric" else f"numeric attribute: {field.key}"
        raise InvalidInput(f"Expected numeric value type for {of}. Found {shown(raw)}")
    if _WHOLE.fullmatch(raw):
        whole: float | int = (
            int(raw) if len(raw) < _LARGEST_DIGITS else math.copysign(math.inf, -1 if raw[0] == "-" else 1)
        )
        return whole if field.kind != "metric" else _as_double(whole)
    if field.type == "integer":
        raise InvalidInput(
            f"Invalid value for numeric attribute '{field.key}': '{shown(raw)}'; expected a whole number"
        )
    return float(raw)


def _as_double(number: float | int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.copysign(math.inf, number)


def _list(field: Field, operator: str, token: Token, grammar: Grammar) -> tuple[str, ...]:
    if "IN" not in field.operators:
        if field.kind == "attribute":
            names = sorted(f.key for f in grammar.attributes.values() if "IN" in f.operators)
            raise InvalidInput(f"Only {names} attributes support comparison with a list of quoted string values.")
        noun = grammar.noun(field.kind)
        raise InvalidInput(f"Expected a quoted string value for {noun} (e.g. 'my-value'). Got value {shown(token.raw)}")
    if operator not in ("IN", "NOT IN"):
        raise InvalidInput(f"Invalid comparator '{operator}' for a list; expected IN or NOT IN")
    begin = "While parsing a list in the query, expected"
    if not token.parts:
        raise InvalidInput(f"{begin} a non-empty list of string values, but got empty list")
    values, commas = token.parts[::2], token.parts[1::2]
    if any(part.raw == "," for part in values) or any(part.raw != "," for part in commas):
        raise InvalidInput(f"{begin} a non-empty list of string values, but got ill-formed list: {shown(token.raw)}")
    if not all(map(is_quoted, values)):
        raise InvalidInput(
            f"{begin} string value, punctuation, or whitespace, but got different type in list: {shown(token.raw)}"
        )
    texts = tuple(unquoted(part.raw) for part in values)
    for text in texts:
        if field.type == "id" and not _ID.fullmatch(text):
            raise InvalidInput(f"Invalid experiment ID '{shown(text)}'. Experiment ID must be a valid integer.")
    return texts
