"""Which files of a model would run code when they are loaded: pickles and what hides them, seen by their content.

The name of a file says nothing: a pickle may be called `weights.txt`, lie in a zip in a tar, stand inside a NumPy array
or behind a compressor. `scan` looks into all of these, with bounds on depth, bytes and opcodes; what it cannot look
into (another compressor, an encrypted or damaged archive, too much of it) counts as unsafe, because a loader might read
what a scanner could not. What pickles may import is a list of our own, `_pickles.ALLOWED`, never one of the model's.

`models.bundle.load` refuses unsafe files unless a trusted key signed the bundle.
"""

from __future__ import annotations

import ast
import io
import json
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyball.errors import listed
from flyball.models import _packed, _pickles

__all__ = ["Finding", "refusal", "scan", "scan_files"]

MOST_BYTES = 1 << 30  # unpacked, in one scan
_DEPTH = 6  # archives in archives
_ENTRIES = 20_000  # in all archives of one scan
_HEAD = 64 << 10  # of an entry that is too large to be unpacked; what is dangerous begins at the front
_LARGE = 64 << 20  # an entry of more is unpacked only when its head calls for it


@dataclass(frozen=True)
class Finding:
    """Something in a file: where (`outer.zip/inner.pkl`), what it is, and why that matters.

    What is not `is_unsafe` is told and not refused: Python source, which a flavour of ours runs on purpose.
    """

    path: str
    what: str
    why: str
    is_unsafe: bool = True

    def __str__(self) -> str:
        return f"{self.path}: {self.what}: {self.why}"


def scan(data: bytes, path: str = "model", *, limit_bytes: int = MOST_BYTES) -> tuple[Finding, ...]:
    """Return what is dangerous in some bytes; nothing is loaded, written or imported.

    Args:
        data: the file's bytes.
        path: how findings call it; of the name only the endings `.py` and `.pb` mean something.
        limit_bytes: the most that may be unpacked from archives; beyond that it is unsafe.
    """
    return tuple(_Scan(limit_bytes).look(data, path, 0))


def scan_files(files: Mapping[str, bytes]) -> tuple[Finding, ...]:
    """Scan the files of a bundle's `model/` folder, path → bytes; the others are never given to a deserialiser."""
    return tuple(f for path, data in sorted(files.items()) if path.startswith("model/") for f in scan(data, path))


def refusal(findings: Iterable[Finding]) -> str | None:
    """Return the sentence that says what is unsafe, or None where nothing is."""
    unsafe = [str(finding) for finding in findings if finding.is_unsafe]
    return listed(unsafe, 3) if unsafe else None


