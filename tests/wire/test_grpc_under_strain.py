"""gRPC in front of a model that is slow, full or failing."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from planes import until
from strained import Strained
from tritonclient.utils import InferenceServerException

from flyball.governance.keys import digest_of
from flyball.serving.keys import Callers
from flyball.serving.snapshot import CallerKey


@pytest.fixture(scope="module")
def strained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strained]:
    made = Strained(tmp_path_factory.mktemp("home"))
    yield made
    made.close()


@pytest.fixture
def held(strained: Strained) -> Iterator[Strained]:
    strained.model.gate.clear()
    strained.model.entered.clear()
    yield strained
    strained.model.gate.set()
    until(lambda: waiting(strained) == 0)


@pytest.fixture
def client(strained: Strained) -> Iterator[triton.InferenceServerClient]:
    made = triton.InferenceServerClient(f"127.0.0.1:{strained.grpc.port}")
    yield made
    made.close()


def waiting(strained: Strained) -> int:
    line = next(
        (row for row in strained.service.metrics().splitlines() if row.startswith("flyball_queue_rows{")), "x 0"
    )
    return int(line.split()[-1])


def inputs() -> list[triton.InferInput]:
    found = [triton.InferInput(name, [1], "FP64") for name in ("distance", "hour")]
    for tensor in found:
        tensor.set_data_from_numpy(np.ones(1))
    return found


def test_a_full_queue_is_unavailable_and_liveness_answers(held: Strained, client: triton.InferenceServerClient) -> None:
    answers: list[Any] = []
    askers = [threading.Thread(target=lambda: answers.append(client.infer("late", inputs()))) for _ in range(2)]
    askers.append(threading.Thread(target=lambda: answers.append(held.ask())))
    for asker in askers:
        asker.start()
    assert held.model.entered.wait(20)
    until(lambda: waiting(held) == 3)  # two over gRPC, one over REST: one queue
    assert client.is_server_live()
    with pytest.raises(InferenceServerException, match="the queue is full: 3 rows wait for late@1") as refused:
        client.infer("late", inputs())
    assert refused.value.status() == "StatusCode.UNAVAILABLE"
    held.model.gate.set()
    for asker in askers:
        asker.join()
    assert len(answers) == 3


def test_a_deadline_ends_the_wait_on_both_sides(held: Strained, client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as late:
        client.infer("late", inputs(), client_timeout=0.3)
    assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("grpc_")]
    assert threads
    held.model.gate.set()
    until(lambda: waiting(held) == 0)
    assert client.infer("late", inputs()).as_numpy("probability").shape == (1,)


def test_a_call_that_is_cancelled_frees_its_thread_and_harms_nobody(
    held: Strained, client: triton.InferenceServerClient
) -> None:
    answers: list[Any] = []
    ended: list[Any] = []
    for _ in range(2):
        client.async_infer("late", inputs(), callback=lambda result, error: answers.append((result, error)))
    assert held.model.entered.wait(20)
    until(lambda: waiting(held) == 2)
    doomed = client.async_infer("late", inputs(), callback=lambda result, error: ended.append((result, error)))
    until(lambda: waiting(held) == 3)
    doomed.cancel()
    assert until(lambda: ended)[0][1].status() == "StatusCode.CANCELLED"
    held.model.gate.set()
    until(lambda: len(answers) == 2)
    assert [error for _, error in answers] == [None, None]


def test_a_model_that_fails_is_internal_and_nobody_elses(
    strained: Strained, client: triton.InferenceServerClient
) -> None:
    kept = strained.model.model

    class Failing:
        signature, bundle = kept.signature, kept.bundle

        def predict(self, _: Any) -> Any:
            raise RuntimeError("out of luck")

    strained.model.gate.set()
    strained.model.model = Failing()
    try:
        with pytest.raises(InferenceServerException, match="late@1 failed on this request") as failed:
            client.infer("late", inputs())
        assert failed.value.status() == "StatusCode.INTERNAL"
        with grpc.insecure_channel(f"127.0.0.1:{strained.grpc.port}") as channel:
            assert channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=20) == b"\x08\x01"
    finally:
        strained.model.model = kept
    assert client.infer("late", inputs()).as_numpy("probability").shape == (1,)


def test_where_keys_are_required_a_call_without_one_is_unauthenticated(
    strained: Strained, client: triton.InferenceServerClient
) -> None:
    strained.model.gate.set()
    lineup = strained.service.engine.lineup
    keys = [
        CallerKey("late only", digest_of("fb_late"), ("late",)),
        CallerKey("fraud only", digest_of("fb_fraud"), ("fraud",)),
    ]
    strained.service.engine.lineup = dataclasses.replace(lineup, callers=Callers(keys, is_required=True))
    try:
        for headers, status in (
            (None, "UNAUTHENTICATED"),
            ({"authorization": "Bearer fb_else"}, "UNAUTHENTICATED"),
            ({"authorization": "Bearer fb_fraud"}, "PERMISSION_DENIED"),
        ):
            with pytest.raises(InferenceServerException) as refused:
                client.infer("late", inputs(), headers=headers)
            assert refused.value.status() == f"StatusCode.{status}"
            with pytest.raises(InferenceServerException) as refused:
                client.get_model_metadata("late", headers=headers)
            assert refused.value.status() == f"StatusCode.{status}"
        held = {"authorization": "Bearer fb_late"}
        assert client.infer("late", inputs(), headers=held).as_numpy("probability").shape == (1,)
        assert client.get_model_metadata("late", headers=held).name == "late"
        assert client.is_server_live()
    finally:
        strained.service.engine.lineup = lineup


def test_stopping_lets_a_call_in_work_finish(tmp_path: Path) -> None:
    own = Strained(tmp_path)
    answers: list[Any] = []
    client = triton.InferenceServerClient(f"127.0.0.1:{own.grpc.port}")
    client.async_infer("late", inputs(), callback=lambda result, error: answers.append((result, error)))
    assert own.model.entered.wait(20)
    own.model.gate.set()
    own.close()
    until(lambda: answers)
    assert answers[0][1] is None
    client.close()
