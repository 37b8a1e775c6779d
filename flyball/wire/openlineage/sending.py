"""Sending events: from the journal to a file or over HTTP, in order, each at least once.

`Exporter` remembers in `openlineage.json` of the home the number of the last journal event that was delivered, so a
crash or a receiver that is down costs a repetition at most, never a gap. It runs beside the loop in `flyball up`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from flyball.errors import InvalidInput, Unavailable
from flyball.ledger import Ledger
from flyball.wire.openlineage.telling import told

__all__ = ["Exporter", "FileReceiver", "HttpReceiver", "OpenlineageSettings", "Receiver", "receiver_of"]

log = logging.getLogger("flyball.openlineage")

_AT_ONCE = 200  # journal events between two notes of where we are
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class OpenlineageSettings:
    """Where events go; nowhere by default."""

    url: str = ""  # of a receiver, such as http://localhost:5000/api/v1/lineage
    file: str = ""  # one event a line; a path from the home
    key: str = ""  # bearer token; written as ${NAME}, read from the environment when it is used
    namespace: str = "flyball"  # of our jobs and data sets, as other tools see them
    timeout_s: float = 10.0  # of one delivery; a receiver that takes longer is tried again
    every_s: float = 2.0  # between two looks at the journal


class Receiver(Protocol):
    """Takes events."""

    def send(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Deliver events in order. Raises Unavailable; what was delivered before may come again."""
        ...


class FileReceiver:
    """Appends one event a line to a file, durable on return."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, events: Sequence[Mapping[str, Any]]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as stream:
                stream.write(b"".join(orjson.dumps(event) + b"\n" for event in events))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise Unavailable(f"lineage events cannot be written to {self._path}: {error.strerror}") from error


class HttpReceiver:
    """Posts each event to a receiver, as the OpenLineage clients do."""

    def __init__(self, url: str, key: str = "", timeout_s: float = 10.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidInput(
                f"[openlineage] url is {url!r}; expected an address that begins with http:// or https://"
            )
        self._url, self._key, self._timeout_s = url, key, timeout_s

    def send(self, events: Sequence[Mapping[str, Any]]) -> None:
        import httpx2

        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {_filled(self._key)}"
        try:
            with httpx2.Client(timeout=self._timeout_s, headers=headers) as client:
                for event in events:
                    answer = client.post(self._url, content=orjson.dumps(event))
                    if answer.status_code >= 500 or answer.status_code in (401, 403, 404, 408, 429):
                        raise Unavailable(f"{self._url} answered {answer.status_code} to a lineage event")
                    if answer.status_code >= 400:  # this event will never be taken; the next may
                        log.warning("%s refused a lineage event: %s", self._url, answer.status_code)
        except httpx2.HTTPError as error:
            raise Unavailable(f"{self._url} cannot be reached for lineage events: {type(error).__name__}") from error


def receiver_of(settings: OpenlineageSettings, home: Path) -> Receiver | None:
    """Return where the settings send events, None when they send none. Raises InvalidInput."""
    if settings.url and settings.file:
        raise InvalidInput("[openlineage] has both url and file; choose one")
    if settings.url:
        return HttpReceiver(settings.url, settings.key, settings.timeout_s)
    return FileReceiver(home / settings.file) if settings.file else None


class Exporter:
    """Delivers what the journal says, from where it stopped."""

    def __init__(self, ledger: Ledger, receiver: Receiver, home: Path, namespace: str = "flyball") -> None:
        self._ledger = ledger
        self._receiver = receiver
        self._mark = home / "openlineage.json"
        self._namespace = namespace
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def delivered(self) -> int:
        """The number of the last journal event that was delivered; 0 before the first."""
        try:
            return int(json.loads(self._mark.read_text(encoding="utf-8"))["delivered"])
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError, TypeError):
            log.warning("%s cannot be read; all lineage events are sent anew", self._mark)
            return 0

    def run_once(self) -> int:
        """Deliver all that is new; return how many events were sent. Raises Unavailable."""
        sent, at = 0, self.delivered
        while not self._stop.is_set():
            with self._ledger.read() as world:
                new = world.journal.since(at, _AT_ONCE)
                events = [one for event in new for one in told(event, world, self._namespace)]
            if not new:
                break
            if events:
                self._receiver.send(events)
            sent, at = sent + len(events), new[-1].seq
            self._remember(at)
        return sent

    def start(self, every_s: float) -> None:
        """Deliver in a thread, until `stop`."""

        def run() -> None:
            wait = every_s
            while not self._stop.wait(wait):
                try:
                    self.run_once()
                    wait = every_s
                except Unavailable as error:
                    wait = min(wait * 2, 60.0)
                    log.warning("%s; trying again in %.0f s", error, wait)
                except Exception:
                    wait = 60.0
                    log.exception("lineage events could not be told; trying again in a minute")

        self._thread = threading.Thread(target=run, name="openlineage", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the thread; what was not delivered is, the next time."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _remember(self, seq: int) -> None:
        partial = self._mark.with_name(f".{self._mark.name}.{os.getpid()}")
        partial.write_text(json.dumps({"delivered": seq}), encoding="utf-8")
        partial.replace(self._mark)


def _filled(key: str) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise Unavailable(f"[openlineage] key names the variable {found[1]}, which the environment lacks")
        return os.environ[found[1]]

    return _VARIABLE.sub(value, key)
