"""The data plane and its log under strain of minutes: other examples, more kills, clients and deployments."""

from __future__ import annotations

import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from flyball.tracking.exploring import Explorer
from flyball.tracking.predictions import PredictionBatch, PredictionLog, new_ids
from flyball.tracking.sealed import Sealed
from flyball.tracking.sealing import Sealer, SealingSettings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "wire"))

from fuzzing import Grpc, Rest, messages, prepare, requests  # noqa: E402
from planes import Home, Plane, parse_replies  # noqa: E402

MANY = settings(max_examples=10_000, database=None, deadline=None, suppress_health_check=list(HealthCheck))
NOON = datetime(2013, 5, 3, 12, 0, tzinfo=UTC)
CLIENTS = 10_000
DEPLOYMENTS = 1_000


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    home = Home(tmp_path_factory.mktemp("home"))
    prepare(home)
    running = Plane(home.path)
    yield running
    running.kill()


def test_no_request_over_http_is_the_servers_fault(plane: Plane) -> None:
    rest = Rest(plane)

    @MANY
    @given(asked=requests())
    def check(asked: tuple[str, str, bytes, dict[str, str]]) -> None:
        rest.check(*asked)

    check()
    rest.close()


def test_no_message_over_grpc_is_the_servers_fault(plane: Plane) -> None:
    rpc = Grpc(plane.call("GET", "/health").json["grpc"])

    @MANY
    @given(message=messages())
    def check(message: bytes) -> None:
        rpc.check("ModelInfer", message)

    check()
    rpc.close()


@pytest.mark.parametrize(
    ("test", "more"),
    [
        ("tests/tracking/test_sealing_strained.py::test_killed_again_and_again_every_acknowledged_row_is_there_once",
         {"FLYBALL_SEALING_KILLS": "40"}),
        ("tests/wire/test_oip_faults.py::test_swaps_under_load_fail_nobody_and_answer_nobody_twice",
         {"FLYBALL_SWAPS": "100"}),
    ],
)  # fmt: skip
def test_what_the_suite_does_a_few_times_holds_many_times(test: str, more: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", test, f"--basetemp={tmp_path / 'inner'}"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **more}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]


def memory_mib(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def test_ten_thousand_idle_clients_cost_little_and_others_are_served(plane: Plane) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, CLIENTS + 1000)), hard))
    before = memory_mib(plane.process.pid)
    half = b"POST /v1/models/late:predict HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n"
    idle: list[socket.socket] = []
    try:
        for number in range(CLIENTS):
            idle.append(socket.create_connection(("127.0.0.1", plane.port), timeout=20))
            if number % 10 == 0:
                idle[-1].sendall(half)
        began = time.perf_counter()
        for _ in range(100):
            assert plane.call("POST", "/v1/models/late:predict", {"distance": 1.0, "hour": 2.0}).status == 200
        seconds = time.perf_counter() - began
        metrics = plane.call("GET", "/metrics").body
        assert re.search(rb"flyball_open_connections\S* 1000\d|flyball_connections\S* 1000\d", metrics), metrics[-3000:]
        grown = memory_mib(plane.process.pid) - before
        print(f"{CLIENTS} idle: {grown:.0f} MiB more; 100 requests meanwhile in {seconds:.2f} s")
        assert grown < 150
    finally:
        for each in idle:
            each.close()
    assert parse_replies(plane.raw(b"GET /v2 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"))[0].status == 200


def test_a_thousand_deployments_are_sealed_and_merged(tmp_path: Path) -> None:
    sealer = Sealer(tmp_path, SealingSettings(keep_segments_s=0))
    for number in range(8):
        log = PredictionLog(tmp_path, "soak", "os")
        for deployment in range(DEPLOYMENTS):
            log.append(
                PredictionBatch(f"d{deployment}", 1, "champion", "m@1", NOON, new_ids(1), {"x": [number]}, {"y": [1.0]})
            )
        log.close()
        began, cpu = time.perf_counter(), time.process_time()
        done = sealer.seal()
        assert done.predictions == DEPLOYMENTS
        print(f"round {number}: {time.perf_counter() - began:.1f} s, CPU {time.process_time() - cpu:.1f} s, {done}")
    assert len(Sealed(tmp_path).parts("predictions")) == DEPLOYMENTS
    explorer = Explorer(tmp_path)
    assert all(explorer.summary(f"d{deployment}").rows == 8 for deployment in range(0, DEPLOYMENTS, 50))
