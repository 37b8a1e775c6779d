"""Messages scored from topic to topic: none lost, whoever dies, over Kafka's real client and without any broker."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LinearRegression

from flyball.errors import InvalidInput, Unavailable
from flyball.platform import Platform
from flyball.serving.scoring.kafka import KafkaSink, KafkaSource
from flyball.serving.scoring.streaming import Streaming
from flyball.serving.scoring.topics import EmbeddedSink, EmbeddedSource, Message, topic_folder
from flyball.tracking.traffic import TrafficReader
from tests.services import kafka_cluster

QUICK = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "300"}


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with kafka_cluster() as address:
        yield address


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = Platform.open(tmp_path_factory.mktemp("made") / ".flyball")
    inputs = pl.DataFrame(np.random.default_rng(3).normal(size=(50, 2)), schema=["distance", "hour"])
    at.declare("model", "minutes")
    model = LinearRegression().fit(inputs, inputs["distance"] - 2 * inputs["hour"])
    at.register("minutes", model, example=inputs[:5])
    at.close()
    return at.home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Iterator[Platform]:
    at = Platform.open(shutil.copytree(made, tmp_path / ".flyball"))
    yield at
    at.close()


def question(number: int) -> bytes:
    return json.dumps({"order": number, "distance": float(number), "hour": 1.0, "text": "Zürich ✈"}).encode()


def until(holds: Callable[[], Any], seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def answers(home: Platform, name: str = "out") -> list[dict[str, Any]]:
    return [json.loads(message.value) for message in home.topic_read(name, 100_000)]


def run(home: Platform, **more: Any) -> Any:
    return home.score_stream("minutes@1", "stream://in", "stream://out", until_idle_s=0.2, **more)


def test_each_message_is_answered_by_its_id_in_order(home: Platform) -> None:
    ids = home.topic_put("in", [question(number) for number in range(1_200)])
    tally = run(home, keep=["order"])
    assert (tally.answered, tally.dead) == (1_200, 0)
    found = answers(home)
    assert [one["id"] for one in found] == ids
    assert [one["order"] for one in found] == list(range(1_200))
    assert np.allclose([one["outputs"]["prediction"] for one in found], np.arange(1_200) - 2.0)
    assert {one["version"] for one in found} == {"minutes@1"}
    assert run(home).answered == 0, "what is committed does not come again"
    assert run(home, group="another").answered == 1_200


def test_what_cannot_be_answered_becomes_a_dead_letter_with_its_reason_and_its_bytes(home: Platform) -> None:
    bad = [b"\xff\x00 no JSON", b"[1]", b'{"distance": 1}', b'{"distance": "far", "hour": 1}', b'{"hour": NaN}']
    values = [question(1), *bad, question(2)]
    ids = home.topic_put("in", values)
    tally = run(home, dead_letters="stream://dead")
    assert (tally.answered, tally.dead) == (2, 5)
    dead = home.topic_read("dead")
    assert {message.id: message.value for message in dead} == dict(zip(ids[1:-1], bad, strict=True))
    reasons = {message.id: message.headers["reason"] for message in dead}
    assert "no JSON object" in reasons[ids[1]] and 'lacks "hour"' in reasons[ids[3]]
    assert '"distance" in the message is "far"' in reasons[ids[4]]


def test_without_dead_letters_a_wrong_message_ends_the_stream_and_is_not_lost(home: Platform) -> None:
    home.topic_put("in", [question(1), b"nonsense"])
    for _ in range(2):
        with pytest.raises(InvalidInput, match="no JSON object; give a topic of dead letters"):
            run(home)
    assert run(home, dead_letters="stream://dead").answered == 1


def test_the_prediction_log_is_told_when_asked(home: Platform) -> None:
    ids = home.topic_put("in", [question(number) for number in range(5)])
    run(home, log=True)
    logged = TrafficReader(home.home / "traffic").read_predictions()[0]
    assert logged["id"].to_list() == ids
    assert logged["input.distance"].to_list() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert np.allclose(logged["output.prediction"].to_numpy(), np.arange(5) - 2.0)


class Flaky:
    """A sink that refuses each batch once, after half of it has arrived."""

    def __init__(self, sink: EmbeddedSink) -> None:
        self.sink = sink
        self.refused = 0
        self.is_refusing = True

    def send(self, messages: Sequence[Message]) -> None:
        if self.is_refusing:
            self.refused += 1
            self.is_refusing = False
            self.sink.send(messages[: len(messages) // 2])
            raise Unavailable("the disk is full")
        self.is_refusing = True
        self.sink.send(messages)

    def close(self) -> None:
        self.sink.close()


def test_nothing_is_committed_before_the_answers_are_acknowledged(home: Platform) -> None:
    ids = home.topic_put("in", [question(number) for number in range(100)])
    folder = topic_folder(home.home, "in")
    sink = Flaky(EmbeddedSink(topic_folder(home.home, "out")))
    scorer = home.scorer("minutes@1")
    stop = threading.Event()
    stop.set()
    cut = Streaming(lambda: scorer, EmbeddedSource(folder, "g"), sink)
    assert not cut._turn(cut.source.poll(500), stop), "told to stop while the other side is away"
    cut.source.close()
    assert not (folder / "groups" / "g.json").exists()
    source = EmbeddedSource(folder, "g")
    done = Streaming(lambda: scorer, source, sink, until_idle_s=0.1).run(threading.Event())
    source.close()
    sink.close()
    assert (done.answered, sink.refused) == (100, 1)
    found = [one["id"] for one in answers(home)]
    assert sorted(set(found)) == sorted(ids) and len(found) == 150, "some twice, none never"


def test_one_reader_of_a_group_at_a_time_moves_its_cursor(home: Platform) -> None:
    home.topic_put("in", [question(1)])
    folder = topic_folder(home.home, "in")
    one, two = EmbeddedSource(folder, "g"), EmbeddedSource(folder, "g")
    assert len(one.poll(9)) == 1 and two.poll(9) == []
    one.close()
    assert len(two.poll(9)) == 1, "the first did not commit"
    two.commit([])
    two.close()
    assert EmbeddedSource(folder, "g").poll(9) == []


@pytest.mark.parametrize("name", ["../etc", "a/b", "", "Ü"])
def test_a_topic_is_not_called_like_a_path(home: Platform, name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot name a topic"):
        home.topic_put(name, [b"{}"])


_SCORING = """
import logging, sys
from flyball.cli import main
sys.exit(main(sys.argv[1:]))
"""


def scoring(home: Platform, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _SCORING, "score", "minutes@1", *arguments, "--home", str(home.home)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_kill_9_loses_nothing_and_sigterm_ends_it_after_the_turn(home: Platform) -> None:
    topics = ("--from", "stream://in", "--to", "stream://out")
    ids = home.topic_put("in", [question(number) for number in range(3_000)])
    killed = scoring(home, *topics)
    until(lambda: answers(home))
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    ids += home.topic_put("in", [question(number) for number in range(3_000, 3_100)])
    second = scoring(home, *topics)
    until(lambda: len({one["id"] for one in answers(home)}) == 3_100)
    second.send_signal(signal.SIGTERM)
    said, _ = second.communicate(timeout=30)
    assert second.returncode == 0, said
    assert "answered" in said
    assert {one["id"] for one in answers(home)} == set(ids)
    assert run(home).answered == 0, "it had committed what it answered"


def produce(broker: str, topic: str, values: Sequence[bytes]) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": broker})
    for number, value in enumerate(values):
        producer.produce(topic, value, str(number).encode())
    assert producer.flush(30) == 0


def consume(broker: str, topic: str, done: Callable[[list[Any]], bool]) -> list[Any]:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": broker, "group.id": "tests", "auto.offset.reset": "earliest"})
    partitions = until(lambda: consumer.list_topics(topic, 10).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    found: list[Any] = []

    def is_done() -> bool:
        found.extend(m for m in consumer.consume(1_000, 0.2) if m.error() is None)
        return done(found)

    until(is_done)
    consumer.close()
    return found


def test_topics_of_kafka_are_answered_and_their_dead_letters_keep_their_bytes(home: Platform, broker: str) -> None:
    produce(broker, "in", [question(number) for number in range(300)] + [b"\xff nonsense"])
    at = f"kafka://{broker}"
    tally = home.score_stream(
        "minutes@1",
        f"{at}/in",
        f"{at}/out",
        dead_letters=f"{at}/dead",
        keep=["order"],
        client={"session.timeout.ms": "6000"},
        until_idle_s=6,
    )
    assert (tally.answered, tally.dead) == (300, 1)
    found = consume(broker, "out", lambda messages: len(messages) >= 300)
    told = [json.loads(message.value()) for message in found]
    assert sorted(one["order"] for one in told) == list(range(300))
    assert {m.key() for m in found} == {str(number).encode() for number in range(300)}
    assert all(dict(m.headers())["flyball-id"].decode() == one["id"] for m, one in zip(found, told, strict=True))
    (dead,) = consume(broker, "dead", bool)
    assert dead.value() == b"\xff nonsense"
    assert dict(dead.headers())["reason"] == b"it is no JSON object"


def test_a_message_of_kafka_that_comes_again_has_the_same_id(broker: str) -> None:
    produce(broker, "again", [question(number) for number in range(20)])
    ids = []
    for _ in range(2):
        source = KafkaSource(f"kafka://{broker}/again", "never-commits", QUICK)
        found: dict[str, str] = {}
        until(
            lambda source=source, found=found: (
                found.update({m.place: m.id for m in source.poll(50)}) or len(found) == 20
            )
        )
        ids.append(found)
        source.close()
    assert ids[0] == ids[1] and len(set(ids[0].values())) == 20


def test_two_consumers_share_a_topic_and_one_goes_on_when_the_other_is_killed(home: Platform, broker: str) -> None:
    at = f"kafka://{broker}"
    settings = [word for name, value in QUICK.items() for word in ("--client", f"{name}={value}")]
    topics = ["--from", f"{at}/shared", "--to", f"{at}/both", "--keep", "order", *settings]
    produce(broker, "shared", [question(number) for number in range(200)])
    both = [scoring(home, *topics) for _ in range(2)]

    def orders(messages: list[Any]) -> set[int]:
        return {json.loads(message.value())["order"] for message in messages}

    try:
        consume(broker, "both", lambda messages: len(orders(messages)) == 200)
        both[0].send_signal(signal.SIGKILL)
        both[0].wait(30)
        produce(broker, "shared", [question(number) for number in range(200, 400)])
        found = consume(broker, "both", lambda messages: len(orders(messages)) == 400)
        assert orders(found) == set(range(400))
        both[1].send_signal(signal.SIGTERM)
        said, _ = both[1].communicate(timeout=40)
        assert both[1].returncode == 0, said
    finally:
        for one in both:
            one.kill()
            one.wait(30)


def test_an_address_that_is_none_is_refused() -> None:
    for url in ("kafka://host", "http://host/topic", "kafka://user:word@host/a/b"):
        with pytest.raises(InvalidInput, match="expected kafka://host:9092/topic") as refused:
            KafkaSink(url)
        assert "word" not in str(refused.value)
    with pytest.raises(InvalidInput, match="lacks"):
        KafkaSink("kafka://host/topic", {"sasl.password": "${NOBODY_SETS_THIS}"})
    with pytest.raises(InvalidInput, match="not set up rightly"):
        KafkaSource("kafka://host/topic", "g", {"no.such.setting": "1"})
