"""Columns that look personal though nobody said so: found in a sample of values, told without showing one.

A detector is a pattern and, where the format has one, its check digits, which a random number passes seldom:
IBAN (ISO 13616, remainder 1 modulo 97), payment cards (ISO/IEC 7812-1, Luhn). Names of people are told by the column's
own name, because no test of a text does so reliably. A finding is a hint for a person, not a refusal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flyball.storage.tables.in_memory import held

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Finding", "findings", "luhn_holds", "mod97_holds"]

SAMPLE_ROWS = 10_000
_SHARE = 0.5  # of the known values, from which on a column counts as holding them
_LEAST = 3  # values that must fit: one could be chance
_PROBED = 48  # values looked at first, evenly spaced: a publication must not wait for thousands that fit nothing
_PROBED_SHARE = 1 / 8  # of them, from which on all are counted; a column of which half fit has fewer once in 10^8
# times, and one of random digits, of which one in ten passes the check of a card, seldom as many

_LEAST_CARD = 10**12  # no number of fewer digits is one of a payment card
_SEPARATORS = re.compile(r"[\s\-./()]")
_EMAIL = re.compile(r"[^@\s<>(),;:\"\[\]]{1,64}@[^@\s.]+(?:\.[^@\s.]+)+")
_IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}")
_CARD = re.compile(r"\d{13,19}")
_PHONE = re.compile(r"(?:\+|00)\d{8,15}|0\d{8,11}")
_NAME_COLUMN = re.compile(
    r"(?:^|_)(?:(?:first|last|middle|full|given|family|sur|maiden|customer|patient|person|employee|user)_?name|"
    r"surname|firstname|lastname|fullname|vorname|nachname)(?:$|_)"
)


@dataclass(frozen=True)
class Finding:
    """A column that looks personal. `share` is that of the sampled known values which fit (1.0 for a name)."""

    column: str
    what: str
    share: float

    @property
    def message(self) -> str:
        """What to say to whoever publishes."""
        how = "by its name" if self.what == "names of people" else f"in {self.share:.0%} of the values looked at"
        return (
            f'the column "{self.column}" looks like {self.what} ({how}) and is not classified; give it '
            "classification: personal, or internal if it is not"
        )

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values; never a value of the data."""
        return {"column": self.column, "what": self.what, "share": round(self.share, 4), "message": self.message}


def findings(frame: pl.LazyFrame, classified: Iterable[str] = (), sample_rows: int = SAMPLE_ROWS) -> list[Finding]:
    """Return the columns of text or whole numbers that look personal and are not classified, in order.

    Args:
        frame: the rows; the first `sample_rows` are looked at.
        classified: columns that somebody has classified, whatever as; they are passed over.
    """
    import polars as pl

    known = set(classified)
    schema = frame.collect_schema()
    wanted = [n for n, dtype in schema.items() if n not in known and (dtype == pl.String or dtype.is_integer())]
    if not wanted:
        return []
    rows = held(frame)
    if rows is None:
        sample = frame.select(wanted).head(sample_rows).collect(engine="streaming")
    else:
        sample = rows.head(sample_rows).select(wanted)
    some = sample[list(range(0, sample.height, max(1, sample.height // _PROBED)))]
    return [found for name in wanted if (found := _finding(name, sample[name], some[name])) is not None]


def _finding(name: str, sample: pl.Series, some: pl.Series) -> Finding | None:
    """Return what a column holds, if anything; `some` are values of `sample`, evenly spaced."""
    import polars as pl

    is_text = sample.dtype == pl.String
    if not is_text and int(sample.max() or 0) < _LEAST_CARD:  # type: ignore[arg-type]
        return None
    known: list[str] | None = None
    probed = _known(some)
    if len(probed) < min(_PROBED // 2, sample.len()):  # mostly missing: the few that are there decide
        probed = known = _known(sample)
    compact = list(map(_compact, probed))  # once for all detectors
    for what, fits, is_compact in _DETECTORS if is_text else _OF_NUMBERS:
        count = sum(map(fits, compact if is_compact else probed))
        if count and count >= _PROBED_SHARE * len(probed):
            known = _known(sample) if known is None else known
            count = sum(map(fits, map(_compact, known) if is_compact else known))
            if count >= _LEAST and count >= _SHARE * len(known):
                return Finding(name, what, count / len(known))
    if probed and is_text and _NAME_COLUMN.search(_snake(name)):
        return Finding(name, "names of people", 1.0)
    return None


def _known(values: pl.Series) -> list[str]:
    return [str(value) for value in values.to_list() if value is not None and value != ""]


def luhn_holds(digits: str) -> bool:
    """Whether the check digit of a payment card's number is right (ISO/IEC 7812-1, annex B).

    >>> luhn_holds("4539148803436467"), luhn_holds("4539148803436468")
    (True, False)
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (1 + place % 2)
        total += number - 9 * (number > 9)
    return total % 10 == 0


def mod97_holds(iban: str) -> bool:
    """Whether the check digits of an IBAN without spaces are right (ISO 13616-1, ISO/IEC 7064 MOD 97-10).

    >>> mod97_holds("GB82WEST12345698765432"), mod97_holds("GB82WEST12345698765433")
    (True, False)
    """
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1


def _compact(text: str) -> str:
    return text if text.isalnum() else _SEPARATORS.sub("", text)


def _is_email(text: str) -> bool:
    return "@" in text and len(text) <= 254 and _EMAIL.fullmatch(text.strip()) is not None


def _is_iban(compact: str) -> bool:
    compact = compact.upper()
    return _IBAN.fullmatch(compact) is not None and mod97_holds(compact)


def _is_card(compact: str) -> bool:
    return _CARD.fullmatch(compact) is not None and compact[0] in "23456" and luhn_holds(compact)


def _is_phone(compact: str) -> bool:
    return _PHONE.fullmatch(compact) is not None


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_").replace(" ", "_")


# What is found, what finds it, and whether it looks at values without separators.
_Detectors = tuple[tuple[str, Callable[[str], bool], bool], ...]
_DETECTORS: _Detectors = (
    ("e-mail addresses", _is_email, False),
    ("IBANs", _is_iban, True),
    ("payment card numbers", _is_card, True),
    ("telephone numbers", _is_phone, True),
)
_OF_NUMBERS: _Detectors = (("payment card numbers", _is_card, True),)
