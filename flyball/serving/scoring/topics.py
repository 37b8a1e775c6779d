"""Messages on their way: where they come from, where they go to, and the topic that needs no other program.

An embedded topic, `stream://orders`, is an append-only stream in the home (`storage.streams`) whose payloads are
messages: one line of JSON with the id, the key and the headers, then the bytes as they came. A group of readers has one
cursor; one reader at a time moves it, and another takes over when that one ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import orjson

from flyball.errors import InvalidInput, Unavailable
from flyball.storage.streams import Cursor
from flyball.storage.streams.log import Log, Reader
from flyball.tracking.predictions import new_ids

__all__ = ["EmbeddedSink", "EmbeddedSource", "Message", "Sink", "Source", "messages_in", "topic_folder"]

_READ_BYTES = 256 << 10  # about a thousand messages: what may be in flight
_IDLE_S = 0.05
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        value: its bytes as they came.
        id: 32 hexadecimal digits; the same whenever the same message is read.
        key: what keeps messages together, if anything does.
        place: where it was, for people, like `orders/3/1742`.
        offset: (partition, offset) in a topic of Kafka.
    """

    value: bytes
    id: str
    key: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    place: str = ""
    offset: tuple[int, int] = (0, 0)


class Source(Protocol):
    """Where messages come from; what was not committed comes again."""

    def poll(self, limit: int) -> list[Message]:
        """Return what is new, about `limit` of it; none after a moment when there is nothing."""
        ...

    def commit(self, messages: Sequence[Message]) -> None:
        """Remember that all of these, which the last `poll` gave, are done with. Durable on return."""
        ...

    def close(self) -> None:
        """Let others have what comes next."""
        ...


class Sink(Protocol):
    """Where messages go to."""

    def send(self, messages: Sequence[Message]) -> None:
        """Send messages, and return when all are acknowledged. Raises Unavailable: some may not have arrived."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def topic_folder(home: Path, name: str) -> Path:
    """Return where an embedded topic is. Raises InvalidInput: it cannot be called so."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f'"{name[:80]}" cannot name a topic; expected letters, digits, _, . or -')
    return home / "topics" / name


class EmbeddedSource:
    """Reads an embedded topic for a group.

    Arguments:
        folder: the topic's, which need not exist yet.
        group: whose cursor it moves.
    """

    def __init__(self, folder: Path, group: str) -> None:
        if not _NAME.fullmatch(group):
            raise InvalidInput(f'"{group[:80]}" cannot name a group; expected letters, digits, _, . or -')
        self._name = folder.name
        self._reader = Reader(folder)
        self._mark = folder / "groups" / f"{group}.json"
        self._lock: int | None = None
        self._cursor: Cursor = {}
        self._after: Cursor = {}

    def poll(self, limit: int) -> list[Message]:
        """Return what is new; none while another reader of the group is there. `limit` is of bytes here: 256 KB."""
        del limit
        if self._lock is None and not self._take_over():
            time.sleep(_IDLE_S)
            return []
        payloads, self._after = self._reader.read(self._cursor, _READ_BYTES)
        if not payloads:
            time.sleep(_IDLE_S)
        return [_unpacked(payload, self._name) for payload in payloads]

    def commit(self, messages: Sequence[Message]) -> None:
        """Move the group's cursor behind what was read."""
        del messages
        partial = self._mark.with_name(f".{self._mark.name}.{os.getpid()}")
        with partial.open("w", encoding="utf-8") as stream:
            json.dump(self._after, stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(self._mark)
        self._cursor = self._after

    def close(self) -> None:
        """Let another reader of the group take over."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_over(self) -> bool:
        self._mark.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._mark.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        self._cursor = {}
        with contextlib.suppress(FileNotFoundError):
            try:
                kept = json.loads(self._mark.read_text("utf-8"))
                self._cursor = {str(name): int(offset) for name, offset in kept.items()}
            except (ValueError, AttributeError) as error:
                raise Unavailable(
                    f"{self._mark} does not say how far the group has come ({error}); remove it to read all again"
                ) from None
        return True


class EmbeddedSink:
    """Writes to an embedded topic; acknowledged is what is on disk."""

    def __init__(self, folder: Path) -> None:
        self._log = Log(folder, "scoring")

    def send(self, messages: Sequence[Message]) -> None:
        """Append messages. Raises Unavailable: the disk is full or too slow."""
        if messages:
            self._log.append_wait([_packed(message) for message in messages])

    def put(self, values: Sequence[bytes]) -> list[str]:
        """Append values as new messages, and return their ids."""
        messages = [Message(value, id) for value, id in zip(values, new_ids(len(values)), strict=True)]
        self.send(messages)
        return [message.id for message in messages]

    def close(self) -> None:
        """Make all of it durable."""
        self._log.close()


def messages_in(folder: Path, limit: int) -> list[Message]:
    """Return the first messages of a topic, at most `limit`."""
    found: list[Message] = []
    reader, cursor = Reader(folder), Cursor()
    while len(found) < limit:
        payloads, cursor = reader.read(cursor, _READ_BYTES)
        if not payloads:
            break
        found += [_unpacked(payload, folder.name) for payload in payloads]
    return found[:limit]


def _packed(message: Message) -> bytes:
    # Latin-1 takes any bytes to text and back.
    key = None if message.key is None else message.key.decode("latin-1")
    return orjson.dumps({"id": message.id, "key": key, "headers": dict(message.headers)}) + b"\n" + message.value


def _unpacked(payload: bytes, topic: str) -> Message:
    head, _, value = payload.partition(b"\n")
    told = orjson.loads(head)
    key = None if told["key"] is None else told["key"].encode("latin-1")
    return Message(value, told["id"], key, told["headers"], f"{topic}/{told['id']}")
