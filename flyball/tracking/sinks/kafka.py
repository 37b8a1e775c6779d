"""A topic of Kafka that gets every row of the prediction log, keyed by its id: `sink = "kafka://host/topic"`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from flyball.errors import InvalidInput, MissingExtra, Unavailable

__all__ = ["KafkaSink"]

_FLUSH_S = 30.0
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class KafkaSink:
    """Writes to one topic.

    Arguments:
        url: `kafka://host[:port][,host…]/topic`.
        client: settings of librdkafka as `name=value`, a space apart; `${NAME}` is taken from the environment.

    Raises:
        InvalidInput: the address or a setting is not of that form.
        MissingExtra: the client is not installed.
    """

    def __init__(self, url: str, client: str = "") -> None:
        parts = urlsplit(url)
        topic = parts.path.strip("/")
        if parts.scheme != "kafka" or not parts.netloc or not re.fullmatch(r"[\w.\-]{1,249}", topic):
            raise InvalidInput(f"[traffic] sink is {url[:120]!r}; expected kafka://host:9092/topic")
        try:
            from confluent_kafka import Producer
        except ImportError:
            raise MissingExtra("confluent-kafka", "kafka", "sending live traffic on to Kafka") from None
        self.name = f"kafka-{re.sub(r'[^A-Za-z0-9]+', '-', topic)}"
        self._topic = topic
        self._shown = f"kafka://{parts.netloc.rpartition('@')[2]}/{topic}"
        servers = ",".join(host if ":" in host else f"{host}:9092" for host in parts.netloc.split(","))
        own = {"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 20, "compression.type": "zstd"}
        self._producer = Producer({**own, **_settings(client), "delivery.timeout.ms": int(_FLUSH_S * 1000)})

    def send(self, messages: Iterable[tuple[str, bytes]]) -> None:
        failures: list[str] = []

        def told(error: Any, _message: Any) -> None:
            if error is not None:
                failures.append(str(error))

        for key, message in messages:
            while True:
                try:
                    self._producer.produce(self._topic, message, key.encode(), on_delivery=told)
                    break
                except BufferError:  # the client's queue is full: let it send
                    self._producer.poll(1.0)
                    if failures:
                        break
            self._producer.poll(0)
        if self._producer.flush(_FLUSH_S + 5) or failures:
            self._producer.purge()
            raise Unavailable(f"{self._shown} did not take all rows: {failures[0] if failures else 'no answer'}")

    def close(self) -> None:
        self._producer.flush(1.0)


def _settings(text: str) -> Mapping[str, str]:
    found = {}
    for pair in text.split():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidInput(f"[traffic] sink_client has {name[:40]!r}; expected name=value, a space apart")
        found[name] = _VARIABLE.sub(_filled, value)
    return found


def _filled(found: re.Match[str]) -> str:
    if found[1] not in os.environ:
        raise InvalidInput(f"[traffic] sink_client names the variable {found[1]}, which the environment lacks")
    return os.environ[found[1]]
