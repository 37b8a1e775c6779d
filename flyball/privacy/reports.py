"""Reports of contracts as somebody may see them: without values of hidden columns, in samples and in what was measured.

A report is made once and kept with its version; who looks at it later may see less than whoever published.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from flyball.data.masking import REDACTED

__all__ = ["columns_of", "without"]


def columns_of(report: Mapping[str, Any]) -> frozenset[str]:
    """Return the columns of which a report shows a value."""
    found: set[str] = set()
    for result in report.get("results", ()):
        for sample in result.get("sample", ()):
            found.update(sample.get("values", {}))
        if result.get("value") is not None and result.get("column"):
            found.add(result["column"])
    return frozenset(found)


def without(report: Mapping[str, Any], hidden: Collection[str]) -> dict[str, Any]:
    """Return a report that shows no value of the hidden columns; counts stay."""
    return {**report, "results": [_without(result, hidden) for result in report.get("results", ())]}


def _without(result: Mapping[str, Any], hidden: Collection[str]) -> dict[str, Any]:
    found = {**result, "sample": [_sample(sample, hidden) for sample in result.get("sample", ())]}
    if result.get("value") is not None and result.get("column") in hidden:
        outcome = "as agreed" if result.get("passed") else "not as agreed"
        found |= {
            "value": None,
            "message": f"the {result.get('check')} of {result['column']}, which is hidden, is {outcome}",
        }
    return found


def _sample(sample: Mapping[str, Any], hidden: Collection[str]) -> dict[str, Any]:
    values = sample.get("values", {})
    return {**sample, "values": {n: REDACTED if n in hidden and v is not None else v for n, v in values.items()}}
