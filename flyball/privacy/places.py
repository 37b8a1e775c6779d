"""The places where a subject may be, gone through one after the other in the order that `erasure` explains."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from flyball.data.packs import packs_with, repack
from flyball.data.rewriting import Doomed, Swept, collect, references, refreshed, sweep
from flyball.errors import Unavailable
from flyball.ledger import Ledger, Transaction
from flyball.ledger.refs import ref
from flyball.ledger.runs import Run
from flyball.ledger.versions import Version
from flyball.privacy import views
from flyball.privacy.derived import made_from, other_names
from flyball.privacy.documents import Cleaner
from flyball.privacy.online import Views, views_of
from flyball.privacy.orphans import orphans_of, workshops_of
from flyball.privacy.raw import compact, files_with, redact_files
from flyball.privacy.stored import Keeper
from flyball.privacy.subjects import Subject
from flyball.privacy.traces import erase_records, erase_traces
from flyball.privacy.traffic import erase_streams, erase_traffic, streams_of
from flyball.storage.blobs import BlobStore
from flyball.storage.online import OnlineStore
from flyball.storage.tables import TableStore
from flyball.storage.tables.rewriting import Removed, Remover
from flyball.tracking.sealed import REWRITTEN

__all__ = ["Places"]

_TRAFFIC = {"predictions": "predictions", "labels": "labels of predictions"}  # label sets are versions: "labels"
_PASSES = 5  # over the versions, for those that were published meanwhile


class _Sweep(NamedTuple):
    """Whom to look for, with what, and in which versions (kind, name); None: in all."""

    who: Subject
    remover: Remover
    places: frozenset[tuple[str, str]] | None


class Places:
    """All places of a home. `removed` counts by place; `left` says in sentences what could not be taken out."""

    def __init__(
        self,
        home: Path,
        ledger: Ledger,
        blobs: BlobStore,
        tables: TableStore,
        online: OnlineStore,
        *,
        actor: str,
        request: Run | None,
        grace_s: float,
        dry_run: bool,
    ) -> None:
        self._home = home
        self._ledger = ledger
        self._blobs = blobs
        self._tables = tables
        self._online = online
        self._actor = actor
        self._request = request
        self._grace_s = grace_s
        self._dry_run = dry_run
        name = request.id if request is not None else f"dry-{secrets.token_hex(6)}"
        self._doomed = Doomed(home / "erasures" / f"{name}.doomed")
        self.removed: dict[str, int] = dict(request.result.get("removed", {})) if request is not None else {}
        self.looked_at: dict[str, int] = {}
        self.versions: list[Swept] = []
        self.models: list[str] = []
        self.derived: list[str] = []
        self.blobs_deleted = 0
        self.left: list[str] = []

    def erase(self, who: Subject) -> None:
        """Take a subject out of every place; what was replaced is deleted by `clean_up`."""
        sweeps = self._sweeps(who)
        held = [swept for work in sweeps for swept in self._swept(work) if swept.rows]
        held += self._done_before()
        self.models = self._models_of({swept.version for swept in held})
        with self._ledger.read() as world:
            self.derived = made_from(world, {swept.version for swept in held})
            digests = world.versions.digests()
            known = Views(views_of(world, self._home / "serving" / "snapshot.json"), who)
            fields = {r.name: r.spec.get("key") for r in world.resources.all("deployment")}
            since = self._since(held, world)
        self.looked_at |= {"versions": len(digests), "views": len(known.entities)}
        self._printed(who)
        self._logs_and_online(who, known, [d for _, _, _, d in digests])
        for name, found in erase_traffic(self._home / "traffic", who, fields, dry_run=self._dry_run).items():
            self._count(_TRAFFIC[name], found.rows)
            self._damaged(found.damaged, f"traffic/{name}")
        self._kept(who, since)
        self._tables_without(sweeps)
        if not self._dry_run:
            self._count("online", sum(known.erase(self._online).values()))
            if any(self.removed[place] for place in _TRAFFIC.values()):  # whoever keeps a copy in memory reads anew
                (self._home / "traffic" / REWRITTEN).write_text(secrets.token_hex(8), encoding="ascii")

    def clean_up(self, who: Subject | None) -> None:
        """Delete what was replaced or orphaned, have databases give up freed bytes, look at every file once more."""
        if who is not None:
            known = {*references(self._ledger, self._tables, self._blobs), *self._doomed}
            orphans = orphans_of(self._blobs, known, who, self._grace_s)
            self._doomed.add(orphans.old)
            self._count("orphans", len(orphans.old))
            if orphans.young:
                self.left.append(
                    f"{orphans.young} blobs that nothing refers to are younger than {self._grace_s:g} s, so somebody "
                    "may be about to; erase again after that time"
                )
            unfinished = workshops_of(self._home / "blobs" / "workshops", who)
            if unfinished:
                self.left.append(f"{unfinished} files of publishers who have not finished; erase again when they have")
        self._repack()
        self.blobs_deleted, stay = collect(self._ledger, self._tables, self._blobs, self._doomed)
        if stay and who is not None:
            self.left += [
                f"the blob {d[:12]} was replaced, but something refers to it" for d in self._with_rows(stay, who)
            ]
        self._compact()
        if who is not None and who.raw is not None:
            self.left += [f"the file {name} holds the value as it is" for name in files_with(self._home, who.raw)]
        self._doomed.close()

    # -- places

    def _printed(self, who: Subject) -> None:
        if who.raw is not None:
            self._count("printed logs", redact_files(self._home, who.raw, dry_run=self._dry_run))

    def _logs_and_online(self, who: Subject, known: Views, digests: list[str]) -> None:
        """Learn keys of the online store from logs and tables; take them out of the store, then out of the logs."""
        streams = streams_of(self._home)
        self.looked_at["logs"] = len(streams) + 2
        is_key = {view: lambda key, view=view: known.is_key(view, key) for view in known.concerned}
        cleaner = Cleaner(who, is_key)
        counted = erase_streams(streams, cleaner, dry_run=True)
        known.look_in(self._tables, digests)
        self._count("online", sum(known.erase(self._online, dry_run=self._dry_run).values()))
        found = counted if self._dry_run else erase_streams(streams, cleaner)
        for name, erased in found.items():
            self._count(name, erased.rows)
            self._damaged(erased.damaged, name)

    def _kept(self, who: Subject, since: datetime | None) -> None:
        keeper = Keeper(
            self._ledger,
            self._blobs,
            who,
            Cleaner(who),
            self._doomed,
            actor=self._actor,
            request=self._detail(),
            since=since,
            dry_run=self._dry_run,
        )
        for name, count in keeper.runs().items():
            self._count({"results": "step results", "files": "run files", "records": "run records"}[name], count)
        self._count("logged models", keeper.logged_models())
        self._count("files of models and traces", keeper.files())
        for place, erase in (("traces", erase_traces), ("evaluation records", erase_records)):
            self._count(place, erase(self._ledger, who, Cleaner(who), actor=self._actor, dry_run=self._dry_run))
        self._count("model examples", len(keeper.models()))
        became = {s.before: s.after for s in self._done_before() if s.version.startswith("model/")}
        if became and not self._dry_run:
            _replace_in(self._home / "serving" / "snapshot.json", became)
        self._count("references of models", keeper.references())
        self._count("contracts", keeper.contracts())
        self._count("metadata", keeper.metadata())
        self._count("statuses", keeper.statuses())
        self._count("journal", keeper.journal())
        self.left += keeper.left

    def _sweeps(self, who: Subject) -> list[_Sweep]:
        """Return what to look for in which versions: in some the columns called otherwise, then its own in all.

        Its own come last, because by them an interrupted erasure finds out whom it was about.
        """
        with self._ledger.read() as world:
            names = other_names(world, who)
        found = []
        for columns in sorted(set(names.values()), key=sorted):
            more = replace(who, columns=columns)
            places = frozenset(place for place, called in names.items() if called == columns)
            found.append(_Sweep(more, self._remover(more), places))
        return [*found, _Sweep(who, self._remover(who), None)]

    def _remover(self, who: Subject) -> Remover:
        return Remover(self._tables, self._blobs, who.condition, dry_run=True, retype=who.types)

    def _tables_without(self, sweeps: list[_Sweep]) -> None:
        """Rewrite versions until a pass finds none: somebody may publish meanwhile."""
        if self._dry_run:
            with self._ledger.read() as world:
                digests = [v[3] for v in world.versions.digests()]
            packs = packs_with(self._tables, digests, sweeps[-1].who.condition)
            self._count("packs of files", len(packs))
        for work in sweeps:
            work.remover.dry_run = self._dry_run
        for _ in range(1 if self._dry_run else _PASSES):
            swept = [one for work in sweeps for one in self._swept(work)]
            told = [f"{s.version} could not be read: {s.problem}" for s in swept if s.problem]
            self.left += [sentence for sentence in dict.fromkeys(told) if sentence not in self.left]
            if self._dry_run:
                self.versions = [s for s in swept if s.rows]
            for one in swept:
                self._count(one.version.partition("/")[0], one.rows)
            if not any(one.rows for one in swept):
                break
        if not self._dry_run:
            self.versions = self._done_before()
            self._follow({swept.before: swept.after for swept in self.versions})

    def _repack(self) -> None:
        """Take the bytes of files out of packs whose rows are gone."""
        done = repack(
            self._ledger,
            self._tables,
            self._blobs,
            self._doomed.add,
            actor=self._actor,
            action="erased",
            detail=self._detail(),
        )
        self._count("packs of files", done.packs)
        self._follow(done.became)

    def _follow(self, became: Mapping[str, str]) -> None:
        views.follow_sources(
            self._ledger, self._tables, became, actor=self._actor, action="erased", detail=self._detail()
        )

    def _swept(self, work: _Sweep) -> list[Swept]:
        who, remover, places = work
        cleaner = Cleaner(who)

        def refresh(version: Version, removed: Removed) -> Mapping[str, Any]:
            if version.kind == views.KIND:
                metadata = views.view_metadata(version, removed, remover, who.condition, self._tables, self._doomed)
            else:
                metadata = refreshed(version.metadata, removed)
            cleaned: Mapping[str, Any] = cleaner.clean(dict(metadata), rows=False, drop_samples=True) or {}
            return cleaned

        return sweep(
            self._ledger,
            remover,
            self._doomed,
            actor=self._actor,
            action="erased",
            wanted=lambda kind, name: places is None or (kind, name) in places,
            refresh=refresh,
            detail=self._detail(),
            cause=self._request.event if self._request is not None else None,
        )

    def _compact(self) -> None:
        if not any(self.removed.values()) and not self.blobs_deleted:
            return
        databases = [path for path in sorted(self._home.glob("*.sqlite")) if path.is_file()]
        for name, act in [("the ledger", self._ledger.compact), *((p.name, lambda p=p: compact(p)) for p in databases)]:
            try:
                act()
            except Unavailable as error:
                self.left.append(f"{name} may hold freed bytes: {error}")

    # -- what was found

    def _count(self, place: str, rows: int) -> None:
        self.removed[place] = self.removed.get(place, 0) + rows
        if rows and self._request is not None:
            with self._ledger.write(self._actor) as world:
                world.runs.update(self._request.id, result={"removed": self.removed}, heartbeat=True)

    def _damaged(self, places: int, name: str) -> None:
        if places:
            self.left.append(f"{places} places of the log {name} cannot be read, so nobody knows whose they are")

    def _detail(self) -> dict[str, Any]:
        return {"request": self._request.id[:12]} if self._request is not None else {}

    def _done_before(self) -> list[Swept]:
        """Return what the journal says that this request has rewritten, also before it was interrupted."""
        if self._request is None:
            return []
        found: dict[str, Swept] = {}
        with self._ledger.read() as world:
            before = None
            while page := world.journal.find(action="erased", limit=1000, before=before):
                for event in page:
                    if event.detail.get("request") == self._request.id[:12] and event.detail.get("rows"):
                        detail = event.detail
                        found.setdefault(event.ref, Swept(event.ref, detail["rows"], detail["from"], detail["to"]))
                before = page[-1].seq
                if before <= (self._request.event or 0):
                    break
        return [found[name] for name in sorted(found)]

    def _since(self, held: list[Swept], world: Transaction) -> datetime | None:
        made = []
        for swept in held:
            target = ref(swept.version)
            made.append(world.versions.get(target.kind, target.name, target.version or "latest").created_at)
        return min(made, default=None)

    def _models_of(self, held: set[str]) -> list[str]:
        """Return the model versions that learnt from versions with the subject's rows."""
        found = []
        with self._ledger.read() as world:
            for kind, name, number, _ in world.versions.digests("model"):
                model = world.versions.get(kind, name, number)
                sources = set(world.lineage.walk(model.ref, "upstream", limit=5000).nodes)
                if held & (sources | {str(model.metadata.get("trained_on"))}):
                    found.append(str(model.ref))
        return found

    def _with_rows(self, digests: list[str], who: Subject) -> list[str]:
        return orphans_of(self._blobs, set(self._blobs.digests()) - set(digests), who, 0).old


def _replace_in(path: Path, became: Mapping[str, str]) -> None:
    """Give the data plane the new digests of bundles at once: it may start again while no control plane is there."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    changed = text
    for before, after in became.items():
        changed = changed.replace(before, after)
    if changed != text:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
        with partial.open("x", encoding="utf-8") as stream:
            stream.write(changed)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
