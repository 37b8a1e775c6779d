"""The prediction log: what each deployment answered, and the truth when it comes.

The data plane appends one `PredictionBatch` a request; any process appends `Label`s, hours or months later. Monitors,
evaluations and retraining read both: `TrafficReader` incrementally as data frames, `Traffic` as a window of the last
rows with their labels. It lives here because it records what happened; what it means is for `monitoring`.

On disk `<folder>/predictions` and `<folder>/labels` are streams (`flyball.storage.streams`). A payload is one JSON
document a request: of one row with plain values, else with a list a column, so that a hundred rows cost little more
than one (and that reading seldom wakes the garbage collector, which would cost more than parsing). JSON has neither
NaN nor infinity: in inputs, features and outputs both come back as null.

A frame is flat, one row a prediction: `id, at, deployment, revision, variant, version, key, latency_us, trace`, then
`input.<column>`, `feature.<column>` and `output.<column>`. A column's type is the narrowest that holds all its values:
Boolean, Int64, Float64, else String; lists and objects are JSON text. So versions with other columns or types stack.

A prediction's id is 32 hexadecimal digits (128 bits) that sort by time: 12 of Unix milliseconds, 12 drawn at random
by the process, 8 of the process's counter.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import orjson

from flyball.clock import SYSTEM, Clock
from flyball.errors import Corrupt, InvalidInput, did_you_mean, listed
from flyball.storage.streams import Cursor, OnDone, Ticket
from flyball.storage.streams.log import Damage, Log, Reader

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "VARIANTS",
    "Label",
    "LabelLog",
    "Prediction",
    "PredictionBatch",
    "PredictionLog",
    "Traffic",
    "TrafficReader",
    "new_id",
    "new_ids",
]

VARIANTS = ("champion", "canary", "baseline", "shadow")

Columns = Mapping[str, Sequence[Any]]
"""Values by column; a list, tuple or one-dimensional numpy array a column, all as long as there are rows."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BASE = ("id", "at", "deployment", "revision", "variant", "version", "key", "latency_us", "trace")
_SHARED = ("deployment", "revision", "variant", "version")  # the same in very many requests
_OF_REQUEST = ("at", "latency_us", "trace")
_KINDS = ("input", "feature", "output")
_BLOCK = 128  # documents parsed before their values are taken over into columns
_READ_BYTES = 16 << 20
_SMALL_CHUNKS = 32  # so many frames of one deployment are joined into one
_logger = logging.getLogger(__name__)


class PredictionBatch(NamedTuple):
    """The rows of one request, answered together by one version.

    Arguments:
        at: when it was answered (with a zone).
        revision: the deployment's revision; `version`: the model version that answered, like `late@2`.
        ids: the rows' ids (`new_ids`); keys: what the traffic table hashed, a row each, or None.
        inputs, features, outputs: as received, as looked up, as answered.
        latency_us: from the request's last byte to the answer, in microseconds; trace: the W3C trace id, if any.
    """

    deployment: str
    revision: int
    variant: str
    version: str
    at: datetime
    ids: Sequence[str]
    inputs: Columns
    outputs: Columns
    keys: Sequence[str | None] | None = None
    features: Columns = {}
    latency_us: int = 0
    trace: str | None = None


class Prediction(NamedTuple):
    """One row, as `TrafficReader.find` returns it."""

    id: str
    at: datetime
    deployment: str
    revision: int
    variant: str
    version: str
    key: str | None
    inputs: Mapping[str, Any]
    features: Mapping[str, Any]
    outputs: Mapping[str, Any]
    latency_us: int
    trace: str | None


class Label(NamedTuple):
    """The truth for one prediction: `at` is when it became known; `source` says who or what told it."""

    prediction_id: str
    value: bool | int | float | str
    at: datetime
    source: str = ""


