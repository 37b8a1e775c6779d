"""Runs recorded for a home on another machine: a real server, killed and started again; real client processes."""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

import flyball as fb
from flyball.errors import Conflict, InvalidInput, Unavailable
from flyball.platform import Platform
from flyball.platform.receiving import RECEIVED_TAG
from flyball.remote.connection import Connection
from flyball.remote.home import RemoteHome
from flyball.remote.sending import Sender
from tests.cli.running import ROOT, Up, kill_data_plane, until, up


def test_a_run_is_there_as_it_was_recorded_when_its_block_ends(remote: RemoteHome, away: Path) -> None:
    (away / "größe.txt").write_text("grün", encoding="utf-8")
    with fb.run("späte Flüge", experiment="Flüge ✈", depth=6, rate=0.5) as run:
        for step in range(50):
            run.log(step=step, loss=1 / (step + 1))
        run.log({"odd": math.nan, "far": math.inf, "température": 21.5})
        run.tags(colour="blau", name_of="北京")
        run.params(seed=7)
        run.log_table("t", {"a": [1, 2]})
        run.log_figure("roc", b'<svg xmlns="http://www.w3.org/2000/svg"/>')
        run.artifact("texte/größe.txt", away / "größe.txt")
        run.use(fb.ref("model/late@1"))
    found = remote.run(run.id)
    assert (found.name, found.status, found.params) == (
        "späte Flüge",
        "succeeded",
        {"depth": 6, "rate": 0.5, "seed": 7},
    )
    assert found.tags["colour"] == "blau" and found.tags["name_of"] == "北京"
    assert [p.value for p in remote.metric(run.id, "loss")] == [1 / (step + 1) for step in range(50)]
    assert [p.step for p in remote.metric(run.id, "loss")] == list(range(50))
    assert math.isnan(found.metrics["odd"]) and found.metrics["température"] == 21.5
    assert found.metrics["far"] > 1e308
    paths = {artifact.path for artifact in remote.artifacts(run.id)}
    assert {"t.json", "roc.svg", "texte/größe.txt"} <= paths
    assert remote.file(run.id, "texte/größe.txt") == "grün".encode()
    assert found.source and found.environment["packages"]["numpy"]
    assert remote.experiment_by_name("Flüge ✈").id == found.experiment
    assert not list((away / "state").rglob("run.json")), "what is sent is removed"


def test_runs_within_runs_are_found_by_a_search(remote: RemoteHome) -> None:
    with fb.run("outer", experiment="nested") as outer:
        for depth in (4, 8):
            with fb.run("inner", experiment="nested", parent=outer, depth=depth) as inner:
                inner.log(auc=depth / 10)
    assert [r.name for r in fb.runs(experiment="nested")] == ["inner", "inner", "outer"]
    best = fb.runs("metrics.auc > 0.1", experiment="nested", order_by=["metrics.auc DESC"])
    assert [(r.params["depth"], r.parent) for r in best] == [(8, outer.id), (4, outer.id)]
    assert remote.run(inner.id).tags["mlflow.parentRunId"] == outer.id
    assert [r.id for r in fb.runs("metrics.auc = 0.8", limit=5)] == [inner.id]
    with pytest.raises(InvalidInput):
        fb.runs("metrics.auc is nice", experiment="nested")


def test_an_error_within_the_block_fails_the_run_and_ctrl_c_cancels_it(remote: RemoteHome) -> None:
    with pytest.raises(ZeroDivisionError), fb.run("broken") as broken:
        _ = 1 / 0
    with pytest.raises(KeyboardInterrupt), fb.run("stopped") as stopped:
        raise KeyboardInterrupt
    assert remote.run(broken.id).status == "failed"
    assert "ZeroDivisionError" in (remote.run(broken.id).error or "")
    assert remote.run(stopped.id).status == "cancelled"


def test_what_cannot_be_logged_is_refused_at_once_and_spoils_nothing(remote: RemoteHome) -> None:
    with fb.run("strict", depth=6) as run:
        with pytest.raises(Conflict):
            run.params(depth=7)
        with pytest.raises(InvalidInput):
            run.log(loss="0.5")  # type: ignore[arg-type]
        with pytest.raises(InvalidInput):
            run.artifact("../x", b"")
        run.log(loss=1)
    with pytest.raises(Conflict):
        run.log(loss=2)
    assert remote.run(run.id).metrics == {"loss": 1.0}


def test_flush_returns_when_the_server_has_what_was_logged(remote: RemoteHome) -> None:
    with fb.run("flushed") as run:
        run.log(loss=0.25, step=3)
        run.flush()
        assert [p.value for p in remote.metric(run.id, "loss")] == [0.25]
        assert remote.run(run.id).status == "running"


