"""`flyball up` as people and service managers meet it: started, killed, started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import httpx2
import pytest

from flyball.control.lease import is_alive
from tests.cli.running import ask, declare_late, is_listening, serves_late, until, up


def test_it_says_one_line_when_ready_and_both_ports_are_healthy(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home) as running:
        assert running.line == (
            f"flyball is ready: pages {running.pages}  predictions {running.predictions}  home {home}"
        )
        assert is_listening(running.pages)
        assert is_listening(running.predictions)
        told = json.loads((home / "control.json").read_text())
        assert (told["pid"], told["address"]) == (running.process.pid, running.pages)
        begun = time.monotonic()
        code, out, error = running.end()
        assert (code, out, error) == (0, "", "")
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_even_while_a_page_listens_for_changes(tmp_path: Path, number: int) -> None:
    with up(tmp_path / "home") as running:
        plane = running.told()["pid"]
        heard, listening = [], threading.Event()

        def listen() -> None:
            with httpx2.stream("GET", f"{running.pages}/api/changes", timeout=30) as stream:
                for line in stream.iter_lines():
                    heard.append(line)
                    listening.set()

        page = threading.Thread(target=listen, daemon=True)
        page.start()
        assert listening.wait(20)
        code, _, _ = running.end(number)
        page.join(10)
        assert code == 0
        assert not page.is_alive()
        assert not is_alive(plane)
        assert not is_listening(running.pages)
        assert not is_listening(running.predictions)
        assert not (running.home / "control.json").exists()


def test_killing_the_control_plane_leaves_the_data_plane_serving_and_the_next_one_adopts_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    declare_late(home)
    with up(home) as first:
        until(lambda: serves_late(first.predictions))
        plane = first.told()["pid"]
        first.process.kill()
        first.process.wait(20)
        assert ask(first.predictions).json()["predictions"][0]["version"] == "late@1"
        with up(home) as second:
            assert second.predictions == first.predictions
            assert second.told()["pid"] == plane
            assert ask(second.predictions).status_code == 200
            assert second.end()[0] == 0
            until(lambda: not is_alive(plane))


def test_an_adopted_data_plane_gives_way_when_another_port_is_asked_for(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home) as first:
        first.process.kill()
        first.process.wait(20)
        before, port = first.told()["pid"], _free_port()
        with up(home, ports=("--port", "0", "--serve-port", str(port))) as second:
            assert second.predictions.endswith(f":{port}")
            assert not is_alive(before)


def test_a_killed_data_plane_is_started_again_at_the_same_address(tmp_path: Path) -> None:
    home = tmp_path / "home"
    declare_late(home)
    with up(home) as running:
        until(lambda: serves_late(running.predictions))
        killed = running.told()["pid"]
        os.kill(killed, signal.SIGKILL)
        until(lambda: running.told()["pid"] != killed and serves_late(running.predictions))
        plane = running.told()["pid"]
        code, _, error = running.end()
        assert code == 0
        assert "signal 9" in error
        assert not is_alive(plane)


@pytest.mark.parametrize("option", ["--port", "--serve-port"])
def test_a_port_in_use_is_one_sentence_and_leaves_nothing_running(tmp_path: Path, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        other = "--serve-port" if option == "--port" else "--port"
        with up(tmp_path / "home", ports=(option, port, other, "0")) as running:
            _, error = running.process.communicate(timeout=20)
            assert running.line == ""
            assert running.process.returncode == 1
            assert error == (
                f"error: cannot listen on 127.0.0.1:{port}: address already in use; stop what uses it or choose "
                f"another with {option} (0 picks a free one)\n"
            )
            assert not (running.home / "serving" / "status.json").exists()
            assert not (running.home / "control.json").exists()


def test_a_second_one_on_the_same_home_names_the_first(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home) as first, up(home) as second:
        _, error = second.process.communicate(timeout=20)
        assert second.process.returncode == 1
        assert error.startswith("error: flyball up runs on ")
        assert f"process {first.process.pid} at {first.pages}" in error
        assert is_listening(first.pages)


def test_a_home_of_a_newer_release_is_refused_untouched(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "flyball.json").write_text('{"format": 999}')
    with up(home) as running:
        _, error = running.process.communicate(timeout=20)
        assert running.process.returncode == 1
        assert error.count("\n") == 1
        assert "newer Flyball" in error
    assert [p.name for p in home.iterdir()] == ["flyball.json"]


def test_two_homes_run_side_by_side(tmp_path: Path) -> None:
    with up(tmp_path / "one") as one, up(tmp_path / "two") as two:
        addresses = {one.pages, one.predictions, two.pages, two.predictions}
        assert len(addresses) == 4
        homes = [httpx2.get(f"{running.pages}/api/health").json()["home"] for running in (one, two)]
        assert homes == [str(tmp_path / "one"), str(tmp_path / "two")]
        assert one.end()[0] == 0
        assert is_listening(two.pages)
        assert is_listening(two.predictions)


def test_it_answers_only_for_its_own_host_and_takes_no_writes_from_other_sites(tmp_path: Path) -> None:
    with up(tmp_path / "home") as running:
        rebound = httpx2.get(f"{running.pages}/api/resources", headers={"Host": "evil.example"})
        assert rebound.status_code == 421
        foreign = {"Origin": "http://evil.example"}
        assert httpx2.post(f"{running.pages}/api/apply", json=[], headers=foreign).status_code == 403


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
