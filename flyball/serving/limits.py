"""What one deployment may take of the data plane: requests in flight, time, rate. Its `Gate` lets them in or refuses.

Called by `Service.ask` on the event loop, before a request is planned, for both protocols alike. Sizes of bodies and
of requests are looked at where they are read.
"""

from __future__ import annotations

import asyncio
import fcntl
import math
import mmap
import struct
import tempfile
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from flyball.errors import FlyballError, Unavailable
from flyball.serving.questions import Answer, Question
from flyball.serving.snapshot import Limits

__all__ = ["Gate", "LocalRates", "Rates", "SharedRates", "TooLate", "TooMany"]

_OnAnswer = Callable[[Answer | None, FlyballError | None], None]


class TooLate(Unavailable):
    """An answer that was not there when its time was over."""


class TooMany(Unavailable):
    """A request above a rate; `retry_after_s` says when the next is let in."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Rates(Protocol):
    """Token buckets by name, kept as the generic cell rate algorithm does (ITU-T I.371): one time for each."""

    def take(self, name: str, rate: float, burst: int) -> float:
        """Take a token of a bucket that fills with `rate` a second up to `burst`.

        Returns:
            0 when there was one, else the seconds until there is; nothing was taken then.
        """
        ...


class LocalRates:
    """The buckets of one process."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._due: dict[str, float] = {}

    def take(self, name: str, rate: float, burst: int) -> float:
        """See `Rates`."""
        due, wait = _take(self._due.get(name, 0.0), self._now(), rate, burst)
        self._due[name] = due
        return wait


class SharedRates:
    """The buckets of several processes: made by their parent before it forks.

    They lie in shared memory under a lock of the file system, which the system frees when its holder is killed. A
    bucket is found by a hash of its name; when more names than `places` are asked for, further ones are not limited.
    """

    _PLACE = struct.Struct("<Qd")

    def __init__(self, places: int = 4096) -> None:
        self._places = places
        self._memory = mmap.mmap(-1, places * self._PLACE.size)
        self._lock, path = tempfile.mkstemp(prefix="flyball-rates-")
        Path(path).unlink()

    def take(self, name: str, rate: float, burst: int) -> float:
        """See `Rates`. The monotonic clock is the same for all processes of a machine."""
        mark = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") or 1
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            for step in range(self._places):
                at = (mark + step) % self._places * self._PLACE.size
                found, due = self._PLACE.unpack_from(self._memory, at)
                if found in (0, mark):
                    due, wait = _take(due, time.monotonic(), rate, burst)
                    self._PLACE.pack_into(self._memory, at, mark, due)
                    return wait
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)
        return 0.0


class Gate:
    """Lets the requests of one deployment in. All methods are called on the event loop.

    Arguments:
        limits: may be replaced at any time; requests in flight stay counted.
        on_refused: told the reason of each refusal: `rate`, `key_rate`, `concurrency`, `timeout`.
        workers: how many processes share the deployment; each lets in its part of `concurrency`, rounded up.
    """

    def __init__(
        self, name: str, limits: Limits, rates: Rates, on_refused: Callable[[str], None], workers: int = 1
    ) -> None:
        self.limits = limits
        self.workers = workers
        self.in_flight = 0  # let in, and not yet answered by the model, whether somebody waits still or not
        self._name = name
        self._rates = rates
        self._on_refused = on_refused

    def enter(self, question: Question, done: _OnAnswer) -> _OnAnswer:
        """Let a request in, and return what is to be called, once, with its answer.

        Raises:
            TooMany: above the rate of the deployment, or of the caller's key.
            Unavailable: as many as may be are in flight.
        """
        limits = self.limits
        if limits.concurrency is not None and self.in_flight >= math.ceil(limits.concurrency / self.workers):
            self._on_refused("concurrency")
            raise Unavailable(
                f"{self._name} answers {limits.concurrency} requests at a time and as many are in work; "
                "try again in a moment"
            )
        if limits.key_rate is not None and question.caller is not None:
            # The caller's own limit first: who is above it must not use up what the others share.
            self._take("key_rate", f"{self._name}\0{question.caller}", limits.key_rate, limits.key_burst)
        if limits.rate is not None:
            self._take("rate", self._name, limits.rate, limits.burst)
        self.in_flight += 1
        if limits.timeout_s is not None:
            return self._within(limits.timeout_s, question, done)

        def leave(answer: Answer | None, error: FlyballError | None) -> None:
            self.in_flight -= 1
            done(answer, error)

        return leave

    def _take(self, reason: str, bucket: str, rate: float, burst: int | None) -> None:
        wait = self._rates.take(bucket, rate, burst if burst is not None else max(1, math.ceil(rate)))
        if wait > 0:
            self._on_refused(reason)
            whose = "the access key may ask" if reason == "key_rate" else "may be asked"
            raise TooMany(f"{self._name}: {whose} {rate:g} times a second; try again in {wait:.3g} s", wait)

    def _within(self, seconds: float, question: Question, done: _OnAnswer) -> _OnAnswer:
        left = max(0.0, question.received + seconds - time.perf_counter())

        def expire() -> None:
            question.is_over = True
            self._on_refused("timeout")
            done(None, TooLate(f"{self._name} did not answer within {seconds:g} s"))

        timer = asyncio.get_running_loop().call_later(left, expire)

        def leave(answer: Answer | None, error: FlyballError | None) -> None:
            self.in_flight -= 1
            timer.cancel()
            if not question.is_over:
                done(answer, error)

        return leave


def _take(due: float, now: float, rate: float, burst: int) -> tuple[float, float]:
    """Return when the bucket will be full again, and the seconds to wait."""
    each = 1.0 / rate
    # A time far ahead can only be of another boot or of a rate that has risen since.
    due = min(max(due, now), now + burst * each)
    wait = due - now - (burst - 1) * each
    return (due, wait) if wait > 1e-9 else (due + each, 0.0)
