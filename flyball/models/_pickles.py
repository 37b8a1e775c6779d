"""What a pickle would do, read opcode by opcode and never carried out.

A pickle is a program for a stack machine; the only harm it can do is by what it imports and calls. So its opcodes are
followed on a stack of abstract values (a known text, something imported, anything else), through the memo too, and
every import must stand on a list of our own. What cannot be followed is refused: a name that is computed, a stream that
breaks off, more opcodes than the limit. Arguments are read as leniently as the unpickler reads them, so that nothing is
hidden behind a number that only `pickletools` refuses.

Source: Lib/pickletools.py (the machine and its opcodes), Modules/_pickle.c (what the unpickler really accepts).
"""

from __future__ import annotations

import _compat_pickle
import pickletools
import sys
from dataclasses import dataclass, field

__all__ = ["ALLOWED", "MOST_OPCODES", "Pickle", "read"]

MOST_OPCODES = 2_000_000  # followed in a few seconds

# What a pickle may import although nobody signed it: plain containers and values, and what `torch.save` writes of
# tensors. numpy.ndarray and numpy.dtype are not here on purpose: a forged dtype state makes an array of objects out of
# raw bytes, which is memory of the attacker's choice. Nor is torch.storage._load_from_bytes: it loads a pickle again.
_TORCH = "BFloat16 Bool Byte Char ComplexDouble ComplexFloat Double Float Half Int Long Short Untyped"
ALLOWED: frozenset[tuple[str, str]] = frozenset(
    [("builtins", name) for name in ("bool", "complex", "dict", "float", "frozenset", "int", "list", "object")]
    + [("builtins", name) for name in ("bytearray", "range", "set", "slice", "str", "tuple")]
    + [("collections", name) for name in ("Counter", "OrderedDict", "defaultdict", "deque")]
    + [("datetime", name) for name in ("date", "datetime", "time", "timedelta", "timezone")]
    + [("_codecs", "encode"), ("copyreg", "_reconstructor"), ("decimal", "Decimal"), ("fractions", "Fraction")]
    + [("uuid", "UUID"), ("torch", "Size"), ("torch", "device")]
    + [("torch._utils", name) for name in ("_rebuild_parameter", "_rebuild_tensor", "_rebuild_tensor_v2")]
    + [("torch", f"{name}Storage") for name in _TORCH.split()]
    + [("torch.storage", name) for name in ("TypedStorage", "UntypedStorage")]
    + [("torch", name) for name in ("bfloat16", "bool", "float16", "float32", "float64", "int16", "int32", "int64")]
    + [("torch", name) for name in ("int8", "uint8")]
)


@dataclass
class Pickle:
    """One pickle: `imports` as (module, name) in order, `problems` as sentences, and the offset `end` behind it.

    `is_whole` says whether it came to its STOP, `opcodes` how many were followed. Without problems it makes only what
    is on the list.
    """

    imports: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    end: int = 0
    is_whole: bool = False
    opcodes: int = 0


@dataclass(frozen=True)
class _Import:
    module: str
    name: str


class _Broken(Exception):
    """The unpickler would raise here."""


class _Endless(Exception):
    """More opcodes than are followed."""


_MARK, _MADE, _OTHER = object(), object(), object()  # a mark; what a call returned; any other value

_OPCODES = {ord(op.code): (op.name, op.arg.n if op.arg is not None else 0) for op in pickletools.opcodes}
_LINE, _COUNT1, _COUNT4, _COUNT4U, _COUNT8 = -1, -2, -3, -4, -5
_COUNT_BYTES = {_COUNT1: 1, _COUNT4: 4, _COUNT4U: 4, _COUNT8: 8}
_LIBRARIES = {"cloudpickle", "dill", "joblib", "keras", "numpy", "pandas", "pip", "polars", "sklearn", "tensorflow"}
_KNOWN = frozenset(sys.stdlib_module_names) | _LIBRARIES | {"__builtin__", "torch", "torchvision", "transformers"}
_LEAST_OPCODES = 4  # a header that is followed by fewer before it breaks was bytes that looked like one


