"""Files of this machine: `files: data/flights-*.csv`, a path or a glob relative to the project."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.data.sources._layout import Layout
from flyball.data.sources._memory import guarded
from flyball.data.sources._protocol import Glimpse, Mode, Reading, Request
from flyball.data.sources._streams import Stamp
from flyball.data.sources._tables import Part, glimpse, open_parts, partitions_of
from flyball.data.sources._watermarks import beyond, bound_of, check_column, ended_at, mode_of
from flyball.errors import InvalidInput, NotFound, did_you_mean

if TYPE_CHECKING:
    import polars as pl

__all__ = ["file_watermark", "look", "matching", "new_parts", "read", "rows_of", "scan"]


def read(request: Request) -> Reading:
    """Read the files that match; with `since`, the files that came since, or the rows beyond the column's watermark."""
    pattern = _pattern(request)
    parts = matching(pattern, hive=request.option("partitions", True))
    stamps = [Stamp.of(part.path) for part in parts]
    states = {
        _relative(part.path, request.project): f"{s.size_bytes}-{s.changed_ns}"
        for part, s in zip(parts, stamps, strict=True)
    }
    return rows_of(request, parts, states, str(request.spec.files), tuple(stamps))


def look(request: Request) -> Glimpse:
    """Return the columns of the newest file, and when it was written."""
    parts = matching(_pattern(request), hive=request.option("partitions", True))
    newest = max(parts, key=lambda part: part.path.stat().st_mtime_ns)
    written = datetime.fromtimestamp(newest.path.stat().st_mtime, UTC)
    return Glimpse(str(request.spec.files), glimpse(newest, request.layout), written)


def scan(patterns: Sequence[str], layout: Layout) -> pl.LazyFrame:
    """Return the files that match any of the patterns as one table."""
    return open_parts([part for pattern in patterns for part in matching(pattern)], layout)


def rows_of(
    request: Request, parts: Sequence[Part], states: Mapping[str, str], origin: str, stamps: tuple[Stamp, ...] = ()
) -> Reading:
    """Return the rows of these files, or of those of them that are new; `states` tells the state of each by name."""
    spec = request.spec
    if spec.watermark is not None:
        frame = open_parts(parts, request.layout)
        check_column(spec.watermark, frame.collect_schema(), origin)
        bound = bound_of(request)
        if bound is not None:
            frame = frame.filter(beyond(spec.watermark, bound, frame.collect_schema()[spec.watermark]))
        after, rows = guarded(origin, lambda: ended_at(frame, request, origin))
        return Reading(frame if rows else None, after or {}, mode_of(request, bound), origin, (), stamps)
    wanted, mode, notes = new_parts(parts, states, request.since)
    after = file_watermark(states)
    if not wanted:
        return Reading(None, after, "append", origin, notes, stamps)
    return Reading(open_parts(wanted, request.layout), after, mode, origin, notes, stamps)


def new_parts(
    parts: Sequence[Part], states: Mapping[str, str], since: Mapping[str, Any] | None
) -> tuple[Sequence[Part], Mode, tuple[str, ...]]:
    """Return the files to read, what their rows are, and what is to be said.

    New files are appended. When a file that was read before is different now, its old rows cannot be told from the
    others, so all files are read anew. A file that went leaves its rows where they are.
    """
    if since is None or "files" not in since:
        return parts, "whole", ()
    known: Mapping[str, str] = since["files"]
    changed = [name for name, state in states.items() if name in known and known[name] != state]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return parts, "whole", (f"{changed[0]}{more} changed since it was read; all files were read anew",)
    names = list(states)
    fresh = [part for part, name in zip(parts, names, strict=True) if name not in known]
    return fresh, "append", ()


def file_watermark(states: Mapping[str, str]) -> dict[str, Any]:
    """Return the watermark that names the files that were read, each with its state."""
    return {"files": dict(states)}


def matching(pattern: str, *, hive: bool = True) -> list[Part]:
    """Return the files that a path or glob names, by name.

    Raises:
        NotFound: there is none.
        InvalidInput: it is a folder.
    """
    path = Path(pattern)
    if path.is_dir():
        raise InvalidInput(f"{pattern} is a folder; name its files, for instance {path / '*.parquet'}")
    if path.exists() or not glob.has_magic(pattern):
        if not path.exists():
            siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise NotFound(f"there is no file {pattern}{did_you_mean(path.name, siblings)}")
        if not path.is_file():
            raise InvalidInput(f"{pattern} is no regular file; name one that can be read twice")
        return [Part(path, str(path))]
    found = sorted(Path(p) for p in glob.glob(pattern, recursive=True) if Path(p).is_file())  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not found:
        raise NotFound(f"no file matches {pattern}")
    return [Part(p, str(p), partitions_of(p.parts[:-1]) if hive else {}) for p in found]


def _pattern(request: Request) -> str:
    given = request.environment.filled(str(request.spec.files)).removeprefix("file://")
    return str(request.project / Path(given).expanduser())


def _relative(path: Path, project: Path) -> str:
    return path.relative_to(project).as_posix() if path.is_relative_to(project) else path.as_posix()
