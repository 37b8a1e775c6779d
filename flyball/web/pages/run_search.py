"""What the addresses of the run pages ask for: experiments, a filter, columns, an order, a place to go on from.

Runs of experiments can be filtered and sorted by anything (`platform.search_run_marks`, the grammar that MLflow's
clients use). Runs that belong to no experiment, those of pipelines and their steps, stand in the list that is by time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from flyball.clock import parse_instant
from flyball.errors import InvalidInput
from flyball.ledger.experiments import Experiment
from flyball.ledger.runs import Run
from flyball.platform import Platform
from flyball.tracking.clauses import cut_clauses
from flyball.tracking.filters import parse_filter
from flyball.tracking.grammars import RUNS
from flyball.web.pages.site import parameters

__all__ = ["ATTRIBUTES", "Asked", "Found", "asked", "completions", "fault", "find", "named_order", "written"]

ATTRIBUTES = {
    "start_time": "Started", "end_time": "Ended", "run_name": "Run", "status": "State", "user_id": "By",
    "run_id": "Id", "artifact_uri": "Artifacts",
}  # fmt: skip
"""What runs can be sorted by besides their keys, with the words of the table's heads."""

_STATES = {
    "pending": "SCHEDULED", "running": "RUNNING", "succeeded": "FINISHED", "failed": "FAILED", "lost": "FAILED",
    "cancelled": "KILLED",
}  # fmt: skip
_OUTSIDE = ("pipeline", "step")
_SHIFT = 60  # rows that may come or go before the place to go on from, and it is still found
_MOST_COLUMNS = 60
_PLAIN = re.compile(r"[A-Za-z_]\w*")
_PREFIX = {"metric": "metrics", "param": "params", "tag": "tags"}


@dataclass(frozen=True)
class Asked:
    """What an address asks of the list of runs."""

    experiments: tuple[str, ...]
    filter: str
    sort: str
    view: str
    columns: tuple[str, ...]
    kind: str | None
    name: str | None
    status: str | None
    of: str | None
    before: str | None
    after: str | None

    @property
    def is_search(self) -> bool:
        """Whether it needs the columns of experiments: a filter, an order other than time, several experiments."""
        return bool(self.filter or self.sort not in ("", "-start_time") or len(self.experiments) > 1)

    @property
    def is_narrowed(self) -> bool:
        """Whether it leaves runs out."""
        return bool(self.experiments or self.filter or self.kind or self.name or self.status or self.of)


@dataclass(frozen=True)
class Found:
    """A page of runs. `next_key` is the parameter and value of the address that goes on from here, None at the end."""

    runs: list[Run]
    next_key: tuple[str, str] | None = None


def asked(request: Request) -> Asked:
    """Return what an address asks for. Raises InvalidInput."""
    given = parameters(request, "filter", "sort", "view", "kind", "name", "status", "of", "before", "after")
    view = given.get("view", "active")
    if view not in ("active", "deleted"):
        raise InvalidInput(f'"view" in the address is {view[:40]!r}; expected active or deleted')
    columns = tuple(dict.fromkeys(c for c in request.query_params.getlist("col") if c))
    if len(columns) > _MOST_COLUMNS:
        raise InvalidInput(f"{len(columns)} columns are more than a table shows; choose at most {_MOST_COLUMNS}")
    for column in columns:
        place(column)
    experiments = tuple(dict.fromkeys(e.strip() for e in request.query_params.getlist("experiment") if e.strip()))
    for id in experiments:
        if not id.isdecimal() or len(id) > 18:
            raise InvalidInput(f'"experiment" in the address is {id[:40]!r}; expected the number of an experiment')
    return Asked(
        experiments, given.get("filter", ""), given.get("sort", ""), view, columns, given.get("kind"),
        given.get("name"), given.get("status"), given.get("of"), given.get("before"), given.get("after"),
    )  # fmt: skip


def place(column: str) -> tuple[str, str]:
    """Return kind and key of a column: `metrics.loss` is ("metric", "loss"). Raises InvalidInput."""
    prefix, dot, key = column.partition(".")
    if dot and key and RUNS.prefixes.get(prefix) in _PREFIX:
        return RUNS.prefixes[prefix], key
    raise InvalidInput(f"{column[:80]!r} is no column; expected metrics.KEY, params.KEY or tags.KEY")


