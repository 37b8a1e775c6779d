"""A run as a folder, for a machine without a network: nothing but appended lines and files, so a crash leaves a run.

    FOLDER/<32 hexadecimal digits>/         the run, by its id
        run.json                            {"format": 1, "id", "name", "kind", "experiment", "user", "started_ms",
                                            "source", "environment"}, in a nested run "parent"; written once, first
        log.jsonl                           a line for each thing told, oldest first:
            {"params": {…}}  {"tags": {…}}  {"result": {…}}
            {"points": [[key, value, step, at_ms], …]}       value: a number, or "NaN", "Infinity", "-Infinity"
            {"use": "dataset/flights@12", "role": "used by"}
            {"file": path, "digest": sha256, "size": bytes}  its bytes are in files/<digest>
            {"end": status, "error": text | null, "at_ms": …}
        files/<sha256>                      bytes of files, each written whole before its line is

A line that was cut by a crash is the last one, and is left out. Lines are only appended, so whoever reads the folder
again later (`flyball import`) finds what it found before at the beginning. This module writes; `folders` reads.
"""

from __future__ import annotations

import atexit
import getpass
import hashlib
import math
import os
import secrets
import shutil
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from flyball.errors import Conflict, FlyballError, InvalidInput, Unavailable
from flyball.ledger.artifacts import check_path
from flyball.ledger.refs import Ref
from flyball.ledger.runs import Artifact
from flyball.tracking.runs import checked_path, describe, environment, source

__all__ = ["FORMAT", "LOG", "RUN", "OfflineRun"]

FORMAT = 1
RUN = "run.json"
LOG = "log.jsonl"
FILES = "files"


