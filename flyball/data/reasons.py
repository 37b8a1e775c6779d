"""What Polars says went wrong, fit for our own errors: one line, and none of the data's values in it."""

from __future__ import annotations

import re

__all__ = ["reason_of"]

_VALUES = [
    (re.compile(r"(values?): \[.*"), r"\1"),
    (re.compile(r"could not parse `.*?` as"), "could not parse a value as"),
    (re.compile(r"(found value of type \w+): .*"), r"\1"),
]
_LENGTH = 200


def reason_of(error: BaseException) -> str:
    """Return the first line of an error's message without values; the rest repeats the query.

    >>> reason_of(ValueError('conversion failed for 1 out of 3 values: ["Ada"]'))
    'conversion failed for 1 out of 3 values'
    """
    line = next((text.strip() for text in str(error).splitlines() if text.strip()), type(error).__name__)
    for pattern, replacement in _VALUES:
        line = pattern.sub(replacement, line)
    return line[:_LENGTH]