def written(kind: str, key: str) -> str:
    """Return a key as a filter has it: `metrics.loss`, ``params.`model name` ``."""
    inner = key if _PLAIN.fullmatch(key) else "`" + key.replace("`", "``") + "`"
    return f"{_PREFIX[kind]}.{inner}" if kind in _PREFIX else inner


def named_order(sort: str) -> list[str]:
    """Return an address's `sort` (`-metrics.loss`, `run_name`) as the search takes it. Raises InvalidInput."""
    name, direction = (sort[1:], "DESC") if sort.startswith("-") else (sort, "ASC")
    if not name:
        return []
    return [f"{name if name in ATTRIBUTES else written(*place(name))} {direction}"]


def find(platform: Platform, wanted: Asked, experiments: Sequence[str], size: int) -> Found:
    """Return a page of runs.

    Args:
        experiments: all that there are to search when the address names none.

    Raises:
        InvalidInput: the filter, the order or the place is none, or the parts of the address do not go together.
    """
    if not wanted.is_search:
        return _by_time(platform, wanted, size)
    if wanted.kind in _OUTSIDE or wanted.of:
        what = f"runs of {wanted.of}" if wanted.of else f"{wanted.kind} runs"
        raise InvalidInput(
            f"{what} stand in the list by time only: they may belong to no experiment; clear the filter and the order, "
            "or the field that asks for them"
        )
    offset, last = _place_after(wanted.after)
    begin = max(offset - _SHIFT, 0)
    marks, is_more = platform.search_run_marks(
        wanted.experiments or experiments,
        _whole_filter(wanted),
        named_order(wanted.sort),
        "deleted" if wanted.view == "deleted" else "active",
        limit=(offset - begin) + size + _SHIFT,
        offset=begin,
    )
    ids = list(marks)
    start = ids.index(last) + 1 if last in ids else offset - begin
    page = ids[start : start + size]
    whole = platform.runs_whole(page)
    runs = [whole[id][1] for id in page if id in whole]
    is_last = not page or (start + size >= len(ids) and not is_more)
    return Found(runs, None if is_last else ("after", f"{begin + start + len(page)}~{page[-1]}"))


def _by_time(platform: Platform, wanted: Asked, size: int) -> Found:
    filters: dict[str, Any] = {
        key: value for key in ("kind", "name", "of") if (value := getattr(wanted, key)) is not None
    }
    if wanted.status:
        filters["status"] = wanted.status.split(",")
    if wanted.experiments:
        filters["experiment"] = wanted.experiments[0]
    if wanted.before:
        filters["before"] = _instant_and_id(wanted.before)
    found = platform.runs(**filters, deleted=wanted.view == "deleted", limit=size + 1)
    if len(found) <= size:
        return Found(found)
    from flyball.web.pages.runs import position_of

    return Found(found[:size], ("before", position_of(found[size - 1])))


def _whole_filter(wanted: Asked) -> str:
    parts = [wanted.filter]
    if wanted.kind and wanted.kind not in _OUTSIDE:
        raise InvalidInput(
            "the filter cannot ask for a kind of runs; clear the field Kind, or the filter and the order"
        )
    if wanted.status:
        if wanted.status not in _STATES:
            raise InvalidInput(f"a filter goes with one state, not {wanted.status[:60]!r}")
        parts.append(f"attributes.status = '{_STATES[wanted.status]}'")
    if wanted.name:
        parts.append("attributes.run_name = '" + wanted.name.replace("'", "''") + "'")
    return " AND ".join(part for part in parts if part.strip())


def _instant_and_id(text: str) -> tuple[Any, str]:
    at, tilde, id = text.partition("~")
    if not tilde:
        raise InvalidInput(f'"before" in the address is {text[:60]!r}; go back to the newest runs and page from there')
    return parse_instant(at), id


def _place_after(text: str | None) -> tuple[int, str]:
    if text is None:
        return 0, ""
    number, tilde, id = text.partition("~")
    if not tilde or not number.isdecimal() or len(number) > 9:
        raise InvalidInput(f'"after" in the address is {text[:60]!r}; go back to the first runs and page from there')
    return int(number), id


def fault(text: str) -> tuple[int, int, str] | None:
    """Return where a filter is wrong, from and to which character, and why; None when it is right.

    >>> fault("metrics.loss < 0.1 AND metric.acc > 'high'")[:2]
    (37, 41)
    """
    try:
        parse_filter(text, RUNS)
    except InvalidInput as error:
        begin, end = _wrong_part(text, str(error))
        return begin, end, str(error)
    return None


