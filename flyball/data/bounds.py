"""What a measured number must be: the `mustBe…` operators of an ODCS quality rule.

Read by `quality`, held by a `Rule`, asked by `checking`. Source: ODCS v3.1.0, "Data quality", "Operators".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyball.errors import InvalidInput

__all__ = ["OPERATORS", "Bounds", "read_bounds"]

OPERATORS: Mapping[str, str] = {
    "mustBe": "=",
    "mustNotBe": "≠",
    "mustBeGreaterThan": ">",
    "mustBeGreaterOrEqualTo": "≥",
    "mustBeLessThan": "<",
    "mustBeLessOrEqualTo": "≤",
    "mustBeBetween": "between",
    "mustNotBeBetween": "not between",
}
_LOWER = ("mustBeGreaterThan", "mustBeGreaterOrEqualTo")
_UPPER = ("mustBeLessThan", "mustBeLessOrEqualTo")


@dataclass(frozen=True)
class Bounds:
    """Conditions that a number must all meet; `percent` when it counts rows as a percentage of all rows."""

    conditions: tuple[tuple[str, Any], ...]
    percent: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` meets every condition; NaN meets none."""
        return not math.isnan(value) and all(_meets(value, op, limit) for op, limit in self.conditions)

    @property
    def is_zero(self) -> bool:
        """Whether only zero is allowed, which makes a rule on a count a rule on each row."""
        return self.conditions in ((("mustBe", 0),), (("mustBeLessOrEqualTo", 0),), (("mustBeLessThan", 1),)) and not (
            self.percent and self.conditions[0][0] == "mustBeLessThan"
        )

    def __str__(self) -> str:
        unit = " %" if self.percent else ""
        return " and ".join(f"{OPERATORS[op]} {_text(limit)}{unit}" for op, limit in self.conditions)


def read_bounds(entry: Mapping[str, Any], where: str, *, percent: bool = False) -> Bounds:
    """Return the bounds that the `mustBe…` fields of `entry` state.

    Raises:
        InvalidInput: no operator, a limit that is not a number, or limits that no number can meet.
    """
    conditions = [(op, entry[op]) for op in OPERATORS if entry.get(op) is not None]
    if not conditions:
        raise InvalidInput(f"{where} has no limit; give it one of {', '.join(OPERATORS)}")
    for op, limit in conditions:
        pair = op.endswith("Between")
        numbers = limit if pair and isinstance(limit, list | tuple) else [limit]
        if len(numbers) != (2 if pair else 1) or not all(_is_number(n) for n in numbers):
            expected = "two numbers [low, high]" if pair else "a number"
            raise InvalidInput(f"{op} of {where} is {limit!r}; expected {expected}")
    bounds = Bounds(tuple((op, tuple(v) if isinstance(v, list) else v) for op, v in conditions), percent)
    _refuse_contradiction(bounds, where)
    return bounds


def _meets(value: float, op: str, limit: Any) -> bool:
    match op:
        case "mustBe":
            return bool(value == limit)
        case "mustNotBe":
            return bool(value != limit)
        case "mustBeGreaterThan":
            return bool(value > limit)
        case "mustBeGreaterOrEqualTo":
            return bool(value >= limit)
        case "mustBeLessThan":
            return bool(value < limit)
        case "mustBeLessOrEqualTo":
            return bool(value <= limit)
        case "mustBeBetween":
            return bool(limit[0] <= value <= limit[1])
        case _:
            return not limit[0] <= value <= limit[1]


def _refuse_contradiction(bounds: Bounds, where: str) -> None:
    low, low_open, high, high_open = -math.inf, False, math.inf, False
    for op, limit in bounds.conditions:
        if op.endswith("Between") and limit[0] > limit[1]:
            raise InvalidInput(f"{op} of {where} is {list(limit)}, the larger first; write [{limit[1]}, {limit[0]}]")
        if op in (*_LOWER, "mustBe", "mustBeBetween"):
            least = limit[0] if op == "mustBeBetween" else limit
            low, low_open = max((low, low_open), (least, op == "mustBeGreaterThan"))
        if op in (*_UPPER, "mustBe", "mustBeBetween"):
            most = limit[1] if op == "mustBeBetween" else limit
            if most < high:
                high, high_open = most, op == "mustBeLessThan"
            elif most == high:
                high_open = high_open or op == "mustBeLessThan"
    if low > high or (low == high and (low_open or high_open)):
        raise InvalidInput(f"no number can be {bounds}, as {where} asks; the limits contradict each other")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _text(limit: Any) -> str:
    return f"{limit[0]} and {limit[1]}" if isinstance(limit, tuple) else str(limit)
