"""A disk that is full, a database that goes away, two servers at once: what clients are told, and that all recovers."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import psycopg
import pytest

from tests.cli.running import ROOT, up
from tests.services import postgres_server

_UNLIMITED = resource.RLIM_INFINITY


def test_a_full_disk_is_said_leaves_nothing_half_written_and_ends(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home) as running, httpx2.Client(base_url=f"{running.pages}/api/2.0/mlflow", timeout=60) as api:
        run = api.post("/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
        files = f"{running.pages}/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts"
        assert api.put(f"{files}/a.txt", content=b"whole").status_code == 200
        full = (home / "ledger.db-wal").stat().st_size  # no file may become larger than this one is
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (full, _UNLIMITED))
        refusals = [
            api.post("/runs/log-metric", json={"run_id": run, "key": "m", "value": 1.0, "timestamp": 1, "step": 1}),
            api.post("/runs/log-parameter", json={"run_id": run, "key": "p", "value": "x"}),
            api.post("/experiments/create", json={"name": "full"}),
            api.post("/registered-models/create", json={"name": "full"}),
            api.put(f"{files}/b.txt", content=b"b" * 5_000_000),
            api.put(f"{files}/c.txt", content=b"c"),
        ]
        for refused in refusals:
            assert (refused.status_code, refused.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
        assert api.get("/runs/get", params={"run_id": run}).status_code == 200
        assert httpx2.get(f"{running.pages}/runs/{run}").status_code == 200
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (_UNLIMITED, _UNLIMITED))
        point = {"run_id": run, "key": "m", "value": 2.0, "timestamp": 1, "step": 2}
        assert api.post("/runs/log-metric", json=point).status_code == 200
        assert api.put(f"{files}/b.txt", content=b"b" * 5_000_000).status_code == 200
        assert api.post("/experiments/create", json={"name": "full"}).status_code == 200
        found = api.get("/runs/get", params={"run_id": run}).json()["run"]["data"]
        assert ([(m["key"], m["value"]) for m in found["metrics"]], found.get("params", [])) == ([("m", 2.0)], [])
        listed = api.get("/artifacts/list", params={"run_id": run}).json()["files"]
        assert [(file["path"], file["file_size"]) for file in listed] == [("a.txt", 5), ("b.txt", 5_000_000)]
        assert not list((home / "blobs").rglob("*.part"))


def test_of_two_servers_that_start_on_an_empty_home_at_once_one_serves_and_one_says_who_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flyball.cli", "up", "--home", str(tmp_path / "home"), "--port", "0"]
    both = [
        subprocess.Popen(
            [*command, "--serve-port", "0"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        lines = []
        for process in both:
            assert process.stdout is not None
            lines.append(process.stdout.readline())
        ready = [process for process, line in zip(both, lines, strict=True) if line]
        (other,) = [process for process in both if process not in ready]
        assert len(ready) == 1
        assert other.wait(30) == 1
        assert other.stderr is not None
        assert "flyball up runs on" in other.stderr.read()
        address = next(line for line in lines if line).split()[4]
        assert httpx2.post(f"{address}/api/2.0/mlflow/experiments/create", json={"name": "x"}).status_code == 200
    finally:
        for process in both:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


def test_a_database_that_goes_away_is_503_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres_server(tmp_path) as server:
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE faults")
        monkeypatch.setenv("FLYBALL_LEDGER_URL", f"{server}/faults")
        with up(tmp_path / "home") as running, httpx2.Client(base_url=running.pages, timeout=60) as client:
            create = "/api/2.0/mlflow/runs/create"
            run = client.post(create, json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
            with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
                connection.execute("ALTER DATABASE faults ALLOW_CONNECTIONS false")
                for step in range(3):
                    _cut(connection)
                    point = {"run_id": run, "key": "m", "value": 1.0, "timestamp": 1, "step": step}
                    for answer in (
                        client.post("/api/2.0/mlflow/runs/log-metric", json=point),
                        client.get("/api/2.0/mlflow/runs/get", params={"run_id": run}),
                        client.post(create, json={"experiment_id": "0"}),
                    ):
                        assert (answer.status_code, answer.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
                    assert client.get("/api/resources").status_code == 503
                    assert client.get("/health").status_code == 200
                connection.execute("ALTER DATABASE faults ALLOW_CONNECTIONS true")
                for step in range(3, 6):
                    _cut(
                        connection
                    )  # the pool's connections are all dead; the client must not learn of it more than once
                    point = {"run_id": run, "key": "m", "value": 1.0, "timestamp": 1, "step": step}
                    answers = [client.post("/api/2.0/mlflow/runs/log-metric", json=point) for _ in range(2)]
                    assert answers[-1].status_code == 200
                    assert answers[0].status_code in (200, 503)
            kept = client.get("/api/2.0/mlflow/metrics/get-history", params={"run_id": run, "metric_key": "m"}).json()
            assert [point["step"] for point in kept["metrics"]] == [3, 4, 5]


def _cut(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'faults'")
