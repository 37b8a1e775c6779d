"""Unsafe formats: every published trick is seen by content, nothing is loaded, and bounds hold."""

from __future__ import annotations

import _compat_pickle
import bz2
import collections
import contextlib
import gzip
import io
import json
import lzma
import marshal
import os
import pickle
import pickletools
import random
import re
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import joblib
import numpy as np
import pytest
from onnx_bytes import linear
from sklearn.ensemble import HistGradientBoostingClassifier

from flyball.models import _pickles
from flyball.models.flavors._sklearn_safe import dumps
from flyball.models.unsafe import refusal, scan, scan_files


class Shell:
    """What a pickle of it runs when it is loaded."""

    def __reduce__(self) -> Any:
        return os.system, ("true",)


EVIL = pickle.dumps(Shell(), 4)
SHELL = b"cos\nsystem\n(S'true'\ntR."


def zipped(entries: dict[str, bytes], **options: Any) -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", **options) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return found.getvalue()


def tarred(entries: dict[str, bytes]) -> bytes:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as archive:
        for name, data in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return found.getvalue()


def array_of(value: Any) -> bytes:
    found = io.BytesIO()
    holder = np.empty(1, dtype=object)
    holder[0] = value
    np.save(found, holder, allow_pickle=True)
    return found.getvalue()


def dumped(value: Any, **options: Any) -> bytes:
    found = io.BytesIO()
    joblib.dump(value, found, **options)
    return found.getvalue()


def keras(layer: dict[str, Any]) -> bytes:
    return zipped({"config.json": json.dumps({"class_name": "Sequential", "config": {"layers": [layer]}}).encode()})


def flagged(data: bytes) -> bytes:
    """A zip whose entries claim to be encrypted, which Python's reader refuses and others do not mind."""
    at = data.index(b"PK\x01\x02")
    return data[: at + 8] + b"\x01\x00" + data[at + 10 :]


