"""Sample what the machine does while runs go on: CPU, memory, disk, network, GPUs, under the names that MLflow uses.

One thread of a process samples for all its runs. Figures come from `/proc` (Linux) and the operating system; elsewhere
those that are not there are left out, as are GPUs where `nvidia-ml-py` is not installed or finds none. Megabytes are
10⁶ bytes; network traffic is counted from the first sample's beginning on; the step counts samples.
"""

from __future__ import annotations

import importlib
import os
import shutil
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from flyball.errors import Conflict, FlyballError, InvalidInput

__all__ = ["Machine", "TrackingSettings", "sample"]

_MEGA = 1e6
_PROC = Path("/proc")
_LEAST_S = 0.05


@dataclass(frozen=True)
class TrackingSettings:
    """`[tracking]` in flyball.toml, `FLYBALL_TRACKING_…` in the environment."""

    system_metrics: bool = True  # sample CPU, memory, disk, network and GPUs while a run of fb.run() goes on
    system_interval_s: float = 10.0  # between two samples; a shorter run has none

    def __post_init__(self) -> None:
        if not self.system_interval_s >= _LEAST_S:
            raise InvalidInput(
                f"[tracking] system_interval_s is {self.system_interval_s}; expected at least {_LEAST_S} seconds"
            )


class Sampled(Protocol):
    """A run that takes the samples."""

    @property
    def id(self) -> str: ...

    def log(self, values: Mapping[str, float] | None = None, step: int = 0) -> None: ...


class Machine:
    """This machine. `read` returns what it does since the `read` before; CPU needs two."""

    def __init__(self, proc: Path = _PROC, disk: Path = Path(os.sep)) -> None:
        self._proc = proc
        self._disk = disk
        self._gpus = _Gpus()
        self._cpu = self._cpu_times()
        self._network = self._network_bytes()

    def read(self) -> dict[str, float]:
        """Return the figures that this machine has, by name."""
        found: dict[str, float] = {}
        before, self._cpu = self._cpu, self._cpu_times()
        if before and self._cpu and self._cpu[1] > before[1]:
            busy, all_of_it = (now - then for now, then in zip(self._cpu, before, strict=True))
            found["system/cpu_utilization_percentage"] = 100 * busy / all_of_it
        memory = self._memory()
        if memory:
            used, total = memory
            found["system/system_memory_usage_megabytes"] = used / _MEGA
            found["system/system_memory_usage_percentage"] = 100 * used / total
        with suppress(OSError):
            disk = shutil.disk_usage(self._disk)
            found["system/disk_usage_percentage"] = 100 * disk.used / max(disk.used + disk.free, 1)
            found["system/disk_usage_megabytes"] = disk.used / _MEGA
            found["system/disk_available_megabytes"] = disk.free / _MEGA
        network = self._network_bytes()
        if network and self._network:
            received, sent = (now - then for now, then in zip(network, self._network, strict=True))
            found["system/network_receive_megabytes"] = received / _MEGA
            found["system/network_transmit_megabytes"] = sent / _MEGA
        return found | self._gpus.read()

    def _cpu_times(self) -> tuple[int, int] | None:
        """Return the ticks that all cores were busy, and all ticks. Source: proc_stat(5)."""
        try:
            first = (self._proc / "stat").read_text().partition("\n")[0].split()
            # guest times are part of user times already; steal was spent by others, but not idle
            ticks = [int(part) for part in first[1:9]]
            return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
        except (OSError, ValueError, IndexError):
            return None

    def _memory(self) -> tuple[int, int] | None:
        try:
            lines = (self._proc / "meminfo").read_text().splitlines()
            sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
            return sizes["MemTotal"] - sizes["MemAvailable"], sizes["MemTotal"]
        except (OSError, ValueError, LookupError):
            return None

    def _network_bytes(self) -> tuple[int, int] | None:
        try:
            rows = [line.partition(":")[2].split() for line in (self._proc / "net/dev").read_text().splitlines()[2:]]
            return sum(int(row[0]) for row in rows), sum(int(row[8]) for row in rows)
        except (OSError, ValueError, IndexError):
            return None


class _Gpus:
    def __init__(self) -> None:
        self._library: Any = None
        self._devices: list[Any] = []
        try:
            library = importlib.import_module("pynvml")
            library.nvmlInit()
            self._library = library
            self._devices = [library.nvmlDeviceGetHandleByIndex(n) for n in range(library.nvmlDeviceGetCount())]
        except Exception:  # not installed, no driver, no permission: a run must go on without
            self._devices = []

    def read(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for number, device in enumerate(self._devices):
            name = f"system/gpu_{number}"
            with suppress(Exception):  # a figure that this card does not tell
                memory = self._library.nvmlDeviceGetMemoryInfo(device)
                found[f"{name}_memory_usage_percentage"] = 100 * memory.used / memory.total
                found[f"{name}_memory_usage_megabytes"] = memory.used / _MEGA
            with suppress(Exception):
                rates = self._library.nvmlDeviceGetUtilizationRates(device)
                found[f"{name}_utilization_percentage"] = float(rates.gpu)
            with suppress(Exception):
                power = self._library.nvmlDeviceGetPowerUsage(device)
                found[f"{name}_power_usage_watts"] = power / 1000
                limit = self._library.nvmlDeviceGetEnforcedPowerLimit(device)
                found[f"{name}_power_usage_percentage"] = 100 * power / limit
        return found


class _Sampler:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: weakref.WeakKeyDictionary[Sampled, int] = weakref.WeakKeyDictionary()
        self._interval_s = 10.0
        self._thread: threading.Thread | None = None

    def add(self, run: Sampled, interval_s: float) -> None:
        with self._lock:
            self._interval_s = interval_s
            self._runs[run] = 0
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="flyball-system", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        machine, pause = Machine(), threading.Event()
        while True:
            pause.wait(self._interval_s)
            with self._lock:
                runs = dict(self._runs)
                if not runs:
                    self._thread = None  # the next run starts another
                    return
            figures = machine.read()
            for run, step in runs.items():
                try:
                    run.log(figures, step=step)
                except Conflict:  # it has ended
                    step = -1
                except FlyballError:  # its ledger takes nothing now
                    continue
                with self._lock:
                    if step < 0:
                        self._runs.pop(run, None)
                    elif run in self._runs:
                        self._runs[run] = step + 1
            del runs  # a run that nobody else holds may go


_sampler = _Sampler()


def sample(run: Sampled, interval_s: float) -> None:
    """Log the machine's figures to a run, every so many seconds until it ends."""
    _sampler.add(run, interval_s)


def _begin_anew() -> None:
    """In a forked process, which has none of the threads."""
    global _sampler
    _sampler = _Sampler()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
