"""What Python and Polars say of a full disk, as `Unavailable`; for whatever writes files of rows."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from flyball.errors import Unavailable

__all__ = ["full_disk_is_unavailable"]

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
