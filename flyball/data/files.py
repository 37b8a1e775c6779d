"""Files as a data set: images, texts, sound and anything else, kept by reference beside a table of what they are.

`Files` names what to take in; `table` reads it and returns one row a file: its path, digest, size, media type and facts
(`media.FACTS`). The bytes go into the blob store, small files together in packs so that a million of them is no million
blobs; a row says where they lie, and `read_file` gets them back, checked against the digest. With `keep="reference"`
the bytes stay where they are and only the path and the digest are kept.

Taking a folder in again reads only files whose size or time has changed since the version before.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from flyball.data.media import FACTS, describe
from flyball.errors import Corrupt, InvalidInput, MissingExtra, NotFound
from flyball.storage.blobs import BlobStore

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl

__all__ = ["Files", "is_file_table", "read_file"]

_PACK_BYTES = 64 * 1024 * 1024  # a pack: large enough that a million small files are some dozens of blobs
_OWN_BLOB_BYTES = 8 * 1024 * 1024  # a file from this size on is a blob of its own
_ROWS_AT_ONCE = 10_000
_LOCATION = ("blob", "offset", "location")


class _Item(NamedTuple):
    """One file: where it is called what, and its bytes or where to read them."""

    path: str
    size_bytes: int
    modified: datetime | None
    label: str | None
    source: Path | bytes


@dataclass(frozen=True)
class Files:
    """Files to take in as a data set.

    Attributes:
        root: the folder that paths are relative to.
        pattern: which of them, as a glob below `root`.
        keep: `copy` puts the bytes into the home; `reference` leaves them where they are.
        label: `folder` takes the name of the folder that a file lies in as its label.
        arrays: images instead of files, shape (n, height, width) or (n, height, width, 3|4), uint8.
        labels: of the arrays, one each.
    """

    root: Path | None = None
    pattern: str = "**/*"
    keep: Literal["copy", "reference"] = "copy"
    label: Literal["folder"] | None = None
    arrays: npt.NDArray[np.uint8] | None = None
    labels: Sequence[Any] | None = None

    @classmethod
    def of_images(cls, arrays: npt.NDArray[np.uint8], labels: Sequence[Any] | None = None) -> Files:
        """Return images given as an array, to be kept as PNG files `000000.png` and so on.

        Raises:
            InvalidInput: not uint8 of shape (n, height, width[, 3 or 4]), or as many labels as images are missing.
        """
        shape: tuple[int, ...] = getattr(arrays, "shape", ())
        if str(getattr(arrays, "dtype", "")) != "uint8" or not (
            len(shape) == 3 or (len(shape) == 4 and shape[3] in (3, 4))
        ):
            raise InvalidInput(
                f"the images are {getattr(arrays, 'dtype', type(arrays).__name__)} of shape {tuple(shape)}; expected "
                "uint8 of shape (n, height, width) or (n, height, width, 3 or 4)"
            )
        if labels is not None and len(labels) != shape[0]:
            raise InvalidInput(f"there are {shape[0]} images and {len(labels)} labels; expected one label an image")
        return cls(arrays=arrays, labels=labels)

    def table(self, blobs: BlobStore, before: pl.LazyFrame | None = None) -> Iterator[pl.DataFrame]:
        """Yield the rows, some thousands at a time, the bytes being in the store by then.

        Columns: path, label (where there are labels), digest (SHA-256), size_bytes, modified (UTC), media_type,
        the facts, and where the bytes lie: blob and offset, or location.

        Args:
            blobs: takes the bytes.
            before: the table of the version before; unchanged files are not read again.

        Raises:
            NotFound: the folder or any file in it is missing.
            InvalidInput: the pattern leads out of the folder, a file's name is no text, or a file changed while read.
            MissingExtra: there are images or texts and what describes those is not installed.
            Unavailable: the disk is full.
        """
        import polars as pl

        schema = self._schema()
        known = _known(before)
        pack = _Pack(blobs)
        rows: list[tuple[dict[str, Any], _Place | None]] = []

        def done() -> pl.DataFrame:
            pack.flush()
            placed = [{**row, "blob": p.blob, "offset": p.offset} if p else row for row, p in rows]
            return pl.DataFrame(placed, schema=schema)

        items = self._items()
        for item in items:
            old = known.get(item.path) if item.modified is not None else None
            if old is not None and (old["size_bytes"], old["modified"]) == (item.size_bytes, item.modified):
                rows.append(({**old, "label": item.label}, None))
            else:
                rows.append(self._row(item, pack))
            if len(rows) == _ROWS_AT_ONCE:
                yield done()
                rows = []
        if rows:
            yield done()

    def _schema(self) -> dict[str, Any]:
        import polars as pl

        words: dict[str, Any] = {"Int64": pl.Int64(), "String": pl.String(), "Float64": pl.Float64()}
        has_labels = self.label is not None or self.labels is not None
        return {
            "path": pl.String(),
            **({"label": pl.String()} if has_labels else {}),
            "digest": pl.String(),
            "size_bytes": pl.Int64(),
            "modified": pl.Datetime("us", "UTC"),
            "media_type": pl.String(),
            **{name: words[dtype] for name, dtype in FACTS.items()},
            "blob": pl.String(),
            "offset": pl.Int64(),
            "location": pl.String(),
        }

    def _items(self) -> Iterator[_Item]:
        if self.arrays is not None:
            for at, png in enumerate(_pngs(self.arrays)):
                label = None if self.labels is None else str(self.labels[at])
                yield _Item(f"{at:06d}.png", len(png), None, label, png)
            return
        assert self.root is not None
        root = self.root.absolute()
        if not root.is_dir():
            raise NotFound(f"there is no folder {root}")
        if Path(self.pattern).is_absolute() or ".." in Path(self.pattern).parts:
            raise InvalidInput(f"the pattern {self.pattern!r} leads out of {root}; write it below the folder")
        paths = sorted(p for p in root.glob(self.pattern) if p.is_file())
        if not paths:
            raise NotFound(f"no file matches {self.pattern} in {root}")
        for path in paths:
            name = path.relative_to(root).as_posix()
            try:
                name.encode()
            except UnicodeEncodeError:
                raise InvalidInput(f"the file name {name!r} is not UTF-8; rename it") from None
            stat = path.stat()
            modified = datetime.fromtimestamp(stat.st_mtime_ns // 1000 / 1e6, UTC)
            label = path.parent.name if self.label == "folder" else None
            yield _Item(name, stat.st_size, modified, label, path)

    def _row(self, item: _Item, pack: _Pack) -> tuple[dict[str, Any], _Place | None]:
        if isinstance(item.source, Path):
            try:
                data = item.source.read_bytes()
            except OSError as error:
                raise InvalidInput(f"{item.source} cannot be read: {error.strerror}") from error
            if len(data) != item.size_bytes:
                raise InvalidInput(f"{item.source} changed while it was read; publish when nobody writes to it")
        else:
            data = item.source
        digest = hashlib.sha256(data).hexdigest()
        stays = self.keep == "reference" and isinstance(item.source, Path)
        row = {
            "path": item.path,
            "label": item.label,
            "digest": digest,
            "size_bytes": len(data),
            "modified": item.modified,
            **describe(data),
            **dict.fromkeys(_LOCATION),
            "location": str(item.source) if stays else None,
        }
        return row, None if stays else pack.put(digest, data)


def is_file_table(columns: Iterable[str]) -> bool:
    """Whether a table is one of files: its rows say where bytes lie."""
    return {"path", "digest", "size_bytes", "media_type", *_LOCATION} <= set(columns)


def read_file(row: Mapping[str, Any], blobs: BlobStore) -> bytes:
    """Return the bytes of a row of a table of files.

    Raises:
        NotFound: the referenced file is gone.
        Corrupt: the bytes are not those that were taken in.
    """
    if row["blob"] is not None:
        start, size = int(row["offset"]), int(row["size_bytes"])
        path = blobs.path(row["blob"])
        if path is not None:
            with path.open("rb") as file:
                file.seek(start)
                data = file.read(size)
        else:
            data = blobs.get(row["blob"])[start : start + size]
    else:
        try:
            data = Path(row["location"]).read_bytes()
        except OSError as error:
            raise NotFound(f"{row['location']} is gone; it was kept by reference only") from error
    if hashlib.sha256(data).hexdigest() != row["digest"]:
        raise Corrupt(f"{row['path']} is not what was taken in: its bytes have changed")
    return data


@dataclass
class _Place:
    """Where bytes lie: `blob` is known once their pack is written."""

    offset: int
    blob: str | None = None


class _Pack:
    """Collects small files into blobs. A file's place is known when its pack is written, so rows wait for `flush`."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._data = bytearray()
        self._waiting: list[_Place] = []
        self._places: dict[str, _Place] = {}

    def put(self, digest: str, data: bytes) -> _Place:
        """Keep bytes; equal bytes are kept once."""
        if digest not in self._places:
            if len(data) >= _OWN_BLOB_BYTES:
                self._places[digest] = _Place(0, self._blobs.put(data))
            else:
                self._places[digest] = place = _Place(len(self._data))
                self._waiting.append(place)
                self._data += data
                if len(self._data) >= _PACK_BYTES:
                    self.flush()
        return self._places[digest]

    def flush(self) -> None:
        """Write what has been collected."""
        if self._waiting:
            blob = self._blobs.put(bytes(self._data))
            for place in self._waiting:
                place.blob = blob
            self._data, self._waiting = bytearray(), []


def _known(before: pl.LazyFrame | None) -> dict[str, dict[str, Any]]:
    """Return the rows of the version before by path, if it was a table of files."""
    if before is None or not is_file_table(before.collect_schema().names()):
        return {}
    return {row["path"]: row for row in before.collect().iter_rows(named=True)}


def _pngs(arrays: npt.NDArray[np.uint8]) -> Iterator[bytes]:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("Pillow", "images", "keeping images") from error
    for array in arrays:
        out = io.BytesIO()
        Image.fromarray(array).save(out, "PNG")
        yield out.getvalue()
