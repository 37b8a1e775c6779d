"""Whether a text is like a pattern: LIKE, ILIKE and RLIKE.

LIKE: `%` stands for any characters, `_` for one, nothing escapes them; case counts. ILIKE: case does not count. Both
take time linear in the text for any number of `%`. RLIKE: a regular expression found anywhere in the text, by an engine
without backtracking, since whoever writes it may mean harm.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from flyball.errors import InvalidInput
from flyball.tracking.clauses import shown

__all__ = ["check_expression", "like", "matching"]

_LONGEST_EXPRESSION = 10_000


def like(pattern: str, *, is_case_ignored: bool = False) -> Callable[[str], bool]:
    """Return a test for texts like `pattern`."""
    if is_case_ignored:
        exact = like(pattern.lower())
        return lambda text: exact(text.lower())
    first, *rest = pattern.split("%")
    if not rest:
        whole = _piece(pattern, at_start=True)
        return (lambda text: len(text) == len(pattern) and whole(text, 0) == 0) if "_" in pattern else pattern.__eq__
    last = rest.pop()
    middle = [part for part in rest if part]
    if "_" not in pattern and not first and not last and len(middle) == 1:
        (within,) = middle
        return lambda text: within in text
    if "_" not in pattern and not middle:
        return lambda text: len(text) >= len(first) + len(last) and text.startswith(first) and text.endswith(last)
    start, ends = _piece(first, at_start=True), _piece(last, at_start=True)
    parts = [(len(part), _piece(part)) for part in middle]

    def test(text: str) -> bool:
        end = len(text) - len(last)
        if end < len(first) or start(text, 0) != 0:
            return False
        at = len(first)
        for length, find in parts:  # the leftmost place of each leaves the most room for those behind it
            found = find(text, at)
            if found < 0:
                return False
            at = found + length
        return at <= end and ends(text, end) == end

    return test


def check_expression(pattern: str) -> None:
    """Raise InvalidInput unless RLIKE can read the regular expression."""
    if len(pattern) > _LONGEST_EXPRESSION:
        raise InvalidInput(f"Invalid regular expression: it has {len(pattern):,} characters; expected at most 10,000")
    _matches(pattern, [""])


def _piece(part: str, *, at_start: bool = False) -> Callable[[str, int], int]:
    """Return a search for a piece of a pattern from a place on, or only there; `_` is any one character."""
    if "_" not in part:
        if at_start:
            return lambda text, at: at if text.startswith(part, at) else -1
        return lambda text, at: text.find(part, at)
    expression = re.compile("".join("." if letter == "_" else re.escape(letter) for letter in part), re.DOTALL)
    look = expression.match if at_start else expression.search

    def find(text: str, at: int) -> int:
        found = look(text, at)
        return found.start() if found else -1

    return find


def matching(pattern: str) -> Callable[[str], bool]:
    """Return a test for texts in which a regular expression is found. Raises InvalidInput when it is none."""
    check_expression(pattern)
    return lambda text: _matches(pattern, [text])[0]


def _matches(pattern: str, texts: Iterable[str]) -> list[bool]:
    import polars as pl  # slow to import, and asked for by RLIKE alone

    try:
        found = pl.Series("text", list(texts), dtype=pl.String).str.contains(pattern, strict=True)
    except pl.exceptions.ComputeError as error:
        causes = [line for line in str(error).splitlines() if line.startswith("error:")]
        raise InvalidInput(f"Invalid regular expression '{shown(pattern)}': {shown(' '.join(causes))}") from None
    return found.to_list()
