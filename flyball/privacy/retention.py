"""Retention carried out: rows past their time leave every version, the prediction log and the online store.

For each dataset with a retention, by its event time: its versions, its quarantine, the stored rows and online values of
feature views computed from it, and the predictions (with their labels) of models that learn from it, which count from
when they were answered. What was replaced is deleted. Run again it finds nothing, so a crash costs only the time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from flyball.clock import SYSTEM, Clock, format_instant
from flyball.data.kinds import Dataset
from flyball.data.packs import repack
from flyball.data.retention import cutoff, older_than
from flyball.data.rewriting import Doomed, Swept, collect, refreshed, sweep
from flyball.errors import FlyballError, InvalidInput
from flyball.ledger import Ledger
from flyball.ledger.versions import Version
from flyball.privacy import views
from flyball.privacy.guard import Guard
from flyball.privacy.requests import alone
from flyball.privacy.sealed_traffic import drop_ids, drop_older
from flyball.storage.blobs import BlobStore
from flyball.storage.online import OnlineStore
from flyball.storage.streams.rewriting import rewrite
from flyball.storage.tables import TableStore
from flyball.storage.tables.rewriting import Removed, Remover
from flyball.tracking.predictions import microseconds
from flyball.tracking.sealed import REWRITTEN
from flyball.tracking.sealed import alone as sealing_alone

__all__ = ["Expired", "Retention"]

_KEYS_AT_ONCE = 5_000
_IDS_AT_ONCE = 1_000_000  # ids of predictions in memory; more are taken out in several rounds


@dataclass
class Expired:
    """What left one dataset and what hangs on it, or would.

    `problem` says why nothing could be told; `note` why nothing has to leave, though it inherits a retention.
    """

    dataset: str
    kept: timedelta
    because: str
    before: datetime
    versions: list[Swept] = field(default_factory=list)
    predictions: int = 0
    labels: int = 0
    online: int = 0
    problem: str = ""
    note: str = ""

    @property
    def rows(self) -> int:
        """How many rows of versions, each version counted by itself."""
        return sum(swept.rows for swept in self.versions)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "dataset": self.dataset,
            "kept_s": self.kept.total_seconds(),
            "because": self.because,
            "before": format_instant(self.before),
            "versions": [{"version": s.version, "rows": s.rows} for s in self.versions if s.rows],
            "rows": self.rows,
            "predictions": self.predictions,
            "labels": self.labels,
            "online": self.online,
            "problem": self.problem or None,
            "note": self.note or None,
        }


class Retention:
    """Carries out the retention of one home."""

    def __init__(
        self,
        home: Path,
        ledger: Ledger,
        blobs: BlobStore,
        tables: TableStore,
        online: OnlineStore,
        guard: Guard,
        *,
        actor: str,
        clock: Clock = SYSTEM,
        wait_s: float = 600.0,
    ) -> None:
        self._home = home
        self._ledger = ledger
        self._blobs = blobs
        self._tables = tables
        self._online = online
        self._guard = guard
        self._actor = actor
        self._clock = clock
        self._wait_s = wait_s

    def run(self, *, dry_run: bool = False) -> list[Expired]:
        """Take out what has expired by now, or with `dry_run` only count it; a report for each dataset concerned.

        A dataset that cannot be judged (no event time, or one that is no time) has a report with a `problem`; the
        others go on.

        Raises:
            Unavailable: an erasure is at work for too long.
        """
        if dry_run:
            return self._all(None)
        with alone(self._home / "erasures", self._wait_s):
            doomed = Doomed(self._home / "erasures" / "retention.doomed")
            found = self._all(doomed)
            self._repack(doomed)
            collect(self._ledger, self._tables, self._blobs, doomed)
            doomed.close()
            if any(expired.predictions or expired.labels for expired in found):
                (self._home / "traffic" / REWRITTEN).write_text(format_instant(self._clock.now()), encoding="ascii")
            return found

    def _repack(self, doomed: Doomed) -> None:
        """Take the bytes of files out of packs whose rows are gone."""
        stores = (self._ledger, self._tables, self._blobs)
        done = repack(*stores, doomed.add, actor=self._actor, action="expired", detail={})
        views.follow_sources(self._ledger, self._tables, done.became, actor=self._actor, action="expired", detail={})

    def _all(self, doomed: Doomed | None) -> list[Expired]:
        with self._ledger.read() as world:
            specs = {r.name: Dataset.model_validate(r.spec) for r in world.resources.all("dataset")}
            views_by_dataset: dict[str, set[str]] = {}
            for resource in world.resources.all("feature-view"):
                if resource.spec.get("dataset"):
                    views_by_dataset.setdefault(str(resource.spec["dataset"]), set()).add(resource.name)
        found = []
        for name, spec in sorted(specs.items()):
            kept = self._guard.retention(name)
            if kept is None:
                continue
            expired = Expired(name, *kept, cutoff(self._clock.now(), kept[0]))
            try:
                self._dataset(expired, spec, views_by_dataset.get(name, set()), doomed)
            except InvalidInput as error:
                expired.problem = str(error)
            found.append(expired)
        return found

    def _dataset(self, expired: Expired, spec: Dataset, of_dataset: set[str], doomed: Doomed | None) -> None:
        name = expired.dataset
        if spec.event_time is None and spec.retention is None and self._guard.is_inherited(name):
            # Totals of what may be kept for a month have no rows of any age, and nothing could be declared.
            expired.note = f"rows of dataset/{name} have no age and stay; if they have a time, declare it as event_time"
            return
        if spec.event_time is None:
            raise InvalidInput(f"dataset/{name} has a retention but no event_time, so no row has an age; declare it")
        self._online_of(expired, of_dataset, dry_run=doomed is None)
        self._traffic_of(expired, dry_run=doomed is None)
        times = {("dataset", name): spec.event_time, ("quarantine", name): spec.event_time}
        with self._ledger.read() as world:
            for kind, view, number, _ in world.versions.digests(views.KIND):
                metadata = world.versions.get(kind, view, number).metadata
                event_time = (metadata.get("definition") or {}).get("event_time")
                if event_time and (view in of_dataset or str(metadata.get("source")).startswith(f"dataset/{name}@")):
                    times[kind, view] = str(event_time)
        for event_time in sorted(set(times.values())):
            wanted = {place for place, column in times.items() if column == event_time}
            expired.versions += self._sweep(event_time, expired, wanted, doomed)
        became = {swept.before: swept.after for swept in expired.versions if swept.rows}
        if doomed is not None and became:
            views.follow_sources(
                self._ledger, self._tables, became, actor=self._actor, action="expired", detail=_detail(expired)
            )

    def _sweep(
        self, event_time: str, expired: Expired, wanted: set[tuple[str, str]], doomed: Doomed | None
    ) -> list[Swept]:
        condition = older_than(event_time, expired.before)
        remover = Remover(self._tables, self._blobs, condition, dry_run=doomed is None)

        def refresh(version: Version, removed: Removed) -> Mapping[str, Any]:
            if version.kind == views.KIND and doomed is not None:
                return views.view_metadata(version, removed, remover, condition, self._tables, doomed)
            return refreshed(version.metadata, removed)

        return sweep(
            self._ledger,
            remover,
            doomed if doomed is not None else Doomed(Path(self._home / "erasures" / "none.doomed")),
            actor=self._actor,
            action="expired",
            wanted=lambda kind, name: (kind, name) in wanted,
            refresh=refresh,
            detail=_detail(expired),
        )

    def _online_of(self, expired: Expired, of_dataset: set[str], *, dry_run: bool) -> None:
        """Remove values from before the border; the keys to look at are those of rows that are about to go."""
        with self._ledger.read() as world:
            stored = [world.versions.get(*v[:3]) for v in world.versions.digests(views.KIND)]
        for version in stored:
            definition = version.metadata.get("definition") or {}
            source = str(version.metadata.get("source"))
            if version.name not in of_dataset and not source.startswith(f"dataset/{expired.dataset}@"):
                continue
            entity, event_time = definition.get("entity"), definition.get("event_time")
            if not entity or not event_time:
                continue
            try:
                rows = self._tables.scan(version.digest)
                condition = older_than(event_time, expired.before)(rows.collect_schema())
            except FlyballError:
                continue
            if condition is None:
                continue
            view = f"{definition['name']}@{definition.get('version', 1)}"
            keys = rows.filter(condition).select(pl.col(entity).cast(pl.String)).unique()
            for batch in keys.collect_batches(chunk_size=_KEYS_AT_ONCE):
                expired.online += self._expire_keys(view, batch, expired.before, dry_run=dry_run)

    def _expire_keys(self, view: str, batch: pl.DataFrame, before: datetime, *, dry_run: bool) -> int:
        single = batch.width == 1
        keys = [str(row[0]) if single else orjson.dumps(list(row)).decode() for row in batch.rows() if None not in row]
        values = self._online.get(view, keys)
        old = [key for key, value in zip(keys, values, strict=True) if value is not None and value.event_time < before]
        return len(old) if dry_run or not old else self._online.delete(view, old)

    def _traffic_of(self, expired: Expired, *, dry_run: bool) -> None:
        with self._ledger.read() as world:
            models = {r.name for r in world.resources.all("model") if r.spec.get("dataset") == expired.dataset}
            deployments = {
                r.name
                for r in world.resources.all("deployment")
                if str(r.spec.get("model")).removeprefix("model/").partition("@")[0] in models
            }
        if not deployments:
            return
        border = microseconds(expired.before)
        folder = self._home / "traffic"
        with contextlib.nullcontext() if dry_run else sealing_alone(folder):
            self._logged(folder, deployments, border, expired, dry_run=dry_run)
            ids = drop_older(folder, deployments, border, dry_run=True)
            expired.labels += len(drop_ids(folder, ids, dry_run=dry_run))
            expired.predictions += len(ids)
            if not dry_run:
                drop_older(folder, deployments, border)

    def _logged(self, folder: Path, deployments: set[str], border: int, expired: Expired, *, dry_run: bool) -> None:
        """Take out what is still in the log's segments; rows that are in the tables too are counted there."""
        sealed = drop_older(folder, deployments, border, dry_run=True)
        while True:
            old = _Old(deployments, border, but=sealed)
            rewrite(folder / "predictions", old, dry_run=True)
            expired.predictions += old.count if dry_run else len(old.ids - sealed)
            if not old.ids:
                return
            # Labels first: they are told by predictions that are still there.
            ids = old.ids
            labels = rewrite(folder / "labels", _Labels(ids), dry_run=dry_run).gone
            expired.labels += max(0, labels - len(drop_ids(folder, ids, dry_run=True)))
            if dry_run:
                return
            rewrite(folder / "predictions", _Old(deployments, border, ids))


def _detail(expired: Expired) -> dict[str, str]:
    return {"before": format_instant(expired.before), "because": expired.because}


class _Old:
    """Takes out the requests to some deployments from before a border (µs since 1970), so many ids at a time."""

    def __init__(
        self, deployments: set[str], border: int, only: set[str] | None = None, but: set[str] | None = None
    ) -> None:
        self._deployments = deployments
        self._border = border
        self._only = only
        self._but = but or set()
        self.ids: set[str] = set()
        self.count = 0

    def __call__(self, payload: bytes) -> bytes | None:
        document = orjson.loads(payload)
        if document["deployment"] not in self._deployments or document["at"] >= self._border:
            return payload
        found = [document["ids"]] if isinstance(document["ids"], str) else document["ids"]
        self.count += sum(id not in self._but for id in found)
        if self._only is not None:
            return None if self._only.issuperset(found) else payload
        if len(self.ids) < _IDS_AT_ONCE:
            self.ids.update(found)
        return payload


class _Labels:
    """Takes out the labels of some predictions."""

    def __init__(self, ids: set[str]) -> None:
        self._ids = ids

    def __call__(self, payload: bytes) -> bytes | None:
        return None if orjson.loads(payload)["id"] in self._ids else payload
