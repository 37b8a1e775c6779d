"""Text as a search sees it: words without case and accents, each with where it stands in the text.

The ledger's index and the query language cut text in the same way here, whatever the database, so that both
databases find the same. `Zürich` is found by `zurich`; `DepDelay` and `dep_delay` are both the words *dep delay*, and
one word too; scripts that put no space between words (Chinese, Japanese, Thai…) give a word for each character, so a
phrase of them finds any part of a text.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["LONGEST", "Word", "cut", "fold", "words"]

LONGEST = 64  # characters of a word that are kept: digests are told apart, a base64 image does not fill the index

# Letters that Unicode does not take apart though a reader would type them plain.
_PLAIN = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h"})
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f]")
_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Tibetan, Burmese, Khmer
    "\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff"
)
_SIGNS = "\u2190-\u2bff\U0001f000-\U0001faff"  # arrows, symbols, emoji: each is a word
# The same cut as `_parts` for text without any other letters, which most of it is: a fifth of the time.
_ASCII = re.compile(r"[A-Za-z0-9](?:(?!(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]))[A-Za-z0-9])*")
_LOWER = re.compile("[a-z0-9]+")


class Word(NamedTuple):
    """A word as it is compared, and where it stands: `text[start:end]`."""

    text: str
    start: int
    end: int


def fold(text: str) -> str:
    """Return text without case and accents, in one Unicode form.

    >>> fold("Zürich ﬁles ＡＢＣ")
    'zurich files abc'
    """
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFKC", _ACCENTS.sub("", apart)).translate(_PLAIN)


def words(text: str) -> Iterator[Word]:
    """Yield the words of a text in order; what is neither letter, digit nor sign only separates them.

    >>> [w.text for w in words("ArrDelay of 2013-05")]
    ['arr', 'delay', 'of', '2013', '05']
    """
    if text.isascii():
        for found in _ASCII.finditer(text):
            yield Word(found[0].lower()[:LONGEST], found.start(), found.end())
        return
    for run in _runs().finditer(text):
        for part in _parts().finditer(run[0]):
            folded = fold(part[0])
            # Folding may make ASCII signs of a letter, as of ℀; those separate words in the index.
            kept = folded if folded.isalnum() else "".join(c for c in folded if c.isalnum() or not c.isascii())
            if kept:
                yield Word(kept[:LONGEST], run.start() + part.start(), run.start() + part.end())


def cut(text: str) -> list[str]:
    """Return the words of a text, as `words` does, without their places; several times as fast."""
    if not text.isascii():
        return [word.text for word in words(text)]
    if text.lower() == text:  # no camel case to look for
        return [word[:LONGEST] for word in _LOWER.findall(text)]
    return [word[:LONGEST].lower() for word in _ASCII.findall(text)]


@functools.cache
def _runs() -> re.Pattern[str]:
    """Letters, digits and signs, with the marks that combine with them."""
    return re.compile(f"(?:[^\\W_]|[{_SIGNS}])(?:[^\\W_]|[{_SIGNS}{_marks()}])*")


@functools.cache
def _parts() -> re.Pattern[str]:
    """Where a run of letters is cut: at each character of an unspaced script, and where camel case begins a word."""
    unspaced = f"[{_UNSPACED}{_SIGNS}][{_marks()}]*"
    other = f"[^{_UNSPACED}{_SIGNS}]"
    upper, lower = "[A-ZÀ-ÖØ-ÞΑ-ΩА-Я]", "[a-zß-öø-ÿα-ωа-я]"
    end_of_word = f"(?<={lower})(?={upper})|(?<={upper})(?={upper}{lower})"
    return re.compile(f"{unspaced}|{other}(?:(?!{end_of_word}){other})*")


@functools.cache
def _marks() -> str:
    """The combining marks of the basic plane, as the inside of a character class."""
    found = [code for code in range(0x300, 0x3100) if unicodedata.category(chr(code)).startswith("M")]
    ranges: list[list[int]] = []
    for code in found:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\u{low:04x}-\\u{high:04x}" for low, high in ranges)