def _wrong_part(text: str, sentence: str) -> tuple[int, int]:
    try:
        clauses = cut_clauses(text)
    except InvalidInput:
        return _named_in(sentence.partition(";")[0], text, 0, len(text))
    at = 0
    spans = []
    for clause in clauses:  # raw texts stand in the filter as they were written, in this order
        begin = text.find(clause.left.raw, at)
        begin = at if begin < 0 else begin
        at = begin + len(clause.left.raw)
        spans.append(begin)
    ends = [*spans[1:], len(text)]
    for begin, end in zip(spans, ends, strict=True):
        part = re.sub(r"\s+(?:AND\s*)?$", "", text[begin:end], flags=re.IGNORECASE)
        try:
            parse_filter(part, RUNS)
        except InvalidInput as error:
            return _named_in(
                str(error).partition(". ")[0] + str(error).partition("Found")[2], text, begin, begin + len(part)
            )
    return 0, len(text)


def _named_in(sentence: str, text: str, begin: int, end: int) -> tuple[int, int]:
    """Return where the first word stands that a sentence quotes, between two places of the text; else both."""
    for word in re.findall(r"'((?:[^']|'(?=\w))+)'", sentence):
        at = text.find(word, begin, end)
        if at >= 0:
            return at, at + len(word)
    return begin, end


_KEY = re.compile(
    r"(?:^|[\s(])(?P<prefix>metrics?|params?|parameters?|tags?)\.(?P<key>`[^`]*|[^\s`=<>!]*)$", re.IGNORECASE
)
_VALUE = re.compile(
    r"(?:^|[\s(])(?:(?P<prefix>params?|parameters?|tags?|attributes?|datasets?)\.)?(?P<key>`[^`]*`|\w+)"
    r"\s*(?:=|!=|(?:NOT\s+)?(?:LIKE|ILIKE))\s*'(?P<begin>[^']*)$",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?:^|[\s(])(?P<word>[A-Za-z_]*)$")


def completions(platform: Platform, experiments: Sequence[str], text: str, limit: int = 40) -> dict[str, Any]:
    """Return how a filter may go on that ends here.

    Returns:
        {"from": the character that the words replace from, "items": [{"text", "note"}]}.
    """
    if match := _VALUE.search(text):
        kind = RUNS.prefixes.get((match["prefix"] or "attributes").lower(), "attribute")
        key = match["key"].strip("`")
        words = platform.run_values(experiments, kind, key, match["begin"], limit)
        items = [{"text": word.replace("'", "''") + "'", "note": ""} for word in words if len(word) <= 200]
        return {"from": match.start("begin"), "items": items}
    if match := _KEY.search(text):
        kind = RUNS.prefixes[match["prefix"].lower()]
        keys = platform.run_keys(experiments)
        counted = {"metric": keys.metrics, "param": keys.params, "tag": keys.tags}[kind]
        begun = match["key"].strip("`").lower()
        hits = sorted((k for k in counted if begun in k.lower()), key=lambda k: not k.lower().startswith(begun))
        items = [{"text": written(kind, k).partition(".")[2], "note": f"{counted[k]:,} runs"} for k in hits[:limit]]
        return {"from": match.start("key"), "items": items}
    if re.search(r"""(?:'|[\d)]|NULL)\s+[A-Za-z]*$""", text, re.IGNORECASE) and _is_whole(text):
        at = len(text) - len(re.search(r"[A-Za-z]*$", text)[0])  # type: ignore[index]
        return {
            "from": at,
            "items": [{"text": "AND ", "note": "and also"}] if "and".startswith(text[at:].lower()) else [],
        }
    match = _WORD.search(text)
    begun = match["word"].lower() if match else ""
    words = ["metrics.", "params.", "tags.", "attributes.", "datasets.name", "datasets.digest", *ATTRIBUTES]
    items = [{"text": word, "note": ""} for word in words if word.startswith(begun)] if match else []
    return {"from": match.start("word") if match else len(text), "items": items}


def _is_whole(text: str) -> bool:
    """Whether the filter before the last word is right as it stands."""
    head = re.sub(r"\s+[A-Za-z]*$", "", text)
    return bool(head) and fault(head) is None


def all_experiments(platform: Platform) -> list[Experiment]:
    """Return every experiment that is in use, the newest first."""
    found, _ = platform.search_experiments(limit=100_000)
    return found
