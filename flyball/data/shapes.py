"""Learn what texts of a column look like: a regular expression for codes, numbers with a unit, names.

A text is a sequence of tokens. A token that many rows share stands for itself (`patients`, `empty`), any other for its
shape: runs of capitals, small letters and digits. Where few sequences occur, they are the pattern; otherwise the set of
token shapes is, if it is closed: by Good and Turing the chance that the next text has a new shape is the share of
shapes that were seen once. Called by `inference`.

Source: Good (1953), "The population frequencies of species and the estimation of population parameters", equation 2.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Shape", "shape_of"]

_TOKEN = re.compile(r"[^\s]+")
_CLASSES = {"9": "[0-9]", "X": r"\p{Lu}", "x": r"\p{Ll}", "l": r"\p{L}"}
_ENOUGH = 20  # different texts, to say anything
_MOST_SEQUENCES = 6
_MOST_TOKENS = 24
_LITERAL_SHARE = 0.05  # of the rows; a token so frequent is a word of the format, not a value
_NEW_SHARE = 0.01  # chance that the next text has a shape not seen
_LONGEST = 60


@dataclass(frozen=True)
class Shape:
    """A pattern for whole texts. `is_firm` when its sequences have fixed lengths and were all seen often."""

    pattern: str
    is_firm: bool


def shape_of(rows_by_text: Mapping[str, int]) -> Shape | None:
    """Return the shape of texts, given how many rows have each; None when they have none in common.

    Every text given matches the pattern.
    """
    texts = [text for text in rows_by_text if text]
    if len(texts) < _ENOUGH or len(texts) < len(rows_by_text) or max(map(len, texts)) > _LONGEST:
        return None
    rows = sum(rows_by_text.values())
    words: Counter[str] = Counter()
    for text, n in rows_by_text.items():
        for token in set(_TOKEN.findall(text)):
            words[token] += n
    literals = {word for word, n in words.items() if n >= _LITERAL_SHARE * rows and word.isalpha() and len(word) > 1}
    exact = Counter(_lengths(text) for text in texts)
    # A code has one length; texts of the same runs and other lengths are a number with its unit.
    is_fixed = len({tuple(kind for kind, _ in shape) for shape in exact}) == len(exact) <= 3 and not literals
    if is_fixed and min(exact.values()) >= 5 and any(_is_code(text) for text in texts[:50]):
        return Shape(_joined([_exact_pattern(shape) for shape in exact]), len(texts) >= 100)
    sequences = Counter(_sequence(text, literals) for text in texts)
    by_row = Counter[tuple[str, ...]]()
    for text, n in rows_by_text.items():
        by_row[_sequence(text, literals)] += n
    if len(sequences) <= _MOST_SEQUENCES and min(by_row.values()) >= 3:
        return None if _says_nothing(sequences) else Shape(_joined(["".join(s) for s in sequences]), False)
    return _bag(texts, literals)


def _bag(texts: Iterable[str], literals: set[str]) -> Shape | None:
    """Return "words like these, in any order", when the kinds of words are few and none is rare."""
    shapes: Counter[str] = Counter()
    texts = list(texts)
    for text in texts:
        if text != " ".join(_TOKEN.findall(text)):
            return None  # spaces of another kind are part of the value
        shapes.update({_token_pattern(token, literals) for token in _TOKEN.findall(text)})
    once = sum(n == 1 for n in shapes.values())
    if len(texts) < 10 * _ENOUGH or len(shapes) > _MOST_TOKENS or once > _NEW_SHARE * len(texts):
        return None
    token = _alternatives(sorted(shapes, key=lambda shape: (-shapes[shape], shape)))
    return Shape(f"^{token}(?: {token})*$", False)


def _lengths(text: str) -> tuple[tuple[str, int], ...]:
    """Return the runs of a text with their lengths: `N142-a` is (X, 1), (9, 3), (-, 1), (x, 1)."""
    found: list[tuple[str, int]] = []
    for char in text:
        kind = _kind(char)
        if found and found[-1][0] == kind:
            found[-1] = (kind, found[-1][1] + 1)
        else:
            found.append((kind, 1))
    return tuple(found)


def _kind(char: str) -> str:
    if char.isdigit() and char.isascii():
        return "9"
    if char.isupper():
        return "X"
    if char.islower():
        return "x"
    return "l" if char.isalpha() else char


def _exact_pattern(shape: tuple[tuple[str, int], ...]) -> str:
    return "".join(_class(kind) + (f"{{{n}}}" if n > 1 else "") for kind, n in shape)


def _class(kind: str) -> str:
    return _CLASSES.get(kind) or _escaped(kind)


def _is_code(text: str) -> bool:
    """Whether a text is a code rather than a word: it has a digit, or is short and of capitals."""
    return any(char.isdigit() for char in text) or (len(text) <= 4 and text.isupper())


def _sequence(text: str, literals: set[str]) -> tuple[str, ...]:
    return tuple(
        _token_pattern(part, literals) if not part.isspace() else _escaped(part) for part in re.split(r"(\s+)", text)
    )


def _token_pattern(token: str, literals: set[str]) -> str:
    if token in literals:
        return _escaped(token)
    parts = []
    for kind, n in _lengths(token):
        times = "{2,}" if n > 1 and kind not in "9xl" else "+" if kind in "9xl" else ""
        parts.append(_class(kind) + times)
    return "".join(parts)


def _says_nothing(sequences: Iterable[tuple[str, ...]]) -> bool:
    """Whether a sequence is any word of small letters, which most errors are too."""
    return any(all(part in (r"\p{Ll}+", " ") for part in sequence) for sequence in sequences)


def _joined(patterns: list[str]) -> str:
    return f"^{_alternatives(sorted(set(patterns)))}$"


def _alternatives(patterns: list[str]) -> str:
    return patterns[0] if len(patterns) == 1 and "|" not in patterns[0] else f"(?:{'|'.join(patterns)})"


def _escaped(text: str) -> str:
    return "".join("\\" + c if c in r"\.^$*+?{}[]()|#&-~" else c for c in text)
