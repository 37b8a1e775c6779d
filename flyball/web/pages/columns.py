"""What a row says of each column of a version: its type, what people know of it, how its values lie."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyball.data.classification import Notes, notes_of
from flyball.data.kinds import Dataset
from flyball.data.profiles import TableProfile
from flyball.data.profiling.values import ColumnProfile
from flyball.errors import FlyballError, NotFound
from flyball.ledger.resources import Resource
from flyball.ledger.versions import Version
from flyball.platform import Platform
from flyball.web.formats import number_text
from flyball.web.pages.seeing import Sight

__all__ = ["Shown", "columns_of", "profile_of", "schema_of", "small_counts", "type_text", "typical_of"]

_PROFILED_NOW = 200_000  # rows that are profiled for a page where their version came without a profile
_TIME_TYPE = re.compile(r"(Datetime|Duration)\(time_unit='\w+'(?:, time_zone=(?:'([^']*)'|None))?\)")
_SEEN_BARS = 24  # of a histogram beside a name


@dataclass(frozen=True)
class Shown:
    """A column in a row of a table; `counts` are a small histogram, `mask` and `personal` say why there is none."""

    name: str
    type: str
    roles: Sequence[str] = ()
    description: str = ""
    classification: str = ""
    tags: Sequence[str] = ()
    mask: str = ""
    personal: str = ""
    profile: ColumnProfile | None = None
    counts: Sequence[float] = ()
    typical: str = ""


def schema_of(version: Version | None) -> dict[str, str]:
    """Return a version's columns and their types. Raises NotFound where it does not say."""
    found = version.metadata.get("schema", {}) if version else {}
    if not isinstance(found, Mapping):
        raise NotFound(f"{version.ref if version else 'the dataset'} does not say what its columns are")
    return {str(name): str(dtype) for name, dtype in found.items()}


def type_text(dtype: str) -> str:
    """Return a Polars type as people read it.

    >>> type_text("List(Datetime(time_unit='us', time_zone='UTC'))")
    'List(Datetime UTC)'
    """
    return _TIME_TYPE.sub(lambda found: f"{found[1]} {found[2]}".strip() if found[2] else found[1], dtype)


def profile_of(platform: Platform, version: Version, sight: Sight) -> tuple[TableProfile | None, str]:
    """Return a version's profile, or why there is none to show: it is not to be seen, or it would have to be made."""
    if not sight.allowed:
        return None, sight.reason
    try:
        if platform.datasets.summary(version.name, version.number, version.kind) is None:
            rows = version.metadata.get("rows")
            if rows is None or rows > _PROFILED_NOW:
                why = "was published without a profile, and is too large to make one for a page"
                return None, f"{version.ref.short} {why}"
        return platform.profile(version.ref, purpose=sight.purpose), ""
    except FlyballError as error:
        return None, str(error)


def columns_of(
    platform: Platform,
    version: Version,
    dataset: Resource | None,
    sight: Sight,
    profile: TableProfile | None,
    limit: int | None = None,
) -> list[Shown]:
    """Return the columns of a version, or so many of them, in the table's order."""
    schema = _in_order(platform, version)
    spec = Dataset.model_validate(dataset.spec if dataset else {})
    notes, roles = _notes(platform, spec), _roles(spec)
    personal = {str(one["column"]): str(one["message"]) for one in version.metadata.get("looks_personal", ())}
    found = []
    for name in list(schema)[:limit]:
        classification, tags = notes.get(name, ("", frozenset()))
        column = profile.columns.get(name) if profile else None
        hidden = sight.hides(name)
        column = column.without_values() if column is not None and hidden else column
        described = spec.columns[name].description if name in spec.columns else ""
        found.append(
            Shown(
                name, type_text(schema[name]), roles.get(name, ()), described, classification, sorted(tags),
                sight.masks.get(name, "") if hidden else "", personal.get(name, ""), column, small_counts(column),
                typical_of(column),
            )
        )  # fmt: skip
    return found


def _in_order(platform: Platform, version: Version) -> dict[str, str]:
    """Return a version's columns in the table's own order, which metadata do not keep."""
    schema = schema_of(version)
    try:
        own = platform.tables.read(version.digest).schema
    except FlyballError:
        return schema
    return {name: schema[name] for name in own if name in schema} | schema


def _notes(platform: Platform, spec: Dataset) -> dict[str, Notes]:
    """Return what is known of the columns; a contract that is not there any more says nothing."""
    contract = str(platform.project / spec.contract) if isinstance(spec.contract, str) else spec.contract
    try:
        return notes_of(spec, contract)
    except FlyballError:
        return notes_of(spec.model_copy(update={"contract": None}))


def _roles(spec: Dataset) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    named = [("event time", spec.event_time), ("known at", spec.known_at), ("target", spec.target)]
    named += [("label time", spec.label_time), ("subject", spec.subject)]
    named += [("key", name) for name in spec.key] + [("entity", name) for name in spec.entity]
    for role, column in named:
        if column is not None:
            found.setdefault(column, []).append(role)
    return found


def small_counts(column: ColumnProfile | None) -> list[float]:
    """Return a small histogram: bars of numbers and times, else the commonest values."""
    if column is None or column.hidden:
        return []
    if column.bars is None:
        return [float(count) for _, count in column.top[:_SEEN_BARS]]
    counts = [float(count) for count in column.bars.counts]
    width = max(-(-len(counts) // _SEEN_BARS), 1)
    return [sum(counts[at : at + width]) for at in range(0, len(counts), width)]


def typical_of(column: ColumnProfile | None) -> str:
    """Return what most values are like, in a few words."""
    if column is None or column.hidden:
        return ""
    if column.distinct == 1 and column.top:
        return f"always {_short(column.top[0][0])}"
    if column.mean is not None:
        spread = f" ± {number_text(column.deviation)}" if column.deviation is not None else ""
        return f"{number_text(column.mean, _digits(column.mean, column.deviation))}{spread}"
    if column.kind == "time" and column.least is not None:
        return f"{str(column.least)[:10]} … {str(column.greatest)[:10]}"
    if column.top:
        value, count = column.top[0]
        known = column.rows - column.nulls
        share = f" {_percent(count, known)}" if known and not column.top_is_sample else ""
        return f"{_short(value)}{share}"
    return ""


def _digits(mean: float, deviation: float | None) -> int:
    """Return as many digits of a mean as its deviation makes telling: 1,017.9 ± 7.44, and not 1,020."""
    if not deviation or not mean or not math.isfinite(mean / deviation):
        return 3
    return min(max(3 + math.floor(math.log10(abs(mean / deviation))), 3), 8)


def _percent(count: float, known: float) -> str:
    """Return a share, which is 100 % of all only where it is of all."""
    text = f"{100 * count / known:.3g}"
    return "> 99.9 %" if text == "100" and count < known else f"{text} %"


def _short(value: Any) -> str:
    text = "(empty)" if value == "" else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 28 else text[:27] + "…"
