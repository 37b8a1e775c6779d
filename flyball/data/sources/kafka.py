"""A topic of Kafka: `topic: kafka://host:9092/flights`; every message is a JSON object, and becomes a row.

A reading goes from where the last one ended to the ends that the partitions have at its start, and stops there. Its
watermark is the offset after the last message, by partition. Nothing is committed to Kafka: the watermark is kept with
the version that the rows become, in one transaction, so each message is read exactly once, whatever dies in between.

Options: `key`, `timestamp`, `partition`, `offset`: names of columns to put those of a message into; `bad`: `refuse`
(the default) or `drop` messages that are no JSON object; `limit`: messages of one reading at most; `timeout_s`;
`client`: settings of librdkafka, such as `sasl.password: ${NAME}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flyball.data.sources._json import read_lines
from flyball.data.sources._landing import landed
from flyball.data.sources._protocol import Glimpse, Reading, Request
from flyball.errors import InvalidInput, MissingExtra, NotFound, Unavailable, listed

if TYPE_CHECKING:
    import polars as pl

__all__ = ["look", "read"]

_MESSAGES = 10_000  # taken at once
_GLIMPSE = 100  # messages of each partition that a glimpse looks at
_SHOWN_BAD = 5
_OWN_COLUMNS = ("key", "timestamp", "partition", "offset")


@dataclass
class _Span:
    """What is to be read of one partition: from `start` up to `end`, which is not read any more."""

    start: int
    end: int
    next: int = field(default=0)

    def __post_init__(self) -> None:
        self.next = self.start


def read(request: Request) -> Reading:
    """Read the messages since the last reading, up to those that are there now."""
    topic, where = _topic(request)
    drop = _drops(request)
    bad: list[tuple[int, int]] = []
    with closing(_consumer(request)) as consumer:
        spans = _spans(request, consumer, topic, where)
        limit = int(request.number("limit", 2**62))
        blocks = _blocks(request, consumer, topic, spans, where, bad, limit)
        frame, _ = landed(blocks, request.folder, where)
    first = listed((f"{p}/{o}" for p, o in bad), _SHOWN_BAD)
    said = f"messages of {where} that are no JSON objects: {len(bad)} (partition/offset {first})"
    if bad and not drop:
        raise InvalidInput(f"{said}; mend them, or say bad: drop")
    notes = (f"{said}; they were left out",) if bad else ()
    after = {"offsets": {str(partition): span.next for partition, span in sorted(spans.items())}}
    return Reading(frame, after, "append" if request.since else "whole", where, notes)


def look(request: Request) -> Glimpse:
    """Return the columns of the newest messages, and when the newest was written."""
    topic, where = _topic(request)
    times: list[int] = []
    bad: list[tuple[int, int]] = []
    with closing(_consumer(request)) as consumer:
        spans = _spans(request, consumer, topic, where)
        for span in spans.values():
            span.start = span.next = max(span.start, span.end - _GLIMPSE)
        frame, _ = landed(_blocks(request, consumer, topic, spans, where, bad, 2**62, times), request.folder, where)
    newest = datetime.fromtimestamp(max(times) / 1000, UTC) if times else None
    return Glimpse(where, frame.collect_schema() if frame is not None else None, newest)


def _topic(request: Request) -> tuple[str, str]:
    location: str = request.environment.filled(str(request.spec.topic))
    topic = location.rpartition("/")[2]
    return topic, f"the topic {topic}"


def _drops(request: Request) -> bool:
    bad = request.option("bad", "refuse")
    if bad not in ("refuse", "drop"):
        raise InvalidInput(f'the option bad is "{bad}"; expected refuse or drop')
    return bool(bad == "drop")


def _consumer(request: Request) -> Any:
    try:
        from confluent_kafka import Consumer, KafkaException
    except ImportError:
        raise MissingExtra("confluent-kafka", "kafka", "reading Kafka topics") from None
    location: str = request.environment.filled(str(request.spec.topic))
    client = request.option("client", {})
    if not isinstance(client, Mapping):
        raise InvalidInput("the option client is no table; expected {setting: value} of librdkafka")
    settings = {
        "group.id": "flyball",  # demanded by the client; nothing is ever committed to it
        "auto.offset.reset": "error",
        "log_level": 0,
        "error_cb": lambda _error: None,  # what matters is raised by the call that it concerns
        **client,
        "bootstrap.servers": location.removeprefix("kafka://").partition("/")[0],
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
    }
    try:
        return Consumer(settings)
    except (KafkaException, ValueError, TypeError) as error:
        raise InvalidInput(f"the option client is not understood: {request.environment.reason(error)}") from error


def _spans(request: Request, consumer: Any, topic: str, where: str) -> dict[int, _Span]:
    """Return what is to be read of each partition. Raises NotFound, Unavailable, InvalidInput: messages were lost."""
    from confluent_kafka import KafkaException, TopicPartition

    wait_s = request.number("timeout_s", request.settings.timeout_s)
    known: Mapping[str, int] = (request.since or {}).get("offsets", {})
    try:
        found = consumer.list_topics(topic, timeout=wait_s).topics[topic]
        if found.error is not None or not found.partitions:
            raise NotFound(f"there is no topic {topic} at {str(request.spec.topic).rpartition('/')[0]}")
        spans = {}
        for partition in sorted(found.partitions):
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=wait_s)
            start = known.get(str(partition), low)
            if start < low:
                raise InvalidInput(
                    f"the messages {start} to {low - 1} of partition {partition} of {where} were deleted before they "
                    "were read; read the whole topic once, and keep messages longer"
                )
            if start > high:
                raise InvalidInput(
                    f"partition {partition} of {where} ends at {high}, and {start} was read already: the topic was "
                    "made anew; read the whole topic once"
                )
            spans[partition] = _Span(start, high)
    except KafkaException as error:
        raise _explained(error, request, where) from error
    return spans


def _blocks(
    request: Request,
    consumer: Any,
    topic: str,
    spans: Mapping[int, _Span],
    where: str,
    bad: list[tuple[int, int]],
    limit: int,
    times: list[int] | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield the rows of the spans, moving each one's `next`; `bad` collects the messages that are no rows."""
    from confluent_kafka import KafkaError, KafkaException, TopicPartition

    open_spans = {partition: span for partition, span in spans.items() if span.next < span.end}
    if not open_spans:
        return
    wait_s = request.number("timeout_s", request.settings.timeout_s)
    try:
        consumer.assign([TopicPartition(topic, partition, span.next) for partition, span in open_spans.items()])
        clock, quiet_since, taken = request.clock, request.clock.monotonic(), 0
        while open_spans and taken < limit:
            messages = consumer.consume(min(_MESSAGES, limit - taken), timeout=0.5)
            rows = []
            for message in messages:
                partition, error = message.partition(), message.error()
                span = spans[partition]
                if error is None:
                    if message.offset() < span.end:
                        rows.append(message)
                        span.next = message.offset() + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    span.next = max(span.next, min(message.offset(), span.end))
                    open_spans.pop(partition, None)
                else:
                    raise KafkaException(error)
                if span.next >= span.end:
                    open_spans.pop(partition, None)
            taken += len(rows)
            if times is not None:
                times += [message.timestamp()[1] for message in rows]
            if rows:
                quiet_since = clock.monotonic()
                yield _frame(request, rows, where, bad)
            elif clock.monotonic() - quiet_since > wait_s:
                raise Unavailable(f"{where} sent nothing for {wait_s:g} s before its end; nothing of it was kept")
    except KafkaException as error:
        raise _explained(error, request, where) from error


