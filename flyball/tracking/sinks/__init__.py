"""The prediction log told elsewhere: each row as a JSON object, at least once, in the order of each writer.

A sink is a file here. `Forwarder` reads the log from where the sink has come, sends, and only then remembers; so a
crash sends some rows again and loses none. A row's `id` with its `variant` tells a repetition. Rows wait in the log
while the other side is away: segments that a sink has not read are not removed (`tracking.sealing`).

An object is flat: `at` in milliseconds since 1970, names with `_` for the dot (`input_hour`), lists and objects as JSON
text, as `pinot` describes them.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import orjson

from flyball.errors import FlyballError, Unavailable
from flyball.storage.streams import Cursor, is_same
from flyball.tracking.traffic import TrafficReader

if TYPE_CHECKING:
    import polars as pl

__all__ = ["MARKS", "Forwarder", "Sink", "column_name", "messages"]

MARKS = "sinks"  # the folder, in the log's, of how far each sink has come
_READ_BYTES = 4 << 20
_MOST_WAIT_S = 60.0
_logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Where rows are sent."""

    name: str
    """Of letters, digits and `-`: the mark of how far it has come is kept under it."""

    def send(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Send (key, message) pairs and return when all of them are acknowledged.

        Raises:
            Unavailable: some may not have arrived; they will be sent again.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class Forwarder:
    """Sends what is new in the prediction log of `folder` to a sink."""

    def __init__(self, folder: Path, sink: Sink, every_s: float = 1.0) -> None:
        self._sink = sink
        self._every_s = every_s
        self._mark = folder / MARKS / f"{sink.name}.json"
        self._reader = TrafficReader(folder, lambda _damage: None)

    def forward(self, stop: threading.Event | None = None) -> int:
        """Send all that is new; return how many rows. Raises Unavailable, and another time goes on where it was."""
        sent, cursor = 0, self._cursor()
        while stop is None or not stop.is_set():
            frames, after = self._reader.read_deployments(cursor, limit_bytes=_READ_BYTES)
            if is_same(cursor, after):
                break
            for rows in frames.values():
                self._sink.send(messages(rows))
                sent += rows.height
            cursor = {**{name: offset for name, offset in cursor.items() if name in after}, **after}
            self._remember(cursor)
        return sent

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop, waiting longer while the other side is away."""
        wait = every_s = self._every_s
        self._remember(self._cursor())  # from now on the log keeps what this has not read
        while not stop.wait(wait):
            try:
                self.forward(stop)
                wait = every_s
            except (FlyballError, OSError) as error:
                wait = min(max(wait, 0.5) * 2, _MOST_WAIT_S)
                _logger.warning("live traffic could not be sent on: %s; trying again in %.0f s", error, wait)
            except Exception:
                wait = _MOST_WAIT_S
                _logger.exception("live traffic could not be sent on; trying again in a minute")
        self._sink.close()

    def _cursor(self) -> Cursor:
        try:
            return {str(name): int(offset) for name, offset in json.loads(self._mark.read_text("utf-8")).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError) as error:
            raise Unavailable(
                f"{self._mark} does not say how far the sink has come ({error}); remove it to send all rows again"
            ) from None

    def _remember(self, cursor: Cursor) -> None:
        self._mark.parent.mkdir(parents=True, exist_ok=True)
        partial = self._mark.with_name(f".{self._mark.name}.{os.getpid()}")
        with partial.open("w", encoding="utf-8") as stream:
            json.dump(cursor, stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(self._mark)


def messages(rows: pl.DataFrame) -> list[tuple[str, bytes]]:
    """Return rows as (id, JSON object); see the module's description."""
    import polars as pl

    flat = rows.with_columns(pl.col("at").dt.epoch("ms")).rename({name: column_name(name) for name in rows.columns})
    return [(row["id"], orjson.dumps(row)) for row in flat.iter_rows(named=True)]


def column_name(name: str) -> str:
    """Return how a column of the log is called elsewhere."""
    return name.replace(".", "_")
