"""The prediction log in tables: Parquet files that DuckDB, Polars or Spark read, and the catalogue of what is in them.

Segments of the log are good to write and to follow; to look through months they are `sealed` into files sorted by
time, one or a few a deployment and day, at

    <folder>/tables/predictions/<deployment>/<day>/<number>.parquet      <folder>/tables/labels/<day>/<number>.parquet

`sealed.sqlite` beside them says which files count, what lies in each (time, ids, versions), and how far each segment
is in them. A file is written under a name that begins with a dot, then named in the catalogue, then renamed; whoever
opens the catalogue for writing finishes what a crash left. So a row is in a table exactly when the catalogue says that
its segment is sealed so far. `sealing` fills the tables; one process at a time changes them (`alone`).

Columns are those of `tracking.traffic`; a column that has no value in a file is left out of it. Days are of UTC.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import orjson

from flyball.errors import Corrupt, Incompatible, Unavailable
from flyball.storage.streams import Cursor

if TYPE_CHECKING:
    import polars as pl

__all__ = ["REWRITTEN", "Part", "Sealed", "Stream", "alone", "last_erasure"]

Stream = Literal["predictions", "labels"]

_State = tuple[int, int] | None
"""When a file was changed and how long it is; None: it is not there."""

REWRITTEN = "rewritten"  # a file in the log's folder that changes when rows or segments were taken out of it
_ROW_GROUP = 65_536
_ATTEMPTS = 5
_LOCK_S = 60.0  # a round of sealing takes a second or two
_FORMAT = 1
_logger = logging.getLogger(__name__)
_SCHEMA = (
    "CREATE TABLE parts (id INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, deployment TEXT NOT NULL, "
    "day TEXT NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL, first_at INTEGER NOT NULL, "
    "last_at INTEGER NOT NULL, first_id TEXT NOT NULL, last_id TEXT NOT NULL, versions TEXT NOT NULL, "
    "columns TEXT NOT NULL)",
    "CREATE INDEX parts_by_time ON parts (stream, deployment, last_at)",
    "CREATE TABLE doomed (path TEXT PRIMARY KEY)",
    "CREATE TABLE cursors (stream TEXT, segment TEXT, offset INTEGER NOT NULL, PRIMARY KEY (stream, segment))",
    f"PRAGMA user_version = {_FORMAT}",
)


class Part(NamedTuple):
    """A file of rows. Instants are microseconds since 1970; `columns` are its names and types, as one text."""

    id: int
    stream: Stream
    deployment: str
    day: str
    rows: int
    size_bytes: int
    first_at: int
    last_at: int
    first_id: str
    last_id: str
    versions: tuple[str, ...]
    columns: str


class Sealed:
    """The tables of a prediction log; reading needs no lock and never waits for who seals.

    Arguments:
        folder: of the log (`traffic` of a home); it may lack tables, which then are empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._catalogue = folder / "sealed.sqlite"
        self._damaged: dict[int, _State] = {}  # by id: files that could not be read back, as they were then

    def parts(
        self,
        stream: Stream,
        deployment: str | None = None,
        since: int | None = None,
        until: int | None = None,
        ids: tuple[str, str] | None = None,
        *,
        is_whole: bool = False,
    ) -> list[Part]:
        """Return the files that may hold such rows, the oldest first, without those that `scan` found damaged.

        Args:
            since, until: microseconds; rows from `since` on and before `until`.
            ids: the first and the last of the ids wanted.
            is_whole: damaged files too.
        """
        conditions, values = ["stream = ?"], [stream]
        for condition, value in (
            ("deployment = ?", deployment),
            ("last_at >= ?", since),
            ("first_at < ?", until),
            ("last_id >= ?", ids[0] if ids else None),
            ("first_id <= ?", ids[1] if ids else None),
        ):
            if value is not None:
                conditions.append(condition)
                values.append(value)  # type: ignore[arg-type]
        query = f"SELECT * FROM parts WHERE {' AND '.join(conditions)} ORDER BY first_at, id"
        with self._reading() as catalogue:
            found = catalogue.execute(query, values).fetchall() if catalogue else []
        parts = [Part._make((*row[:10], tuple(orjson.loads(row[10])), row[11])) for row in found]
        return parts if is_whole or not self._damaged else [part for part in parts if not self.is_damaged(part)]

    def is_damaged(self, part: Part) -> bool:
        """Whether a file could not be read back, and has not been restored since."""
        return part.id in self._damaged and self._damaged[part.id] == _state(self.path(part))

    def cursor(self, stream: Stream) -> Cursor:
        """Return how far each segment is sealed."""
        with self._reading() as catalogue:
            return _cursor(catalogue, stream) if catalogue else {}

    def state(self) -> tuple[dict[str, int], Cursor, Cursor]:
        """Return the rows of each deployment and the cursors of predictions and labels, of one moment."""
        with self._reading() as catalogue:
            if not catalogue:
                return {}, {}, {}
            counted = "SELECT deployment, SUM(rows) FROM parts WHERE stream = 'predictions' GROUP BY deployment"
            return dict(catalogue.execute(counted)), _cursor(catalogue, "predictions"), _cursor(catalogue, "labels")

    def path(self, part: Part) -> Path:
        """Return where a file of the catalogue is."""
        of = self.folder / "tables" / part.stream
        return (of / part.deployment if part.deployment else of) / part.day / f"{part.id:08d}.parquet"

    def scan(self, parts: Sequence[Part]) -> pl.LazyFrame | None:
        """Return the rows of some files, to be read lazily; None without files. Types that differ are widened."""
        import polars as pl

        alike: dict[str, list[Path]] = {}
        for part in parts:
            alike.setdefault(part.columns, []).append(self._there(part))
        scans = [pl.scan_parquet(paths, glob=False) for paths in alike.values()]
        return pl.concat(scans, how="diagonal_relaxed") if len(scans) > 1 else scans[0] if scans else None

    def read(
        self, parts: Callable[[], Sequence[Part]], ask: Callable[[pl.LazyFrame], pl.LazyFrame]
    ) -> pl.DataFrame | None:
        """Return what `ask` makes of the rows of some files; None without files. Damaged ones are passed by.

        Args:
            parts: chooses them; called again when one of them was merged away meanwhile.
        """
        import polars as pl

        attempt = 0
        while True:
            chosen = [part for part in parts() if not self.is_damaged(part)]
            try:
                rows = self.scan(chosen)
                return None if rows is None else ask(rows).collect()
            except (OSError, pl.exceptions.ComputeError, pl.exceptions.PanicException):
                attempt += 1
                if attempt >= _ATTEMPTS and not self.find_damaged(chosen):
                    raise

    def find_damaged(self, parts: Sequence[Part]) -> list[Part]:
        """Return those of some files that are in the catalogue and cannot be read; they are passed by from now on.

        Each is read whole, and logged. What is in them is lost to looking through, and to nothing else.
        """
        import polars as pl

        named = {part.id for part in self.parts("predictions", is_whole=True) + self.parts("labels", is_whole=True)}
        found = []
        for part in parts:
            try:
                pl.read_parquet(self._there(part), glob=False)
            except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
                if part.id not in named:  # merged away meanwhile
                    continue
                reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
                _logger.error(
                    "%s cannot be read back (%s); its %d rows are passed by; restore it from a backup",
                    self.path(part), reason, part.rows,
                )  # fmt: skip
                self._damaged[part.id] = _state(self.path(part))
                found.append(part)
        return found

    def tail(self, deployment: str, rows: int) -> pl.DataFrame | None:
        """Return the newest rows of a deployment in the order of `at`; None when nothing of it is sealed."""

        def newest() -> list[Part]:
            chosen: list[Part] = []
            left, first = rows, float("inf")
            for part in sorted(self.parts("predictions", deployment), key=lambda one: one.last_at, reverse=True):
                if left <= 0 and part.last_at < first:
                    break
                chosen.append(part)
                left -= part.rows
                first = min(first, part.first_at)
            return chosen

        return self.read(newest, lambda found: found.sort("at", maintain_order=True).tail(rows))

    # -- changes; within `alone`

    def mend(self) -> None:
        """Finish what a crash left: rename files that count, remove those that do not."""
        with self._writing() as catalogue:
            for part in self.parts("predictions", is_whole=True) + self.parts("labels", is_whole=True):
                self._there(part)
            for (name,) in catalogue.execute("SELECT path FROM doomed").fetchall():
                (self.folder / name).unlink(missing_ok=True)
            catalogue.execute("DELETE FROM doomed")
        for draft in (self.folder / "tables").rglob(".*.parquet"):
            draft.unlink(missing_ok=True)

    def forget_segments(self) -> None:
        """Forget how far segments are sealed that are not there any more: a home may have had very many."""
        gone: list[tuple[Stream, str]] = [
            (stream, segment)
            for stream in ("predictions", "labels")
            if (self.folder / stream).is_dir()
            for segment in self.cursor(stream)
            if not (self.folder / stream / segment).exists()
        ]
        if gone:
            with self._writing() as catalogue:
                catalogue.executemany("DELETE FROM cursors WHERE stream = ? AND segment = ?", gone)

    def put(
        self,
        stream: Stream,
        frames: Iterable[tuple[str, pl.DataFrame]],
        *,
        instead: Sequence[Part] = (),
        cursor: Cursor | None = None,
    ) -> list[Part]:
        """Add rows, a file a deployment and day, in one transaction with how far the segments now are sealed.

        Args:
            frames: the deployment (empty for labels) and its rows; empty frames are left out.
            instead: the files whose place the new ones take; they are removed.
        """
        made: list[tuple[Path, Part]] = []
        with self._writing() as catalogue:
            number = catalogue.execute("SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence").fetchone()[0]
            for deployment, rows in frames:
                for day, of_day in _by_day(rows, "prediction_id" if stream == "labels" else "at"):
                    number += 1
                    made.append(self._draft(number, stream, deployment, day, of_day))
            _sync_folders([draft.parent for draft, _ in made], self.folder)  # before the catalogue names the files
            for _, part in made:
                values = (*part[:10], orjson.dumps(part.versions).decode(), part.columns)
                catalogue.execute(f"INSERT INTO parts VALUES ({','.join('?' * len(values))})", values)
            for part in instead:
                catalogue.execute("DELETE FROM parts WHERE id = ?", (part.id,))
                catalogue.execute("INSERT OR IGNORE INTO doomed VALUES (?)", (self._name(part),))
            for segment, offset in (cursor or {}).items():
                catalogue.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (stream, segment, offset))
        for draft, part in made:
            draft.replace(self.path(part))
        self._remove(instead)
        return [part for _, part in made]

    def whole(self, part: Part) -> pl.DataFrame:
        """Return the rows of one file.

        Raises:
            Corrupt: it cannot be read back, so nobody knows what is in it.
        """
        import polars as pl

        try:
            return pl.read_parquet(self._there(part), glob=False)
        except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise Corrupt(
                f"{self.path(part)} cannot be read back ({str(error)[:200]}); restore it from a backup and ask again"
            ) from error

    def rewrite(self, part: Part, change: Callable[[pl.DataFrame], pl.DataFrame]) -> int:
        """Put what `change` makes of a file's rows in their place; return how many rows went.

        Raises:
            Corrupt: the file cannot be read back.
        """
        rows = self.whole(part)
        kept = change(rows)
        if kept.height != rows.height or not kept.equals(rows):
            self.put(part.stream, [(part.deployment, kept)], instead=[part])
        return rows.height - kept.height

    # -- within

    def _draft(self, number: int, stream: Stream, deployment: str, day: str, rows: pl.DataFrame) -> tuple[Path, Part]:
        import polars as pl

        kept = rows.select([name for name, dtype in rows.schema.items() if dtype != pl.Null])
        id = "prediction_id" if stream == "labels" else "id"
        first_at, last_at = _ends(kept)
        versions = sorted(kept["version"].unique()) if "version" in kept.columns else []
        part = Part(
            number,
            stream,
            deployment,
            day,
            kept.height,
            0,
            first_at,
            last_at,
            str(kept[id].min()),
            str(kept[id].max()),
            tuple(versions),
            ", ".join(f"{name} {dtype}" for name, dtype in kept.schema.items()),
        )
        path = self.path(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}")
        try:
            kept.write_parquet(draft, compression="zstd", row_group_size=_ROW_GROUP)
            with draft.open("rb") as stream_of:
                os.fsync(stream_of.fileno())
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return draft, part._replace(size_bytes=draft.stat().st_size)

    def _there(self, part: Part) -> Path:
        """Return a file of the catalogue; one that is not yet renamed is renamed now."""
        path = self.path(part)
        if not path.exists():
            with contextlib.suppress(FileNotFoundError):
                path.with_name(f".{path.name}").replace(path)
        return path

    def _remove(self, parts: Sequence[Part]) -> None:
        for part in parts:
            self.path(part).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.path(part).parent.rmdir()  # a day without files
        if parts:
            with self._writing() as catalogue:
                catalogue.executemany("DELETE FROM doomed WHERE path = ?", [(self._name(part),) for part in parts])

    def _name(self, part: Part) -> str:
        return self.path(part).relative_to(self.folder).as_posix()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        if not self._catalogue.exists():
            yield None
            return
        with contextlib.closing(self._opened()) as catalogue, self._translated():
            catalogue.execute("BEGIN")
            yield catalogue if self._format(catalogue) else None

    def _opened(self) -> sqlite3.Connection:
        return sqlite3.connect(self._catalogue, timeout=30, isolation_level=None)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say what is wrong with the catalogue, where something is."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise Unavailable(f"{self._catalogue} could not be used now: {error}; try again later") from error
        except sqlite3.DatabaseError as error:
            raise Corrupt(
                f"{self._catalogue} is damaged ({error}); restore it from a backup. Without one, move it and the "
                "folder tables away: what is in the segments is sealed again, older rows stay in those tables"
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(self._opened()) as catalogue, self._translated():
            catalogue.execute("PRAGMA journal_mode = WAL")
            catalogue.execute("PRAGMA synchronous = FULL")
            catalogue.execute("BEGIN IMMEDIATE")
            try:
                if not self._format(catalogue):
                    for statement in _SCHEMA:
                        catalogue.execute(statement)
                yield catalogue
            except BaseException:
                catalogue.execute("ROLLBACK")
                raise
            catalogue.execute("COMMIT")

    def _format(self, catalogue: sqlite3.Connection) -> int:
        """Return the catalogue's format, 0 before anything is in it. Raises Incompatible."""
        found = int(catalogue.execute("PRAGMA user_version").fetchone()[0])
        if found > _FORMAT:
            raise Incompatible(
                f"{self._catalogue} has format {found}, this release reads format {_FORMAT}; use the newer release"
            )
        return found


@contextmanager
def alone(folder: Path, *, is_waiting: bool = True) -> Iterator[bool]:
    """Be the one that changes the tables of a log; the kernel gives the lock back when the process dies.

    Yields:
        Whether it is held; False only with `is_waiting=False`, when somebody else is at it.

    Raises:
        Unavailable: somebody else held it for a minute.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _LOCK_S
    with (folder / "sealing.lock").open("w") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not is_waiting:
                    yield False
                    return
                if time.monotonic() > deadline:
                    raise Unavailable(f"another process is changing the tables of {folder}; try again later") from None
                time.sleep(0.05)
                continue
            yield True
            return


def last_erasure(folder: Path) -> str:
    """Return what changes when rows were taken out of a log for good, unlike when segments went that are in tables."""
    try:
        return (folder / REWRITTEN).read_text(encoding="ascii").partition(".")[0]
    except FileNotFoundError:
        return ""


def _sync_folders(folders: Iterable[Path], top: Path) -> None:
    """Make the names in folders, and their own names in those above them up to `top`, outlive a power cut."""
    above = {each for folder in folders for each in (folder, *folder.parents) if each.is_relative_to(top)}
    for folder in above:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _state(path: Path) -> _State:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _cursor(catalogue: sqlite3.Connection, stream: Stream) -> Cursor:
    return dict(catalogue.execute("SELECT segment, offset FROM cursors WHERE stream = ?", (stream,)))


def _by_day(rows: pl.DataFrame, order: str) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the rows of each day of UTC, in order."""
    import polars as pl

    if rows.is_empty():
        return
    first, last = (datetime.fromtimestamp(int(t) / 1e6, UTC).date() for t in _ends(rows))
    if first == last:
        yield first.isoformat(), rows.sort(order, maintain_order=True)
        return
    for (day,), of_day in rows.group_by(pl.col("at").dt.date(), maintain_order=True):
        yield str(day), of_day.sort(order, maintain_order=True)


def _ends(rows: pl.DataFrame) -> tuple[int, int]:
    import polars as pl

    instants = rows["at"].cast(pl.Int64)
    return int(instants.min()), int(instants.max())  # type: ignore[arg-type]
