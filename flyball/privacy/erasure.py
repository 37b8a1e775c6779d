"""Erasure: one subject leaves every place of a home, and a certificate says so.

The order matters. What is told by other rows goes before them (labels before predictions, keys of the online store
before the tables that name them), and tables go last, because from them an interrupted erasure finds out whom it was
about: the request keeps a keyed hash only, so that a crash leaves no personal data in it. Every place can be done again
without harm. One erasure runs at a time in a home; a second waits.

    request → printed texts → online → logs → predictions, labels → runs, models, contracts, metadata → tables
            → online again → packs of files → replaced blobs and orphans → databases compacted → last look → certificate

Models that learnt from the subject's rows are named in the certificate, not deleted; so are versions that were made
from them and have no column that names the subject, such as totals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from flyball.clock import SYSTEM, Clock, format_instant
from flyball.data.masking import home_key
from flyball.errors import NotFound, did_you_mean
from flyball.ledger import Ledger
from flyball.ledger.runs import Run
from flyball.ledger.versions import Version
from flyball.privacy import requests
from flyball.privacy.certificates import FORMAT, signed, verify
from flyball.privacy.places import Places
from flyball.privacy.subjects import Subject, subject
from flyball.privacy.suppression import KIND, lift
from flyball.storage.blobs import BlobStore
from flyball.storage.online import OnlineStore
from flyball.storage.tables import TableStore

__all__ = ["Erased", "Eraser", "PrivacySettings", "declared_subjects"]


@dataclass(frozen=True)
class PrivacySettings:
    """`[privacy]` in flyball.toml, `FLYBALL_PRIVACY_…` in the environment."""

    wait_s: float = 600.0  # how long an erasure waits for another one
    grace_s: float = 600.0  # a blob without reference that is younger may belong to a version that is being made


@dataclass(frozen=True)
class Erased:
    """What an erasure did, or would do: the certificate, and the version that holds it (None of a dry run)."""

    certificate: Mapping[str, Any]
    version: Version | None = None

    @property
    def rows(self) -> int:
        """How many rows or places went, all together."""
        return sum(self.certificate["removed"].values())

    @property
    def is_complete(self) -> bool:
        """Whether nothing of the subject is known to be left."""
        return not self.certificate["left"]


class Eraser:
    """Erases subjects from one home."""

    def __init__(
        self,
        home: Path,
        ledger: Ledger,
        blobs: BlobStore,
        tables: TableStore,
        online: OnlineStore,
        *,
        actor: str,
        clock: Clock = SYSTEM,
        settings: PrivacySettings | None = None,
    ) -> None:
        self._home = home
        self._ledger = ledger
        self._blobs = blobs
        self._tables = tables
        self._online = online
        self._actor = actor
        self._clock = clock
        self._settings = settings or PrivacySettings()
        self._folder = home / "erasures"

    def erase(self, value: int | str, columns: Iterable[str], *, dry_run: bool = False) -> Erased:
        """Take a subject out of every place of the home; done again it finds nothing, which it certifies.

        Args:
            value: who; see `subjects` for what counts as equal.
            columns: where the value stands, in any table or log; a dotted name is a field inside a struct. Every table
                with such a column is meant, whether its dataset declares a subject or not.
            dry_run: only count; nothing is changed, and nothing noted.

        Raises:
            InvalidInput: an empty subject or no column.
            Unavailable: another erasure is at work for too long, or the disk is full; asked again it goes on.
        """
        who = self._subject(value, columns)
        if dry_run:
            places = self._places(None, dry_run=True)
            places.erase(who)
            return Erased(self._document(who.keyed(self._key), who.columns, None, places))
        hash = who.keyed(self._key)
        with requests.alone(self._folder, self._settings.wait_s):
            return self._carry_out(who, requests.begin(self._ledger, self._actor, hash, who.columns))

    def resume(self) -> list[Erased]:
        """Carry out to the end what was interrupted, by `kill -9` or a power cut; return what came of each."""
        done = []
        with requests.alone(self._folder, self._settings.wait_s):
            for request in requests.unfinished(self._ledger):
                traffic = self._home / "traffic"
                value = requests.recover(self._ledger, self._tables, traffic, self._key, request)
                who = self._subject(value, request.params["columns"]) if value is not None else None
                done.append(self._carry_out(who, request))
        return done

    def certificates(self) -> list[Version]:
        """Return the versions that hold certificates, newest first."""
        with self._ledger.read() as world:
            return world.versions.all(KIND, limit=100_000)

    def show(self, name: str) -> dict[str, Any]:
        """Return a certificate by its name or the beginning of it, its signature verified. Raises NotFound, Corrupt."""
        known = self.certificates()
        found = [version for version in known if version.name.startswith(name)]
        if len(found) != 1 or not name:
            what = "several certificates begin" if len(found) > 1 else "no certificate begins"
            near = did_you_mean(name, [version.name for version in known])
            raise NotFound(f'{what} with "{name[:64]}"{near or "; flyball erase --show lists them"}')
        document: dict[str, Any] = orjson.loads(self._blobs.get(found[0].digest))
        verify(document, self._key)
        return document

    def allow_again(self, value: int | str, columns: Iterable[str]) -> int:
        """Let a subject's rows be published again; return how many erasures that concerns. Raises NotFound."""
        who = self._subject(value, columns)
        return lift(self._ledger, who.keyed(self._key), who.columns, self._actor)

    @property
    def _key(self) -> bytes:
        return home_key(self._home)

    def _subject(self, value: int | str, columns: Iterable[str]) -> Subject:
        return subject(value, columns, self._home / "traffic" / "mask.key")

    def _places(self, request: Run | None, *, dry_run: bool = False) -> Places:
        return Places(
            self._home,
            self._ledger,
            self._blobs,
            self._tables,
            self._online,
            actor=self._actor,
            request=request,
            grace_s=self._settings.grace_s,
            dry_run=dry_run,
        )

    def _carry_out(self, who: Subject | None, request: Run) -> Erased:
        places = self._places(request)
        if who is not None:
            places.erase(who)
        places.clean_up(who)
        hash, columns = str(request.params["subject"]), list(request.params["columns"])
        with self._ledger.write(self._actor) as world:
            event = world.journal.note(
                "erased", str(request.ref), {"subject": hash, "rows": sum(places.removed.values())}, request.event
            )
        document = self._document(hash, columns, request, places, {"event": event.seq, "hash": event.hash})
        digest = self._blobs.put(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        metadata = {"subject": hash, "columns": sorted(columns), "complete": not places.left}
        metadata |= {"rows": sum(places.removed.values()), "left": len(places.left)}
        with self._ledger.write(self._actor, event.seq) as world:
            version = world.versions.publish(KIND, request.id[:12], digest, metadata=metadata, run=request.id)
            world.runs.finish(request.id, "succeeded", result={"certificate": digest})
        return Erased(document, version)

    def _document(
        self,
        hash: str,
        columns: Iterable[str],
        request: Run | None,
        places: Places,
        journal: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        now = self._clock.now()
        return signed(
            {
                "format": FORMAT,
                "request": request.id[:12] if request else None,
                "subject": hash,
                "columns": sorted(columns),
                "requested_at": format_instant(request.started_at if request else now),
                "finished_at": format_instant(now),
                "requested_by": request.actor if request else self._actor,
                "carried_out_by": self._actor,
                "is_dry_run": request is None,
                "looked_at": dict(sorted(places.looked_at.items())),
                "removed": dict(sorted(places.removed.items())),
                "versions": [swept._asdict() for swept in places.versions if not swept.problem],
                "models_that_learnt_from_it": places.models,
                "made_from_it": places.derived,
                "blobs_deleted": places.blobs_deleted,
                "left": places.left,
                "complete": not places.left,
                "journal": dict(journal) if journal else None,
            },
            self._key,
        )


def declared_subjects(ledger: Ledger) -> dict[str, list[str]]:
    """Return the columns that datasets declare as their subject, each with the datasets."""
    found: dict[str, list[str]] = {}
    with ledger.read() as world:
        for resource in world.resources.all("dataset"):
            column = resource.spec.get("subject")
            if column:
                found.setdefault(str(column), []).append(resource.name)
    return found
