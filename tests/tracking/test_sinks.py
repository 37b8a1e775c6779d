"""Rows of the prediction log in a topic of Kafka, and what Pinot is told of them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flyball.errors import InvalidInput, Unavailable
from flyball.tracking.exploring import Explorer
from flyball.tracking.predictions import PredictionBatch, PredictionLog, new_ids
from flyball.tracking.sealing import Sealer, SealingSettings
from flyball.tracking.sinks import Forwarder, pinot
from flyball.tracking.sinks.kafka import KafkaSink
from tests.services import kafka_cluster

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with kafka_cluster() as address:
        yield address


def write(folder: Path, rows: int) -> list[str]:
    log = PredictionLog(folder, "tests", "os")
    ids = new_ids(rows)
    inputs = {"carrier": ["Zürich ✈"] * rows, "tags": [["a", "b"]] * rows, "hour": list(range(rows))}
    log.append_wait(PredictionBatch("late", 1, "champion", "late@1", NOON, ids, inputs, {"probability": [0.5] * rows}))
    log.close()
    return ids


def messages(broker: str, topic: str, count: int) -> list[tuple[str, dict[str, object]]]:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": broker, "group.id": topic, "auto.offset.reset": "earliest"})
    partitions = consumer.list_topics(topic, 30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    found, deadline = [], time.monotonic() + 30
    while len(found) < count:
        assert time.monotonic() < deadline
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            found.append((message.key().decode(), json.loads(message.value())))
    consumer.close()
    return found


def test_every_row_arrives_in_the_topic_keyed_by_its_id(tmp_path: Path, broker: str) -> None:
    forwarder = Forwarder(tmp_path, KafkaSink(f"kafka://{broker}/rows"))
    ids = write(tmp_path, 3)
    assert (forwarder.forward(), forwarder.forward()) == (3, 0)
    ids += write(tmp_path, 2)
    assert Forwarder(tmp_path, KafkaSink(f"kafka://{broker}/rows")).forward() == 2
    found = messages(broker, "rows", 5)
    assert sorted(key for key, _ in found) == ids
    row = dict(found)[ids[1]]
    assert row["input_carrier"] == "Zürich ✈" and row["input_tags"] == '["a","b"]' and row["input_hour"] == 1
    assert row["at"] == int(NOON.timestamp() * 1000)


def test_segments_wait_for_a_sink_that_is_away(tmp_path: Path) -> None:
    class Away:
        name = "away"
        taken: list[str] = []
        is_there = False

        def send(self, messages: Iterable[tuple[str, bytes]]) -> None:
            if not self.is_there:
                raise Unavailable("nobody answers")
            self.taken += [key for key, _ in messages]

        def close(self) -> None:
            pass

    sink, stop = Away(), threading.Event()
    forwarder = Forwarder(tmp_path, sink, every_s=0.01)
    thread = threading.Thread(target=forwarder.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "sinks" / "away.json").exists():
        assert time.monotonic() < deadline
    ids = write(tmp_path, 4)
    sealer = Sealer(tmp_path, SealingSettings(keep_segments_s=0))
    assert sealer.seal().segments == 0
    with pytest.raises(Unavailable):
        forwarder.forward()
    sink.is_there = True
    forwarder.forward()
    stop.set()
    thread.join(30)
    assert sink.taken[:4] == ids
    assert sealer.seal().segments == 1


def test_nobody_there_is_said_and_loses_nothing(tmp_path: Path, broker: str) -> None:
    ids = write(tmp_path, 2)
    nobody = KafkaSink(f"kafka://{broker}/refused", "socket.timeout.ms=1000 message.max.bytes=1000000")
    nobody._producer.purge()
    assert Forwarder(tmp_path, nobody).forward() == 2
    assert sorted(key for key, _ in messages(broker, "refused", 2)) == ids


@pytest.mark.parametrize(
    ("url", "client", "message"),
    [
        ("http://host/topic", "", "expected kafka://"),
        ("kafka://host", "", "expected kafka://"),
        ("kafka://host/a b", "", "expected kafka://"),
        ("kafka://host/topic", "nonsense", "name=value"),
        ("kafka://host/topic", "sasl.password=${FLYBALL_NO_SUCH}", "FLYBALL_NO_SUCH"),
    ],
)
def test_an_address_that_cannot_be_is_refused(url: str, client: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        KafkaSink(url, client)


def test_pinot_is_told_every_column_once(tmp_path: Path) -> None:
    write(tmp_path, 2)
    columns = Explorer(tmp_path).schema("late")
    found = pinot.schema("late", columns)
    named = [one for part in ("dimension", "metric", "dateTime") for one in found[f"{part}FieldSpecs"]]
    types = {one["name"]: one["dataType"] for one in named}
    assert len(named) == len(types) == len(columns)
    assert {name: types[name] for name in ("id", "at", "revision", "input_hour", "output_probability")} == {
        "id": "STRING",
        "at": "TIMESTAMP",
        "revision": "LONG",
        "input_hour": "LONG",
        "output_probability": "DOUBLE",
    }
    table = pinot.table("late", "it's", "host:9092", "rows")
    assert table["segmentsConfig"]["timeColumnName"] == "at"
    assert table["ingestionConfig"]["filterConfig"]["filterFunction"] == "deployment != 'it''s'"