def test_a_line_that_the_server_cannot_take_is_told_and_holds_up_no_other(remote: RemoteHome) -> None:
    with pytest.raises(Conflict, match="no others"), fb.run("odd") as run:
        run.log(before=1.0)
        run.log({"a\0b": 1.0})
        run.log(after=2.0)
    found = remote.run(run.id)
    assert found.status == "succeeded"
    assert found.metrics == {"before": 1.0, "after": 2.0}


def test_lines_sent_again_or_out_of_order_are_taken_once(server: Up) -> None:
    connection = Connection(server.pages)
    id = os.urandom(16).hex()
    facts = {"format": 1, "id": id, "name": "again", "started_ms": 1_700_000_000_000}
    lines = [json.dumps({"points": [["loss", n, n, 1_700_000_000_000 + n]]}).encode() + b"\n" for n in range(10)]
    path = f"/api/v1/received/{id}"
    assert [connection.ask("PUT", path, json=facts)["taken"] for _ in range(2)] == [0, 0]
    assert connection.ask("POST", f"{path}/lines", params={"first": 0}, body=b"".join(lines[:6]))["taken"] == 6
    assert connection.ask("POST", f"{path}/lines", params={"first": 0}, body=b"".join(lines[:6]))["taken"] == 6
    assert connection.ask("POST", f"{path}/lines", params={"first": 3}, body=b"".join(lines[3:9]))["taken"] == 9
    with pytest.raises(Conflict, match="has 9 lines"):
        connection.ask("POST", f"{path}/lines", params={"first": 10}, body=lines[0])
    together = [
        threading.Thread(
            target=connection.ask,
            args=("POST", f"{path}/lines"),
            kwargs={"params": {"first": 9}, "body": lines[9]},
        )
        for _ in range(8)
    ]
    for one in together:
        one.start()
    for one in together:
        one.join(20)
    assert connection.ask("PUT", path, json=facts)["taken"] == 10
    points = connection.ask("GET", f"/api/v1/runs/{id}/metrics/loss")["points"]
    assert points == [[float(n), n, 1_700_000_000_000 + n] for n in range(10)]


def test_a_clock_that_is_wrong_keeps_its_times_and_is_told(server: Up, remote: RemoteHome) -> None:
    id = os.urandom(16).hex()
    began = 978_307_200_000  # 2001-01-01T00:00:00Z
    facts = {"format": 1, "id": id, "name": "wrong clock", "started_ms": began}
    connection = Connection(server.pages)
    connection.ask("PUT", f"/api/v1/received/{id}", params={"now_ms": began}, json=facts)
    body = b'{"end":"succeeded","error":null,"at_ms":%d}\n' % (began + 90_000)
    connection.ask("POST", f"/api/v1/received/{id}/lines", params={"first": 0}, body=body)
    found = remote.run(id)
    assert found.started_at.isoformat() == "2001-01-01T00:00:00+00:00"
    assert found.finished_at is not None and (found.finished_at - found.started_at).total_seconds() == 90
    assert abs(int(found.tags["flyball.clock_skew_s"]) + time.time() - began / 1000) < 60