class _Scan:
    """One scan with what is left of its bounds."""

    def __init__(self, limit_bytes: int) -> None:
        self.bytes_left = limit_bytes
        self.entries_left = _ENTRIES
        self.opcodes_left = _pickles.MOST_OPCODES

    def look(self, data: bytes, path: str, depth: int) -> Iterator[Finding]:
        """Yield what is dangerous in one file and in what it holds."""
        if depth > _DEPTH:
            yield Finding(path, "archives in archives", f"deeper than {_DEPTH}, which is as far as it is looked into")
            return
        yield from self._pickles(data, path, 0)
        for recognises, tell in _FORMATS:
            if recognises(data):
                yield from tell(data, path)
        if data[:6] == b"\x93NUMPY":
            yield from self._numpy(data, path)
        yield from _texts(data, path)
        if zipfile.is_zipfile(io.BytesIO(data)):
            yield from self._zip(data, path, depth)
        elif _is_tar(data):
            yield from self._tar(data, path, depth)
        else:
            yield from self._packed(data, path, depth)

    def _pickles(self, data: bytes, path: str, start: int) -> Iterator[Finding]:
        """Follow the pickle at `start` and those that stand behind it, which a second load would read."""
        while start < len(data):
            found = _pickles.read(data, start, self.opcodes_left)
            if found is None:
                return
            self.opcodes_left = max(0, self.opcodes_left - found.opcodes - 1)
            for problem in found.problems:
                yield Finding(path, "a pickle", f"it {problem}")
            if not found.is_whole:
                return
            start = found.end

    def _numpy(self, data: bytes, path: str) -> Iterator[Finding]:
        begin = 10 if data[6:7] == b"\x01" else 12
        end = begin + int.from_bytes(data[8:begin], "little")
        try:
            header = ast.literal_eval(data[begin : min(end, begin + _HEAD)].decode("latin-1"))
            has_objects = np.lib.format.descr_to_dtype(header["descr"]).hasobject
        except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError) as error:
            yield Finding(path, "a NumPy array that cannot be read", _first_line(error))
            has_objects = True
        if has_objects:
            yield Finding(path, "a NumPy array of objects", "its values are a pickle")
            yield from self._pickles(data, path, end)

    def _zip(self, data: bytes, path: str, depth: int) -> Iterator[Finding]:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                entries = archive.infolist()
                yield from _names([entry.filename for entry in entries], path)
                for entry in entries:
                    inner = f"{path}/{entry.filename}"
                    if stat.S_ISLNK(entry.external_attr >> 16):
                        yield Finding(inner, "a link in an archive", "it leads elsewhere when it is unpacked")
                    if not entry.is_dir():
                        with archive.open(entry) as stream:
                            yield from self._entry(stream, entry.file_size, inner, depth)
        except Exception as error:  # whatever a crafted archive makes zipfile say, another reader may not mind
            yield Finding(path, "a zip archive that cannot be read", _first_line(error))

    def _tar(self, data: bytes, path: str, depth: int) -> Iterator[Finding]:
        try:
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
                names = []
                for entry in archive:
                    names.append(entry.name)
                    inner = f"{path}/{entry.name}"
                    if not entry.isfile() and not entry.isdir():
                        yield Finding(inner, "a link or device in an archive", "it leads elsewhere when it is unpacked")
                    stream = archive.extractfile(entry) if entry.isfile() else None
                    if stream is not None:
                        yield from self._entry(stream, entry.size, inner, depth)
                yield from _names(names, path)
        except Exception as error:
            yield Finding(path, "a tar archive that cannot be read", _first_line(error))

    def _entry(self, stream: Any, size: int, path: str, depth: int) -> Iterator[Finding]:
        self.entries_left -= 1
        if self.entries_left < 0:
            raise ValueError(f"more than {_ENTRIES} entries")
        data: bytes = stream.read(_HEAD if size > _LARGE else min(self.bytes_left, _LARGE) + 1)
        if size > _LARGE:
            self.bytes_left -= len(data)
            if not _calls_for_more(data):
                return
            data += stream.read(self.bytes_left + 1)
        if len(data) > self.bytes_left:
            yield Finding(path, "too large to be looked into", "the scan's limit of unpacked bytes is reached")
            return
        self.bytes_left -= len(data)
        yield from self.look(data, path, depth + 1)

    def _packed(self, data: bytes, path: str, depth: int) -> Iterator[Finding]:
        found = _packed.unpack(data, self.bytes_left)
        if found is None:
            return
        if found.problem is not None:
            yield Finding(path, f"{found.form} data", found.problem)
        if found.data:
            self.bytes_left -= len(found.data)
            yield from self.look(found.data, f"{path}/{found.form}", depth + 1)


def _calls_for_more(head: bytes) -> bool:
    """Whether the front of a large entry may be a pickle, an archive or something else that must be seen whole."""
    found = _pickles.read(head)
    return (
        head[:1] == b"\x80"
        or (found is not None and bool(found.imports))
        or head[:4] == b"PK\x03\x04"
        or head[:6] == b"\x93NUMPY"
        or _is_tar(head)
        or _packed.unpack(head, 1) is not None
        or any(recognises(head) for recognises, _ in _FORMATS)
        or any(True for _ in _texts(head, ""))
    )


def _names(names: list[str], path: str) -> Iterator[Finding]:
    seen: set[str] = set()
    for name in names:
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name[1:2]:
            yield Finding(f"{path}/{name}", "a path out of its archive", "it is written elsewhere when it is unpacked")
        if name in seen:
            yield Finding(
                f"{path}/{name}", "a name that stands twice", "which of the two is loaded is up to the reader"
            )
        seen.add(name)


