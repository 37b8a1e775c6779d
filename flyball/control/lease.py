"""One control plane at a time: a lease in the ledger, renewed while it is held, fenced in every write.

A control plane that stalls past its time loses the lease; should it wake up and write after all, the fence refuses
the write. On the same machine the lease of a process that has died is taken over at once.
"""

from __future__ import annotations

import os
import secrets
import socket

from flyball.ledger import Fence, Ledger

__all__ = ["LEASE", "TTL_S", "Lease", "is_alive"]

LEASE = "control"
TTL_S = 6.0  # a dead holder on another machine is replaced after this; renewed three times as often


class Lease:
    """The claim of this process to be the one that acts."""

    def __init__(self, ledger: Ledger, name: str = LEASE, ttl_s: float = TTL_S) -> None:
        self._ledger = ledger
        self._name = name
        self.ttl_s = ttl_s
        self.holder = f"control/{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.fence: Fence | None = None

    def renew(self) -> bool:
        """Take or renew the lease; False when another process holds it."""
        self.fence = self._ledger.acquire(self._name, self.holder, self.ttl_s, is_dead=_is_dead)
        return self.fence is not None

    def release(self) -> None:
        """Give the lease back so that another need not wait for it to run out."""
        if self.fence is not None:
            self._ledger.release(self.fence)
            self.fence = None


def is_alive(pid: int) -> bool:
    """Whether a process with this id runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:  # noqa: PTH123
            return stream.read().rpartition(")")[2].split()[:1] == ["Z"]
    except OSError:
        return False


def _is_dead(holder: str) -> bool:
    """Whether a holder was a process of this machine that no longer exists."""
    host, _, rest = holder.removeprefix("control/").partition(":")
    pid = rest.partition(":")[0]
    return host == socket.gethostname() and pid.isdecimal() and not is_alive(int(pid))
