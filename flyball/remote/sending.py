"""Runs that are recorded here for a home elsewhere: written into a folder at once, and sent by a thread.

A run is the folder of `tracking.offline`, below `<state>/unsent/<server>/`. Whatever is told of it is a line there
when the call returns, so training waits for no network, and neither a killed program nor a server that is away loses
anything. A thread of this module sends the lines in their order; the server says how many it has, so a retry doubles
nothing (`platform.receiving`). A folder that is sent whole is removed. One that a killed program left behind is sent
by the next program that records for the same server, and can be taken in by `flyball import`.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from flyball.errors import Conflict, Corrupt, FlyballError, Incompatible, NotFound, Unavailable
from flyball.remote.connection import Connection
from flyball.tracking.offline import FILES, LOG, RUN, OfflineRun
from flyball.tracking.runs import ends_with_program, has_ended

__all__ = ["RemoteRun", "Sender"]

log = logging.getLogger("flyball.remote")

_GATHER_S = 0.5  # how long lines are gathered before they are sent
_BATCH_BYTES = 1 << 20
_MOST_LINE = 15 << 20  # a server takes bodies up to 16 MiB
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_TAIL_BYTES = 65536
_LOCK = "lock"
_SENT = ".sent-"
_AWAY = (Unavailable, Incompatible)  # the server is not there, or something else answers in its place


class _Outgoing:
    """A run's folder, and how much of it the server has. Only the sending thread, and `begin`, change it."""

    def __init__(self, folder: Path, is_left_behind: bool = False) -> None:
        self.folder = folder
        self.is_left_behind = is_left_behind
        self.taken = 0
        self.has_begun = False
        self.failure: FlyballError | None = None
        self.refused: list[str] = []
        self.is_gone = False
        self._is_anew = False
        self._log: BinaryIO | None = None
        self._offset = 0  # of the first line that the server has not

    @property
    def id(self) -> str:
        return self.folder.name

    def begin(self, connection: Connection, tries: int) -> None:
        """Tell the server that the run begins, and learn how much of it is there."""
        facts = orjson.loads((self.folder / RUN).read_bytes())
        now = {"now_ms": time.time_ns() // 1_000_000}
        told = connection.ask("PUT", f"/api/v1/received/{self.id}", params=now, json=facts, tries=tries)
        self._seek(_count(told, connection))
        self.has_begun = True

    def send(self, connection: Connection, told: Callable[[], None]) -> bool:
        """Send the next lines; whether there were any. `told` is called when something has arrived."""
        lines = self._next()
        if not lines:
            return False
        body = b"".join(line if len(line) <= _MOST_LINE else b'{"too": "long"}\n' for line in lines)
        sent: set[Any] = set()
        while True:
            try:
                first = {"first": self.taken}
                answer = connection.ask("POST", f"/api/v1/received/{self.id}/lines", params=first, body=body, tries=1)
            except (NotFound, Conflict) as error:  # another home answers there now, or the same from a backup
                if self._is_anew:
                    raise Incompatible(f"{connection.url} begins the run and then does not know it: {error}") from error
                self._is_anew = True
                self.begin(connection, 1)
                return True
            missing = answer.get("missing") or []
            if not missing:
                break
            for digest in missing:
                if digest in sent:
                    raise Incompatible(f"{connection.url} does not keep a file that it was sent")
                sent.add(digest)
                self._upload(connection, digest, told)
        count = _count(answer, connection)
        if not self.taken < count <= self.taken + len(lines):
            raise Incompatible(f"{connection.url} says that it has {count} lines where {self.taken} were sent")
        for one in answer.get("refused") or []:
            self.refused.append(str(one.get("reason"))[:300] if isinstance(one, dict) else "")
        self._offset += sum(map(len, lines[: count - self.taken]))
        self.taken = count
        self._is_anew = False
        told()
        return True

    def has_ended(self) -> bool:
        """Whether all that there is was sent, and the last line of it says how the run ended."""
        with (self.folder / LOG).open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _TAIL_BYTES))
            tail = stream.read()
        return size == self._offset > 0 and _is_end(tail)

    def remove(self, held: Any) -> None:
        """Remove the folder: at once by its name, then with all that is in it."""
        if self._log is not None:
            self._log.close()
            self._log = None
        gone = self.folder.with_name(_SENT + self.id)
        with suppress(OSError):
            self.folder.rename(gone)
        if held is not None:
            held.close()
        shutil.rmtree(gone, ignore_errors=True)

    def _upload(self, connection: Connection, digest: Any, told: Callable[[], None]) -> None:
        if not isinstance(digest, str) or len(digest) != 64 or not digest.isalnum():
            raise Incompatible(f"{connection.url} asks for a file that has no name")
        file = self.folder / FILES / digest
        if not file.is_file():
            raise Corrupt(f"the bytes {digest[:12]} of run {self.id[:8]} are no longer in {self.folder}")
        connection.upload(f"/api/v1/blobs/{digest}", file, told, tries=1)

    def _next(self) -> list[bytes]:
        """Return the next whole lines, about a megabyte of them."""
        if self._log is None:
            self._log = (self.folder / LOG).open("rb")
        self._log.seek(self._offset)
        lines = self._log.readlines(_BATCH_BYTES)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        size = 0
        for number, line in enumerate(lines):
            size += min(len(line), _MOST_LINE)
            if size > _MOST_LINE and number:
                return lines[:number]
        return lines

    def _seek(self, count: int) -> None:
        """Go behind the first `count` lines; what the server has beyond them is another folder's."""
        if self._log is None:
            self._log = (self.folder / LOG).open("rb")
        self._log.seek(0)
        self.taken, self._offset = 0, 0
        for line in self._log:
            if self.taken == count or not line.endswith(b"\n"):
                break
            self.taken += 1
            self._offset += len(line)
        if self.taken < count:
            raise Conflict(f"the server has {count} lines of run {self.id[:8]}, which has only {self.taken} here")


