"""Read files of a folder that nobody vouches for: no links are followed, nothing is read that is not a plain file.

A folder may be changed while it is read; each file is opened without following a link, so what is read is in it.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from flyball.errors import Corrupt, InvalidInput
from flyball.ledger.artifacts import check_path
from flyball.ledger.points import Point
from flyball.tracking.stores.stored import Refused, StoredFile

__all__ = ["RUN_ID", "artifact_folder", "document", "files_below", "folders_in", "open_plain", "point", "text_of"]

RUN_ID = re.compile(r"[0-9a-f]{32}")

MOST_TEXT = 16 << 20
"""Bytes of a file that is read as a whole; what is larger is refused."""
_MOST_FILES = 1_000_000
_LONGEST_STEP = 2**63


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file for reading. Raises Corrupt: it is not there, a link, or no plain file."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise Corrupt(f"{path.name} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise Corrupt(f"{path.name} is no plain file")
    return file


def text_of(path: Path, most: int = MOST_TEXT) -> str:
    """Return a plain file's text.

    Raises:
        Corrupt: it is not there, a link or no plain file, larger than `most` bytes, or not UTF-8.
    """
    with open_plain(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise Corrupt(f"{path.name} has more than {most:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Corrupt(f"{path.name} is not UTF-8") from None


def document(path: Path) -> dict[str, Any]:
    """Return a YAML document of plain values. Raises Corrupt."""
    import yaml

    text = text_of(path, 1 << 20)
    try:
        for token in yaml.scan(text):
            if isinstance(token, yaml.AliasToken | yaml.AnchorToken):  # a few bytes can become gigabytes by them
                raise Corrupt(f"{path.name} has anchors, which MLflow does not write")
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Corrupt(f"{path.name} is no YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, dict):
        raise Corrupt(f"{path.name} holds no fields")
    return found


def folders_in(path: Path) -> list[Path]:
    """Return the folders directly in a folder, by name, without links; nothing when it is not there."""
    try:
        with os.scandir(path) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def files_below(root: Path, problems: list[Refused] | None = None) -> Iterator[StoredFile]:
    """Yield the plain files below a folder, by path relative to it; what else is there goes to `problems`."""
    if root.is_symlink() or not root.is_dir():
        return
    told = [] if problems is None else problems
    count = 0
    for place, folders, names in os.walk(root, followlinks=False):
        folders.sort()
        for name in [n for n in folders if Path(place, n).is_symlink()] + sorted(names):
            file = Path(place, name)
            inner = file.relative_to(root).as_posix()
            try:
                found = file.lstat()
                if not stat.S_ISREG(found.st_mode):
                    told.append(Refused(inner, "a link or no plain file"))
                    continue
                checked = check_path(inner)
            except (OSError, InvalidInput, UnicodeError) as error:
                told.append(Refused(repr(inner)[1:-1][:200], str(error)))
                continue
            count += 1
            if count > _MOST_FILES:
                told.append(Refused(root.name, f"more than {_MOST_FILES:,} files; the others were left out"))
                return
            yield StoredFile(checked, file, found.st_size)


def point(key: str, value: Any, step: Any, at_ms: Any) -> Point:
    """Return a point of what a store says. Raises Corrupt: it is none."""
    try:
        number, step_number, at = float(value), int(step), int(at_ms)
    except (TypeError, ValueError, OverflowError):
        raise Corrupt(f"the metric {key[:80]!r} has {value!r} at step {step!r}, time {at_ms!r}"[:300]) from None
    if not (-_LONGEST_STEP <= step_number < _LONGEST_STEP and 0 <= at < _LONGEST_STEP) or not key:
        raise Corrupt(f"the metric {key[:80]!r} has a step or time out of range")
    return Point(key, math.nan if number != number else number, step_number, at)


def artifact_folder(address: str, run: str, roots: Sequence[Path]) -> Path | None:
    """Return the folder of a run's files, looked for below `roots` by the end of the address that a store tells.

    Stores are moved, and what they say may lead anywhere, so only the end of the address counts.
    """
    parts = [part for part in unquote(urlsplit(address).path).split("/") if part not in ("", ".")]
    if ".." in parts or run not in parts or "\x00" in address:
        return None
    least = len(parts) - parts.index(run)  # the run itself must be in it
    for root in roots:
        base = root.resolve()
        for length in range(min(len(parts), 12), least - 1, -1):
            found = base.joinpath(*parts[-length:])
            try:
                if found.is_dir() and found.resolve() == found:
                    return found
            except OSError:
                continue
    return None
