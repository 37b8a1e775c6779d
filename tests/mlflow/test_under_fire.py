"""Sixteen processes of MLflow's client log into one SQLite at once, and the server is killed in the middle."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx2

from tests.cli.running import ROOT, until, up

_PROCESSES, _POINTS = 16, 40


def _acknowledged(folder: Path) -> dict[str, list[int]]:
    return {file.name.partition("-")[2]: list(map(int, file.read_text().split())) for file in folder.iterdir()}


def test_each_acknowledged_point_is_there_exactly_once_after_kill_9(tmp_path: Path) -> None:
    home, told = tmp_path / "home", tmp_path / "told"
    told.mkdir()
    python = ROOT / ".venv" / "clients" / "mlflow3" / "bin" / "python"
    with up(home) as running:
        port, serve_port = (address.rpartition(":")[2] for address in (running.pages, running.predictions))
        script = Path(__file__).parent / "under_fire.py"
        clients = subprocess.Popen(
            [str(python), str(script), running.pages, str(told), str(_PROCESSES), str(_POINTS)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            until(lambda: sum(map(len, _acknowledged(told).values())) > 3 * _PROCESSES, 120)
            running.process.kill()
            running.process.wait(20)
            before = _acknowledged(told)
            assert sum(map(len, before.values())) < _PROCESSES * _POINTS
            with (
                up(home, ports=("--port", port, "--serve-port", serve_port)) as again,
                httpx2.Client(base_url=f"{again.pages}/api/2.0/mlflow", timeout=60) as api,
            ):
                for run, steps in before.items():
                    assert set(steps) <= set(_steps(api, run, "loss"))
                output, _ = clients.communicate(timeout=240)
                assert clients.returncode == 0, output[-3000:].decode()
                after = _acknowledged(told)
                assert len(after) == _PROCESSES
                for run in after:
                    assert _steps(api, run, "loss") == list(range(_POINTS))
                    assert _steps(api, run, "auc") == list(range(4, _POINTS, 5))
                    found = api.get("/runs/get", params={"run_id": run}).json()["run"]
                    assert found["info"]["status"] == "FINISHED"
                    assert len(found["data"]["params"]) == _POINTS // 5
        finally:
            clients.kill()
            clients.wait(20)


def _steps(api: httpx2.Client, run: str, key: str) -> list[int]:
    answer = api.get("/metrics/get-history", params={"run_id": run, "metric_key": key})
    assert answer.status_code == 200, answer.text
    points = answer.json().get("metrics", [])
    assert all((p["value"], p["timestamp"]) == (p.get("step", 0) + 0.5, 1000 + p.get("step", 0)) for p in points)
    return [int(point.get("step", 0)) for point in points]