def _is_tar(data: bytes) -> bool:
    if len(data) < 512 or data[:512].count(0) == 512:
        return False
    try:
        tarfile.TarInfo.frombuf(data[:512], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"


# -- formats that carry code of their own


def _native(data: bytes) -> bool:
    return data[:4] == b"\x7fELF" or data[:4] in _MACH or (data[:2] == b"MZ" and b"PE\0\0" in data[:4096])


_MACH = frozenset(bytes.fromhex(magic) for magic in ("feedface", "feedfacf", "cefaedfe", "cffaedfe", "cafebabe"))


def _compiled(data: bytes) -> bool:
    """Whether it is a .pyc file (magic number, \\r\\n, a marshalled code object), or marshalled code without a head."""
    head = data[2:4] == b"\r\n" and data[16:17] in (b"\xe3", b"\x63")
    return head or (data[:1] in (b"\xe3", b"\x63") and data[1:5] == bytes(4))


def _hdf(data: bytes) -> bool:
    """Whether an HDF5 superblock stands at 0, 512, 1024, … as its format allows."""
    at = 0
    while at + 8 <= len(data):
        if data[at : at + 8] == b"\x89HDF\r\n\x1a\n":
            return True
        at = at * 2 or 512
    return False


def _tell_native(data: bytes, path: str) -> Iterator[Finding]:  # noqa: ARG001
    yield Finding(path, "native code", "loading it runs it")


def _tell_compiled(data: bytes, path: str) -> Iterator[Finding]:  # noqa: ARG001
    yield Finding(path, "compiled Python code", "loading it runs it")


def _tell_hdf(data: bytes, path: str) -> Iterator[Finding]:
    # Its texts can be escaped or packed in ways that only HDF5 and JSON together undo; so the words are enough.
    words = [word for word in (b"Lambda", b"\\u00", b"marshal", b"registered_name") if word in data]
    if b"class_name" in data and words:
        yield Finding(path, "a Keras model in HDF5", "it may hold Lambda layers, which are code")
    elif b"class_name" in data or b"model_config" in data:
        yield Finding(path, "a Keras model in HDF5", "it names classes to be built", is_unsafe=False)


_FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes, str], Iterator[Finding]]], ...] = (
    (_native, _tell_native),
    (_compiled, _tell_compiled),
    (_hdf, _tell_hdf),
)

# Keras builds whatever `module` and `class_name` in its config.json name (CVE-2025-1550): only its own parts may be.
_KERAS = frozenset(
    f"keras.{part}"
    for part in (
        *("activations", "constraints", "dtype_policies", "initializers", "layers", "losses", "metrics", "models"),
        *("optimizers", "optimizers.schedules", "random", "regularizers"),
    )
) | {"keras", None}
_TENSORFLOW = (b"PyFunc", b"ReadFile", b"WriteFile", b"MatchingFiles", b"ImmutableConst", b"LoadLibrary")


def _texts(data: bytes, path: str) -> Iterator[Finding]:
    if path.endswith(".py"):
        yield Finding(path, "Python source", "loading it runs it", is_unsafe=False)
    if b"!!python/" in data or b"tag:yaml.org,2002:python/" in data:
        yield Finding(path, "YAML with Python objects", "it imports and calls what it names")
    if b'"class_name"' in data and data.lstrip()[:1] in (b"{", b"["):
        yield from _keras(data, path)
    if b"\x0a\x08location\x12" in data:
        yield Finding(path, "a graph with external data", "it reads files that it names, and a bundle holds all of it")
    if path.endswith(".pb"):
        for word in _TENSORFLOW:
            if word in data:
                yield Finding(path, "a TensorFlow graph", f"its operation {word.decode()} reaches files or runs code")


def _keras(data: bytes, path: str) -> Iterator[Finding]:
    try:
        todo: list[Any] = [json.loads(data)]
    except (ValueError, RecursionError):
        yield Finding(path, "a Keras configuration", "it is not JSON that can be read")
        return
    seen: set[str] = set()
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            todo += value
        elif isinstance(value, dict):
            todo += value.values()
            if "class_name" in value:
                module, name = value.get("module"), value["class_name"]
                own = not value.get("registered_name") or value.get("registered_name") == name
                is_known = (module is None or isinstance(module, str)) and module in _KERAS and own
                told = f"it builds {module}.{name}" if module else f"it builds {name}"
                if (not is_known or name in ("Lambda", "__lambda__", "function")) and told not in seen:
                    seen.add(told)
                    yield Finding(path, "a Keras configuration", told[:200])
