"""Calls and streams over gRPC that are opened and never finished: they are ended, and others are answered meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest
import tritonclient.grpc as triton
from planes import until
from strained import Strained

from flyball.wire.oip import threads
from flyball.wire.oip.threads import Threads

SERVICE = "/inference.GRPCInferenceService"


@pytest.fixture(scope="module")
def strained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strained]:
    made = Strained(tmp_path_factory.mktemp("home"))
    made.model.gate.set()
    yield made
    made.close()


@pytest.fixture
def quiet() -> Iterator[threading.Event]:
    """Ends the clients that say nothing."""
    over = threading.Event()
    yield over
    over.set()


def nothing(over: threading.Event) -> Iterator[bytes]:
    over.wait(60)
    yield from ()


def channels(strained: Strained, count: int) -> list[grpc.Channel]:
    own = [("grpc.use_local_subchannel_pool", 1)]
    return [grpc.insecure_channel(f"127.0.0.1:{strained.grpc.port}", options=own) for _ in range(count)]


@pytest.mark.parametrize("method", ["ModelInfer", "ServerLive", "RepositoryModelLoad"])
def test_calls_without_a_message_do_not_keep_others_from_being_answered(
    strained: Strained, quiet: threading.Event, method: str
) -> None:
    open_now = channels(strained, 40)  # of 16 threads
    calls = [each.stream_unary(f"{SERVICE}/{method}").future(nothing(quiet)) for each in open_now]
    until(lambda: len(strained.grpc._threads._waiting) > 16)
    with triton.InferenceServerClient(f"127.0.0.1:{strained.grpc.port}") as client:
        assert client.is_server_live(client_timeout=5)
        assert client.is_model_ready("late", client_timeout=5)
    assert not any(call.done() for call in calls)
    for each in open_now:
        each.close()
    until(lambda: not strained.grpc._threads._waiting)


def test_streams_that_say_nothing_do_not_keep_others_from_being_answered(
    strained: Strained, quiet: threading.Event
) -> None:
    open_now = channels(strained, 80)  # of 64 threads
    calls = [each.stream_stream(f"{SERVICE}/ModelStreamInfer")(nothing(quiet)) for each in open_now]
    until(lambda: len(strained.grpc._streams._waiting) > 64)
    (other,) = channels(strained, 1)
    answers = other.stream_stream(f"{SERVICE}/ModelStreamInfer")(iter([b"\x0a\x04late"]), timeout=5)
    assert b"inputs" in next(answers)  # its error: a request without inputs
    assert all(call.is_active() for call in calls)
    for each in (*open_now, other):
        each.close()
    until(lambda: not strained.grpc._streams._waiting)


def test_a_call_that_never_sends_its_message_is_ended() -> None:
    pool = Threads(2, "test", patience_s=0.2)
    ended = [threading.Event() for _ in range(5)]
    futures = [pool.submit(pool.await_message, lambda each=each: each.wait(20), each.set) for each in ended]
    until(lambda: pool.sweep() or all(each.is_set() for each in ended))
    assert all(future.result(10) for future in futures)
    pool.shutdown()


def test_threads_in_work_are_as_many_as_were_allowed_and_go_when_they_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "_PATIENCE_S", 0.0)
    pool = Threads(3, "test-few", patience_s=60)
    lock, most, now, gate = threading.Lock(), 0, 0, threading.Event()

    def work() -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        gate.wait(20)
        with lock:
            now -= 1

    over = threading.Event()
    stalled = [pool.submit(pool.await_message, lambda: over.wait(20), over.set) for _ in range(4)]
    until(lambda: pool.sweep() or len(pool._waiting) == 4)
    working = [pool.submit(work) for _ in range(9)]
    until(lambda: pool.sweep() or now == 3)
    over.set()
    assert [each.result(10) for each in stalled] == [True] * 4
    gate.set()
    for each in working:
        each.result(10)
    assert most <= 7
    until(lambda: sum(each.name.startswith("test-few") for each in threading.enumerate()) <= 3)
    pool.shutdown()
    until(lambda: not any(each.name.startswith("test-few") for each in threading.enumerate()))


def test_what_a_call_raises_is_its_futures() -> None:
    pool = Threads(1, "test", 1)
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result(10)
    pool.shutdown()