def read(data: bytes | memoryview, start: int = 0, most_opcodes: int = MOST_OPCODES) -> Pickle | None:
    """Follow the pickle that begins at `start`; None where no pickle begins, or one that imports and calls nothing.

    A stream without a header (protocols 0 and 1) may be any text; it counts as a pickle once it imports what can be
    imported and goes on, or comes to its end.
    """
    machine = _Machine(memoryview(data), start)
    found, has_header = machine.found, machine.has_header
    try:
        machine.run(most_opcodes)
        found.is_whole = True
    except _Endless:
        found.problems.append(f"is longer than {most_opcodes} opcodes, which is as far as it is followed")
    except _Broken:
        if not found.imports and (not has_header or machine.opcodes < _LEAST_OPCODES) and not found.problems:
            return None
        if not has_header and not machine.has_acted and not _is_known(found.imports):
            return None
        found.problems.append(f"breaks off at byte {machine.at}")
    found.end, found.opcodes = machine.at, machine.opcodes
    if not has_header and not found.imports and not found.problems:
        return None
    return found


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _is_known(imports: list[tuple[str, str]]) -> bool:
    return any(module.partition(".")[0] in _KNOWN for module, _ in imports)


class _Machine:
    """The stack, the memo and where the reading is."""

    def __init__(self, data: memoryview, start: int) -> None:
        self.data, self.at = data, start
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.protocol = 0
        self.has_header = len(data) - start >= 2 and data[start] == 0x80 and data[start + 1] <= 5
        self.opcodes = 0
        self.has_acted = False  # something was called or changed
        self.found = Pickle()

    def run(self, most: int) -> None:
        """Follow opcodes to STOP. Raises _Broken, _Endless."""
        data, size = self.data, len(self.data)
        while self.at < size:
            if self.opcodes >= most:
                raise _Endless
            known = _OPCODES.get(data[self.at])
            if known is None:
                raise _Broken
            name, argument = known
            here = self.at
            self.at += 1
            try:
                value = self._argument(argument)
                if name == "STOP":
                    self._pop()
                    return
                self._step(name, value)
            except _Broken:
                self.at = here
                raise
            self.opcodes += 1
        raise _Broken

    def _argument(self, kind: int) -> bytes:
        if kind == 0:
            return b""
        if kind == _LINE:
            return self._line()
        if kind > 0:
            return self._take(kind)
        width = _COUNT_BYTES[kind]
        return self._take(int.from_bytes(self._take(width), "little", signed=kind == _COUNT4))

    def _take(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.data):
            raise _Broken
        part = bytes(self.data[self.at : self.at + size])
        self.at += size
        return part

    def _line(self) -> bytes:
        # Cut into pieces: a line is short, the data may be long and hold no line end at all.
        whole = b""
        while self.at < len(self.data):
            piece = bytes(self.data[self.at : self.at + 4096])
            line, found, _ = piece.partition(b"\n")
            self.at += len(line) + len(found)
            whole += line
            if found:
                return whole
        return whole[:-1]  # where the data ends, the unpickler takes the last byte for the line's end

    def _pop(self) -> object:
        if not self.stack or self.stack[-1] is _MARK:
            raise _Broken
        return self.stack.pop()

    def _to_mark(self) -> list[object]:
        for depth in range(len(self.stack) - 1, -1, -1):
            if self.stack[depth] is _MARK:
                above = self.stack[depth + 1 :]
                del self.stack[depth:]
                return above
        raise _Broken

    def _top(self) -> object:
        if not self.stack or self.stack[-1] is _MARK:
            raise _Broken
        return self.stack[-1]

    def _step(self, name: str, value: bytes) -> None:
        stack = self.stack
        if name in _PUSHED:
            stack.append(_OTHER)
        elif name in _TEXTS:
            stack.append(_text(name, value))
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else _key(name, value)] = self._top()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            if _key(name, value) not in self.memo:
                raise _Broken
            stack.append(self.memo[_key(name, value)])
        elif name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            self._to_mark()
            stack.append(_OTHER)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            for _ in range(int(name[-1])):
                self._pop()
            stack.append(_OTHER)
        elif name in _FILLS:
            if name in ("APPEND", "SETITEM"):
                for _ in range(_FILLS[name]):
                    self._pop()
            else:
                self._to_mark()
            self._changes(self._top())
        elif name == "POP":
            if not stack:
                raise _Broken
            stack.pop()
        elif name == "POP_MARK":
            self._to_mark()
        elif name == "DUP":
            stack.append(self._top())
        elif name == "PROTO":
            if value[0] > 5:
                raise _Broken
            self.protocol = value[0]
        else:
            self._act(name, value)

    def _act(self, name: str, value: bytes) -> None:
        """Follow the opcodes that import and call."""
        stack = self.stack
        if name == "GLOBAL":
            stack.append(self._imports(_utf8(value), _utf8(self._line())))
        elif name == "STACK_GLOBAL":
            called, module = self._pop(), self._pop()
            stack.append(self._imports(module, called))
        elif name == "INST":
            module, called = _utf8(value), _utf8(self._line())
            made = self._imports(module, called)  # before the mark is looked for: the unpickler in Python does so
            self._to_mark()
            self._calls(made)
        elif name == "OBJ":
            parts = self._to_mark()
            if not parts:
                raise _Broken
            self._calls(parts[0])
        elif name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            for _ in range(2 if name == "NEWOBJ_EX" else 1):
                self._pop()
            self._calls(self._pop())
        elif name == "BUILD":
            self._pop()
            self._changes(self._top())
            self.has_acted = True
        elif name in ("EXT1", "EXT2", "EXT4"):
            self._problem("imports by a number of the extension registry")
            stack.append(_OTHER)
        elif name in ("PERSID", "BINPERSID"):
            # What it names is up to who loads; the storages of torch are named so.
            if name == "BINPERSID":
                self._pop()
            stack.append(_OTHER)
        elif name not in ("FRAME", "READONLY_BUFFER"):
            raise _Broken

    def _imports(self, module: object, name: object) -> object:
        if not isinstance(module, str) or not isinstance(name, str):
            if module is _OTHER or name is _OTHER or module is _MADE or name is _MADE:
                self._problem("imports something whose name it computes")
                return _OTHER
            raise _Broken
        if self.protocol < 3:  # the unpickler translates the names of Python 2
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        if not _is_dotted(module) or not _is_dotted(name):
            if not self.has_header:
                raise _Broken  # text that begins like a pickle
            self._problem("imports something by a name that no Python source could write")
            return _OTHER
        if (module, name) not in self.found.imports:
            self.found.imports.append((module, name))
        if (module, name) not in ALLOWED:
            self._problem(f"imports {module}.{name}")
        return _Import(module, name)

    def _calls(self, what: object) -> None:
        if not isinstance(what, _Import):
            self._problem("calls something that it computes")
        self.has_acted = True
        self.stack.append(_MADE)

    def _changes(self, what: object) -> None:
        if isinstance(what, _Import):
            self._problem(f"changes {what.module}.{what.name} itself")

    def _problem(self, sentence: str) -> None:
        if sentence not in self.found.problems:
            self.found.problems.append(sentence)


