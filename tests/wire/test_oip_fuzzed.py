"""Both protocols fed with what no client should send: never a fault of the server's, never a hang, neighbours unharmed.

The examples are the same in every run; `soak/test_fuzzing.py` draws others.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections.abc import Iterator

import pytest
from fuzzing import METHODS, Grpc, Rest, bodies, messages, prepare, requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planes import Home, Plane

FEW = settings(
    max_examples=250, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("home"))
    prepare(made)
    return made


@pytest.fixture(scope="module")
def plane(home: Home) -> Iterator[Plane]:
    running = Plane(home.path)
    yield running
    running.kill()


@pytest.fixture(scope="module")
def rest(plane: Plane) -> Iterator[Rest]:
    made = Rest(plane)
    yield made
    made.close()


@pytest.fixture(scope="module")
def rpc(plane: Plane) -> Iterator[Grpc]:
    made = Grpc(plane.call("GET", "/health").json["grpc"])
    yield made
    made.close()


@FEW
@given(asked=requests())
def test_no_request_over_http_is_the_servers_fault(rest: Rest, asked: tuple[str, str, bytes, dict[str, str]]) -> None:
    rest.check(*asked)


@FEW
@given(message=messages())
def test_no_message_over_grpc_is_the_servers_fault(rpc: Grpc, message: bytes) -> None:
    rpc.check("ModelInfer", message)


@settings(FEW, max_examples=100)
@given(method=st.sampled_from(METHODS), data=st.one_of(st.binary(max_size=40), messages()))
def test_no_bytes_to_any_call_are_the_servers_fault(rpc: Grpc, method: str, data: bytes) -> None:
    rpc.check(method, data)


@settings(FEW, max_examples=30)
@given(several=st.lists(messages(), min_size=1, max_size=6))
def test_no_message_ends_a_stream(rpc: Grpc, several: list[bytes]) -> None:
    rpc.stream(several)


def test_bad_requests_neither_fail_nor_alter_their_neighbours(home: Home, plane: Plane) -> None:
    """Good requests among bad ones, on the same connections and in the same batches, get the model's own numbers."""
    bad: list[bytes] = []

    @settings(FEW, max_examples=80)
    @given(body=bodies)
    def collect(body: bytes) -> None:
        bad.append(body)

    collect()
    wrong: list[str] = []

    def ask(seed: int) -> None:
        draw = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", plane.port, timeout=20)
        for _ in range(60):
            if draw.random() < 0.5:
                connection.request("POST", "/v1/models/late:predict", draw.choice(bad))
                reply = connection.getresponse()
                reply.read()
                if reply.status >= 500:
                    wrong.append(f"{reply.status}")
                continue
            distance, hour = draw.uniform(-3, 3), draw.uniform(-3, 3)
            connection.request("POST", "/v1/models/late:predict", json.dumps({"distance": distance, "hour": hour}))
            reply = connection.getresponse()
            (answer,) = json.loads(reply.read())["predictions"]
            if abs(answer["outputs"]["probability"] - home.probability("late@1", distance, hour)) > 1e-9:
                wrong.append(f"{distance} {hour}: {answer}")
        connection.close()

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    metrics = plane.call("GET", "/metrics").body.decode()
    assert "\nflyball_model_failures_total{" not in metrics
    assert 'status="500"' not in metrics
