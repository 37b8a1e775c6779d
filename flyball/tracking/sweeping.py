"""The sweep: what was marked as deleted long enough ago leaves for good, and so do the bytes that nothing refers to.

One pass over metadata and bytes, in an order in which a crash between any two steps loses nothing and leaves nothing
that the next pass does not find:

    runs, logged models, then empty experiments (a transaction for some of them, each with its event and tombstone)
            → uploads in parts that nobody completed → blobs without reference → files of killed writers

Bytes come before rows whenever something is written, so a blob without reference may be one whose row is about to come:
none that was put within `grace` is touched, and a store lets nobody put a blob while it is being deleted
(`storage.blobs.Ageing`). What is referred to but missing is told, and stops nothing. Beside running writers it is safe;
two sweeps at once do the same work twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from flyball.clock import Clock, format_instant, parse_duration
from flyball.errors import InvalidInput, listed
from flyball.ledger import Ledger
from flyball.ledger.removal import Marked
from flyball.storage.blobs import Ageing, BlobStore
from flyball.storage.blobs.multipart import Uploads

__all__ = ["FOREVER", "RETENTION_TAG", "SweepSettings", "Sweeper", "Swept", "retention_of"]

RETENTION_TAG = "flyball.retention"
"""The tag of an experiment that says for how long what was deleted in it stays: `90d`, or `forever`."""
FOREVER = "forever"

_AT_ONCE = 20  # things removed in one transaction, so that writers beside it wait little
_NAMED = 5  # examples in a sentence

References = Callable[..., Iterator[str]]
"""Called with `without` (owners of files that do not count) and `unreadable` (gets what cannot be told); yields digests
of all blobs that something refers to."""


@dataclass(frozen=True)
class SweepSettings:
    """`[sweep]` in flyball.toml, `FLYBALL_SWEEP_…` in the environment."""

    retention: str = "30d"  # how long what was deleted can be restored, unless its experiment's tag says otherwise
    grace_s: float = 3600.0  # a blob put since then may belong to something that is being written
    uploads_s: float = 7 * 86400.0  # an upload in parts that got nothing for so long was given up


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
        references: tells what else refers to blobs.
        held: owners of files that something needs (a registered model that is made of a run's files), with by what.
        retention: for what no tag of its experiment says otherwise; None: forever.
    """

    def __init__(
        self,
        ledger: Ledger,
        blobs: BlobStore,
        uploads: Uploads,
        references: References,
        held: Mapping[str, str],
        *,
        retention: timedelta | None,
        settings: SweepSettings,
        actor: str,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._uploads = uploads
        self._references = references
        self._held = held
        self._retention = retention
        self._settings = settings
        self._actor = actor
        self._clock = clock

    def run(self, *, dry_run: bool = False) -> Swept:
        """Remove what is old enough, or with `dry_run` only list it."""
        swept = Swept()
        expired = self._expired(swept)
        swept.removed = expired if dry_run else self._remove(expired)
        abandoned = self._uploads.sweep(time.time() - self._settings.uploads_s, dry_run=dry_run)
        swept.uploads, swept.upload_bytes = len(abandoned), sum(size for _, size in abandoned)
        self._sweep_blobs(swept, expired, dry_run=dry_run)
        if swept.blobs and not dry_run:
            with self._ledger.write(self._actor) as world:
                detail = {"blobs": swept.blobs, "size_bytes": swept.blob_bytes}
                world.journal.note("swept", "home/blobs", detail)
        return swept

    # -- metadata

    def _expired(self, swept: Swept) -> list[Marked]:
        """Return what is past its time: first what is in experiments, then experiments of which nothing is left."""
        with self._ledger.read() as world:
            known = {experiment.id: experiment for experiment in world.experiments.all()}
            within = [one for kind in ("run", "logged-model") for one in world.removal.marked(kind)]
            experiments = list(world.removal.marked("experiment"))
        before: dict[str, datetime | None] = {}
        for id, experiment in known.items():
            try:
                before[id] = self._border(id, experiment.tags)
            except InvalidInput as error:
                before[id] = None
                swept.problems.append(str(error))
        default = None if self._retention is None else self._clock.now() - self._retention
        found = []
        for one in within:
            border = before.get(one.experiment, default)
            if border is None or one.deleted_at > border:
                continue
            if one.id in self._held:
                swept.kept.append(f"{one.ref} stays, because {self._held[one.id]} is made of its files")
            else:
                found.append(one)
        leaving = {one.id for one in found}
        for one in experiments:
            border = before.get(one.id, default)
            if border is None or one.deleted_at > border:
                continue
            with self._ledger.read() as world:
                is_in_use = any(id not in leaving for id in world.removal.contents(one.id))
            if is_in_use:
                swept.kept.append(f"{one.ref} stays, because something in it does")
            else:
                found.append(one)
        return found

    def _border(self, experiment: str, tags: Mapping[str, str]) -> datetime | None:
        said = tags.get(RETENTION_TAG)
        kept = self._retention
        if said is not None:
            kept = retention_of(said, f"the tag {RETENTION_TAG} of experiment {experiment}")
        return None if kept is None else self._clock.now() - kept

    def _remove(self, expired: list[Marked]) -> list[Marked]:
        gone = []
        for start in range(0, len(expired), _AT_ONCE):
            some = expired[start : start + _AT_ONCE]
            with self._ledger.write(self._actor) as world:
                done = [one for one in some if world.removal.remove(one) is not None]
            gone += done
        return gone

    # -- bytes

    def _sweep_blobs(self, swept: Swept, expired: list[Marked], *, dry_run: bool) -> None:
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
        leaving = {one.id for one in expired} if dry_run else set()
        for digest in self._references(without=leaving, unreadable=unreadable.append):
            try:
                key = bytes.fromhex(digest)
            except ValueError:  # of something that keeps no bytes
                continue
            old.pop(key, None)
            young.discard(key)
        swept.waiting = len(young)
        self._tell_missing(swept, leaving)
        if unreadable:
            swept.problems.append(
                f"what {listed(unreadable, _NAMED)} consists of cannot be read, so no blob was deleted, since it may "
                "be part of it; restore its list of files from a backup, or delete it"
            )
            return
        for key, size in old.items():
            if dry_run or self._blobs.delete_unless_put_since(key.hex(), since):
                swept.blobs += 1
                swept.blob_bytes += size
        if not dry_run:
            self._blobs.delete_unfinished(since)

    def _tell_missing(self, swept: Swept, leaving: Collection[str]) -> None:
        """Tell of files whose bytes are not there; what they belong to goes on as it is."""
        with self._ledger.read() as world:
            listed_files = {digest: owner for owner, digest in world.artifacts.digests() if owner not in leaving}
        gone = [owner for digest, owner in listed_files.items() if not self._blobs.has(digest)]
        swept.missing = len(gone)
        if gone:
            owners = listed(dict.fromkeys(owner or "nobody" for owner in gone), _NAMED)
            swept.problems.append(
                f"the bytes of {len(gone)} files are missing (of {owners}); restore them from a backup, or delete the "
                "files"
            )
