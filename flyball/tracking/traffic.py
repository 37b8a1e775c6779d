"""Reading the prediction log: as data frames from a cursor, one row by its id, or the last rows with their labels.

`TrafficReader` reads incrementally; `Traffic` keeps a window of the last rows of each deployment with the truth that
came for them. Monitors, evaluations, rollouts and retraining read here; what writes is `flyball.tracking.predictions`.

A frame is flat, one row a prediction: `id, at, deployment, revision, variant, version, key, latency_us, trace`, then
`input.<column>`, `feature.<column>` and `output.<column>`. Where a variant was drawn by context there is `propensity`,
the probability of that, and where a tester named the variant `forced` is true. A column's type is the narrowest that
holds all its values: Boolean, Int64, Float64, else String; lists and objects are JSON text. So versions with other
columns or types stack.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from flyball.errors import Corrupt
from flyball.storage.streams import Cursor, is_same
from flyball.storage.streams.log import Damage, Reader
from flyball.tracking.predictions import check_variant
from flyball.tracking.sealed import Sealed, Stream

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Prediction", "Traffic", "TrafficReader", "labels_of", "with_labels"]

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


class TrafficReader:
    """Reads both streams in `folder` from a cursor, as data frames.

    Arguments:
        on_damage: called with each place that cannot be read back; without it such a place raises Corrupt.
    """

    def __init__(self, folder: Path, on_damage: Callable[[Damage], None] | None = None) -> None:
        self._tables = Sealed(folder)
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

    def end_of(self, stream: Stream, segment: str, offset: int) -> int:
        """Return where the last whole row of a segment ends that is read up to `offset`."""
        return (self._labels if stream == "labels" else self._predictions).end_of(segment, offset)

    def find(self, prediction_id: str) -> Prediction | None:
        """Return one prediction, or None: found by its id in the tables, or by looking through the rest of the log."""
        sealed = self._find_sealed(prediction_id)
        if sealed is not None:
            return sealed
        wanted = orjson.dumps(prediction_id)
        cursor: Cursor | None = self._tables.cursor("predictions")
        while True:
            payloads, after = self._predictions.read(cursor, _READ_BYTES)
            for payload in payloads:
                if wanted in payload:
                    document = _loads(payload)
                    if prediction_id == document["ids"]:
                        return _row(document, lambda value: value)
                    if isinstance(document["ids"], list) and prediction_id in document["ids"]:
                        return _row(document, itemgetter(document["ids"].index(prediction_id)))
            if is_same(cursor or {}, after):
                return None
            cursor = after

    def _find_sealed(self, prediction_id: str) -> Prediction | None:
        import polars as pl

        found = self._tables.read(
            lambda: self._tables.parts("predictions", ids=(prediction_id, prediction_id)),
            lambda rows: rows.filter(pl.col("id") == prediction_id).sort(pl.col("variant") == "shadow").head(1),
        )
        if found is not None and found.height:
            return _of_row(found.row(0, named=True))
        return None


class Traffic:
    """The last rows of each deployment with their labels, in memory, brought up to date by `refresh`.

    What the tables hold (`tracking.sealed`) is read only of the deployments that are asked for, and only the newest
    of it. One thread at a time. Damaged places in the log are logged, listed in `damages`, and passed by. Of the
    labels the newest `4 * keep_rows` (a deployment) are remembered, beside those of the tables' rows.
    """

    def __init__(self, folder: Path, keep_rows: int = 200_000) -> None:
        self.keep_rows = keep_rows
        self.damages: list[Damage] = []
        self._reader = TrafficReader(folder, self._note)
        self._tables = Sealed(folder)
        self._counts, self._prediction_cursor, self._label_cursor = self._tables.state()
        self._before: dict[str, pl.DataFrame] = {}  # of the tables, by deployment
        self._chunks: dict[str, list[pl.DataFrame]] = {}
        self._labels: pl.DataFrame | None = None
        self._sealed_labels: pl.DataFrame | None = None
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
            check_variant(variant)
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
            rows = _stack([*self._sealed(deployment), *self._chunks.get(deployment, [])]).tail(self.keep_rows)
            known = [labels for labels in (self._sealed_labels, self._labels) if labels is not None]
            self._joined[deployment] = with_labels(rows, pl.concat(known) if known else None)
        return self._joined[deployment]

    def _sealed(self, deployment: str) -> list[pl.DataFrame]:
        """Return the newest rows of the tables, without those that were in the log when this began."""
        import polars as pl

        if deployment not in self._before:
            found = self._tables.tail(deployment, self.keep_rows) if self._counts.get(deployment) else None
            chunks = self._chunks.get(deployment, [])
            if found is not None and chunks:
                live = pl.concat([chunk.select("id", "variant") for chunk in chunks])
                found = found.join(live, on=["id", "variant"], how="anti", maintain_order="left")
            self._before[deployment] = _stack([found] if found is not None else [])
            self._read_sealed_labels(_stack([self._before[deployment], *chunks]))
        return [self._before[deployment]] if self._before[deployment].height else []

    def _read_sealed_labels(self, rows: pl.DataFrame) -> None:
        import polars as pl

        # A label can be in the tables before its prediction is, so there is no last id.
        labels = labels_of(self._tables, str(rows["id"].min())) if rows.height else None
        if labels is not None:
            known = labels if self._sealed_labels is None else pl.concat([self._sealed_labels, labels])
            self._sealed_labels = known.unique()

    def _note(self, damage: Damage) -> None:
        self.damages.append(damage)
        _logger.warning(
            "%d bytes at byte %d of %s cannot be read back (%s); the rows in them are passed by",
            damage.size_bytes, damage.offset, damage.segment, damage.reason,
        )  # fmt: skip


def labels_of(tables: Sealed, first_id: str, last_id: str | None = None) -> pl.DataFrame | None:
    """Return the labels in the tables of predictions whose ids lie in a range, columns as of `read_labels`."""
    import polars as pl

    within = pl.col("prediction_id").is_between(pl.lit(first_id), pl.lit(last_id or "~"))
    return tables.read(lambda: tables.parts("labels", ids=(first_id, last_id or "~")), lambda rows: rows.filter(within))


def with_labels(rows: pl.DataFrame, labels: pl.DataFrame | None) -> pl.DataFrame:
    """Return rows with `label`, `label_at`, `label_source`: the newest label of each by `at`, of equal ones the last.

    Args:
        labels: columns as of `TrafficReader.read_labels`, repeated and corrected ones too; None: there are none.
    """
    import polars as pl

    if labels is None:
        texts = pl.DataFrame(schema=dict.fromkeys(("prediction_id", "value", "source"), pl.String))
        newest = texts.with_columns(at=_instants([]))
    else:
        newest = labels.sort("at", "arrived", maintain_order=True).unique("prediction_id", keep="last")
    newest = newest.select("prediction_id", "value", label_at="at", label_source="source")
    joined = rows.join(newest, left_on="id", right_on="prediction_id", how="left", maintain_order="left")
    values = orjson.loads("[" + ",".join(joined["value"].fill_null("null")) + "]")
    joined = joined.with_columns(_column("label", values)).drop("value")
    return joined.select(pl.exclude("label_at", "label_source"), "label_at", "label_source")


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
        "propensity" in document,
        "forced" in document,
    )


class _Rows:
    """Gathers the rows of documents of one layout, column by column."""

    def __init__(self, layout: tuple[Any, ...]) -> None:
        self._names = [f"{kind}.{name}" for kind, names in zip(_KINDS, layout[5:8], strict=True) for name in names]
        self._propensities: list[float] | None = [] if layout[8] else None
        self._is_forced = layout[9]
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
        if self._propensities is not None:
            given = [d["propensity"] for d in documents]
            self._propensities.extend(given if self._is_single else chain.from_iterable(given))
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
        if self._propensities is not None:
            base = base.with_columns(pl.Series("propensity", self._propensities, dtype=pl.Float64))
        if self._is_forced:
            base = base.with_columns(forced=pl.lit(True))
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


def _of_row(row: dict[str, Any]) -> Prediction:
    """Return a prediction of a row of the tables."""

    def values(kind: str) -> dict[str, Any]:
        return {name[len(kind) + 1 :]: value for name, value in row.items() if name.startswith(f"{kind}.")}

    return Prediction(
        row["id"],
        row["at"],
        row["deployment"],
        row["revision"],
        row["variant"],
        row["version"],
        row.get("key"),
        values("input"),
        values("feature"),
        values("output"),
        row["latency_us"],
        row.get("trace"),
    )


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
