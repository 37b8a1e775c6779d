"""`kernel.c`, built by the system's C compiler once a machine and kept in the user's cache, and called by ctypes.

There is no compiled code in the wheel. Where no compiler is found, `library` says so and trees take their flavour's
own way. Contraction of products and sums is switched off: a fused multiply-add would round otherwise than scikit-learn.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flyball.errors import Unavailable

__all__ = ["NODE", "Kernel", "compiler", "expit", "library"]

Array = np.ndarray[Any, Any]

NODE = np.dtype([("threshold", "<f8"), ("left", "<i4"), ("right", "<i4"), ("feature", "<i4"), ("flags", "<i4")])
HAS_NAN, TOO_LARGE = 1, 2

_SOURCE = Path(__file__).with_name("kernel.c")
_FLAGS = ("-O3", "-std=c99", "-fPIC", "-shared", "-ffp-contract=off", "-fno-fast-math")
_BUILD_LIMIT_S = 60
_building = threading.Lock()
_buffer: Any = ctypes.c_char.from_buffer
_address = ctypes.addressof


class _Trees(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("trees", "features", "outputs", "leaf_width", "single", "categorical")),
        *((name, ctypes.c_double) for name in ("scale", "divisor")),
        *((name, ctypes.c_void_p) for name in ("nodes", "roots", "offsets", "leaves", "base", "sets", "known")),
    )


class Kernel:
    """An ensemble in the form that `kernel.c` walks.

    Arguments:
        integers: trees, features, outputs, leaf_width, is_single, is_categorical; factors: scale, divisor.
        arrays: nodes (of `NODE`), roots, offsets, leaves, base, sets, known; checked by who made them.

    Raises:
        Unavailable: there is no compiler here.
    """

    def __init__(self, integers: Sequence[int], factors: Sequence[float], arrays: Sequence[Array]) -> None:
        loaded = library()
        self._arrays = arrays  # the structure has only their addresses
        self._trees = _Trees(*integers, *factors, *(array.ctypes.data for array in arrays))
        self._at = _address(self._trees)
        self._quick, self._free = loaded
        self._outputs = integers[2]
        self._work = integers[0]

    def __call__(self, rows: Array) -> tuple[Array, int]:
        """Return the sums (rows, outputs) of a C-ordered float64 matrix, which may be rounded in place, and flags."""
        count = len(rows)
        sums = np.empty((count, self._outputs))
        # Letting the interpreter's lock go and taking it again costs more than a short call.
        act = self._quick if count * self._work < 100_000 else self._free
        found: int = act(self._at, _address(_buffer(rows)), count, _address(_buffer(sums)))
        return sums, found

    def shapley(self, rows: Array, background: Array, player: Array, weights: Array) -> Array:
        """Return what each player did for each output of each row, shape (rows, players, outputs); lets the lock go.

        Arguments:
            rows, background: float64 and C-ordered, rounded already where the model sees float32.
            player: int32, of each column; all numbers up to the largest are players.
            weights: (p−1)! q! / (p+q)! at [p, q]; square, and larger than players can meet on one path.
        """
        players = int(player.max()) + 1
        shares = np.zeros((len(rows), players, self._outputs))
        side, met = np.zeros(players, np.int8), np.zeros(len(weights), np.int32)
        given = [(rows, len(rows)), (background, len(background)), (player, players), (weights, len(weights))]
        arguments = [part for array, count in given for part in (array.ctypes.data, count)]
        _shapley()(self._at, *arguments, side.ctypes.data, met.ctypes.data, shares.ctypes.data)
        return shares


def expit(values: Array) -> Array:
    """Return 1 / (1 + exp(−x)) of a C-ordered float64 array, with the bits that SciPy gives. Raises Unavailable."""
    library()
    found = np.empty(values.shape)
    _expit()(_address(_buffer(values)), values.size, _address(_buffer(found)))
    return found


@cache
def _expit() -> Any:
    act = ctypes.PyDLL(str(_built())).flyball_expit
    act.argtypes, act.restype = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p), None
    return act


@cache
def _shapley() -> Any:
    act = ctypes.CDLL(str(_built())).flyball_shapley
    pairs = (ctypes.c_void_p, ctypes.c_int64) * 4
    act.argtypes, act.restype = (ctypes.c_void_p, *pairs, *(ctypes.c_void_p,) * 3), None
    return act


def library() -> tuple[Any, Any]:
    """Return the kernel's function, holding the interpreter's lock and letting it go.

    Raises:
        Unavailable: it cannot be built here; the message says why.
    """
    with _building:
        return _library()


@cache
def _library() -> tuple[Any, Any]:
    path = _built()
    found = []
    for kind in (ctypes.PyDLL, ctypes.CDLL):
        act = kind(str(path)).flyball_trees
        act.argtypes, act.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p), ctypes.c_int
        found.append(act)
    return found[0], found[1]


def compiler() -> str | None:
    """Return the C compiler: `CC`, else cc, gcc or clang; None where there is none."""
    wanted = os.environ.get("CC")
    names = (wanted,) if wanted else ("cc", "gcc", "clang")
    return next((path for name in names if (path := shutil.which(name))), None)


@cache
def _built() -> Path:
    source = _SOURCE.read_bytes()
    machine = f"{platform.system()} {platform.machine()} {' '.join(_FLAGS)}".encode()
    name = f"trees-{hashlib.sha256(source + machine).hexdigest()[:32]}.so"
    folder = _folder()
    path = folder / name
    if path.exists() and _is_ours(path):
        return path
    found = compiler()
    if found is None:
        raise Unavailable("there is no C compiler (cc, gcc or clang), which compiled trees need")
    partial = folder / f".{os.getpid()}-{name}"
    command = [found, *_FLAGS, "-o", str(partial), str(_SOURCE), "-lm"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_LIMIT_S)
        if done.returncode:
            raise Unavailable(f"the C compiler {found} failed: {done.stderr.strip()[:300]}")
        partial.chmod(0o700)
        partial.replace(path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"the C compiler {found} failed: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _folder() -> Path:
    """Return a folder that only this user can write to, because what is in it is run."""
    above = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(above) if above else Path.home() / ".cache") / "flyball" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if _is_ours(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    except (OSError, RuntimeError):
        pass  # no home, or one that cannot be written: a folder for this process alone does as well
    return Path(tempfile.mkdtemp(prefix="flyball-kernels-"))


def _is_ours(path: Path) -> bool:
    found = path.lstat()
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
