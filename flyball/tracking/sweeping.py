"""The sweep: what was marked as deleted long enough ago leaves for good, and so do the bytes that nothing refers to.

One pass over metadata and bytes, in an order in which a crash between any two steps loses nothing and leaves nothing
that the next pass does not find:

    traces past their time, runs, logged models, then deleted experiments: first their traces, last themselves
            (transactions for some of them, each with its event; things that had a name leave a tombstone)
            → uploads in parts that nobody completed → blobs without reference → files of killed writers

Bytes come before rows whenever something is written, so a blob without reference may be one whose row is about to come:
none that was put within `grace` is touched, and a store lets nobody put a blob while it is being deleted
(`storage.blobs.Ageing`). What is referred to but missing is told, and stops nothing. Transactions are short, however
much there is to remove, and the ledger rests between them, so writers beside a sweep wait little. One sweep at a time
works on a home, by a lease that is taken over at once from one that was killed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from flyball.clock import Clock, format_instant, parse_duration
from flyball.control.lease import Lease
from flyball.errors import InvalidInput, Unavailable, listed
from flyball.ledger import Ledger, Transaction
from flyball.ledger.artifacts import NOBODY, Without
from flyball.ledger.experiments import Experiment
from flyball.ledger.removal import Marked
from flyball.storage.blobs import Ageing, BlobStore
from flyball.storage.blobs.multipart import Uploads
from flyball.tracking.recording import Recorder

__all__ = ["FOREVER", "RETENTION_TAG", "TRACES_TAG", "SweepSettings", "Sweeper", "Swept", "retention_of"]

T = TypeVar("T")

RETENTION_TAG = "flyball.retention"
"""The tag of an experiment that says for how long what was deleted in it stays: `90d`, or `forever`."""
TRACES_TAG = "flyball.retention.traces"
"""The tag of an experiment that says for how long its traces stay though nobody deletes them: `90d`, or `forever`."""
FOREVER = "forever"

_AT_ONCE = 20  # things removed in the first transaction; how many in the next is up to how long it took
_LEAST_AT_ONCE, _MOST_AT_ONCE = 10, 100
_LOCK_S = 0.01  # how long a transaction shall keep other writers waiting
_LEASE_S = 60.0  # after which a sweep on another machine that tells nothing counts as dead
_NAMED = 5  # examples in a sentence

References = Callable[..., Iterator[str]]
"""Called with `without` (which files do not count) and `unreadable` (gets what cannot be told); yields digests of all
blobs that something refers to."""


@dataclass(frozen=True)
class SweepSettings:
    """`[sweep]` in flyball.toml, `FLYBALL_SWEEP_…` in the environment."""

    retention: str = "30d"  # how long what was deleted can be restored, unless its experiment's tag says otherwise
    grace_s: float = 3600.0  # a blob put since then may belong to something that is being written
    uploads_s: float = 7 * 86400.0  # an upload in parts that got nothing for so long was given up
    traces: str = FOREVER  # how long traces stay that nobody deletes, unless their experiment's tag says otherwise
    every: str = "1d"  # how often the control plane sweeps by itself; 0: never


@dataclass
class Swept:
    """What a sweep did, or would do. `kept` says why something that is old enough stays."""

    removed: list[Marked] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    uploads: int = 0
    upload_bytes: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    waiting: int = 0
    missing: int = 0
    problems: list[str] = field(default_factory=list)
    traces: int = 0
    is_more: bool = False  # there is more than one round removes; bytes go with the last

    @property
    def files(self) -> int:
        """How many files of runs and logged models were removed; their bytes may be those of others too."""
        return sum(one.files for one in self.removed)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        removed = [
            {**one._asdict(), "ref": one.ref, "deleted_at": format_instant(one.deleted_at)} for one in self.removed
        ]
        return {**vars(self), "removed": removed, "files": self.files}


def retention_of(text: str, said_by: str) -> timedelta | None:
    """Return how long deleted things stay; None: forever. Raises InvalidInput, which names who said so."""
    if text.strip().lower() == FOREVER:
        return None
    try:
        return parse_duration(text)
    except InvalidInput as error:
        raise InvalidInput(f"{said_by} is no retention: {error}; or write {FOREVER}") from None


class Sweeper:
    """Sweeps one home.

    Args:
        recorder: writes, in the order of all who write in this process; only a dry run needs none.
        references: tells what else refers to blobs.
        held: owners of files that something needs (a registered model that is made of a run's files), with by what.
        retention: for what no tag of its experiment says otherwise; None: forever.
        stopping: when it is set the sweep ends before its next transaction; what it did stays done.
    """

    def __init__(
        self,
        ledger: Ledger,
        recorder: Recorder | None,
        blobs: BlobStore,
        uploads: Uploads,
        references: References,
        held: Mapping[str, str],
        *,
        retention: timedelta | None,
        settings: SweepSettings,
        clock: Clock,
        stopping: threading.Event | None = None,
    ) -> None:
        self._ledger = ledger
        self._recorder = recorder
        self._blobs = blobs
        self._uploads = uploads
        self._references = references
        self._held = held
        self._retention = retention
        self._settings = settings
        self._clock = clock
        self._stopping = stopping or threading.Event()
        self._lease = Lease(ledger, "sweep", _LEASE_S)
        self._renewed = 0.0
        self._at_once = _AT_ONCE

    def run(self, *, dry_run: bool = False, most: int | None = None) -> Swept:
        """Remove what is old enough, or with `dry_run` only list it.

        Args:
            most: how many runs, logged models, experiments and traces go; what is more waits for the next round.

        Raises:
            Unavailable: another sweep is at work, or the ledger does not answer; what was done stays done.
        """
        if dry_run:
            return self._round(_Plan.of(self, Swept()), dry_run=True)
        self._renew()
        try:
            plan = _Plan.of(self, Swept())
            plan.cut(most)
            return self._round(plan)
        finally:
            self._lease.release()

    def _round(self, plan: _Plan, *, dry_run: bool = False) -> Swept:
        swept = plan.swept
        if dry_run:
            swept.removed, swept.traces = [*plan.within, *plan.experiments], sum(map(len, plan.traces.values()))
        else:
            self._remove(plan)
            if swept.is_more:
                return swept
        abandoned = self._uploads.sweep(time.time() - self._settings.uploads_s, dry_run=dry_run)
        swept.uploads, swept.upload_bytes = len(abandoned), sum(size for _, size in abandoned)
        self._sweep_blobs(swept, plan.without if dry_run else _nothing, dry_run=dry_run)
        if swept.blobs and not dry_run:
            detail = {"blobs": swept.blobs, "size_bytes": swept.blob_bytes}
            self._write(lambda world: world.journal.note("swept", "home/blobs", detail))
        return swept

    # -- metadata

    def expired(self, experiment: Experiment | None, swept: Swept, now: datetime) -> tuple[Border, Border]:
        """Return since when what is marked, and what traces there are, is old enough; None: never.

        What cannot be told is a problem, and stays.
        """
        said = {} if experiment is None else experiment.tags
        found: list[Border] = []
        for tag, default in ((RETENTION_TAG, self._retention), (TRACES_TAG, self._traces)):
            kept = default
            try:
                if tag in said:
                    kept = retention_of(said[tag], f"the tag {tag} of experiment {experiment and experiment.id}")
            except InvalidInput as error:
                kept = None
                swept.problems.append(str(error))
            found.append(None if kept is None else now - kept)
        return found[0], found[1]

    @property
    def _traces(self) -> timedelta | None:
        return retention_of(self._settings.traces, "[sweep] traces")

    def _remove(self, plan: _Plan) -> None:
        """Remove what is planned; when it is told to stop, the rest waits."""
        swept = plan.swept
        for experiment, ids in plan.traces.items():

            def drop(world: Transaction, some: Sequence[str], experiment: str = experiment) -> int:
                return world.traces.delete(experiment, some)

            swept.traces += sum(self._piecemeal(ids, drop, swept))
        for things in (plan.within, plan.experiments):
            stones = self._piecemeal(things, lambda world, some: world.removal.remove(some), swept)
            gone = {stone.ref for some in stones for stone in some}
            swept.removed += [one for one in things if one.ref in gone]

    def _piecemeal(
        self, items: Sequence[Any], act: Callable[[Transaction, Sequence[Any]], T], swept: Swept
    ) -> Iterator[T]:
        """Do something to some of the items after the other, as many at a time as keeps the lock short."""
        start = 0
        while start < len(items):
            if self._stopping.is_set():
                swept.is_more = True
                return
            some = items[start : start + self._at_once]
            took = 0.0

            def write(world: Transaction, some: Sequence[Any] = some) -> T:
                nonlocal took
                began = time.monotonic()
                done = act(world, some)
                took = max(time.monotonic() - began, 1e-4)
                return done

            yield self._write(write)
            start += len(some)
            # By what grows with their number; the commit's wait for the disk is the same for one as for many.
            factor = min(2.0, max(0.5, _LOCK_S / took))
            self._at_once = max(_LEAST_AT_ONCE, min(_MOST_AT_ONCE, int(self._at_once * factor)))
            self._stopping.wait(min(took, 4 * _LOCK_S))  # another process that waits for the lock looks now and then

    def _write(self, act: Callable[[Transaction], T]) -> T:
        self._renew()
        assert self._recorder is not None
        return self._recorder.change(act).result()

    def _renew(self) -> None:
        if time.monotonic() - self._renewed < _LEASE_S / 4 and self._lease.fence is not None:
            return
        if not self._lease.renew():
            raise Unavailable("another sweep is at work on this home; wait until it has ended")
        self._renewed = time.monotonic()

    # -- bytes

    def _sweep_blobs(self, swept: Swept, without: Without, *, dry_run: bool) -> None:
        """Delete blobs without reference. Which are old is found out first, what is referred to afterwards."""
        if not isinstance(self._blobs, Ageing):
            swept.problems.append("this home's blob store does not say how old blobs are; none was deleted")
            return
        since = time.time() - self._settings.grace_s
        old: dict[bytes, int] = {}  # the sizes of those that nothing is known to refer to, by digest
        young: set[bytes] = set()
        for blob in self._blobs.ages():
            key = bytes.fromhex(blob.digest)
            if blob.put_at <= since:
                old[key] = blob.size_bytes
            else:
                young.add(key)
        unreadable: list[str] = []
        for digest in self._references(without=without, unreadable=unreadable.append):
            try:
                key = bytes.fromhex(digest)
            except ValueError:  # of something that keeps no bytes
                continue
            old.pop(key, None)
            young.discard(key)
        swept.waiting = len(young)
        self._tell_missing(swept, without)
        if unreadable:
            swept.problems.append(
                f"what {listed(unreadable, _NAMED)} consists of cannot be read, so no blob was deleted, since it may "
                "be part of it; restore its list of files from a backup, or delete it"
            )
            return
        for key, size in old.items():
            if self._stopping.is_set():
                swept.is_more = True
                return
            if not dry_run:
                self._renew()
            if dry_run or self._blobs.delete_unless_put_since(key.hex(), since):
                swept.blobs += 1
                swept.blob_bytes += size
        if not dry_run:
            self._blobs.delete_unfinished(since)

    def _tell_missing(self, swept: Swept, without: Without) -> None:
        """Tell of files whose bytes are not there; what they belong to goes on as it is."""
        seen: set[bytes] = set()
        owners: list[str] = []
        with self._ledger.read() as world:
            for owner, digest in world.artifacts.digests(without):
                key = bytes.fromhex(digest)
                if key not in seen:
                    seen.add(key)
                    if not self._blobs.has(digest):
                        owners.append(owner)
        swept.missing = len(owners)
        if owners:
            named = listed(dict.fromkeys(owner or "nobody" for owner in owners), _NAMED)
            swept.problems.append(
                f"the bytes of {len(owners)} files are missing (of {named}); restore them from a backup, or delete the "
                "files"
            )


Border = datetime | None


@dataclass
class _Plan:
    """What is past its time: first what is in experiments, then experiments of which nothing is left."""

    swept: Swept
    traces: dict[str, list[str]] = field(default_factory=dict)  # by experiment
    within: list[Marked] = field(default_factory=list)
    experiments: list[Marked] = field(default_factory=list)
    folders: frozenset[str] = frozenset()  # at the artifact proxy, of files of traces and experiments that leave

    @classmethod
    def of(cls, sweeper: Sweeper, swept: Swept) -> _Plan:
        """Look what there is."""
        plan, now = cls(swept), sweeper._clock.now()
        with sweeper._ledger.read() as world:
            known = {one.id: one for one in world.experiments.all()}
            borders = {id: sweeper.expired(one, swept, now) for id, one in known.items()}
            elsewhere = sweeper.expired(None, swept, now)
            for kind in ("run", "logged-model"):
                for one in world.removal.marked(kind):
                    border = borders.get(one.experiment, elsewhere)[0]
                    if border is None or one.deleted_at > border:
                        continue
                    if one.id in sweeper._held:
                        swept.kept.append(f"{one.ref} stays, because {sweeper._held[one.id]} is made of its files")
                    else:
                        plan.within.append(one)
            leaving = {one.id for one in plan.within}
            for one in world.removal.marked("experiment"):
                border = borders.get(one.experiment, elsewhere)[0]
                if border is None or one.deleted_at > border:
                    continue
                if any(id not in leaving for id in world.removal.contents(one.id)):
                    swept.kept.append(f"{one.ref} stays, because something in it does")
                else:
                    plan.experiments.append(one)
            ending = {one.id for one in plan.experiments}
            folders = set(ending)
            for id, (_, border) in borders.items():
                if id in ending or border is not None:
                    until = None if id in ending or border is None else int(border.timestamp() * 1000)
                    found = list(world.traces.until(id, until))
                    if found:
                        plan.traces[id] = found
                        folders.update(world.traces.files_of(id, found))
        plan.folders = frozenset(folders)
        return plan

    def without(self, owner: str, path: str) -> bool:
        """Whether a file leaves with what is planned; of a run all that it has, at the path ""."""
        if owner != NOBODY:
            return owner in self._owners
        return path.partition("/")[0] in self.folders or any(
            f"{before}/artifacts" in self.folders for before in _before(path, "/artifacts/")
        )

    def cut(self, most: int | None) -> None:
        """Leave for the next round what is more than that."""
        if most is None:
            return
        for id, found in list(self.traces.items()):
            self.traces[id], most = found[:most], most - min(most, len(found))
            if len(self.traces[id]) < len(found):
                self.swept.is_more = True
        whole = len(self.within) + len(self.experiments)
        self.within, most = self.within[:most], most - min(most, len(self.within))
        self.experiments = [] if self.swept.is_more else self.experiments[:most]
        if len(self.within) + len(self.experiments) < whole:
            self.swept.is_more = True

    @property
    def _owners(self) -> frozenset[str]:
        if not hasattr(self, "_leaving"):
            self._leaving = frozenset(one.id for one in self.within)
        return self._leaving


def _before(path: str, mark: str) -> Iterator[str]:
    """Yield what stands before each occurrence of a mark in a path."""
    place = path.find(mark)
    while place >= 0:
        yield path[:place]
        place = path.find(mark, place + 1)


def _nothing(_owner: str, _path: str) -> bool:
    return False
