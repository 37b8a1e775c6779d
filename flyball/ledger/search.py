"""Search: what one may type, what is found, and which part of a text matched.

    late flights            entries with both words, in any field, any order
    "late flights"          the words one after the other; so does late_flights
    fli*                    words that begin so
    -draft                  not with this word; works before all of these
    kind:dataset tag:gold   filters: kind, is (resource, version, run), tag, owner, domain, column; * at the end works
    after:2026-01-31 before:2026-02   changed in this time (UTC); after:7d is the last seven days

Two filters of one name are alternatives, different ones must all hold. There is no wrong query: what cannot be read
is looked for as words, or left out with a sentence in `Query.notes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from flyball.clock import format_instant, parse_duration, parse_instant
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.ledger import kinds
from flyball.ledger.refs import Ref
from flyball.ledger.words import cut, words

__all__ = ["FILTERS", "Filter", "Form", "Found", "Hit", "Query", "Search", "Term", "match", "parse_query", "snippet"]

Form = Literal["resource", "version", "run"]
FORMS: tuple[Form, ...] = ("resource", "version", "run")
FILTERS = ("kind", "is", "tag", "owner", "domain", "column")

_MOST_TERMS = 32
_LONGEST_QUERY = 1000
_CHUNK = re.compile(
    r'(?P<minus>-)?(?:(?P<key>kind|is|tag|owner|domain|column|before|after):(?P<given>"[^"]*"?\*?|\S*)'
    r'|(?P<value>"[^"]*"?\*?|\S+))'
)
_EARLIEST = 1970
_AROUND = 70  # characters of a text that a snippet shows on either side of a match
_READ = 20_000  # characters of a text that are looked at for a snippet


@dataclass(frozen=True)
class Term:
    """Words that must follow each other; with `is_prefix` the last may go on."""

    words: tuple[str, ...]
    is_prefix: bool = False
    is_excluded: bool = False


@dataclass(frozen=True)
class Filter:
    """A condition on one field; `value` is its words, joined by `_`."""

    key: str
    value: str
    is_prefix: bool = False
    is_excluded: bool = False


@dataclass(frozen=True)
class Query:
    """A query, read. `notes` say what of it was left out and why."""

    text: str
    terms: tuple[Term, ...] = ()
    filters: tuple[Filter, ...] = ()
    after: datetime | None = None
    before: datetime | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it asks for nothing in particular; such a query finds everything."""
        return not self.text.strip()

    @property
    def is_hopeless(self) -> bool:
        """Whether nothing of what was typed can be looked for, as of `***`; such a query finds nothing."""
        return not (self.is_empty or self.terms or self.filters or self.after or self.before)


