"""A secret of a home: bytes in a file that only its owner reads, made when they are first needed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from flyball.errors import Corrupt, InvalidInput

__all__ = ["SECRET_BYTES", "kept_once", "kept_secret"]

SECRET_BYTES = 32


def kept_secret(path: Path) -> bytes:
    """Return the secret in `path`, 32 bytes, made with mode 0600 where there is none; several processes agree on one.

    Raises:
        InvalidInput: others may read the file.
        Corrupt: it has another length.
    """
    secret = kept_once(path, lambda: secrets.token_bytes(SECRET_BYTES))
    if len(secret) != SECRET_BYTES:
        raise Corrupt(f"the secret {path} has {len(secret)} bytes, expected {SECRET_BYTES}; restore it from a backup")
    return secret


def kept_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """Return the secret in `path`, made by `make` with mode 0600 where there is none; several processes agree on one.

    Raises:
        InvalidInput: others may read the file.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, make())
            os.fsync(descriptor)
            os.link(draft, path)  # unlike a rename it fails where another process was quicker
        except FileExistsError:
            pass
        finally:
            os.close(descriptor)
            draft.unlink()
    if path.stat().st_mode & 0o077:
        raise InvalidInput(f"the secret {path} can be read by others; run: chmod 600 {path}")
    return path.read_bytes()
