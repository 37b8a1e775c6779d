"""System metrics: the figures are the machine's, under MLflow's names, and cost nearly nothing."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from flyball.errors import InvalidInput
from flyball.platform import Platform
from flyball.tracking.system import Machine


def test_memory_disk_and_network_are_what_psutil_finds() -> None:
    machine = Machine()
    traffic = psutil.net_io_counters()
    found = machine.read()
    memory, disk = psutil.virtual_memory(), shutil.disk_usage("/")
    assert found["system/system_memory_usage_megabytes"] == pytest.approx(
        (memory.total - memory.available) / 1e6, rel=0.1
    )
    assert found["system/system_memory_usage_percentage"] == pytest.approx(memory.percent, abs=5)
    assert found["system/disk_available_megabytes"] == pytest.approx(disk.free / 1e6, rel=0.05)
    assert found["system/disk_usage_percentage"] == pytest.approx(psutil.disk_usage("/").percent, abs=2)
    since = (psutil.net_io_counters().bytes_recv - traffic.bytes_recv) / 1e6
    assert 0 <= found["system/network_receive_megabytes"] <= since + 50


def test_a_busy_core_shows(tmp_path: Path) -> None:
    ticks = {"before": "cpu 100 0 100 800 0 0 0 0 0 0", "after": "cpu 160 0 120 815 5 0 0 0 0 0"}
    (tmp_path / "stat").write_text(ticks["before"] + "\n", encoding="utf-8")
    machine = Machine(tmp_path)
    (tmp_path / "stat").write_text(ticks["after"] + "\n", encoding="utf-8")
    assert machine.read()["system/cpu_utilization_percentage"] == pytest.approx(80)  # 80 of 100 ticks


def test_a_machine_that_tells_nothing_yields_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("what\n", encoding="utf-8")
    assert set(Machine(tmp_path).read()) == {
        "system/disk_usage_percentage",
        "system/disk_usage_megabytes",
        "system/disk_available_megabytes",
    }


def test_a_sample_takes_less_than_a_hundredth_of_its_interval() -> None:
    machine = Machine()
    before = time.thread_time()
    for _ in range(20):
        machine.read()
    assert (time.thread_time() - before) / 20 < 0.01 * 10


def test_runs_are_sampled_until_they_end_unless_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYBALL_TRACKING_SYSTEM_INTERVAL_S", "0.05")
    with closing(Platform.open(tmp_path / "home")) as platform:
        with platform.start_run("a", is_sampled=None) as first, platform.start_run("b") as plain:
            until = time.monotonic() + 30
            while time.monotonic() < until and len(_steps(platform, first.id)) < 3:
                first.flush()
        assert _steps(platform, first.id)[:3] == [0, 1, 2]
        assert platform.run(plain.id).metrics == {}
        monkeypatch.setenv("FLYBALL_TRACKING_SYSTEM_METRICS", "off")
        with platform.start_run("c", is_sampled=None) as off:
            pass
        assert platform.run(off.id).metrics == {}
        monkeypatch.setenv("FLYBALL_TRACKING_SYSTEM_INTERVAL_S", "0")
        with pytest.raises(InvalidInput, match="system_interval_s"):
            platform.start_run("d", is_sampled=True)
    assert os.getpid()


def _steps(platform: Platform, run: str) -> list[int]:
    with platform.ledger.read() as world:
        return [point.step for point in world.points.history(run, "system/disk_usage_megabytes")]
