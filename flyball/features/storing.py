"""The room's shelf: stored views as versions of kind `feature`, each made by a run of kind `materialisation`.

`refresh` brings a view up to the newest version of its data set: where that only got longer and the view says that its
rows depend on little (`incremental`, `look_back`), only what is new is computed. `fold_pushes` adds what was pushed,
`serve` writes what is new for look-ups and goes on after a crash where it was. All of them may run at once, for one
view too: a version is published only behind the one it was made from, else the work is done again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from flyball.clock import format_instant, parse_instant
from flyball.errors import Conflict, FlyballError, InvalidInput, NotFound
from flyball.features.additions import addition
from flyball.features.folding import fold
from flyball.features.materialise import Materialised, due_rows, materialise_stored
from flyball.features.newest import ORDER
from flyball.features.offline import StoredView, check_fits
from flyball.features.views import FeatureView
from flyball.features.writing import add_rows, store_view
from flyball.ledger import Ledger
from flyball.ledger.refs import Ref, ref
from flyball.ledger.versions import Version
from flyball.storage.online import OnlineStore, instant_of
from flyball.storage.streams import StreamReader
from flyball.storage.tables import TableStore

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Kept", "StoredViews"]

KIND, RUN_KIND = "feature", "materialisation"
_TRIES = 8  # others who store the same view at the same time
_ROUNDS = 10_000  # of 32 MB of a log: what one call folds at most
_MOST_VERSIONS = 1_000  # that are looked through for one of a definition's version


@dataclass(frozen=True)
class Kept:
    """What came of storing.

    Attributes:
        stored: the view as it is stored now.
        run: the run's id; None when there was nothing to do.
        rows: rows added; of a view that was computed as a whole, all its rows.
        how: `whole`, `new rows` or `unchanged`.
        refused: pushed rows that fit no key of the view.
    """

    stored: StoredView
    run: str | None
    rows: int
    how: str
    refused: int = 0


class StoredViews:
    """Stored views over a ledger and a table store. Actors are references such as `user/alice`."""

    def __init__(self, ledger: Ledger, tables: TableStore) -> None:
        self._ledger = ledger
        self._tables = tables

    def get(self, name: str, version: str | int = "latest") -> StoredView:
        """Return a version of a stored view, by number, alias or `latest`. Raises NotFound."""
        with self._ledger.read() as world:
            return _stored(world.versions.get(KIND, name, version))

    def newest(self, name: str, definition: int) -> StoredView | None:
        """Return the newest version that holds rows of a definition's version, None when there is none."""
        with self._ledger.read() as world:
            found = world.versions.all(KIND, name, limit=_MOST_VERSIONS)
        fitting = (_stored(version) for version in found if _definition(version) == definition)
        return next(fitting, None)

    def refresh(
        self,
        view: FeatureView,
        dataset: str | None = None,
        version: str | int = "latest",
        *,
        actor: str,
        cause: int | None = None,
    ) -> Kept:
        """Store the view as computed from a version of its data set; pushed rows stay.

        Args:
            dataset: its name; default: the view's source.
            actor: who does it.
            cause: the event because of which it is done.

        Raises:
            NotFound: no such version of the data set.
            Conflict: rows of another definition with the same version are stored.
            StepFailed, InvalidInput, Unavailable: as `FeatureView.compute` and the table store; nothing is changed.
        """
        with self._ledger.read() as world:
            source = world.versions.get("dataset", dataset or view.source, version)
        there = self.newest(view.name, view.version)
        if there is not None and there.source_table == source.digest:
            check_fits(there, view, view.spec(self._tables.scan(source.digest).collect_schema()))
            return Kept(there, None, 0, "unchanged")

        def make(before: StoredView | None) -> tuple[StoredView, int, str]:
            return self._computed(view, source, before)

        params = {"view": f"{view.name}@{view.version}", "source": str(source.ref)}
        return self._kept(view, params, make, actor, cause)

    def fold_pushes(self, view: FeatureView, reader: StreamReader, *, actor: str, cause: int | None = None) -> Kept:
        """Add what was pushed since the last time, each row once whatever crashes.

        Raises:
            NotFound: the view is not stored yet; refresh it first.
            Conflict, Corrupt, Incompatible: as `folding.fold`.
        """
        refused = 0
        there = self.newest(view.name, view.version)
        if there is not None and not reader.read(dict(there.cursor), 1)[0]:
            check_fits(there, view)
            return Kept(there, None, 0, "unchanged")

        def make(before: StoredView | None) -> tuple[StoredView, int, str]:
            nonlocal refused
            if before is None:
                raise NotFound(f"{view.name}@{view.version} is not stored yet; refresh it before pushes are folded in")
            check_fits(before, view)
            larger, rows, refused = before, 0, 0
            for _ in range(_ROUNDS):
                done = fold(larger, reader, self._tables)
                larger, rows, refused = done.stored, rows + done.rows, refused + done.refused
                if done.is_all:
                    break
            return larger, rows, "new rows" if rows else "unchanged"

        params = {"view": f"{view.name}@{view.version}", "pushes": True}
        return replace(self._kept(view, params, make, actor, cause), refused=refused)

    def serve(
        self,
        view: FeatureView,
        store: OnlineStore,
        *,
        actor: str,
        cause: int | None = None,
        until: datetime | None = None,
        batch_rows: int = 25_000,
    ) -> Materialised:
        """Write what was stored since the last time for look-ups; after a crash, go on where it was.

        Args:
            until: now; rows that have not happened or arrived by then are left to a later call. None: all rows.

        Raises:
            NotFound: the view is not stored yet.
            Conflict: what is stored is of another definition.
            Unavailable: the online store cannot be written now; the next call goes on.
        """
        stored = self.newest(view.name, view.version)
        if stored is None:
            raise NotFound(f"{view.name}@{view.version} is not stored yet; refresh it before it is served")
        check_fits(stored, view)
        name, since_batch, since, start = f"{view.name}.online", 0, None, 0
        with self._ledger.read() as world:
            runs = world.runs.find(kind=RUN_KIND, name=name, limit=100)
        ours = [run for run in runs if run.params.get("view") == stored.spec.stored_as]
        done = next((run for run in ours if run.status == "succeeded"), None)
        if done is not None and store.count(stored.spec.stored_as):
            since_batch, since = int(done.result["batch"]), _instant(done.result.get("until"))
        if since_batch >= stored.batch and not self._is_due(stored, since, until):
            return Materialised(0, 0, stored.latest)
        same = {"view": stored.spec.stored_as, "feature": stored.number, "since_batch": since_batch}
        same["since"] = None if since is None else format_instant(since)
        halted = [
            run
            for run in ours
            if run.status != "succeeded" and same.items() <= run.params.items() and run.result.get("order") == ORDER
        ]
        if halted and store.count(stored.spec.stored_as):
            # It counted the entities of rows as of its own `until`; what became known since is left to the next call.
            furthest = max(halted, key=lambda run: int(run.result["entities"]))
            start, until = int(furthest.result["entities"]), _instant(furthest.params["until"])
        as_of = {"until": None if until is None else format_instant(until)}
        with self._run(name, view, {**same, **as_of}, actor, cause) as run:

            def noted(entities: int) -> None:
                with self._ledger.write(actor) as world:
                    world.runs.update(run, result={"entities": entities, "order": ORDER}, heartbeat=True)

            which: dict[str, Any] = {"since_batch": since_batch, "since": since, "until": until, "start": start}
            result = materialise_stored(stored, self._tables, store, **which, on_write=noted, batch_rows=batch_rows)
            with self._ledger.write(actor) as world:
                kept = {"batch": stored.batch, "read": result.rows, "written": result.written, **as_of}
                world.runs.finish(run, "succeeded", result=kept)
        return result

    def _is_due(self, stored: StoredView, since: datetime | None, until: datetime | None) -> bool:
        """Whether rows that nobody could know at `since` may be known by `until`; of most views nothing is read."""
        last = instant_of(max((run.last for run in stored.runs), default=0))
        if since is None or stored.latest is None or max(stored.latest, last) <= since:
            return False
        new, known = due_rows(stored, stored.batch, since, until)
        wanted = [expression for expression in (new, known) if expression is not None]
        found = self._tables.scan(stored.table).filter(wanted).select(pl.len())
        return bool(found.collect(engine="streaming").item())

    def _computed(self, view: FeatureView, source: Version, before: StoredView | None) -> tuple[StoredView, int, str]:
        frame = self._tables.scan(source.digest)
        rows = self._tables.read(source.digest).rows

        def of_source(stored: StoredView) -> StoredView:
            return replace(stored, source=str(source.ref), source_table=source.digest, source_rows=rows)

        if before is not None:
            check_fits(before, view, view.spec(frame.collect_schema()))
            if before.source_table == source.digest:
                return before, 0, "unchanged"
            more = addition(view, before, source.digest, self._tables)
            if more is not None:
                larger = add_rows(before, more, self._tables)
                return of_source(larger), larger.rows - before.rows, "new rows"
        stored = store_view(view, frame, self._tables, before)
        return of_source(stored), stored.rows, "whole"

    def _kept(
        self,
        view: FeatureView,
        params: dict[str, Any],
        make: Callable[[StoredView | None], tuple[StoredView, int, str]],
        actor: str,
        cause: int | None,
    ) -> Kept:
        """Make the next version behind the newest, again while others were faster."""
        with self._run(view.name, view, params, actor, cause) as run:
            for _ in range(_TRIES):
                with self._ledger.read() as world:
                    head = next(iter(world.versions.all(KIND, view.name, limit=1)), None)
                stored, rows, how = make(self.newest(view.name, view.version))
                result = {"rows": rows, "how": how, "stored_rows": stored.rows}
                made_from = [(Ref("feature-view", view.name), "defines")]
                made_from += [] if stored.source is None else [(ref(stored.source), "computed from")]
                try:
                    with self._ledger.write(actor, cause) as world:
                        if how != "unchanged" or stored.number is None:
                            made = world.versions.publish(
                                KIND,
                                view.name,
                                stored.table,
                                metadata=stored.to_dict(),
                                run=run,
                                made_from=made_from,
                                after=head if head is not None else 0,
                            )
                            stored = replace(stored, number=made.number)
                        world.runs.finish(run, "succeeded", result={**result, "version": stored.number})
                except Conflict:
                    continue
                return Kept(stored, run, rows, how)
            raise Conflict(f"{_TRIES} others stored {KIND}/{view.name} meanwhile; try again when they are done")

    @contextmanager
    def _run(
        self, name: str, view: FeatureView, params: dict[str, Any], actor: str, cause: int | None
    ) -> Iterator[str]:
        with self._ledger.write(actor, cause) as world:
            run = world.runs.start(RUN_KIND, name, of=f"feature-view/{view.name}", params=params).id
        try:
            yield run
        except BaseException as error:
            reason = str(error) if isinstance(error, FlyballError) else type(error).__name__
            with self._ledger.write(actor, cause) as world:
                if not world.runs.get(run).is_finished:
                    world.runs.finish(run, "failed", error=reason)
            raise


def _stored(version: Version) -> StoredView:
    return StoredView.from_dict(version.digest, version.metadata, version.number)


def _definition(version: Version) -> int:
    found = version.metadata.get("definition", {}).get("version")
    if not isinstance(found, int):
        raise InvalidInput(f"{version.ref} is not a stored view; it was published by something else")
    return found


def _instant(text: Any) -> datetime | None:
    return None if text is None else parse_instant(str(text))
