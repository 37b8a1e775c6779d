"""Online values in Redis: a hash for each view, whose fields are the keys; for homes whose data planes are several.

A value is a head of 24 bytes (event and arrival in µs as `<q`, the number of its names as `<Q`) and a JSON array. One
hash a view makes counting and forgetting a view one command, and a script touch one slot of a cluster. The number of
names is their digest, so it means the same after the server was emptied.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import TYPE_CHECKING, Any

import orjson

from flyball.errors import Corrupt, FlyballError, InvalidInput, MissingExtra, Unavailable
from flyball.storage.online import Encoded, OnlineValue, Together, check_lengths, decoded, micros_of

if TYPE_CHECKING:
    import redis
    from redis.connection import AbstractConnection

__all__ = ["RedisOnline"]

_HEAD = struct.Struct("<qqQ")
_NO_ARRIVAL = -(2**63)
_WRITTEN_AT_ONCE = 1_000  # rows of one script: it runs alone in the server, for about a millisecond
_SCRIPTS_AT_ONCE = 16  # scripts sent before their answers are read
_READ_AT_ONCE = 5_000  # keys of one HMGET
_DELETED_AT_ONCE = 5_000
_REST_S = 1.0  # after a failure nothing is asked for this long: who predicts must not wait for a dead server each time

# Newest wins: by event, then by arrival, then by order of writing; µs since 1970 are exact as doubles until 2255.
# KEYS: the view's hash. ARGV: key, value, key, value, …; of a key that comes twice the newest stays.
_PUT = """
local keys, wanted, places, changed = {}, {}, {}, 0
for i = 1, #ARGV, 2 do keys[#keys + 1] = ARGV[i] end
local there = redis.call('HMGET', KEYS[1], unpack(keys))
for i, key in ipairs(keys) do
  local value, old = ARGV[2 * i], places[key] and wanted[places[key] + 1] or there[i]
  local is_newer = not old
  if old then
    local event, arrival = struct.unpack('<i8i8', value)
    local event_before, arrival_before = struct.unpack('<i8i8', old)
    is_newer = event > event_before or (event == event_before and arrival >= arrival_before)
  end
  if is_newer then
    changed = changed + 1
    if places[key] then wanted[places[key] + 1] = value
    else
      places[key] = #wanted + 1
      wanted[#wanted + 1] = key
      wanted[#wanted + 1] = value
    end
  end
end
if #wanted > 0 then redis.call('HSET', KEYS[1], unpack(wanted)) end
return changed
"""


class RedisOnline:
    """An `OnlineStore` in a Redis server; may be used by several threads.

    Args:
        url: `redis://[user:password@]host:port/db`, `rediss://…` or `unix://…`; the password is never shown.
        prefix: begins every key, `flyball:previous_leg@1`.
        timeout_s: for connecting and for each answer.

    Raises:
        InvalidInput: the URL is wrong.
        MissingExtra: redis-py is not installed.
    """

    def __init__(self, url: str, *, prefix: str = "flyball", timeout_s: float = 0.5) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise MissingExtra("redis-py", "redis", "the online store in Redis") from None
        try:
            # One more try at once: a connection that the server closed while it was idle is opened anew by it.
            pool = redis.ConnectionPool.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                socket_keepalive=True,
                retry=Retry(NoBackoff(), 1),
                protocol=2,
            )
        except ValueError:
            raise InvalidInput(
                "the url of the Redis server is not one; write redis://user:${PASSWORD}@host:6379/0"
            ) from None
        self._client: redis.Redis = redis.Redis(connection_pool=pool)
        settings = pool.connection_kwargs
        self._address = str(settings.get("path") or f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}")
        self._prefix = prefix
        self._shapes_key = f"{prefix}:names"
        self._names: dict[int, tuple[str, ...]] = {}
        self._put = self._client.register_script(_PUT)
        self._own = threading.local()  # of each thread: the connection by which it reads, and in which process
        self._unanswered = redis.ConnectionError, redis.TimeoutError
        self._client_error = (*self._unanswered, redis.ResponseError)
        self._failure: tuple[float, str] | None = None  # when asking has sense again, and what went wrong

    # writing

    def put(self, view: str, rows: Iterable[tuple[str, OnlineValue]]) -> int:
        shapes: dict[tuple[str, ...], int] = {}
        pairs: list[Any] = []
        with self._asking():
            for key, value in rows:
                names = tuple(value.values)
                if names not in shapes:
                    shapes[names] = self._enter_shape(names)
                arrival = _NO_ARRIVAL if value.known_at is None else micros_of(value.known_at)
                head = _HEAD.pack(micros_of(value.event_time), arrival, shapes[names])
                pairs += (_field(key), head + orjson.dumps(list(value.values.values())))
            return self._write(view, pairs)

    def put_encoded(
        self,
        view: str,
        names: Sequence[str],
        keys: Sequence[str],
        event_times_us: Sequence[int],
        values: Sequence[bytes],
        arrivals_us: Sequence[int] | None = None,
    ) -> int:
        check_lengths(view, len(keys), event_times_us=event_times_us, values=values, arrivals_us=arrivals_us)
        pack = _HEAD.pack
        arrivals: Iterable[int] = repeat(_NO_ARRIVAL) if arrivals_us is None else arrivals_us
        with self._asking():
            shape = self._enter_shape(tuple(names))
            pairs: list[Any] = [b""] * (2 * len(keys))
            pairs[::2] = map(_field, keys)
            pairs[1::2] = [
                pack(event, arrival, shape) + value
                for event, arrival, value in zip(event_times_us, arrivals, values, strict=False)
            ]
            return self._write(view, pairs)

    def delete(self, view: str, keys: Sequence[str] | None = None) -> int:
        name = self._name(view)
        with self._asking():
            if keys is None:
                with self._client.pipeline(transaction=True) as pipeline:
                    pipeline.hlen(name)
                    pipeline.unlink(name)
                    return int(pipeline.execute()[0])
            fields = [_field(key) for key in keys]
            parts = (fields[at : at + _DELETED_AT_ONCE] for at in range(0, len(fields), _DELETED_AT_ONCE))
            return sum(int(self._client.hdel(name, *part)) for part in parts)

    # reading

    def get(self, view: str, keys: Sequence[str]) -> list[OnlineValue | None]:
        return [None if row is None else decoded(self, view, row) for row in self.read(view, keys)]

    def read(self, view: str, keys: Sequence[str]) -> list[Encoded | None]:
        unpack, size = _HEAD.unpack_from, _HEAD.size
        rows: list[Encoded | None] = []
        try:
            for value in self._values(view, keys):
                if value is None:
                    rows.append(None)
                else:
                    event, arrival, shape = unpack(value)
                    rows.append((event, None if arrival == _NO_ARRIVAL else arrival, shape, value[size:]))
        except struct.error as error:
            raise Corrupt(f"a value of {view} in Redis is too short to be one; materialise the view again") from error
        return rows

    def together(self, view: str, keys: Sequence[str]) -> Together | None:
        found, size = self._values(view, keys), _HEAD.size
        there = [value for value in found if value is not None] if None in found else found
        heads = b"".join([value[:size] for value in there])  # type: ignore[index]
        if not there or len(heads) != size * len(there):  # a value that is too short, of which `read` tells
            return None
        numbers = struct.unpack(f"<{3 * len(there)}q", heads)
        events: list[int | None] = list(numbers[::3])
        arrivals, shapes = numbers[1::3], numbers[2::3]
        if shapes.count(shapes[0]) < len(shapes):
            return None
        texts = [value[size:] for value in there]  # type: ignore[index]
        if len(there) < len(found):
            in_order, texts_in_order = iter(events), iter(texts)
            events = [None if value is None else next(in_order) for value in found]
            texts = [b"null" if value is None else next(texts_in_order) for value in found]
        told = len(arrivals) - arrivals.count(_NO_ARRIVAL)
        shape = shapes[0] & 0xFFFFFFFFFFFFFFFF
        return Together(
            events, len(there), told, max(arrivals) if told else None, shape, b"[" + b",".join(texts) + b"]"
        )

    def heads(self, view: str, keys: Sequence[str]) -> list[Encoded | None]:
        return self.read(view, keys)

    def names(self, view: str, number: int) -> tuple[str, ...] | None:
        found = self._names.get(number)
        if found is None:
            with self._asking():
                text: Any = self._client.hget(self._shapes_key, str(number))
            if text is None:
                raise Corrupt(f"Redis lacks the names of the values of {view} ({number}); materialise the view again")
            found = self._names[number] = tuple(orjson.loads(text))
        return found

    def count(self, view: str) -> int:
        with self._asking():
            return int(self._client.hlen(self._name(view)))

    # the server

    def _values(self, view: str, keys: Sequence[str]) -> list[bytes | None]:
        """Return what is kept for the keys, in their order."""
        name = self._name(view)
        if len(keys) <= _READ_AT_ONCE:
            return self._answer("HMGET", name, *keys) if keys else []
        found: list[bytes | None] = []
        for start in range(0, len(keys), _READ_AT_ONCE):
            found += self._answer("HMGET", name, *keys[start : start + _READ_AT_ONCE])
        return found

    def _answer(self, *command: str) -> Any:
        """Return the answer to a command that only reads, by the thread's own connection.

        The client's way through its pool, its measurements and its look whether the server has closed the connection
        takes twice as long as the command; here a connection that has been closed shows when it is used.
        """
        self._refuse_while_resting()
        try:
            connection, is_used = self._connection()
            packed = connection.pack_command(*command)  # type: ignore[no-untyped-call]
            try:
                return _asked(connection, packed)
            except self._unanswered[0]:
                if not is_used:
                    raise
                return _asked(connection, packed)  # closed while it was idle, or the server began anew: one more try
        except UnicodeEncodeError:
            raise _half_a_pair() from None
        except self._client_error as error:
            raise self._translation(error) from error

    def _connection(self) -> tuple[AbstractConnection, bool]:
        """Return this thread's connection, and whether it was used before."""
        own, process = self._own, os.getpid()
        if getattr(own, "process", None) == process:
            return own.connection, True
        pool = self._client.connection_pool
        own.connection = pool.connection_class(**pool.connection_kwargs)
        own.process = process
        return own.connection, False

    def _write(self, view: str, pairs: list[Any]) -> int:
        """Write key, value, key, value, …: a script for each thousand, several on the way at once."""
        name, width = self._name(view), 2 * _WRITTEN_AT_ONCE
        parts = [pairs[start : start + width] for start in range(0, len(pairs), width)]
        changed = 0
        for start in range(0, len(parts), _SCRIPTS_AT_ONCE):
            with self._client.pipeline(transaction=False) as pipeline:
                for part in parts[start : start + _SCRIPTS_AT_ONCE]:
                    self._put(keys=[name], args=part, client=pipeline)
                # Errors are raised here, because those that a pipeline raises show the command with its values.
                for answer in pipeline.execute(raise_on_error=False):
                    if isinstance(answer, Exception):
                        raise answer
                    changed += int(answer)
        return changed

    def _enter_shape(self, names: tuple[str, ...]) -> int:
        """Return the number of names, after writing what it stands for."""
        text = orjson.dumps(names)
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") | 1  # 0 stands for objects
        self._client.hset(self._shapes_key, str(number), text)
        return number

    def _name(self, view: str) -> str:
        return f"{self._prefix}:{view}"

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Translate what the server or the way to it raises; after a failure refuse at once for a moment."""
        self._refuse_while_resting()
        try:
            yield
        except self._client_error as error:
            raise self._translation(error) from error

    def _refuse_while_resting(self) -> None:
        if self._failure is not None:
            until, message = self._failure
            if time.monotonic() < until:
                raise Unavailable(message)
            self._failure = None

    def _translation(self, error: Exception) -> FlyballError:
        import redis

        if isinstance(error, self._unanswered):
            kind = "refused the password or user" if isinstance(error, redis.AuthenticationError) else "does not answer"
            message = (
                f"the online store, Redis at {self._address}, {kind}; see that it runs and [online] in flyball.toml"
            )
            self._failure = time.monotonic() + _REST_S, message
            return Unavailable(message)
        if str(error).startswith("WRONGTYPE"):
            return Corrupt(f"a key of {self._prefix} in Redis is not a hash; another program wrote it")
        return Unavailable(f"Redis at {self._address} refused the request ({str(error)[:120]})")


def _asked(connection: AbstractConnection, packed: Any) -> Any:
    """Send a command and return its answer; after anything else than that nobody knows what comes next: hang up."""
    try:
        connection.send_packed_command(packed, check_health=False)  # type: ignore[no-untyped-call]
        return connection.read_response()
    except BaseException:
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise


def _field(key: str) -> bytes:
    try:
        return key.encode()
    except UnicodeEncodeError:
        raise _half_a_pair() from None


def _half_a_pair() -> InvalidInput:
    return InvalidInput("a key of online values has half a surrogate pair in it; send valid Unicode")
