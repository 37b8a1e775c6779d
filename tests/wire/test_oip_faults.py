"""A data plane as a process while things go wrong around it: swaps, `kill -9`, a full disk, no descriptors."""

from __future__ import annotations

import http.client
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from planes import ROOT, Home, Plane, until

from flyball.serving.snapshot import Logging
from flyball.tracking.predictions import _Ids
from flyball.tracking.traffic import TrafficReader

ROW = json.dumps({"distance": 1.25, "hour": -0.5})
PREDICT = "/v1/models/late:predict"
SWAPS = int(os.environ.get("FLYBALL_SWAPS", "30"))  # `soak/test_faults.py` asks for a hundred


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.deploy()
    return made


@pytest.fixture
def plane(home: Home) -> Iterator[Plane]:
    running = Plane(home.path)
    yield running
    running.kill()


def logged(home: Home) -> Counter[str]:
    """How often each id is in the log."""
    reader, cursor, found = TrafficReader(home.traffic, lambda _: None), None, Counter[str]()
    while True:
        rows, after = reader.read_predictions(cursor)
        found.update(rows["id"])
        if after == cursor:
            return found
        cursor = after


class Askers:
    """Clients that ask without a pause on connections that they keep, and note what they were answered."""

    def __init__(self, plane: Plane, count: int) -> None:
        self.plane = plane
        self.over = threading.Event()
        self.ids: list[str] = []
        self.wrong: list[object] = []
        self.versions: set[str | None] = set()
        self.threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.plane.port, timeout=20)
        try:
            while not self.over.is_set():
                connection.request("POST", PREDICT, ROW)
                reply = connection.getresponse()
                body = reply.read()
                if reply.status == 200:
                    self.ids.append(json.loads(body)["predictions"][0]["id"])
                    self.versions.add(reply.getheader("x-flyball-version"))
                else:
                    self.wrong.append(body)
        except (OSError, http.client.HTTPException) as error:
            if not self.over.is_set():
                self.wrong.append(error)

    def end(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(30)


def test_swaps_under_load_fail_nobody_and_answer_nobody_twice(home: Home, plane: Plane) -> None:
    askers = Askers(plane, 4)
    for number in range(SWAPS):
        one, two = ("late@1", "late@2") if number % 2 else ("late@2", "late@1")
        if number % 3:
            wanted = home.deploy(home.variant("champion", one))
        else:
            wanted = home.deploy(home.variant("champion", one, 60.0), home.variant("canary", two, 40.0))
        until(lambda wanted=wanted: home.told()["generation"] == wanted)  # type: ignore[misc]
    askers.end()
    assert askers.wrong == []
    assert askers.versions == {"late@1", "late@2"}
    assert plane.stop() == 0
    assert logged(home) == Counter(askers.ids)
    assert max(Counter(askers.ids).values()) == 1


def test_what_was_acknowledged_before_each_kill_9_is_in_the_log_once(home: Home) -> None:
    answered: list[str] = []
    for _ in range(3):
        plane = Plane(home.path)
        askers = Askers(plane, 4)
        until(lambda askers=askers: len(askers.ids) > 100)  # type: ignore[misc]
        plane.kill()
        askers.end()
        answered += askers.ids
    found = logged(home)
    assert max(found.values()) == 1
    assert set(answered) <= set(found)
    assert len(answered) == len(set(answered))


@pytest.mark.parametrize("when_full", ["refuse", "drop"])
def test_a_full_disk_is_told_or_counted_as_the_deployment_says_and_ends_by_itself(
    home: Home, plane: Plane, when_full: str
) -> None:
    wanted = home.deploy(log=Logging(when_full=when_full))  # type: ignore[arg-type]
    until(lambda: home.told()["generation"] == wanted)
    before = plane.call("POST", PREDICT, ROW.encode()).json["predictions"][0]["id"]
    resource.prlimit(plane.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    replies = [plane.call("POST", PREDICT, ROW.encode()) for _ in range(5)]
    metrics = plane.call("GET", "/metrics").body.decode()
    resource.prlimit(plane.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    after = plane.call("POST", PREDICT, ROW.encode()).json["predictions"][0]["id"]
    if when_full == "refuse":
        assert {reply.status for reply in replies} == {503}
        assert all("log is full" in reply.json["error"] for reply in replies)
        assert "flyball_log_refusals_total 5" in metrics
    else:
        assert {reply.status for reply in replies} == {200}
        assert any("dropped" in line and line.endswith(" 5") for line in metrics.splitlines()), metrics
    assert logged(home) == Counter([before, after])
    assert not list((home.path / "serving").glob("*.part"))


def test_connections_take_no_descriptor_that_the_log_needs(home: Home) -> None:
    """More idle clients than the process may open files: others are served, and their rows are logged."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    plane = Plane.__new__(Plane)
    command = ["sh", "-c", 'ulimit -n 512; exec "$@"', "sh", sys.executable, "-m", "flyball.wire.oip", "--port", "0"]
    plane.process = subprocess.Popen(
        [*command, "--home", str(home.path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert plane.process.stdout is not None
    plane.port = int(plane.process.stdout.readline().rsplit(":", 1)[1])
    idle: list[socket.socket] = []
    try:
        for _ in range(min(600, soft - 100)):
            idle += [socket.create_connection(("127.0.0.1", plane.port), timeout=20)]
        ids = [plane.call("POST", PREDICT, ROW.encode()).json["predictions"][0]["id"] for _ in range(20)]
        wanted = home.deploy(home.variant("champion", "late@2"))
        until(lambda: home.told()["generation"] == wanted)
        assert len(list(Path(f"/proc/{plane.process.pid}/fd").iterdir())) < 400
    finally:
        for each in idle:
            each.close()
        plane.kill()
    assert logged(home) == Counter(ids)


def test_ids_ascend_and_stay_unlike_when_the_clock_goes_back_an_hour() -> None:
    now = [1_700_000_000_000_000_000]
    ids = _Ids(lambda: now[0])
    found = ids.take(3)
    for step in (1_000_000, -3_600_000_000_000, 0, 5_000_000, 7_200_000_000_000, -7_200_000_000_000):
        now[0] += step
        found += ids.take(2)
    assert found == sorted(set(found))


def test_a_client_that_sends_half_a_request_and_vanishes_costs_nothing(home: Home, plane: Plane) -> None:
    for part in (b"POST ", b"POST /v1/models/late:predict HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf"):
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", plane.port), timeout=20) as client:
                client.sendall(part)
    assert plane.call("POST", PREDICT, ROW.encode()).status == 200
    assert sum(logged(home).values()) == 1
