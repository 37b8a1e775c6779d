"""The prediction log: what each deployment answered, and the truth when it comes.

The data plane appends one `PredictionBatch` a request; any process appends `Label`s, hours or months later. Monitors,
evaluations and retraining read both by `flyball.tracking.traffic`, so that what only writes loads nothing of that.
It lives here because it records what happened; what it means is for `monitoring`.

On disk `<folder>/predictions` and `<folder>/labels` are streams (`flyball.storage.streams`). A payload is one JSON
document a request: of one row with plain values, else with a list a column, so that a hundred rows cost little more
than one (and that reading seldom wakes the garbage collector, which would cost more than parsing). JSON has neither
NaN nor infinity: in inputs, features and outputs both come back as null.

A prediction's id is 32 hexadecimal digits (128 bits) that sort by time: 12 of Unix milliseconds, 12 drawn at random
by the process, 8 of the process's counter.
"""

from __future__ import annotations

import hmac
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import orjson

from flyball.clock import SYSTEM, Clock
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.storage.secret import kept_secret
from flyball.storage.streams import OnDone, Ticket
from flyball.storage.streams.log import Log

__all__ = [
    "VARIANTS",
    "Label",
    "LabelLog",
    "PredictionBatch",
    "PredictionLog",
    "check_variant",
    "microseconds",
    "new_id",
    "new_ids",
]

VARIANTS = ("champion", "canary", "baseline", "shadow", *(f"arm{number}" for number in range(2, 10)))

Columns = Mapping[str, Sequence[Any]]
"""Values by column; a list, tuple or one-dimensional numpy array a column, all as long as there are rows."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class PredictionBatch(NamedTuple):
    """The rows of one request, answered together by one version.

    Arguments:
        at: when it was answered (with a zone).
        revision: the deployment's revision; `version`: the model version that answered, like `late@2`.
        ids: the rows' ids (`new_ids`); keys: what the traffic table hashed, a row each, or None.
        inputs, features, outputs: as received, as looked up, as answered.
        latency_us: from the request's last byte to the answer, in microseconds; trace: the W3C trace id, if any.
        propensities: the probability with which this variant was chosen for each row, where it was drawn by context.
        is_forced: a tester named who must answer, so that the rows are no evidence of how the variants compare.
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
    propensities: Sequence[float] | None = None
    is_forced: bool = False


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
            self._secret = kept_secret(self._key_file)
        self._masks = {deployment: frozenset(columns) for deployment, columns in masks.items() if columns}

    def append(self, batch: PredictionBatch, on_done: OnDone | None = None) -> Ticket:
        """Queue a request's rows; they are durable when the ticket is settled.

        Raises:
            InvalidInput: an unknown variant, columns of different lengths, or a value that JSON cannot hold.
            Unavailable: too much is waiting, or the log is closed.
        """
        return self.append_encoded([self.encode(batch)], on_done)

    def append_encoded(self, payloads: Sequence[bytes], on_done: OnDone | None = None) -> Ticket:
        """Queue what `encode` returned, of several requests under one ticket. Raises Unavailable: none was queued."""
        return self._log.append(payloads, on_done)

    def append_now(self, payloads: Sequence[bytes]) -> bool:
        """Write what `encode` returned here and now, where that is quick; see `Log.append_now`."""
        return self._log.append_now(payloads)

    def encode(self, batch: PredictionBatch) -> bytes:
        """Return a request's rows as they stand in the log. Raises InvalidInput as `append`."""
        _check(batch)
        if batch.deployment in self._masks:
            batch = self._masked(batch, self._masks[batch.deployment])
        is_single = len(batch.ids) == 1
        values = _of_single if is_single else _of_many
        document = {  # the deployment stands first: readers of one deployment skip the others unparsed
            "deployment": batch.deployment,
            "revision": batch.revision,
            "variant": batch.variant,
            "version": batch.version,
            "at": microseconds(batch.at),
            "latency_us": batch.latency_us,
            "trace": batch.trace,
            "ids": batch.ids[0] if is_single else batch.ids,
            "keys": batch.keys[0] if is_single and batch.keys is not None else batch.keys,
            "inputs": values(batch.inputs),
            "features": values(batch.features),
            "outputs": values(batch.outputs),
        }
        if batch.propensities is not None:  # like `forced` only where there is something to say: most rows are neither
            document["propensity"] = batch.propensities[0] if is_single else batch.propensities
        if batch.is_forced:
            document["forced"] = True
        try:
            return orjson.dumps(document, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
        except TypeError as error:
            raise InvalidInput(
                f"a prediction of {batch.deployment} cannot be logged: {error}; expected numbers, text, lists or null"
            ) from None

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


def microseconds(instant: datetime) -> int:
    """Return an instant as the log has it: microseconds since 1970 UTC."""
    return (instant - _EPOCH) // _MICROSECOND


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
    """Draws ids. Should the clock go back, they go on from the latest instant that they have seen."""

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self.reseed()

    def reseed(self) -> None:
        """Draw the random part anew; a forked child must, or it would repeat its parent's ids."""
        self._lock = threading.Lock()
        self._random = secrets.token_hex(6)
        self._millisecond = 0
        self._next = 0

    def take(self, count: int) -> list[str]:
        with self._lock:
            self._millisecond = max(self._millisecond, self._now_ns() // 1_000_000)
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
    check_variant(batch.variant)
    rows = len(batch.ids)
    if batch.at.tzinfo is None:
        raise InvalidInput(f"the time {batch.at.isoformat()} of a prediction has no zone; give it one")
    if batch.keys is not None and len(batch.keys) != rows:
        raise InvalidInput(f"a batch of {batch.deployment} has {rows} ids but {len(batch.keys)} keys; give one a row")
    if batch.propensities is not None and len(batch.propensities) != rows:
        raise InvalidInput(
            f"a batch of {batch.deployment} has {rows} ids but {len(batch.propensities)} propensities; give one a row"
        )
    for part in (batch.inputs, batch.features, batch.outputs):
        if getattr(part, "rows", None) == rows:
            continue
        for name, values in part.items():
            if len(values) != rows:
                raise InvalidInput(
                    f'a batch of {batch.deployment} has {rows} ids but {len(values)} values of "{name}"; give one a row'
                )


def check_variant(variant: str) -> None:
    """Raise InvalidInput unless `variant` is one of VARIANTS."""
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


class _Matrix(Protocol):
    """Columns that are one matrix, like `models.table.Table`, and give their values without being taken apart."""

    rows: int

    def single(self) -> dict[str, Any]:
        """Return the only row as plain values."""
        ...

    def lists(self) -> dict[str, Any]:
        """Return contiguous arrays by name."""
        ...


def _of_single(columns: Columns | _Matrix) -> dict[str, Any]:
    if hasattr(columns, "single"):
        return columns.single()
    return {name: values[0] for name, values in columns.items()}


def _of_many(columns: Columns | _Matrix) -> dict[str, Any]:
    return columns.lists() if hasattr(columns, "lists") else dict(columns)


def _plain(value: Any) -> Any:
    """Turn what orjson does not know (a numpy array of text or with strides, a numpy scalar) into plain values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__}")