_PUSHED = frozenset(
    {"BINFLOAT", "BININT", "BININT1", "BININT2", "FLOAT", "INT", "LONG", "LONG1", "LONG4"}
    | {"BINBYTES", "BINBYTES8", "BYTEARRAY8", "NEXT_BUFFER", "SHORT_BINBYTES"}
    | {"EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "EMPTY_TUPLE", "NEWFALSE", "NEWTRUE", "NONE"}
)
_TEXTS = frozenset(
    {"BINSTRING", "BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "SHORT_BINUNICODE", "STRING", "UNICODE"}
)
_FILLS = {"APPEND": 1, "SETITEM": 2, "APPENDS": 0, "SETITEMS": 0, "ADDITEMS": 0}


def _text(name: str, value: bytes) -> object:
    """Return the text that the unpickler makes, or _OTHER where that is not plain to see."""
    if name == "STRING":
        value = value.strip()
        if len(value) < 2 or value[:1] != value[-1:] or value[:1] not in (b"'", b'"'):
            raise _Broken
        value = value[1:-1]
        return value.decode("ascii") if value.isascii() and b"\\" not in value else _OTHER
    if name in ("BINSTRING", "SHORT_BINSTRING"):
        return value.decode("ascii") if value.isascii() else _OTHER
    try:
        return value.decode("raw-unicode-escape" if name == "UNICODE" else "utf-8")
    except UnicodeDecodeError:
        return _OTHER  # surrogates pass the unpickler; they are no name of a module


def _utf8(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise _Broken from None


def _key(name: str, value: bytes) -> int:
    if name in ("PUT", "GET"):
        try:
            return int(value.partition(b"\0")[0])  # in C a number ends at a NUL
        except ValueError:
            raise _Broken from None
    return int.from_bytes(value, "little")