class OfflineRun:
    """A run that is written into a folder of its own below `folder`; used as `tracking.runs.ActiveRun` is.

    Each line goes to the operating system at once, so `kill -9` loses nothing; to the disk with `flush` and the end.
    A run that nobody ended ends with the program.
    """

    def __init__(
        self, folder: Path, name: str, experiment: str | None, params: Mapping[str, Any], parent: str | None = None
    ) -> None:
        self.id = secrets.token_hex(16)
        self._is_open = True
        self._lock = threading.RLock()
        self._params: dict[str, Any] = {}
        self._metrics: dict[str, float] = {}
        self._name = name
        self._process = os.getpid()
        self.folder = folder.expanduser().absolute() / self.id
        facts = {
            "format": FORMAT,
            "id": self.id,
            "name": name,
            "kind": "training",
            "experiment": experiment,
            "user": _user(),
            "started_ms": _now_ms(),
            "source": source(),
            "environment": environment(),
            **({"parent": parent} if parent else {}),
        }
        try:
            (self.folder / FILES).mkdir(parents=True)
            _write(self.folder / RUN, _json(facts))
            self._log = (self.folder / LOG).open("ab", buffering=0)
        except FileExistsError as error:
            raise InvalidInput(f"{folder} is a file; give the folder in which runs are written") from error
        except OSError as error:
            raise InvalidInput(f"no run can be written in {folder}: {error.strerror}") from error
        if params:
            self.params(**params)
        _open_runs.add(self)

    def log(self, values: Mapping[str, float] | None = None, step: int = 0, **metrics: float) -> None:
        """Append a point to each given metric."""
        at = _now_ms()
        points = []
        for key, value in {**(values or {}), **metrics}.items():
            if isinstance(value, bool | str) or not hasattr(value, "__float__"):
                raise InvalidInput(f"the metric {key} is {value!r}; expected a number")
            number = float(value)
            points.append([str(key), number if math.isfinite(number) else _word(number), int(step), at])
            self._metrics[str(key)] = number
        if points:
            self._append({"points": points})

    def params(self, **params: Any) -> None:
        """Record parameters. A parameter keeps its first value; another one raises Conflict."""
        plain = orjson.loads(_json(params))
        for key, value in plain.items():
            if key in self._params and self._params[key] != value:
                raise Conflict(f"run {self.id[:8]} has {key} = {self._params[key]!r}; a parameter keeps its value")
        self._params |= plain
        self._append({"params": plain})

    def tags(self, **tags: str) -> None:
        """Record tags; the last value of each stays."""
        self._append({"tags": tags})

    def result(self, **values: Any) -> None:
        """Merge values into the run's result."""
        self._append({"result": values})

    def use(self, what: Ref, role: str = "used by") -> None:
        """Record that the run used a version."""
        self._append({"use": str(what), "role": role})

    def artifact(self, path: str, data: bytes | os.PathLike[str]) -> Artifact:
        """Keep a file with the run; raises InvalidInput as `ActiveRun.artifact`."""
        checked = checked_path(path)
        if isinstance(data, str) or not isinstance(data, bytes | bytearray | memoryview | os.PathLike):
            raise InvalidInput(
                f"a file is given as bytes or as a pathlib.Path, not as {type(data).__name__}; encode a text"
            )
        if isinstance(data, os.PathLike) and not Path(data).is_file():
            raise InvalidInput(f"{data} is no file")
        partial = self.folder / FILES / f".{secrets.token_hex(8)}"
        try:
            digest, size = _copied(data, partial)
            partial.replace(self.folder / FILES / digest)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise Unavailable(f"the file {path!r} cannot be written to {self.folder}: {error.strerror}") from error
        self._append({"file": checked, "digest": digest, "size": size})
        return Artifact(checked, digest, size)

    def artifacts(self, path: str, folder: os.PathLike[str]) -> list[Artifact]:
        """Keep all files of a folder but links, under a path of the run."""
        root = Path(folder)
        if not root.is_dir():
            raise InvalidInput(f"{root} is no folder; give one, or bytes, or a file")
        head = check_path(path, is_folder=True)
        files = sorted(file for file in root.rglob("*") if file.is_file() and not file.is_symlink())
        inner = [file.relative_to(root).as_posix() for file in files]
        return [
            self.artifact(f"{head}/{name}" if head else name, file) for name, file in zip(inner, files, strict=True)
        ]

    def flush(self) -> None:
        """Return when everything is on disk. Raises Unavailable."""
        with self._lock:
            if self._log.closed:
                return
            try:
                os.fsync(self._log.fileno())
            except OSError as error:
                raise Unavailable(f"{self.folder / LOG} cannot be written: {error.strerror}") from error

    def finish(self, status: str = "succeeded", error: str | None = None) -> None:
        """End the run."""
        if not self._is_open:
            return
        self._append({"end": status, "error": error, "at_ms": _now_ms()})
        self.flush()
        self._is_open = False
        self._log.close()

    def __enter__(self) -> OfflineRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            self.finish("cancelled", "stopped by the user")
        else:
            self.finish("failed", describe(error))

    def _append(self, told: Mapping[str, Any]) -> None:
        if os.getpid() != self._process:
            raise Unavailable(f"run {self.id[:8]} is recorded by the process that this one was forked from; log there")
        line = _json(told) + b"\n"
        with self._lock:
            if not self._is_open:
                raise Conflict(f"run {self.id[:8]} has ended and takes no more")
            try:
                self._log.write(line)
            except OSError as error:
                raise Unavailable(f"{self.folder / LOG} cannot be written: {error.strerror}") from error

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(f"<tr><th>{escape(k)}</th><td>{v:.4g}</td></tr>" for k, v in self._metrics.items())
        where = escape(str(self.folder))
        return f"<b>run {self.id[:8]}</b> {escape(self._name)}: offline in {where}<table>{rows}</table>"


_open_runs: weakref.WeakSet[OfflineRun] = weakref.WeakSet()


@atexit.register
def _at_exit() -> None:
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    for run in list(_open_runs):
        with suppress(FlyballError):  # a forked process ends none
            run.finish(*(("succeeded", None) if error is None else ("failed", describe(error))))


def _copied(data: Any, to: Path) -> tuple[str, int]:
    """Write bytes, or what a file holds, and return digest and size."""
    if not isinstance(data, os.PathLike):
        _write(to, bytes(data))
        return hashlib.sha256(data).hexdigest(), len(data)
    shutil.copyfile(data, to)
    with to.open("rb") as kept:
        digest = hashlib.file_digest(kept, "sha256").hexdigest()
        os.fsync(kept.fileno())
        return digest, kept.tell()


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise InvalidInput(f"{str(value)[:80]} cannot be kept: {error}") from error


def _word(number: float) -> str:
    return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"


def _user() -> str:
    with suppress(OSError, KeyError):
        return getpass.getuser()
    return ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