def _frame(request: Request, messages: Sequence[Any], where: str, bad: list[tuple[int, int]]) -> pl.DataFrame:
    import polars as pl

    good, lines = [], []
    for message in messages:
        line = _line(message.value())
        if line is None:
            bad.append((message.partition(), message.offset()))
        else:
            good.append(message)
            lines.append(line)
    if not good:
        return pl.DataFrame()
    frame = read_lines(b"\n".join(lines), where, 1)
    own = {}
    for what in _OWN_COLUMNS:
        name = request.option(what)
        if name is None:
            continue
        if not isinstance(name, str) or name in frame.columns or name in own:
            raise InvalidInput(
                f"the option {what} is {name!r}; expected the name of a column that messages do not have"
            )
        own[name] = _own(what, good)
    return frame.with_columns(**own)


def _line(value: bytes | None) -> bytes | None:
    """Return a JSON object as one line; None when it is none."""
    import orjson

    if not value:
        return None
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict) or not found:
        return None
    return json.dumps(found).encode() if b"\n" in value else value


def _own(what: str, messages: Sequence[Any]) -> pl.Series:
    import polars as pl

    if what == "key":
        keys = [message.key() for message in messages]
        return pl.Series([key.decode(errors="replace") if key is not None else None for key in keys], dtype=pl.String)
    if what == "timestamp":
        stamps = [message.timestamp()[1] for message in messages]
        return pl.Series(stamps, dtype=pl.Int64).cast(pl.Datetime("ms", "UTC")).cast(pl.Datetime("us", "UTC"))
    numbers = [message.partition() if what == "partition" else message.offset() for message in messages]
    return pl.Series(numbers, dtype=pl.Int64)


def _explained(error: Exception, request: Request, where: str) -> InvalidInput | NotFound | Unavailable:
    from confluent_kafka import KafkaError

    cause = error.args[0] if error.args else None
    code = cause.code() if isinstance(cause, KafkaError) else None
    reason = cause.str() if isinstance(cause, KafkaError) else request.environment.reason(error)
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
        return NotFound(f"there is no such thing as {where}")
    denied = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED)
    if code in denied:
        return InvalidInput(f"{where} refuses to let us in: {reason}; check user and password under client")
    return Unavailable(f"{where} does not answer: {reason}; nothing of it was kept")