class PredictionLog:
    """Appends predictions.

    Arguments:
        folder: where the streams are; made when it is not there.
        writer: the process, like `data_plane` (see `Log`); likewise durability and deliver.
        masks: by deployment, the input columns whose values are replaced before they are written by a keyed hash
            (HMAC-SHA-256, RFC 2104, the first 128 bits as hexadecimal): equal values stay equal, nothing can be read
            back. A feature of the same name is masked too, and so is a key that is the text of a masked value.
        key_file: the 32-byte secret of that hash, made with mode 0600 when first needed; by default
            `<folder>/mask.key`.
    """

    def __init__(
        self,
        folder: Path,
        writer: str,
        durability: Literal["disk", "os"] = "disk",
        masks: Mapping[str, frozenset[str]] | None = None,
        key_file: Path | None = None,
        deliver: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self._key_file = key_file or folder / "mask.key"
        self._secret = b""
        self.set_masks(masks or {})
        self._log = Log(folder / "predictions", writer, durability, deliver=deliver)

    def set_masks(self, masks: Mapping[str, frozenset[str]]) -> None:
        """Replace all masks; holds from the next `append`. Raises as `PredictionLog` when the key file is unfit."""
        if any(masks.values()) and not self._secret:
            self._secret = _secret(self._key_file)
        self._masks = {deployment: frozenset(columns) for deployment, columns in masks.items() if columns}

    def append(self, batch: PredictionBatch, on_done: OnDone | None = None) -> Ticket:
        """Queue a request's rows; they are durable when the ticket is settled.

        Raises:
            InvalidInput: an unknown variant, columns of different lengths, or a value that JSON cannot hold.
            Unavailable: too much is waiting, or the log is closed.
        """
        _check(batch)
        if batch.deployment in self._masks:
            batch = self._masked(batch, self._masks[batch.deployment])
        is_single = len(batch.ids) == 1
        values = _of_single if is_single else dict[str, Any]
        document = {  # the deployment stands first: readers of one deployment skip the others unparsed
            "deployment": batch.deployment,
            "revision": batch.revision,
            "variant": batch.variant,
            "version": batch.version,
            "at": (batch.at - _EPOCH) // _MICROSECOND,
            "latency_us": batch.latency_us,
            "trace": batch.trace,
            "ids": batch.ids[0] if is_single else batch.ids,
            "keys": batch.keys[0] if is_single and batch.keys is not None else batch.keys,
            "inputs": values(batch.inputs),
            "features": values(batch.features),
            "outputs": values(batch.outputs),
        }
        try:
            payload = orjson.dumps(document, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
        except TypeError as error:
            raise InvalidInput(
                f"a prediction of {batch.deployment} cannot be logged: {error}; expected numbers, text, lists or null"
            ) from None
        return self._log.append([payload], on_done)

    def append_wait(self, batch: PredictionBatch, timeout_s: float = 30.0) -> None:
        """Append and wait until the rows are durable."""
        self.append(batch).wait(timeout_s)

    def close(self) -> None:
        """Make everything queued durable and stop."""
        self._log.close()

    def _masked(self, batch: PredictionBatch, columns: frozenset[str]) -> PredictionBatch:
        keys = None if batch.keys is None else list(batch.keys)
        hidden: dict[str, dict[str, Sequence[Any]]] = {"inputs": {}, "features": {}}
        for part, masked in hidden.items():
            for name, values in getattr(batch, part).items():
                if name not in columns:
                    masked[name] = values
                    continue
                masked[name] = [None if value is None else self._hash(value) for value in values]
                for row, (value, stands_for) in enumerate(zip(values, masked[name], strict=True)):
                    if keys is not None and value is not None and keys[row] == str(value):
                        keys[row] = stands_for
        return batch._replace(keys=keys, inputs=hidden["inputs"], features=hidden["features"])

    def _hash(self, value: Any) -> str:
        text = orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
        return hmac.digest(self._secret, text, "sha256")[:16].hex()


class LabelLog:
    """Appends labels; arguments as of `PredictionLog`. A label may come before its prediction can be read."""

    def __init__(
        self,
        folder: Path,
        writer: str,
        durability: Literal["disk", "os"] = "disk",
        clock: Clock = SYSTEM,
        deliver: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self._clock = clock
        self._log = Log(folder / "labels", writer, durability, deliver=deliver)

    def append(self, labels: Iterable[Label], on_done: OnDone | None = None) -> Ticket:
        """Queue labels. A later label for the same prediction corrects the earlier; both are kept.

        Raises:
            InvalidInput: a label without an id, a value that is no finite number, text or boolean, or a time without
                a zone. Then none of them is queued.
            Unavailable: too much is waiting, or the log is closed.
        """
        arrived = (self._clock.now() - _EPOCH) // _MICROSECOND
        payloads = []
        for label in labels:
            _check_label(label)
            at = (label.at - _EPOCH) // _MICROSECOND
            document = {"id": label.prediction_id, "value": label.value, "at": at, "source": label.source}
            try:
                payloads.append(orjson.dumps(document | {"arrived": arrived}))
            except TypeError as error:
                raise InvalidInput(f"the label of {label.prediction_id} cannot be logged: {error}") from None
        return self._log.append(payloads, on_done)

    def append_wait(self, labels: Iterable[Label], timeout_s: float = 30.0) -> None:
        """Append and wait until the labels are durable."""
        self.append(labels).wait(timeout_s)

    def close(self) -> None:
        """Make everything queued durable and stop."""
        self._log.close()


class TrafficReader:
    """Reads both streams in `folder` from a cursor, as data frames.

    Arguments:
        on_damage: called with each place that cannot be read back; without it such a place raises Corrupt.
    """

    def __init__(self, folder: Path, on_damage: Callable[[Damage], None] | None = None) -> None:
        self._predictions = Reader(folder / "predictions", on_damage)
        self._labels = Reader(folder / "labels", on_damage)

    def read_predictions(
        self, cursor: Cursor | None = None, deployment: str | None = None, limit_bytes: int = _READ_BYTES
    ) -> tuple[pl.DataFrame, Cursor]:
        """Return the rows after `cursor`, in the order of `at`, and the cursor to go on from.

        The frame's columns stand in the module's description. The end is reached when the cursor stays as it was; an
        empty frame may only mean that what was read belongs to other deployments.

        Raises:
            Corrupt: a payload cannot be read back.
        """
        frames, after = self.read_deployments(cursor, deployment, limit_bytes)
        return _stack(list(frames.values())), after

    def read_deployments(
        self, cursor: Cursor | None = None, deployment: str | None = None, limit_bytes: int = _READ_BYTES
    ) -> tuple[dict[str, pl.DataFrame], Cursor]:
        """Like `read_predictions`, a frame for each deployment, so that one's types never touch another's."""
        payloads, after = self._predictions.read(cursor, limit_bytes)
        if deployment is not None:
            opening = b'{"deployment":' + orjson.dumps(deployment) + b","
            payloads = [payload for payload in payloads if payload.startswith(opening)]
        layouts: dict[tuple[Any, ...], _Rows] = {}
        for start in range(0, len(payloads), _BLOCK):  # small blocks stay in the processor's cache: four times as fast
            blocks: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
            for document in map(_loads, payloads[start : start + _BLOCK]):
                blocks.setdefault(_layout(document), []).append(document)
            for layout, documents in blocks.items():
                layouts.setdefault(layout, _Rows(layout)).add(documents)
        frames: dict[str, list[pl.DataFrame]] = {}
        for layout, rows in layouts.items():
            frames.setdefault(layout[0], []).append(rows.frame())
        return {name: _stack(parts) for name, parts in frames.items()}, after

    def read_labels(self, cursor: Cursor | None = None, limit_bytes: int = _READ_BYTES) -> tuple[pl.DataFrame, Cursor]:
        """Return the labels after `cursor`, repeated and corrected ones too, and the cursor to go on from.

        Columns: `prediction_id`, `value` (JSON text: `1`, `0.5`, `true`, `"UA"`), `at`, `source`, `arrived`.
        """
        import polars as pl

        payloads, after = self._labels.read(cursor, limit_bytes)
        documents = [_loads(payload) for payload in payloads]
        columns = {
            "prediction_id": pl.Series([d["id"] for d in documents], dtype=pl.String),
            "value": pl.Series([orjson.dumps(d["value"]).decode() for d in documents], dtype=pl.String),
            "at": _instants([d["at"] for d in documents]),
            "source": pl.Series([d["source"] for d in documents], dtype=pl.String),
            "arrived": _instants([d["arrived"] for d in documents]),
        }
        return pl.DataFrame(columns), after

    def find(self, prediction_id: str) -> Prediction | None:
        """Return one prediction, or None; looks through the whole log, at the speed of the disk."""
        wanted = orjson.dumps(prediction_id)
        cursor: Cursor | None = None
        while True:
            payloads, after = self._predictions.read(cursor, _READ_BYTES)
            for payload in payloads:
                if wanted in payload:
                    document = _loads(payload)
                    if prediction_id == document["ids"]:
                        return _row(document, lambda value: value)
                    if isinstance(document["ids"], list) and prediction_id in document["ids"]:
                        return _row(document, itemgetter(document["ids"].index(prediction_id)))
            if after == (cursor or {}):
                return None
            cursor = after


class Traffic:
    """The last rows of each deployment with their labels, in memory, brought up to date by `refresh`.

    One thread at a time. Damaged places in the log are logged, listed in `damages`, and passed by. Of the labels the
    newest `4 * keep_rows` (a deployment) are remembered.
    """

    def __init__(self, folder: Path, keep_rows: int = 200_000) -> None:
        self.keep_rows = keep_rows
        self.damages: list[Damage] = []
        self._reader = TrafficReader(folder, self._note)
        self._prediction_cursor: Cursor = {}
        self._label_cursor: Cursor = {}
        self._counts: dict[str, int] = {}
        self._chunks: dict[str, list[pl.DataFrame]] = {}
        self._labels: pl.DataFrame | None = None
        self._joined: dict[str, pl.DataFrame] = {}

    def refresh(self) -> int:
        """Read what is new; return how many predictions and labels that was."""
        return self._read_predictions() + self._read_labels()

    def deployments(self) -> list[str]:
        """Return the names of all deployments seen, sorted."""
        return sorted(self._counts)

    def count(self, deployment: str) -> int:
        """Return how many rows of a deployment the log holds, kept here or not; 0 when it was never seen."""
        return self._counts.get(deployment, 0)

    def frame(
        self,
        deployment: str,
        variant: str | None = None,
        last: int | None = None,
        since: datetime | None = None,
        labelled_only: bool = False,
    ) -> pl.DataFrame:
        """Return kept rows in the order of `at`, with `label`, `label_at` and `label_source` (null without a label).

        `last` counts rows that pass the other conditions. The newest label by `at` holds, and of those the last to
        arrive; `label` has the type of a column. A deployment that was never seen has an empty frame.

        Raises:
            InvalidInput: an unknown variant.
        """
        import polars as pl

        rows = self._joined_frame(deployment)
        if variant is not None:
            _check_variant(variant)
            rows = rows.filter(pl.col("variant") == variant)
        if since is not None:
            rows = rows.filter(pl.col("at") >= since)
        if labelled_only:
            rows = rows.filter(pl.col("label").is_not_null())
        return rows if last is None else rows.tail(last)

    def _read_predictions(self) -> int:
        total = 0
        while True:
            frames, after = self._reader.read_deployments(self._prediction_cursor)
            for deployment, rows in frames.items():
                total += rows.height
                self._keep(deployment, rows)
            if after == self._prediction_cursor:
                return total
            self._prediction_cursor = after

    def _keep(self, deployment: str, rows: pl.DataFrame) -> None:
        self._counts[deployment] = self._counts.get(deployment, 0) + rows.height
        self._joined.pop(deployment, None)
        chunks = self._chunks.setdefault(deployment, [])
        chunks.append(rows)
        if len(chunks) > _SMALL_CHUNKS or sum(chunk.height for chunk in chunks) > 2 * self.keep_rows:
            self._chunks[deployment] = [_stack(chunks).tail(self.keep_rows).rechunk()]

    def _read_labels(self) -> int:
        import polars as pl

        total = 0
        while True:
            labels, after = self._reader.read_labels(self._label_cursor)
            if labels.height:
                total += labels.height
                known = labels if self._labels is None else pl.concat([self._labels, labels])
                newest = known.sort("at", "arrived", maintain_order=True).unique(
                    "prediction_id", keep="last", maintain_order=True
                )
                self._labels = newest.tail(4 * self.keep_rows * max(1, len(self._counts)))
                self._joined.clear()
            if after == self._label_cursor:
                return total
            self._label_cursor = after

    def _joined_frame(self, deployment: str) -> pl.DataFrame:
        import polars as pl

        if deployment not in self._joined:
            rows = _stack(self._chunks.get(deployment, [])).tail(self.keep_rows)
            labels = self._labels
            if labels is None:
                texts = pl.DataFrame(schema=dict.fromkeys(("prediction_id", "value", "source"), pl.String))
                labels = texts.with_columns(at=_instants([]))
            labels = labels.select("prediction_id", "value", label_at="at", label_source="source")
            joined = rows.join(labels, left_on="id", right_on="prediction_id", how="left", maintain_order="left")
            values = orjson.loads("[" + ",".join(joined["value"].fill_null("null")) + "]")
            joined = joined.with_columns(_column("label", values)).drop("value")
            self._joined[deployment] = joined.select(pl.exclude("label_at", "label_source"), "label_at", "label_source")
        return self._joined[deployment]

    def _note(self, damage: Damage) -> None:
        self.damages.append(damage)
        _logger.warning(
            "%d bytes at byte %d of %s cannot be read back (%s); the rows in them are passed by",
            damage.size_bytes, damage.offset, damage.segment, damage.reason,
        )  # fmt: skip


def new_id() -> str:
    """Return an id for one prediction. See `new_ids`."""
    return new_ids(1)[0]


def new_ids(count: int) -> list[str]:
    """Return `count` ids, ascending, unlike any other of this or another process (format: the module's description).

    >>> first, second = new_ids(2)
    >>> len(first), first < second
    (32, True)
    """
    return _ids.take(count)


class _Ids:
    def __init__(self) -> None:
        self.reseed()

    def reseed(self) -> None:
        """Draw the random part anew; a forked child must, or it would repeat its parent's ids."""
        self._lock = threading.Lock()
        self._random = secrets.token_hex(6)
        self._millisecond = 0
        self._next = 0

    def take(self, count: int) -> list[str]:
        with self._lock:
            self._millisecond = max(self._millisecond, time.time_ns() // 1_000_000)
            start = self._next
            if start + count > 0xFFFF_FFFF:  # begin again in the next millisecond, so that ids still ascend
                self._millisecond += 1
                start = 0
            self._next = start + count
            prefix = f"{self._millisecond:012x}{self._random}"
        return [f"{prefix}{number:08x}" for number in range(start, start + count)]


_ids = _Ids()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.reseed)


def _check(batch: PredictionBatch) -> None:
    _check_variant(batch.variant)
    rows = len(batch.ids)
    if batch.at.tzinfo is None:
        raise InvalidInput(f"the time {batch.at.isoformat()} of a prediction has no zone; give it one")
    if batch.keys is not None and len(batch.keys) != rows:
        raise InvalidInput(f"a batch of {batch.deployment} has {rows} ids but {len(batch.keys)} keys; give one a row")
    for part in (batch.inputs, batch.features, batch.outputs):
        for name, values in part.items():
            if len(values) != rows:
                raise InvalidInput(
                    f'a batch of {batch.deployment} has {rows} ids but {len(values)} values of "{name}"; give one a row'
                )


def _check_variant(variant: str) -> None:
    if variant not in VARIANTS:
        raise InvalidInput(f'no variant is called "{variant}"{did_you_mean(variant, VARIANTS)} ({listed(VARIANTS)})')


def _check_label(label: Label) -> None:
    if not isinstance(label.prediction_id, str) or not label.prediction_id:
        raise InvalidInput("a label has no prediction id; give the id that came with the prediction")
    is_finite = not isinstance(label.value, float) or abs(label.value) < float("inf")  # false for NaN too
    if not isinstance(label.value, bool | int | float | str) or not is_finite:
        raise InvalidInput(
            f"the label of {label.prediction_id} is of type {type(label.value).__name__} or not finite; "
            "expected a boolean, a finite number or text"
        )
    if label.at.tzinfo is None:
        raise InvalidInput(f"the time {label.at.isoformat()} of a label has no zone; give it one")


def _of_single(columns: Columns) -> dict[str, Any]:
    return {name: values[0] for name, values in columns.items()}


def _plain(value: Any) -> Any:
    """Turn what orjson does not know (a numpy array of text or with strides, a numpy scalar) into plain values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__}")


def _secret(path: Path) -> bytes:
    """Return the key of the masks, made when it is not there; several processes agree on one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secrets.token_bytes(32))
            os.fsync(descriptor)
            os.link(draft, path)  # unlike a rename it fails where another process was quicker
        except FileExistsError:
            pass
        finally:
            os.close(descriptor)
            draft.unlink()
    if path.stat().st_mode & 0o077:
        raise InvalidInput(f"the mask key {path} can be read by others; run: chmod 600 {path}")
    secret = path.read_bytes()
    if len(secret) != 32:
        raise Corrupt(f"the mask key {path} has {len(secret)} bytes, expected 32; restore it from a backup")
    return secret


def _loads(payload: bytes) -> dict[str, Any]:
    try:
        document: dict[str, Any] = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise Corrupt(f"a logged row is not JSON ({error}); was something else written to this stream?") from error
    return document


def _layout(document: dict[str, Any]) -> tuple[Any, ...]:
    """Return what documents must share to be gathered: who answered, one row or several, the columns' names."""
    return (
        document["deployment"],
        document["revision"],
        document["variant"],
        document["version"],
        isinstance(document["ids"], str),
        tuple(document["inputs"]),
        tuple(document["features"]),
        tuple(document["outputs"]),
    )


class _Rows:
    """Gathers the rows of documents of one layout, column by column."""

    def __init__(self, layout: tuple[Any, ...]) -> None:
        self._names = [f"{kind}.{name}" for kind, names in zip(_KINDS, layout[5:], strict=True) for name in names]
        self._is_single = layout[4]
        self._shared = dict(zip(_SHARED, layout, strict=False))
        self._values: list[list[Any]] = [[] for _ in self._names]
        self._requests: dict[str, list[Any]] = {name: [] for name in _OF_REQUEST}
        self._lengths: list[int] = []
        self._ids: list[str] = []
        self._keys: list[str | None] = []

    def add(self, documents: list[dict[str, Any]]) -> None:
        for name, column in self._requests.items():
            column.extend([d[name] for d in documents])
        by_request = [[*d["inputs"].values(), *d["features"].values(), *d["outputs"].values()] for d in documents]
        by_column = zip(self._values, zip(*by_request, strict=True), strict=True)
        if self._is_single:
            self._ids.extend([d["ids"] for d in documents])
            self._keys.extend([d["keys"] for d in documents])
            for column, values in by_column:
                column.extend(values)
            return
        self._lengths.extend([len(d["ids"]) for d in documents])
        self._ids.extend(chain.from_iterable([d["ids"] for d in documents]))
        self._keys.extend(chain.from_iterable([d["keys"] or [None] * len(d["ids"]) for d in documents]))
        for column, lists in by_column:
            column.extend(chain.from_iterable(lists))

    def frame(self) -> pl.DataFrame:
        import numpy as np
        import polars as pl

        requests = pl.DataFrame(
            {
                "at": _instants(self._requests["at"]),
                "latency_us": pl.Series(self._requests["latency_us"], dtype=pl.Int64),
                "trace": pl.Series(self._requests["trace"], dtype=pl.String),
            }
        )
        if not self._is_single:
            requests = requests[np.repeat(np.arange(len(self._lengths)), self._lengths)]
        ids = pl.Series("id", self._ids, dtype=pl.String)
        keys = pl.Series("key", self._keys, dtype=pl.String)
        shared = {
            name: pl.lit(value, pl.Int64 if name == "revision" else pl.String) for name, value in self._shared.items()
        }
        base = requests.with_columns(ids, keys, **shared).select(_BASE)
        return base.with_columns(
            [_column(name, values) for name, values in zip(self._names, self._values, strict=True)]
        )


def _column(name: str, values: list[Any]) -> pl.Series:
    """Return JSON values in the narrowest type that holds them all without loss of kind."""
    import polars as pl

    kinds = set(map(type, values)) - {type(None)}
    if kinds == {float} or kinds == {int, float} or not kinds:
        return pl.Series(name, values, dtype=pl.Float64 if kinds else pl.Null, strict=False)
    if kinds == {int}:
        try:
            return pl.Series(name, values, dtype=pl.Int64)
        except (OverflowError, TypeError):
            return pl.Series(name, values, dtype=pl.Float64, strict=False)
    if kinds == {bool}:
        return pl.Series(name, values, dtype=pl.Boolean)
    if kinds == {str}:
        return pl.Series(name, values, dtype=pl.String)
    texts = [v if v is None or isinstance(v, str) else orjson.dumps(v).decode() for v in values]
    return pl.Series(name, texts, dtype=pl.String)


def _instants(micros: list[int]) -> pl.Series:
    import polars as pl

    return pl.Series("at", micros, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))


def _stack(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Return frames on top of one another, in the order of `at`; columns and types may differ."""
    import polars as pl

    if not frames:
        texts = pl.DataFrame(schema=dict.fromkeys(_BASE, pl.String))
        return texts.with_columns(pl.col("revision", "latency_us").cast(pl.Int64), at=_instants([]))
    rows = frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed")
    return rows if rows["at"].is_sorted() else rows.sort("at", maintain_order=True)


def _row(document: dict[str, Any], pick: Callable[[Any], Any]) -> Prediction:
    """Return one row of a document, whose values `pick` takes from the columns."""

    def values(part: str) -> dict[str, Any]:
        return {name: pick(column) for name, column in document[part].items()}

    return Prediction(
        pick(document["ids"]),
        _EPOCH + document["at"] * _MICROSECOND,
        document["deployment"],
        document["revision"],
        document["variant"],
        document["version"],
        None if document["keys"] is None else pick(document["keys"]),
        values("inputs"),
        values("features"),
        values("outputs"),
        document["latency_us"],
        document["trace"],
    )
