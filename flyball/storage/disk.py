"""Disks: what Python and Polars say of a full one, as `Unavailable`, and names that survive a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from flyball.errors import Unavailable

__all__ = ["full_disk_is_unavailable", "sync_folder"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def full_disk_is_unavailable() -> Iterator[None]:
    """Turn what Python and Polars say of a full disk into `Unavailable`."""
    from polars.exceptions import PolarsError

    try:
        yield
    except (OSError, PolarsError) as error:
        number = getattr(error, "errno", None)
        if number in _FULL or any(f"(os error {code})" in str(error) for code in _FULL):
            raise Unavailable("the disk is full; the table was not written, and what was there is as it was") from error
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable: on POSIX the folder itself must be synced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