@dataclass(frozen=True)
class Hit:
    """One thing found. Positions are pairs (start, end) of characters, into `name` and `snippet`.

    `how` says why it stands where it does: its name is what was asked for, has all the words, has some of them, or
    other fields have them.
    """

    ref: Ref
    kind: str
    form: Form
    name: str
    owner: str | None
    domain: str | None
    tags: tuple[str, ...]
    at: datetime
    how: Literal["name", "in name", "partly in name", "in text"]
    field: str
    snippet: str
    marks: tuple[tuple[int, int], ...] = ()
    name_marks: tuple[tuple[int, int], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as pages and JSON take them."""
        return {
            "ref": str(self.ref), "kind": self.kind, "form": self.form, "name": self.name, "owner": self.owner,
            "domain": self.domain, "tags": list(self.tags), "at": format_instant(self.at), "how": self.how,
            "field": self.field, "snippet": self.snippet, "marks": [list(m) for m in self.marks],
            "name_marks": [list(m) for m in self.name_marks],
        }  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A page of hits, best first; `next` goes on behind it, None at the end."""

    hits: tuple[Hit, ...]
    next: str | None = None
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as pages and JSON take them."""
        return {"items": [h.to_dict() for h in self.hits], "next": self.next, "notes": list(self.notes)}


class Search(Protocol):
    """Finds resources, versions and runs by their words."""

    def find(self, query: str | Query, *, limit: int = 50, after: str | None = None) -> Found:
        """Return a page of what matches: by name before by other fields, resources before versions before runs,
        and what changed last first.

        Args:
            query: as typed; see the module.
            limit: hits on the page, 1 to 1000.
            after: `Found.next` of the page before.

        Raises:
            InvalidInput: `limit` or `after` is not one; a query never raises.
        """
        ...

    def counts(self, query: str | Query) -> Mapping[str, int]:
        """Return how many match, by kind, most first; the kinds that a filter of the query leaves out are left out."""
        ...


def parse_query(text: str, now: datetime) -> Query:
    """Read a query; `now` is what `after:7d` counts from. Never raises."""
    notes: list[str] = []
    if len(text) > _LONGEST_QUERY:
        notes.append(f"only the first {_LONGEST_QUERY:,} characters were looked for")
        text = text[:_LONGEST_QUERY]
    terms: list[Term] = []
    filters: list[Filter] = []
    times: dict[str, datetime] = {}
    for chunk in _CHUNK.finditer(text):
        if len(terms) + len(filters) >= _MOST_TERMS:
            notes.append(f"only the first {_MOST_TERMS} words and filters were looked for")
            break
        key, is_excluded = chunk["key"], chunk["minus"] is not None
        if key is None:
            if sought := tuple(cut(chunk["value"])):
                terms.append(Term(sought[:_MOST_TERMS], _is_prefix(chunk["value"]), is_excluded))
        elif key in FILTERS:
            if found := _filter(key, chunk["given"], is_excluded, notes):
                filters.append(found)
        else:
            try:
                times[key] = _instant(chunk["given"].strip('"'), now)
            except InvalidInput as error:
                notes.append(f"{key}: was left out: {error}")
    found_query = Query(text, tuple(terms), tuple(filters), times.get("after"), times.get("before"), tuple(notes))
    if found_query.is_hopeless and not notes:
        return Query(text, notes=(f"there is no word in {text[:40]!r}; write a part of a name or of a description",))
    return found_query


def match(text: str, terms: Iterable[Term]) -> list[tuple[int, int]]:
    """Return where the terms stand in a text: pairs (start, end) in order, none overlapping another."""
    found: set[tuple[int, int]] = set()
    stands = list(words(text[:_READ]))
    for term in terms:
        if not term.is_excluded:
            for at in range(len(stands)):
                end = _match_at(text, stands, at, term)
                if end:
                    found.add((stands[at].start, end))
    apart: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if apart and start < apart[-1][1]:
            apart[-1] = (apart[-1][0], max(end, apart[-1][1]))
        else:
            apart.append((start, end))
    return apart


def snippet(texts: Sequence[tuple[str, str]], terms: Sequence[Term]) -> tuple[str, str, tuple[tuple[int, int], ...]]:
    """Return (field, extract, positions in it) of the first text that matches, else the beginning of the first."""
    for name, text in texts:
        if marks := match(text, terms):
            start, end = max(marks[0][0] - _AROUND, 0), min(max(marks[0][1], marks[0][0]) + _AROUND, len(text))
            if start > 0:  # not in the middle of a word, if there is a space near
                space = text.find(" ", start, marks[0][0])
                start = space + 1 if space >= 0 else start
            if end < len(text):
                space = text.rfind(" ", marks[0][1], end)
                end = space if space > 0 else end
            before, after = "…" if start else "", "…" if end < len(text) else ""
            shift = len(before) - start
            inside = tuple((a + shift, b + shift) for a, b in marks if b <= end)
            return name, before + text[start:end] + after, inside
    name, text = next(((n, t) for n, t in texts if t), ("", ""))
    return name, text if len(text) <= 2 * _AROUND else text[: 2 * _AROUND].rpartition(" ")[0] + "…", ()


def _match_at(text: str, stands: Sequence[Any], at: int, term: Term) -> int:
    """Return where the term ends that begins at this word, 0 when it does not begin here."""
    size = len(term.words)
    if at + size <= len(stands):
        last = stands[at + size - 1]
        is_last = last.text.startswith(term.words[-1]) if term.is_prefix else last.text == term.words[-1]
        if is_last and all(stands[at + i].text == term.words[i] for i in range(size - 1)):
            return int(last.end)
    if size == 1 and term.words[0].startswith(stands[at].text):  # depdelay is DepDelay and dep_delay
        joined, here = stands[at].text, at
        while here + 1 < len(stands) and text[stands[here].end : stands[here + 1].start] in ("", "_", "-", "."):
            here += 1
            joined += stands[here].text
            if joined == term.words[0]:
                return int(stands[here].end)
            if not term.words[0].startswith(joined):
                break
    return 0


def _is_prefix(value: str) -> bool:
    return value.endswith("*") and value.rstrip('*"')[-1:].isalnum()


def _filter(key: str, value: str, is_excluded: bool, notes: list[str]) -> Filter | None:
    written = value.strip('"*')
    wanted = "_".join(cut(written))
    is_prefix = value.endswith("*")
    if not wanted:
        notes.append(f"{key}: was left out: it names nothing; write it like {key}:{_EXAMPLES[key]}")
        return None
    if key == "is":
        if wanted.removesuffix("s") not in FORMS:
            notes.append(f"is:{written[:40]} is unknown{did_you_mean(wanted, FORMS)} (known: {listed(FORMS)})")
        wanted = wanted.removesuffix("s")
    if key == "kind" and not is_prefix:
        try:
            wanted = "run" if wanted in ("run", "runs") else "_".join(kinds.kind_of(written).word.split("-"))
        except InvalidInput as error:
            if wanted not in _OTHER_KINDS:
                notes.append(str(error))
    return Filter(key, wanted, is_prefix, is_excluded)


_OTHER_KINDS = ("quarantine",)  # kinds of versions that no resource has
_EXAMPLES = {
    "kind": "dataset",
    "is": "resource",
    "tag": "gold",
    "owner": "alice",
    "domain": "sales",
    "column": "distance",
}


def _instant(text: str, now: datetime) -> datetime:
    if re.fullmatch(r"\d+(ms|[smhdw])", text):
        try:
            return now - parse_duration(text)
        except (OverflowError, ValueError):
            raise InvalidInput(f"{text[:40]!r} is too long ago") from None
    parts = re.fullmatch(r"(\d{4})(?:-(\d\d?))?(?:-(\d\d?))?", text)
    try:
        if parts:
            found = datetime(int(parts[1]), int(parts[2] or 1), int(parts[3] or 1), tzinfo=UTC)
        else:
            found = parse_instant(text)
    except (ValueError, OverflowError):
        raise InvalidInput(f"{text[:40]!r} is not a date; write it like 2026-01-31, 2026-01 or 7d") from None
    if found.year < _EARLIEST:
        raise InvalidInput(f"{text[:40]!r} is before there was anything; write a year from {_EARLIEST} on")
    return found
