"""What every kind of source answers: `read(request)` with rows and where to go on, `look(request)` with a glimpse.

A kind is a module of this package; its name is the scheme that users write (`postgresql`, `s3`, `kafka`), or `files`
and `delta`. It has these two functions:

    read(request: Request) -> Reading       all rows, or those after `request.since`; perhaps none
    look(request: Request) -> Glimpse       columns and age, from metadata or a handful of rows
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from flyball.clock import SYSTEM, Clock
from flyball.data.reasons import reason_of
from flyball.data.sources._layout import Layout
from flyball.data.sources._locations import Environment
from flyball.data.sources._streams import Stamp, confirm
from flyball.errors import FlyballError, InvalidInput, Unavailable

if TYPE_CHECKING:
    import polars as pl

    from flyball.data.kinds import Source

__all__ = ["Glimpse", "Mode", "Reading", "Request", "SourceSettings", "Watermark"]

Watermark = dict[str, Any]  # JSON: where a reading ended; each kind has its own form
Mode = Literal["whole", "append", "upsert"]


@dataclass(frozen=True)
class SourceSettings:
    """How far Flyball goes to read: the table `[sources]` of `flyball.toml`."""

    allow_loopback: bool = True  # URLs of this machine; switch off where people may not reach its other servers
    allow_private: bool = True  # URLs of private networks, where most databases of a company are
    download_limit_mb: int = 20_480  # of one URL: what a table of the largest planned size takes
    timeout_s: float = 30.0  # without a byte from a server; a reader that hangs holds a worker
    attempts: int = 4  # to get an answer from a server that fails or is busy
    pages_limit: int = 10_000  # of one API: beyond, its `next` most likely goes round in circles
    work_folder: str = ""  # where rows lie until they are published; default: the machine's temporary folder


@dataclass(frozen=True)
class Request:
    """One reading that is wanted."""

    spec: Source
    since: Mapping[str, Any] | None
    project: Path
    folder: Path  # for what must be put down meanwhile; goes with the reading
    layout: Layout
    environment: Environment = field(default_factory=Environment)
    settings: SourceSettings = SourceSettings()
    clock: Clock = SYSTEM
    key: tuple[str, ...] = ()

    def option(self, name: str, default: Any = None) -> Any:
        """Return an option's value with its environment variables filled in."""
        return self.environment.filled(self.spec.options.get(name, default))

    def number(self, name: str, default: float) -> float:
        """Return an option that is a positive number. Raises InvalidInput."""
        value = self.spec.options.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise InvalidInput(f"the option {name} is {value!r}; expected a number above 0")
        return value


@dataclass
class Reading:
    """Rows that were read, and where to go on. Use it as a context: what was put down for it goes at its end.

        with read_source(spec, since) as reading:
            if reading.frame is not None:
                table = tables.write(reading.frame)

    Leaving the context says whether the source stayed as it was while it was read, so write before and commit after.

    Attributes:
        frame: the rows, a table that may be read any number of times with the same answer; None: nothing new.
        watermark: where to go on next time (JSON), to be kept with the version that the rows become.
        mode: what the rows are: the `whole` source (in place of all that was read before), rows to `append` to what was
            read before, or rows to `upsert` by key, some of which may have been read before.
        origin: where from, fit to be shown.
        notes: what a reader should know, in sentences.
    """

    frame: pl.LazyFrame | None
    watermark: Watermark
    mode: Mode
    origin: str
    notes: tuple[str, ...] = ()
    stamps: tuple[Stamp, ...] = ()
    closing: list[Callable[[], None]] = field(default_factory=list)

    @property
    def is_new(self) -> bool:
        """Whether there are rows that were not read before."""
        return self.frame is not None

    def confirm(self) -> None:
        """Raise Unavailable when a file changed or went since it was opened."""
        confirm(self.stamps)

    def close(self) -> None:
        """Remove what was put down; the frame cannot be read any more."""
        while self.closing:
            self.closing.pop()()

    def __enter__(self) -> Reading:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        import polars as pl

        try:
            if error is None or isinstance(error, pl.exceptions.PolarsError | OSError):
                self.confirm()
            if isinstance(error, FlyballError):
                return
            if isinstance(error, pl.exceptions.PolarsError):
                raise InvalidInput(f"{self.origin} cannot be read: {reason_of(error)}") from error
            if isinstance(error, OSError):
                raise Unavailable(f"{self.origin} cannot be read: {error.strerror or reason_of(error)}") from error
        finally:
            self.close()


@dataclass(frozen=True)
class Glimpse:
    """What a source shows without being read: its columns (None: it does not say), the instant of its newest data."""

    origin: str
    schema: pl.Schema | None
    newest: datetime | None = None


def work_folder(settings: SourceSettings) -> str | None:
    """Return the folder that temporary ones are made in; None: the machine's own choice."""
    if not settings.work_folder:
        return None
    os.makedirs(settings.work_folder, exist_ok=True)  # noqa: PTH103
    return settings.work_folder
