"""What steps return, kept by content: the same value is stored once, and its digest says what it is.

| value | kept as |
|---|---|
| None, booleans, numbers, text, and lists and dicts of them | JSON; small ones in the ledger beside the run |
| bytes | as they are |
| Polars frames | Arrow IPC, mapped into memory on reading: handing over a frame copies nothing |
| NumPy arrays without objects | npy |
| anything else that pickle takes (pandas, scikit-learn, dataclasses, tuples) | pickle, protocol 5 |

Reading a pickle runs code. These are read by workers of the project that wrote them and by nobody else; models and
uploads, which cross that line, never go through here.
"""

from __future__ import annotations

import base64
import io
import json
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flyball.errors import Corrupt, StepFailed
from flyball.storage.blobs import BlobStore, digest_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Stored", "arrow_bytes", "is_plain", "load", "store"]

_SMALL_BYTES = 2048  # kept in the ledger's row: a blob costs two syncs of the disk
_EXPECTED = "expected a Polars or pandas frame, a NumPy array, plain values, or an object that pickle can take"


@dataclass(frozen=True)
class Stored:
    """A value that is kept: its format, the SHA-256 of its bytes, and the bytes themselves when they are few."""

    format: str
    digest: str
    size_bytes: int
    inline: str | None = None  # base64, or text when the format is json

    def to_dict(self) -> dict[str, Any]:
        """Return what a run's record keeps."""
        kept = {"format": self.format, "digest": self.digest, "size_bytes": self.size_bytes}
        return kept | ({"inline": self.inline} if self.inline is not None else {})

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Stored:
        """Return what `to_dict` was made from."""
        return cls(kept["format"], kept["digest"], kept["size_bytes"], kept.get("inline"))

    def is_there(self, blobs: BlobStore) -> bool:
        """Whether the bytes can still be read."""
        return self.inline is not None or blobs.has(self.digest)


def store(value: Any, blobs: BlobStore, who: str) -> Stored:
    """Keep a value; durable on return.

    Args:
        who: what returned it, for messages: `step fit`.

    Raises:
        StepFailed: it cannot be stored; says of what type it is.
        Unavailable: the disk is full.
    """
    name, data = _encode(value, who)
    if len(data) <= _SMALL_BYTES:
        inline = data.decode() if name == "json" else base64.b64encode(data).decode()
        return Stored(name, digest_of(data), len(data), inline)
    return Stored(name, blobs.put(data), len(data))


def load(stored: Stored, blobs: BlobStore) -> Any:
    """Return a value as it was stored.

    Raises:
        NotFound, Corrupt: its bytes are gone, or are not what they were.
    """
    if stored.format == "arrow" and stored.inline is None:
        path = blobs.path(stored.digest)
        if path is not None:
            import polars as pl

            return pl.read_ipc(path)
    if stored.inline is None:
        data = blobs.get(stored.digest)
    else:
        data = stored.inline.encode() if stored.format == "json" else base64.b64decode(stored.inline)
    return _decode(stored.format, data)


def arrow_bytes(frame: pl.DataFrame) -> bytes:
    """Return a frame as Arrow IPC; the same bytes for equal frames, however they came about."""
    import polars as pl

    frame = frame.rechunk()
    if frame.height % 8 and any(column.null_count() for column in frame):
        # Of a validity bitmap's last byte the bits past the end may be anything; a gathered copy has them clean.
        frame = frame.select(pl.all().gather(pl.int_range(frame.height)))
    stream = io.BytesIO()
    frame.write_ipc(stream, compression="uncompressed")
    return stream.getvalue()


def _encode(value: Any, who: str) -> tuple[str, bytes]:
    kind = type(value)
    if type(value) is bytes:
        return "bytes", value
    if is_plain(value):
        return "json", json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    module = kind.__module__.partition(".")[0]
    described = f"{who} returned a {kind.__module__}.{kind.__qualname__}".replace("builtins.", "")
    if module == "polars" and kind.__name__ == "LazyFrame":
        raise StepFailed(f"{described}, which is a plan and holds no rows; return its rows: .collect()")
    stream = io.BytesIO()
    try:
        if module == "polars" and kind.__name__ == "DataFrame" and value.width:
            return "arrow", arrow_bytes(value)
        if module == "numpy" and kind.__name__ == "ndarray" and not value.dtype.hasobject:
            import numpy as np

            np.save(stream, value, allow_pickle=False)
            return "npy", stream.getvalue()
        return "pickle", pickle.dumps(value, protocol=5)
    except Exception as error:
        raise StepFailed(f"{described}, which cannot be stored ({error}); {_EXPECTED}") from error


def _decode(name: str, data: bytes) -> Any:
    if name == "bytes":
        return data
    if name == "json":
        return json.loads(data.decode("utf-8", "surrogatepass"))
    if name == "arrow":
        import polars as pl

        return pl.read_ipc(io.BytesIO(data))
    if name == "npy":
        import numpy as np

        return np.load(io.BytesIO(data), allow_pickle=False)
    if name == "pickle":
        return pickle.loads(data)
    raise Corrupt(f"a stored value has the unknown format {name!r}; was it written by a newer release?")


def is_plain(value: Any, depth: int = 50) -> bool:
    """Whether JSON gives the very same value back; tuples, subclasses and keys that are no text do not."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if value is None or kind in (bool, int, str):
        return True
    if depth == 0:
        return False
    if kind is list:
        return all(is_plain(part, depth - 1) for part in value)
    return kind is dict and all(type(key) is str and is_plain(part, depth - 1) for key, part in value.items())
