"""Topics of Kafka: `kafka://host:9092,other:9092/topic`, by its standard client.

Readers of a group share a topic's partitions among them, and get others' when those leave or die. An offset is
committed when the answers are acknowledged, so a message is answered at least once; its id is made of topic, partition
and offset, so that an answer that comes twice is known by it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from flyball.errors import InvalidInput, MissingExtra, Unavailable
from flyball.serving.scoring.topics import Message

__all__ = ["KafkaSink", "KafkaSource"]

_POLL_S = 0.2
_DELIVERY_S = 30.0
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_log = logging.getLogger("flyball.scoring")


class KafkaSource:
    """Reads a topic as a member of a group, from its beginning where the group is new.

    Arguments:
        url: the topic.
        group: the consumer group.
        client: settings of librdkafka; `${NAME}` is taken from the environment.

    Raises:
        InvalidInput: the address or a setting is wrong.
        MissingExtra: the client is not installed.
    """

    def __init__(self, url: str, group: str, client: Mapping[str, str] | None = None) -> None:
        kafka = _library()
        servers, self._topic = _place(url)
        settings = {
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "log_level": 0,
            **_filled(client or {}),
            "bootstrap.servers": servers,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "error_cb": lambda error: _log.warning("%s: %s", url, error.str()),
        }
        try:
            self._consumer = kafka.Consumer(settings)
            self._consumer.subscribe([self._topic])
        except (kafka.KafkaException, ValueError, TypeError) as error:
            raise InvalidInput(f"the client of {_shown(url)} is not set up rightly: {_reason(error)}") from error
        self._kafka = kafka

    def poll(self, limit: int) -> list[Message]:
        """Return at most `limit` messages, waiting a fifth of a second for the first."""
        found = []
        for message in self._consumer.consume(limit, timeout=_POLL_S):
            error = message.error()
            if error is not None:
                if error.fatal():
                    raise Unavailable(f"the topic {self._topic} cannot be read: {error.str()}")
                _log.info("the topic %s: %s", self._topic, error.str())
                continue
            partition, offset = message.partition(), message.offset()
            place = f"{self._topic}/{partition}/{offset}"
            id = hashlib.sha256(place.encode()).hexdigest()[:32]
            found.append(Message(message.value() or b"", id, message.key(), {}, place, (partition, offset)))
        return found

    def commit(self, messages: Sequence[Message]) -> None:
        """Commit the offsets behind these messages. Partitions that others have by now are theirs to answer again."""
        ends: dict[int, int] = {}
        for message in messages:
            partition, offset = message.offset
            ends[partition] = max(ends.get(partition, 0), offset + 1)
        offsets = [self._kafka.TopicPartition(self._topic, partition, end) for partition, end in ends.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except self._kafka.KafkaException as error:
            _log.warning("offsets of %s were not committed, and will be read again: %s", self._topic, _reason(error))

    def close(self) -> None:
        """Leave the group, so that others need not wait for the session to end."""
        self._consumer.close()


class KafkaSink:
    """Writes to a topic; acknowledged is what all replicas in sync have. Arguments and errors as `KafkaSource`."""

    def __init__(self, url: str, client: Mapping[str, str] | None = None) -> None:
        kafka = _library()
        servers, self._topic = _place(url)
        self._url = url
        settings = {
            "linger.ms": 5,
            "compression.type": "lz4",
            "log_level": 0,
            **_filled(client or {}),
            "bootstrap.servers": servers,
            "enable.idempotence": True,
            "delivery.timeout.ms": int(_DELIVERY_S * 1000),
            "error_cb": lambda error: _log.warning("%s: %s", _shown(url), error.str()),
        }
        try:
            self._producer = kafka.Producer(settings)
        except (kafka.KafkaException, ValueError, TypeError) as error:
            raise InvalidInput(f"the client of {_shown(url)} is not set up rightly: {_reason(error)}") from error

    def send(self, messages: Sequence[Message]) -> None:
        """Send messages, keyed by their keys, else by their ids. Raises Unavailable: some may not have arrived."""
        failures: list[str] = []

        def told(error: Any, _message: Any) -> None:
            if error is not None:
                failures.append(error.str())

        for message in messages:
            headers = [("flyball-id", message.id), *message.headers.items()]
            key = message.key if message.key is not None else message.id.encode()
            while not failures:
                try:
                    self._producer.produce(self._topic, message.value, key, headers=headers, on_delivery=told)
                    break
                except BufferError:  # the client's queue is full: let it send
                    self._producer.poll(1.0)
        left = self._producer.flush(_DELIVERY_S + 5)
        if left or failures:
            self._producer.purge()
            raise Unavailable(
                f"{_shown(self._url)} did not take all messages: {failures[0] if failures else 'no answer'}"
            )

    def close(self) -> None:
        """Nothing waits any more: `send` returns when all is acknowledged."""
        self._producer.flush(1.0)


def _library() -> Any:
    try:
        import confluent_kafka
    except ImportError:
        raise MissingExtra("confluent-kafka", "kafka", "scoring topics of Kafka") from None
    return confluent_kafka


def _place(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    topic = parts.path.strip("/")
    if parts.scheme != "kafka" or not parts.netloc or not re.fullmatch(r"[\w.\-]{1,249}", topic):
        raise InvalidInput(f"the topic is {_shown(url)!r}; expected kafka://host:9092/topic")
    return ",".join(host if ":" in host else f"{host}:9092" for host in parts.netloc.split(",")), topic


def _shown(url: str) -> str:
    """Return an address without what may be a password."""
    return re.sub(r"//[^/]*@", "//", url)[:120]


def _filled(client: Mapping[str, str]) -> dict[str, str]:
    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise InvalidInput(f"a setting of the client names the variable {found[1]}, which the environment lacks")
        return os.environ[found[1]]

    return {name: _VARIABLE.sub(value, text) for name, text in client.items()}


def _reason(error: Exception) -> str:
    cause = error.args[0] if error.args else error
    return str(cause.str()) if hasattr(cause, "str") else str(cause)