class RemoteRun(OfflineRun):
    """A run that goes on here and is kept elsewhere; used as `tracking.runs.ActiveRun` is."""

    def __init__(self, sender: Sender, name: str, experiment: str | None, parent: str | None = None) -> None:
        super().__init__(sender.folder, name, experiment, {}, parent)
        self.outgoing = _Outgoing(self.folder)
        self.held = _locked(self.folder, is_new=True)
        self._sender = sender
        self._lines = 0
        self._told_refused = 0
        ends_with_program(self)

    @property
    def given(self) -> Mapping[str, Any]:
        """The parameters so far."""
        return dict(self._params)

    def flush(self) -> None:
        """Return when the server has everything logged before.

        Raises:
            Unavailable: it takes nothing now; everything is in the run's folder, and sent when it is back.
            Conflict: it left something out, said once; the rest is there.
            FlyballError: it refuses the run.
        """
        super().flush()
        self._settle(self._sender.patience_s)

    def finish(self, status: str = "succeeded", error: str | None = None) -> None:
        """End the run, and wait until the server has it, unless that is away. Raises as `flush` but Unavailable."""
        self.end(status, error, None)

    def end(self, status: Any, error: str | None, timeout_s: float | None) -> None:
        """End the run, waiting so long for a server that takes nothing; None: as the settings say."""
        if not self._is_open:
            return
        self._append({"end": status, "error": error, "at_ms": time.time_ns() // 1_000_000})
        super().flush()
        self._is_open = False
        self._log.close()
        has_ended(self)
        patience = self._sender.patience_s
        try:
            self._settle(patience if timeout_s is None else min(timeout_s, patience))
        except Unavailable as away:
            log.warning(
                "%s. Run %s is kept in %s and sent with the next run for this server; or take it in on that machine: "
                "flyball import %s",
                *(away, self.id[:8], self.folder, self.folder),
            )

    def drop(self) -> None:
        """Forget a run that could not begin."""
        self._is_open = False
        self._log.close()
        has_ended(self)
        self.outgoing.remove(self.held)

    def _settle(self, patience_s: float) -> None:
        self._sender.wait(self.outgoing, self._lines, patience_s, is_end=not self._is_open)
        refused = self.outgoing.refused[self._told_refused :]
        self._told_refused += len(refused)
        if refused:
            raise Conflict(f"{refused[0]}; {len(refused)} such lines of run {self.id[:8]} were left out, no others")

    def _append(self, told: Mapping[str, Any]) -> None:
        with self._lock:
            super()._append(told)
            self._lines += 1
        self._sender.notice()


class Sender:
    """The thread that sends what runs of this process, and those that others left behind, have to tell one server."""

    def __init__(self, connection: Connection, folder: Path, patience_s: float) -> None:
        self.connection = connection
        self.folder = folder / "unsent" / connection.name
        self.patience_s = patience_s
        self.process = os.getpid()
        # Its lock is reentrant, as a signal's handler may come in while its own thread holds it; an Event's is not.
        self._changed = threading.Condition(threading.RLock())
        self._runs: dict[str, tuple[_Outgoing, Any]] = {}
        self._thread: threading.Thread | None = None
        self._has_news = False
        self._is_urgent = False
        self._progress = 0
        self._away: FlyballError | None = None
        self._is_tired = False

    def start(self, name: str, experiment: str | None, parent: str | None = None) -> RemoteRun:
        """Begin a run, here and, if the server is there, with it.

        Raises:
            InvalidInput: no folder can be written.
            Unauthenticated, Forbidden, Conflict, …: the server refuses the run; nothing is left of it.
        """
        run = RemoteRun(self, name, experiment, parent)
        try:
            run.outgoing.begin(self.connection, 2)
        except _AWAY as error:
            self._is_away(error)
        except BaseException:
            run.drop()
            raise
        self._take(run.outgoing, run.held)
        return run

    def take_up(self) -> int:
        """Take up the runs that programs left behind which were killed, or met no server; return how many."""
        count = 0
        for folder in sorted(self.folder.glob("*")) if self.folder.is_dir() else []:
            if folder.name.startswith(_SENT):
                shutil.rmtree(folder, ignore_errors=True)
            if folder.name in self._runs or not (folder / RUN).is_file():
                continue
            held = _locked(folder)
            if held is None:
                continue
            try:
                _make_whole(folder)
            except OSError as error:
                log.warning("%s cannot be sent: %s", folder, error.strerror)
                held.close()
                continue
            self._take(_Outgoing(folder, is_left_behind=True), held)
            count += 1
        return count

    def send_unsent(self) -> int:
        """Send what programs left behind, and return how many runs that were when they are there.

        Raises:
            Unavailable: the server takes nothing; the runs stay in their folders.
            FlyballError: it refuses one.
        """
        self.take_up()
        with self._changed:
            left = [outgoing for outgoing, _ in self._runs.values() if outgoing.is_left_behind]
        for outgoing in left:
            self.wait(outgoing, 0, self.patience_s, is_end=True)
        return len(left)

    def notice(self) -> None:
        """Something was written."""
        if not self._has_news:
            with self._changed:
                self._has_news = True
                self._changed.notify_all()

    def wait(self, outgoing: _Outgoing, lines: int, patience_s: float, is_end: bool) -> None:
        """Return when the server has so many lines; as long as something arrives there, patience begins anew.

        Args:
            is_end: wait also until the folder is gone.

        Raises:
            Unavailable: nothing arrived for so long.
            FlyballError: the server refuses the run.
        """
        if os.getpid() != self.process:
            raise Unavailable("this process was forked from the one that records the run")
        with self._changed:
            self._has_news = self._is_urgent = True
            self._changed.notify_all()
            if self._is_tired:  # another run has waited in vain already
                patience_s = min(patience_s, 1.0)
            progress, since = self._progress, time.monotonic()
            while not (outgoing.is_gone if is_end else outgoing.has_begun and outgoing.taken >= lines):
                if outgoing.failure is not None:
                    raise outgoing.failure
                if self._progress != progress:
                    progress, since = self._progress, time.monotonic()
                left = since + patience_s - time.monotonic()
                if left <= 0:
                    self._is_tired = True
                    away = self._away
                    raise Unavailable(str(away or f"{self.connection.url} took nothing for {patience_s:g} s"))
                self._changed.wait(min(left, 1.0))

    def _take(self, outgoing: _Outgoing, held: Any) -> None:
        with self._changed:
            self._runs[outgoing.id] = outgoing, held
            self._has_news = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="flyball-sender", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    # -- the thread

    def _work(self) -> None:
        failures = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._has_news)
                self._changed.wait_for(lambda: self._is_urgent, _GATHER_S)
                self._has_news = self._is_urgent = False
                runs = list(self._runs.values())
            try:
                for outgoing, held in runs:
                    self._send(outgoing, held)
                failures = 0
                continue
            except _AWAY as error:
                self._is_away(error)
            except Exception:  # a mistake of ours must not end the thread
                log.exception("runs could not be sent")
            failures += 1
            pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures, 10)) * (0.5 + random.random())
            with self._changed:
                self._has_news = True
                self._changed.wait_for(lambda: self._is_urgent, pause)

    def _send(self, outgoing: _Outgoing, held: Any) -> None:
        """Send all that a run has to tell now. Raises Unavailable, Incompatible."""
        if outgoing.failure is not None or outgoing.is_gone:
            return
        failure: FlyballError | None = None
        is_whole = False
        try:
            if not outgoing.has_begun:
                outgoing.begin(self.connection, 1)
                self._arrived()
            while outgoing.send(self.connection, self._arrived):
                pass
            is_whole = outgoing.has_ended()
            if is_whole:
                outgoing.remove(held)
        except _AWAY:
            raise
        except FlyballError as error:
            failure = error
        except OSError as error:
            failure = Unavailable(f"{outgoing.folder} cannot be read: {error.strerror}")
        with self._changed:
            outgoing.failure = failure
            outgoing.is_gone = is_whole
            if is_whole or failure is not None:
                self._runs.pop(outgoing.id, None)
            self._changed.notify_all()
        if failure is not None:
            log.warning("run %s is not sent: %s. It is kept in %s", outgoing.id[:8], failure, outgoing.folder)

    def _arrived(self) -> None:
        with self._changed:
            self._progress += 1
            self._is_tired = False
            is_back, self._away = self._away is not None, None
            self._changed.notify_all()
        if is_back:
            log.warning("%s is back", self.connection.url)

    def _is_away(self, error: FlyballError) -> None:
        with self._changed:
            is_new, self._away = self._away is None, error
            self._changed.notify_all()
        if is_new:
            log.warning("%s. Runs are kept in %s and sent when it is back", error, self.folder)