def test_nothing_is_lost_or_doubled_when_the_server_is_killed_in_mid_stream(
    away: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home, count = away / "home", 6000
    with up(home) as first:
        port = first.pages.rsplit(":", 1)[1]
        fb.connect(first.pages)
        run = fb.run("survivor", experiment="killed", seed=1)
        for step in range(count):
            run.log(step=step, loss=float(step))
            if step % 50 == 0:
                run.artifact(f"checkpoints/{step}.bin", step.to_bytes(4, "big") * 20_000)
            if step == count // 3:
                until(lambda: _count_of(home, run.id) > 100)  # it is in the midst of it
                first.process.kill()
                first.process.wait(20)
                kill_data_plane(home)
        with pytest.raises(Unavailable), caplog.at_level(logging.WARNING):
            _impatient(run, 0.5)
        assert sum("sent when it is back" in r.getMessage() for r in caplog.records) == 1, "it is said once"
        with up(home, ports=("--port", port, "--serve-port", "0")) as second:
            with run:
                run.tags(after="the restart")
            assert second.pages == first.pages
            found = fb.home().run(run.id)
            assert found.status == "succeeded" and found.tags["after"] == "the restart"
            assert int(found.tags[RECEIVED_TAG]) == run._sink._lines, "as many as were written"  # type: ignore[attr-defined]
            points = fb.home().metric(run.id, "loss")
            assert [p.value for p in points] == [float(step) for step in range(count)]
            kept = [a for a in fb.home().artifacts(run.id) if a.path.startswith("checkpoints/")]
            assert len(kept) == count // 50 and {a.size_bytes for a in kept} == {80_000}
            assert not list((away / "state").rglob("run.json"))


def test_a_run_that_meets_no_server_is_kept_told_of_and_sent_later(
    server: Up, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYBALL_REMOTE_PATIENCE_S", "0.2")
    gate = _Gate(server.pages)
    done = _client(gate.url, away, "with fb.run('kept', depth=1) as run: run.log(loss=1)\nprint(run.id)", timeout=60)
    assert done.returncode == 0, done.stderr
    id = done.stdout.strip()
    folder = next((away / "state").rglob(id))
    assert "does not answer" in done.stderr and f"flyball import {folder}" in done.stderr
    gate.open()
    again = _client(gate.url, away, "print(fb.connect(fb.home().url).send_unsent())", FLYBALL_REMOTE_PATIENCE_S="20")
    gate.close()
    assert (again.returncode, again.stdout) == (0, "1\n"), again.stderr
    assert not folder.exists()
    found = RemoteHome(server.pages).run(id)
    assert (found.status, found.metrics, found.params) == ("succeeded", {"loss": 1.0}, {"depth": 1})


def test_a_folder_that_was_sent_in_part_can_be_imported_and_sent_on(tmp_path: Path) -> None:
    with closing(Platform.open(tmp_path / "home")) as platform:
        from tests.wire.test_native import Server

        running = Server(platform)
        try:
            sender = Sender(Connection(running.address), tmp_path, 10)
            run = sender.start("half", None)
            run.log(loss=1.0, step=0)
            run.artifact("a.txt", b"one")
            run.flush()
            run.log(loss=0.5, step=1)
            copy = tmp_path / "copies" / run.id
            subprocess.run(["cp", "-r", str(run.folder), str(copy.parent)], check=False)
            copy.parent.mkdir(exist_ok=True)
            subprocess.run(["cp", "-r", str(run.folder), str(copy)], check=True)
            assert platform.import_runs([copy]).changed == 1
            run.finish()
            assert [p.value for p in platform.metric(run.id, "loss")] == [1.0, 0.5]
            assert platform.run(run.id).status == "succeeded"
            assert platform.run(run.id).tags[RECEIVED_TAG] == "4"
        finally:
            running.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_client_that_is_stopped_loses_nothing(server: Up, away: Path, remote: RemoteHome, number: int) -> None:
    code = (
        "import sys, time\nrun = fb.run('stopped', depth=2).__enter__()\n"
        "for step in range(500): run.log(step=step, loss=step)\n"
        "try:\n    print(run.id, flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    run.__exit__(*sys.exc_info())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"import flyball as fb\n{code}"], env=_environment(server.pages, away), cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    id = process.stdout.readline().strip()
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    if number == signal.SIGKILL:
        remote.sender.take_up()
        until(lambda: remote.run(id).is_finished)
    found = remote.run(id)
    ends = {signal.SIGTERM: "cancelled", signal.SIGINT: "cancelled", signal.SIGKILL: "lost"}
    assert found.status == ends[signal.Signals(number)], error
    assert [p.value for p in remote.metric(id, "loss")] == [float(step) for step in range(500)]


def test_a_run_that_nobody_ends_ends_with_the_program(server: Up, away: Path, remote: RemoteHome) -> None:
    done = _client(server.pages, away, "run = fb.run('left open'); run.log(loss=3)\nprint(run.id)")
    assert done.returncode == 0, done.stderr
    assert (remote.run(done.stdout.strip()).status, done.stderr) == ("succeeded", "")


def test_a_large_file_goes_through_both_sides_in_little_memory(server: Up, away: Path) -> None:
    size = 100 << 20
    with (away / "large.bin").open("wb") as stream:
        for number in range(100):
            stream.write(bytes([number]) * (1 << 20))
    before = _peak(server.process.pid)
    code = (
        "import resource\nfrom pathlib import Path\nwith fb.run('large') as run:\n    run.flush()\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"    run.artifact('large.bin', Path({str(away / 'large.bin')!r}))\n"
        "print(run.id, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = _client(server.pages, away, code, timeout=120)
    assert done.returncode == 0, done.stderr
    id, grown = done.stdout.split()
    kept = next(a for a in RemoteHome(server.pages).artifacts(id) if a.path == "large.bin")
    assert kept.size_bytes == size
    assert int(grown) < 32 * 1024, "kilobytes on the client"
    assert _peak(server.process.pid) - before < 64 * 1024, "kilobytes on the server"


def test_logging_costs_a_training_loop_little_whatever_the_server_does(server: Up, away: Path) -> None:
    gate = _Gate(server.pages)  # accepts connections and answers nothing
    code = (
        "import time\nrun = fb.run('quick')\nworst, began = 0.0, time.process_time()\nfor step in range(20_000):\n"
        "    at = time.perf_counter(); run.log(step=step, loss=0.5); worst = max(worst, time.perf_counter() - at)\n"
        "print((time.process_time() - began) / 20_000)\nimport os; os._exit(0)"
    )
    done = _client(gate.url, away, code, timeout=60)
    gate.close()
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.0005


def test_a_forked_process_is_told_to_leave_the_run_and_may_begin_its_own(remote: RemoteHome) -> None:
    run = fb.run("forked")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            try:
                run.log(loss=1)
            except Unavailable:
                with fb.run("of the child") as own:
                    own.log(loss=1)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    with run:
        run.log(loss=2)
    assert [p.value for p in remote.metric(run.id, "loss")] == [2.0]
    assert fb.runs("attributes.run_name = 'of the child'")[0].status == "succeeded"


def test_a_run_that_is_deleted_meanwhile_takes_no_more_and_says_so(server: Up, remote: RemoteHome) -> None:
    run = fb.run("unwanted")
    run.log(loss=1)
    run.flush()
    import httpx2

    httpx2.post(f"{server.pages}/api/2.0/mlflow/runs/delete", json={"run_id": run.id}).raise_for_status()
    run.log(loss=2)
    with pytest.raises(Conflict, match="deleted"):
        run.flush()
    with pytest.raises(Conflict, match="deleted"), run:
        pass
    assert remote.run(run.id).metrics == {"loss": 1.0}


def test_system_metrics_are_sampled_here_and_kept_there(server: Up, away: Path, remote: RemoteHome) -> None:
    code = (
        "import time\nwith fb.run('sampled') as run:\n    end = time.time() + 20\n"
        "    while True:\n        run.flush()\n"
        "        if 'system/disk_usage_percentage' in fb.home().run(run.id).metrics: break\n"
        "        assert time.time() < end\nprint(run.id)"
    )
    more = {"FLYBALL_TRACKING_SYSTEM_METRICS": "true", "FLYBALL_TRACKING_SYSTEM_INTERVAL_S": "0.1"}
    done = _client(server.pages, away, code, **more)
    assert done.returncode == 0, done.stderr
    assert remote.run(done.stdout.strip()).metrics["system/disk_usage_percentage"] > 0


class _Gate:
    """A port that nobody listens on until it is opened; then it leads to a server."""

    def __init__(self, target: str) -> None:
        import socket

        self._target = ("127.0.0.1", int(target.rsplit(":", 1)[1]))
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def open(self) -> None:
        self._socket.listen()
        threading.Thread(target=self._lead, daemon=True).start()

    def _lead(self) -> None:
        import socket

        while True:
            try:
                one, _ = self._socket.accept()
            except OSError:
                return
            other = socket.create_connection(self._target)
            for a, b in ((one, other), (other, one)):
                threading.Thread(target=self._copy, args=(a, b), daemon=True).start()

    @staticmethod
    def _copy(source: object, target: object) -> None:
        import contextlib

        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):  # type: ignore[attr-defined]
                target.sendall(data)  # type: ignore[attr-defined]
            target.shutdown(1)  # type: ignore[attr-defined]

    def close(self) -> None:
        import contextlib
        import socket

        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _environment(url: str, away: Path, **more: str) -> dict[str, str]:
    own = {
        "FLYBALL_URL": url,
        "FLYBALL_HOME": str(away / "no-home"),
        "FLYBALL_REMOTE_FOLDER": str(away / "state"),
        "FLYBALL_REMOTE_CACHE": str(away / "cache"),
        "FLYBALL_TRACKING_SYSTEM_METRICS": "false",
        "PYTHONWARNINGS": "ignore",
    }
    return {**os.environ, **own, **more}


def _client(url: str, away: Path, code: str, timeout: float = 60, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import flyball as fb\n{code}"], env=_environment(url, away, **more), cwd=ROOT,
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def _impatient(run: fb.Recording, patience_s: float) -> None:
    run._sink._sender.patience_s, before = patience_s, run._sink._sender.patience_s  # type: ignore[attr-defined]
    try:
        run.flush()
    finally:
        run._sink._sender.patience_s = before  # type: ignore[attr-defined]


def _count_of(home: Path, run: str) -> int:
    import sqlite3

    path = next(home.glob("*.db"))
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as base:
        row = base.execute("SELECT tags FROM runs WHERE id = ?", (run,)).fetchone()
    return int(json.loads(row[0]).get(RECEIVED_TAG, 0)) if row else 0


def _peak(pid: int) -> int:
    """Return the most memory that a process has had, in kilobytes."""
    assert resource.getpagesize() > 0
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
