"""Lists, differences and profiles that show themselves: as text in a terminal, as a table in a notebook.

Values come from data that somebody else wrote, so they are escaped in HTML, and control characters are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from html import escape
from typing import Any, TypeVar

from flyball.data import diffs
from flyball.data.profiles import TableProfile
from flyball.data.profiling.values import ColumnProfile

__all__ = [
    "PROFILE_TITLES",
    "Difference",
    "Listing",
    "Profile",
    "difference_text",
    "profile_cells",
    "profile_head",
    "text_of",
]

T = TypeVar("T")

_WIDEST = 60  # characters of a cell
_WIDEST_LAST = 200  # of the last one, which pushes nothing aside
_SHOWN_COLUMNS = 8  # of a row in a difference

PROFILE_TITLES = ("column", "type", "missing", "distinct", "least", "mean", "greatest", "commonest")


class Listing(list[T]):
    """A list that shows itself as a table; all else is as with any list.

    Args:
        items: what is listed.
        columns: title → what stands below it for an item.
        empty: what to say when there is nothing.
        notes: sentences below the table.
    """

    def __init__(
        self,
        items: Iterable[T],
        columns: Mapping[str, Callable[[T], Any]],
        empty: str = "nothing",
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(items)
        self._columns = columns
        self._empty = empty
        self.notes = tuple(notes)

    def __str__(self) -> str:
        if not self:
            return "\n".join([self._empty, *self.notes])
        rows = [[title.upper() for title in self._columns], *self._cells()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self._columns))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        if not self:
            return f"<p>{escape(self._empty)}</p>{notes}"
        head = "".join(f"<th>{escape(title)}</th>" for title in self._columns)
        body = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>" for row in self._cells())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"

    def _cells(self) -> list[list[str]]:
        *cells, last = self._columns.values()
        return [[*(text_of(cell(item)) for cell in cells), text_of(last(item), _WIDEST_LAST)] for item in self]


class Difference(diffs.Diff):
    """What changed from one version to another, and says so when it is printed; fields as `data.diffs.Diff`."""

    @classmethod
    def of(cls, found: diffs.Diff) -> Difference:
        """Return the same difference, able to show itself."""
        return cls(**{f.name: getattr(found, f.name) for f in fields(found)})

    def __str__(self) -> str:
        return difference_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


@dataclass(frozen=True, repr=False)
class Profile(TableProfile):
    """What the rows of a version look like, and shows itself; of the columns in `hidden` there is no value."""

    def __str__(self) -> str:
        return f"{profile_head(self)}\n{self._table()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<p>{escape(profile_head(self))}</p>{self._table()._repr_html_()}"

    def _table(self) -> Listing[ColumnProfile]:
        cells = {title: _cell(number) for number, title in enumerate(PROFILE_TITLES)}
        return Listing(self.columns.values(), cells)


def difference_text(found: diffs.Diff) -> str:
    """Return a difference in a few lines: rows, columns, distributions, and some of the rows."""
    by = f"by {', '.join(found.key)}" if found.key else "row by row as wholes, since the dataset names no key"
    lines = [f"{found.before} → {found.after}: {found.rows_before:,} → {found.rows_after:,} rows, compared {by}"]
    if found.is_equal:
        return f"{lines[0]}\n  the same columns and rows"
    counts = {"added": found.added, "removed": found.removed, "changed": found.changed}
    told = [f"{count:,} {word}" for word, count in counts.items() if word != "changed" or found.key]
    lines.append(f"  rows: {', '.join(told)}, {found.unchanged:,} unchanged")
    schema = found.schema
    told = [f"+ {name}" for name in schema.added] + [f"− {name}" for name in schema.removed]
    told += [f"{name} {before} → {after}" for name, (before, after) in schema.changed.items()]
    told += ["another order"] if schema.reordered else []
    lines += [f"  columns: {', '.join(told)}"] if told else []
    if found.changed_by_column:
        lines.append(f"  changed: {', '.join(f'{n} {c:,}' for n, c in list(found.changed_by_column.items())[:12])}")
    moved = {name: js for name, js in found.distribution.items() if js >= 0.005}
    if moved:
        lines.append(f"  distributions (js): {', '.join(f'{n} {js:.2f}' for n, js in list(moved.items())[:8])}")
    for word, mark in (("added", "+"), ("removed", "−")):
        lines += [f"    {mark} {_row(row)}" for row in found.samples.get(word, ())]
    for row in found.samples.get("changed", ()):
        moves = [
            f"{name} hidden" if isinstance(pair, str) else f"{name} {text_of(pair[0])} → {text_of(pair[1])}"
            for name, pair in row["columns"].items()
        ]
        lines.append(f"    ~ {_row(row['key'])}: {', '.join(moves[:_SHOWN_COLUMNS])}")
    return "\n".join(lines)


def profile_head(profile: TableProfile) -> str:
    """Return what a profile says of the table as a whole."""
    repeated = f", {profile.duplicates[0]:,} repeat another" if profile.duplicates and profile.duplicates[0] else ""
    return f"{profile.rows:,} rows, {len(profile.columns)} columns{repeated}"


def profile_cells(column: ColumnProfile) -> list[str]:
    """Return what a table shows of a column, below `PROFILE_TITLES`."""
    about = "≈" if column.distinct_error else ""
    commonest = [f"{text_of(value)} ({count:,})" for value, count in column.top[:3]] if column.kind != "integer" else []
    return [
        text_of(column.name),
        column.type,
        f"{column.null_share:.1%}" if column.nulls else "0",
        "" if column.distinct is None else f"{about}{column.distinct:,}",
        "hidden" if column.hidden else _figure(column.least),
        _figure(column.mean),
        _figure(column.greatest),
        ", ".join(commonest),
    ]


def text_of(value: Any, widest: int = _WIDEST) -> str:
    """Return a value as a cell shows it: one line, without control characters, cut when it is long."""
    if value is None:
        return "–"
    if isinstance(value, datetime):
        value = value.isoformat(sep=" ", timespec="seconds")
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = "".join(c if c.isprintable() else "�" for c in text)
    return text if len(text) <= widest else text[: widest - 1] + "…"


def _cell(number: int) -> Callable[[ColumnProfile], str]:
    return lambda column: profile_cells(column)[number]


def _figure(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else text_of(value)


def _row(row: Mapping[str, Any]) -> str:
    told = [f"{name} {text_of(value)}" for name, value in row.items()]
    return ", ".join(told[:_SHOWN_COLUMNS]) + (", …" if len(told) > _SHOWN_COLUMNS else "")