def _locked(folder: Path, is_new: bool = False) -> Any:
    """Return the open file by which this process holds a run's folder; None when another process holds it.

    The lock goes with the process, however it ends. A new folder gets a file that is locked already, so that nobody
    finds one that its owner is about to lock.
    """
    try:
        import fcntl
    except ImportError:  # without such locks what others left behind is left to `flyball import`
        return None
    path = folder / (f".{_LOCK}" if is_new else _LOCK)
    try:
        held = path.open("ab" if is_new else "r+b")
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held.close()
        return None
    if is_new:
        path.rename(folder / _LOCK)
    return held


def _is_end(tail: bytes) -> bool:
    """Whether the last whole line in the end of a log says how the run ended."""
    return b'"end"' in tail.rstrip(b"\n").rpartition(b"\n")[2][:10]


def _make_whole(folder: Path) -> None:
    """Make the log of a program that was killed whole: half a line is cut off, and the run is told to be lost."""
    path = folder / LOG
    path.touch()
    at = int(path.stat().st_mtime * 1000)
    with path.open("r+b") as stream:
        end = kept = stream.seek(0, os.SEEK_END)
        while kept:
            start = max(0, kept - _TAIL_BYTES)
            stream.seek(start)
            found = stream.read(kept - start).rfind(b"\n")
            if found >= 0:
                kept = start + found + 1
                break
            kept = start
        if kept != end:
            stream.truncate(kept)
        stream.seek(max(0, kept - _TAIL_BYTES))
        if not _is_end(stream.read()):
            line = {"end": "lost", "error": "the program ended without a word", "at_ms": at}
            stream.write(orjson.dumps(line) + b"\n")


def _count(told: Mapping[str, Any], connection: Connection) -> int:
    count = told.get("taken")
    if type(count) is not int or count < 0:
        raise Incompatible(f"{connection.url} does not say how many lines it has; is it a Flyball of this release?")
    return count