TRICKS: dict[str, tuple[bytes, str]] = {
    **{f"reduce, protocol {p}": (pickle.dumps(Shell(), p), r"imports (posix|nt)\.system") for p in range(6)},
    "a global in text": (SHELL, r"imports os\.system"),
    "inst": (b"(S'true'\nios\nsystem\n.", r"imports os\.system"),
    "obj": (b"(cos\nsystem\nS'true'\no.", r"imports os\.system"),
    "newobj": (b"\x80\x02csubprocess\nPopen\n(S'true'\nt\x81.", r"imports subprocess\.Popen"),
    "newobj_ex": (b"\x80\x04csubprocess\nPopen\n(S'true'\nt}\x92.", r"imports subprocess\.Popen"),
    "names from the stack": (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", r"imports os\.system"),
    "names from the memo": (
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940" + b"0h\x00h\x01\x93\x8c\x04true\x85R.",
        r"imports os\.system",
    ),
    "a memo overwritten": (
        b"\x80\x04\x8c\x08builtinsq\x000\x8c\x02osq\x000h\x00\x8c\x06system\x93\x8c\x04true\x85R.",
        r"imports os\.system",
    ),
    "names that are computed": (
        b"\x80\x04c_codecs\nencode\n\x8c\x02os\x85R\x8c\x06system\x93.",
        r"whose name it computes",
    ),
    "an old name of Python 2": (b"\x80\x02c__builtin__\neval\n(S'1'\ntR.", r"imports builtins\.eval"),
    "a dotted name": (
        b"\x80\x04\x8c\x0bcollections\x8c\x13_sys.modules.os.env\x93.",
        r"imports collections\._sys",
    ),
    "attribute of what is allowed": (b"\x80\x04cbuiltins\ngetattr\n.", r"imports builtins\.getattr"),
    "a loader of pickles": (
        b"\x80\x02ctorch.storage\n_load_from_bytes\n(C\x00tR.",
        r"torch\.storage\._load_from_bytes",
    ),
    "a call of what a call returned": (b"\x80\x04cbuiltins\nset\n)R)R.", "calls something that it computes"),
    "a class that is changed": (b"\x80\x04ccollections\nOrderedDict\n}b.", "changes collections.OrderedDict itself"),
    "the extension registry": (b"\x80\x02\x82\x01.", "extension registry"),
    "it breaks after the harm": (SHELL[:-1] + b"\xff\xff", r"imports os\.system"),
    "truncated": (EVIL[:-1], r"imports posix\.system"),
    "a number that ends at a NUL": (b"Vos\np2\0x\n0g2\nVsystem\n\x93(Vtrue\ntR.", r"imports os\.system"),
    "a number only pickletools minds": (b"I0x10\n0" + SHELL, r"imports os\.system"),
    "a second pickle behind the first": (pickle.dumps({"a": 1}) + EVIL, r"imports posix\.system"),
    "a text pickle behind the first": (pickle.dumps([1]) + SHELL, r"imports os\.system"),
    "in a zip": (zipped({"data.pkl": EVIL}), r"imports posix\.system"),
    "in a zip behind a picture": (b"\x89PNG\r\n\x1a\n" + bytes(99) + zipped({"a": EVIL}), r"imports posix"),
    "in a tar in a gzip": (gzip.compress(tarred({"weights.txt": EVIL})), r"imports posix"),
    "in bzip2": (bz2.compress(EVIL), r"imports posix"),
    "in xz": (lzma.compress(EVIL), r"imports posix"),
    "in lzma": (lzma.compress(EVIL, lzma.FORMAT_ALONE), r"imports posix"),
    "in zlib": (zlib.compress(EVIL), r"imports posix"),
    "joblib": (dumped(Shell()), r"imports posix"),
    "joblib, compressed": (dumped(Shell(), compress=3), r"imports posix"),
    "a NumPy array of objects": (array_of(Shell()), r"imports posix"),
    "in an npz": (zipped({"x.npy": array_of(Shell())}), r"imports posix"),
    "a zip that says it is encrypted": (flagged(zipped({"data.pkl": EVIL})), "cannot be read"),
    "a zip with a wrong checksum": (
        zipped({"data.pkl": EVIL}).replace(EVIL, EVIL.replace(b"true", b"/bin")),
        "cannot be read",
    ),
    "a way out of an archive": (zipped({"../../x": b"1"}), "out of its archive"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + EVIL, "cannot be looked into"),
    "zstd": (b"\x28\xb5\x2f\xfd" + EVIL, "cannot be looked into"),
    "a Keras Lambda": (keras({"class_name": "Lambda", "config": {"function": ["4wE="]}}), "builds Lambda"),
    "a Keras module of one's own": (
        keras({"class_name": "function", "module": "os", "config": "system", "registered_name": "system"}),
        r"builds os\.function",
    ),
    "Keras in HDF5": (b"\x89HDF\r\n\x1a\n" + b'{"class_name": "Lambda"}', "Lambda layers"),
    "HDF5 behind a user block": (bytes(512) + b"\x89HDF\r\n\x1a\n" + b'{"class_name": "\\u004cambda"}', "Lambda"),
    "native code": (b"\x7fELF\x02\x01\x01", "native code"),
    "compiled Python": (b"\xcb\x0d\r\n" + bytes(12) + marshal.dumps(compile("1", "", "exec")), "compiled Python"),
    "marshalled code": (marshal.dumps(compile("1", "", "exec")), "compiled Python"),
    "YAML": (b"a: !!python/object/apply:os.system [true]\n", "Python objects"),
    "a graph that reads other files": (linear([1.0], 0.0) + b"\x0a\x08location\x12\x0e../../etc/pass", "external"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_is_refused(trick: str) -> None:
    data, says = TRICKS[trick]
    told = refusal(scan(data, "model/weights.txt"))
    assert told is not None
    assert re.search(says, "; ".join(map(str, scan(data)))), told


def test_two_entries_of_one_name_are_refused() -> None:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("data.pkl", pickle.dumps(1))
        archive.writestr("data.pkl", pickle.dumps(2))
    assert "stands twice" in str(refusal(scan(found.getvalue())))


def test_links_in_a_tar_are_refused() -> None:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as archive:
        entry = tarfile.TarInfo("weights")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    assert "link or device" in str(refusal(scan(found.getvalue())))


PLAIN = [
    {"a": [1, 2.5, None, True, b"x", "ä", (1,), {2, 3}, frozenset({4})], "b": 10**40},
    collections.OrderedDict(x=collections.deque([1, 2]), y=collections.Counter("aab"), z=Decimal("1.5")),
    [bytearray(b"x"), complex(1, 2), range(3), slice(1, 2)],
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", PLAIN, ids=["builtins", "collections", "others"])
def test_plain_values_in_a_pickle_are_let_through(value: Any, protocol: int) -> None:
    assert scan(pickle.dumps(value, protocol)) == ()


def test_real_models_in_safe_formats_are_let_through() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 3))
    model = HistGradientBoostingClassifier(max_iter=3).fit(rows, rows[:, 0] > 0)
    assert scan(dumps(model), "model/model.skops") == ()
    assert scan(linear([1.0, 2.0], 0.5), "model/model.onnx") == ()
    arrays = io.BytesIO()
    np.savez_compressed(arrays, weights=rows, names=np.array(["a", "bc"]))
    assert scan(arrays.getvalue()) == ()
    texts = [
        '{"name": "Outlook"}',
        "cat\ndog\nbird\n",
        "import os\nos.system('x')\n",
        "(a, b)\n",
        "",
        "N.",
        "class A:\n",
    ]
    assert [scan(text.encode()) for text in texts] == [()] * len(texts)
    assert "imports sklearn" in str(refusal(scan(pickle.dumps(model))))


def test_python_source_is_told_and_not_refused() -> None:
    found = scan_files({"model/source.py": b"import os\n", "code/train.py": b"x", "docs/a.pkl": EVIL})
    assert [(f.path, f.what, f.is_unsafe) for f in found] == [("model/source.py", "Python source", False)]
    assert refusal(found) is None


def test_bombs_end_within_bounds() -> None:
    bomb = zipped({"a": bytes(66 << 20)}, compresslevel=1, compression=zipfile.ZIP_DEFLATED)
    nested = b"x"
    for _ in range(12):
        nested = zipped({"in": nested})
    deep = b"(" * 100_000 + b"l" * 100_000
    for data, says in (
        (gzip.compress(bytes(33 << 20), 1), "more than the scan's limit"),
        (
            zipped({f"{n}": bytes(1 << 20) for n in range(40)}, compresslevel=1, compression=zipfile.ZIP_DEFLATED),
            "too large",
        ),
        (nested, "deeper than 6"),
    ):
        begun = time.process_time()
        assert says in str(refusal(scan(data, limit_bytes=32 << 20)))
        assert time.process_time() - begun < 10
    assert scan(bomb) == () and scan(deep) == ()
    overlong = _pickles.read(b"\x80\x04" + b"]0" * 1_000 + b"N.", most_opcodes=1_000)
    assert overlong is not None and "longer than 1000 opcodes" in overlong.problems[0]
    many = zipped({f"{n}": b"" for n in range(20_001)})
    assert "more than 20000 entries" in str(refusal(scan(many)))


def test_torch_saves_without_code_are_let_through_and_with_code_refused() -> None:
    def saved(extra: bytes) -> bytes:
        # What torch.save writes of {"w": tensor}, opcode by opcode; the storage is named by a persistent id.
        tensor = (
            b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
        )
        tensor += b"X\x03\x00\x00\x00cpuK\x03tQK\x00K\x03\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
        return zipped(
            {"m/data.pkl": b"\x80\x02}X\x01\x00\x00\x00w" + tensor + b"s" + extra + b".", "m/data/0": bytes(12)}
        )

    pickletools.dis(zipfile.ZipFile(io.BytesIO(saved(b""))).read("m/data.pkl"), io.StringIO())
    assert scan(saved(b"")) == ()
    assert "imports os.system" in str(refusal(scan(saved(b"0cos\nsystem\nX\x04\x00\x00\x00true\x85R"))))


class _Recording(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """The real unpickler, which notes what it imports and gets something harmless instead.

    The one in Python: the one in C makes room for a memo of any index that a damaged pickle says, gigabytes of it.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.asked: list[tuple[str, str]] = []
        self.is_text = data[:1] != b"\x80"

    def find_class(self, module: str, name: str) -> Any:
        if self.is_text and not (is_name(module) and is_name(name)):
            raise ImportError(module)  # as the real one: there is no such module
        self.asked.append((module, name))
        return _Anything

    def persistent_load(self, pid: Any) -> Any:  # noqa: ARG002
        return None


class _Anything(dict):  # type: ignore[type-arg]
    """Can be called, filled and changed."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    extend = add = append


def test_whatever_the_real_unpickler_imports_was_seen_also_in_damaged_pickles() -> None:
    chance = random.Random(7)
    seeds = [pickle.dumps(value, p) for value in (*PLAIN, [Shell(), Decimal(2)]) for p in range(6)]
    seeds += [data for name, (data, _) in TRICKS.items() if data[:1] in (b"\x80", b"c", b"(", b"I")]
    opcodes = [op.code.encode("latin-1") for op in pickletools.opcodes]
    imported = checked = 0
    for _ in range(12_000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(4)):
            at = chance.randrange(len(data) + 1)
            what = chance.randrange(4)
            if what == 0:
                data[at:at] = chance.choice(opcodes)
            elif what == 1:
                del data[at : at + chance.randrange(1, 4)]
            elif what == 2 and at < len(data):
                data[at] = chance.randrange(256)
            else:
                other = chance.choice(seeds)
                data[at:at] = other[chance.randrange(len(other)) :][: chance.randrange(40)]
        real = _Recording(bytes(data))
        with contextlib.suppress(Exception):
            real.load()
        asked = {canonical(module, name) for module, name in real.asked if is_name(module) and is_name(name)}
        found = _pickles.read(bytes(data))
        checked += 1
        if asked - _pickles.ALLOWED:
            imported += 1
            seen = found is not None and found.problems
            headerless = data[:1] != b"\x80"
            assert seen or (headerless and not is_harmful(real.asked)), (bytes(data), real.asked, found)
    assert checked == 12_000 and imported > 3_000


def canonical(module: str, name: str) -> tuple[str, str]:
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    return _compat_pickle.IMPORT_MAPPING.get(module, module), name


def is_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def is_harmful(asked: list[tuple[str, str]]) -> bool:
    """Whether one of the modules is there to be imported at all."""
    return any(canonical(module, name)[0].partition(".")[0] in _pickles._KNOWN for module, name in asked)


def test_scanning_imports_and_runs_nothing() -> None:
    code = (
        "import sys; from flyball.models.unsafe import scan\n"
        "before = set(sys.modules)\n"
        "assert scan(b'cantigravity\\nfly\\n(tR.') and scan(b'\\x80\\x04csmtpd\\nx\\n.')\n"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "antigravity" not in done.stdout and "smtpd" not in done.stdout


def test_numpy_headers_that_lie_are_refused() -> None:
    good = array_of({"a": 1})
    (size,) = struct.unpack("<H", good[8:10])
    damaged: list[Callable[[], bytes]] = [
        lambda: good[:10] + b"{" * size + good[10 + size :],
        lambda: good[:8] + b"\xff\xff" + good[10:],
        lambda: good[:9],
    ]
    for make in damaged:
        assert "NumPy array" in str(refusal(scan(make())))
