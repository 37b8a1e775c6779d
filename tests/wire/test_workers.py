"""Several processes that serve one home: real processes under load, killed, stopped and asked to leave."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from planes import Home, Plane, until

from flyball.serving.snapshot import Limits
from flyball.tracking.traffic import TrafficReader

ROW = {"distance": 1.25, "hour": -0.5}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("home"))
    made.deploy()
    return made


@pytest.fixture(scope="module")
def plane(home: Home) -> Iterator[Plane]:
    running = Plane(home.path, "--workers", "2")
    until(lambda: len(workers(home)) == 2)
    yield running
    running.stop()
    running.kill()


def workers(home: Home) -> dict[str, int]:
    return dict(home.told().get("workers", {}))


def metric(plane: Plane, name: str) -> float:
    text = plane.call("GET", "/metrics").body.decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


class Load:
    """Clients that ask until told to stop; `is_kept` says whether they keep their connection."""

    def __init__(self, plane: Plane, clients: int, is_kept: bool) -> None:
        self.ids: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.broken = 0
        self._plane = plane
        self._is_kept = is_kept
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self) -> None:
        client: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            client = client or http.client.HTTPConnection("127.0.0.1", self._plane.port, timeout=20)
            try:
                client.request("POST", "/v1/models/late:predict", json.dumps(ROW))
                reply = client.getresponse()
                body = json.loads(reply.read())
            except (OSError, http.client.HTTPException):
                self.broken += 1
                client = None
                continue
            self.statuses[reply.status] += 1
            self.ids += [row["id"] for row in body.get("predictions", [])]
            if not self._is_kept:
                client.close()
                client = None


def logged(home: Home) -> Counter[str]:
    rows, _ = TrafficReader(home.traffic).read_predictions(limit_bytes=1 << 30)
    return Counter(rows["id"].to_list())


def test_both_listen_on_one_address_and_any_tells_the_sums_of_all(home: Home, plane: Plane) -> None:
    before = metric(plane, "flyball_requests_total")
    for _ in range(20):
        assert plane.call("POST", "/v1/models/late:predict", ROW).status == 200
    until(lambda: metric(plane, "flyball_requests_total") == before + 20)
    assert metric(plane, "flyball_workers") == 2
    until(lambda: home.told()["counters"]["requests"] >= before + 20)
    assert home.told()["pid"] == plane.process.pid


def test_clients_that_keep_their_connection_are_spread_evenly(home: Home, plane: Plane) -> None:
    clients = [http.client.HTTPConnection("127.0.0.1", plane.port, timeout=20) for _ in range(10)]
    try:
        for client in clients:
            client.connect()
        folder = home.path / "serving" / "workers"

        def counts() -> list[int]:
            return sorted(json.loads((folder / f"{n}.counts").read_bytes())["gauges"]["connections"] for n in (1, 2))

        until(lambda: sum(counts()) == 10)
        assert counts()[0] >= 4
    finally:
        for client in clients:
            client.close()


def test_both_give_a_key_to_the_same_variant(home: Home, plane: Plane) -> None:
    home.deploy(home.variant("champion", "late@1", 50.0), home.variant("canary", "late@2", 50.0))
    until(lambda: home.told()["generation"] == home.generation)
    for key in ("ann", "bob", "cem", "dan"):
        body = {"records": [ROW], "key": key}
        replies = [plane.call("POST", "/v1/models/late:predict", body) for _ in range(6)]
        assert len({reply.headers["x-flyball-variant"] for reply in replies}) == 1


def test_both_take_from_one_bucket(home: Home, plane: Plane) -> None:
    home.deploy(limits=Limits(rate=0.01, burst=5))
    until(lambda: home.told()["generation"] == home.generation)
    statuses = Counter(plane.call("POST", "/v1/models/late:predict", ROW).status for _ in range(12))
    assert statuses == {200: 5, 429: 7}
    until(lambda: metric(plane, "flyball_requests_refused_total") == 7)
    home.deploy()
    until(lambda: home.told()["generation"] == home.generation)


@pytest.mark.usefixtures("plane")
def test_snapshot_counts_as_taken_up_when_all_have(home: Home) -> None:
    place, slow = next(iter(workers(home).items()))
    os.kill(slow, signal.SIGSTOP)
    try:
        wanted = home.deploy()
        other = next(number for number in workers(home) if number != place)
        status = home.path / "serving" / "workers" / f"{other}.json"
        until(lambda: json.loads(status.read_bytes())["generation"] == wanted)
        assert home.told()["generation"] == wanted - 1
    finally:
        os.kill(slow, signal.SIGCONT)
    until(lambda: home.told()["generation"] == wanted)


@pytest.mark.usefixtures("plane")
def test_grpc_is_answered_on_one_port(home: Home) -> None:
    for _ in range(4):
        with grpc.insecure_channel(home.told()["grpc_address"], [("grpc.use_local_subchannel_pool", 1)]) as channel:
            live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            assert live(b"", timeout=20, wait_for_ready=True) == b"\x08\x01"


def test_killed_worker_takes_only_the_requests_on_it_and_is_back(home: Home, plane: Plane) -> None:
    load = Load(plane, 8, is_kept=True)
    try:
        until(lambda: len(load.ids) > 200)
        place, killed = next(iter(workers(home).items()))
        os.kill(killed, signal.SIGKILL)
        began = time.monotonic()
        until(lambda: workers(home).get(place, killed) != killed)
        assert time.monotonic() - began < 5  # about 0.2 s where nothing else runs
        seen = len(load.ids)
        until(lambda: len(load.ids) > seen + 200)
    finally:
        load.end()
    assert set(load.statuses) == {200}
    assert load.broken <= 8
    found = logged(home)
    assert all(found[one] == 1 for one in load.ids)
    total = metric(plane, "flyball_requests_total")
    until(lambda: metric(plane, "flyball_requests_total") >= total)  # the counts of the dead one stay


def test_worker_that_is_asked_to_leave_under_load_loses_nothing(home: Home, plane: Plane) -> None:
    load = Load(plane, 4, is_kept=False)
    try:
        for _ in range(2):
            seen = len(load.ids)
            place, leaving = next(iter(workers(home).items()))
            os.kill(leaving, signal.SIGTERM)
            until(lambda: workers(home).get(place, leaving) != leaving)  # noqa: B023 (called at once)
            until(lambda: len(load.ids) > seen + 50)  # noqa: B023
    finally:
        load.end()
    assert set(load.statuses) == {200}
    assert load.broken == 0
    found = logged(home)
    assert all(found[one] == 1 for one in load.ids)


def test_workers_come_with_the_load_go_without_it_and_end_with_their_parent(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = Home(tmp_path_factory.mktemp("scaled"))
    home.deploy()
    (home.path / "flyball.toml").write_text("[scaling]\ntarget = 5\nmaximum = 2\nscale_in_after_s = 0\n")
    plane = Plane(home.path)
    try:
        until(lambda: len(workers(home)) == 1)
        load = Load(plane, 3, is_kept=False)
        try:
            until(lambda: len(workers(home)) == 2, 60)
        finally:
            load.end()
        assert set(load.statuses) == {200} and not load.broken
        until(lambda: len(workers(home)) == 1, 60)
        # Those of the worker that has left count too.
        until(lambda: home.told()["counters"]["requests"] == len(load.ids))
        found = workers(home)
    finally:
        plane.kill()
    until(lambda: not any(_is_running(pid) for pid in found.values()))


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
