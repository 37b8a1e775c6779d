"""Take in what a client on another machine tells: runs line by line as they go on, and models that it has bundled.

A client writes a run as the folder of `tracking.offline` and sends its lines in their order. How many of them are
taken stands in a tag of the run and moves in the same commit as what they say, so a line counts once, however often
it is sent and whoever dies between. A folder that was sent in part can be imported as well, and the other way round.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flyball.errors import Conflict, FlyballError, Forbidden, InvalidInput, NotFound, listed
from flyball.ledger import Transaction
from flyball.ledger.refs import Ref, ref
from flyball.ledger.runs import Artifact, Run, as_text
from flyball.ledger.versions import Version
from flyball.platform.importing import IMPORTED_TAG, ImportActs, instant
from flyball.platform.supply import SupplyActs
from flyball.platform.tracking import TrackingActs
from flyball.storage.blobs import check_digest
from flyball.tracking.stores.offline import object_of, run_of, take
from flyball.tracking.stores.stored import StoredFile, StoredRun

if TYPE_CHECKING:
    from flyball.storage.blobs.receiving import Receiving

__all__ = ["RECEIVED_TAG", "SKEW_TAG", "ReceiveActs", "Taken"]

RECEIVED_TAG = "flyball.received"
"""The tag of a run that another machine records: how many lines of its log are taken."""
SKEW_TAG = "flyball.clock_skew_s"
"""The tag of a run whose machine's clock differs from this one's: by how many seconds it is ahead."""

_MOST_SKEW_S = 60
_WRONG = (FlyballError, TypeError, ValueError, KeyError, AttributeError, RecursionError)


class Taken(NamedTuple):
    """What became of lines: how many are taken in all, which blobs must come first, which lines were left out."""

    lines: int
    missing: tuple[str, ...] = ()
    refused: tuple[tuple[int, str], ...] = ()


class ReceiveActs(ImportActs, SupplyActs, TrackingActs):
    """What clients on other machines tell."""

    # -- runs

    def begin_received(self, facts: Mapping[str, Any], now_ms: int | None = None) -> int:
        """Begin a run that another machine records, or go on with it; return how many of its lines are taken.

        Args:
            facts: the `run.json` of `tracking.offline`. Its times are the client's, so that they agree among
                themselves.
            now_ms: the client's clock; where it is more than a minute off, the run says so by a tag.

        Raises:
            InvalidInput: these are no facts of a run.
            Conflict: a run of this id did not come this way, is deleted, or was removed for good; or its experiment is
                deleted.
        """
        self._may("record")
        try:
            run = run_of(dict(facts))
        except _WRONG as error:
            raise InvalidInput(f"this is no run that begins: {error or type(error).__name__}") from None
        if now_ms is not None:
            ahead = round(now_ms / 1000 - self.clock.now().timestamp())
            if abs(ahead) > _MOST_SKEW_S:
                run.tags[SKEW_TAG] = str(ahead)
        with self._reading() as world:
            there = next(iter(world.runs.named([run.id])), None)
            stone = world.removal.tombstone(f"run/{run.id}") if there is None else None
        if stone is not None:
            raise Conflict(f"run {run.id} was removed for good (event {stone.event}) and takes no more")
        if there is None:
            experiment = "0" if run.experiment is None else self._take_experiment(run.experiment)
            try:
                self._begin(run, experiment)
                return 0
            except Conflict:
                with self._reading() as world:
                    there = next(iter(world.runs.named([run.id])), None)
                if there is None:  # not another request for the same run, but a deleted experiment
                    raise
        return _count_of(there)

    def receive_lines(self, id: str, first: int, lines: Sequence[bytes]) -> Taken:
        """Take lines of a run's log; those that were taken before are passed over. On disk on return.

        Args:
            first: the number of the first of them, from 0.

        Raises:
            NotFound: the run has not begun.
            Conflict: lines before `first` are missing; or the run is deleted, or did not come this way.
        """
        self._may("record")
        refused: list[tuple[int, str]] = []
        while True:
            with self._reading() as world:
                there = next(iter(world.runs.named([id])), None)
            if there is None:
                raise NotFound(f"there is no run {id[:40]!r} that has begun")
            taken = _count_of(there)
            if first > taken:
                raise Conflict(f"run {id[:8]} has {taken} lines and cannot take line {first}; send what is between")
            fresh = lines[taken - first :]
            if not fresh:
                return Taken(taken, (), tuple(refused))
            batch, files, problems, missing = self._read(id, taken, fresh)
            if missing:
                return Taken(taken, missing, tuple(refused))
            try:
                problems += self._take_batch(there, batch, files, taken, taken + len(fresh))
            except _Moved:
                continue  # another request has taken some of them meanwhile
            except (InvalidInput, Conflict) as error:
                if there.is_deleted:
                    raise
                if len(fresh) > 1:  # so that one that cannot be taken does not hold up the others
                    half = self.receive_lines(id, taken, fresh[: len(fresh) // 2])
                    refused += half.refused
                    if half.missing:
                        return Taken(half.lines, half.missing, tuple(refused))
                    continue
                nothing = StoredRun(id, "", "running", 0)
                problems = [(taken, str(error))]
                with suppress(_Moved):
                    self._take_batch(there, nothing, [], taken, taken + 1)
            refused += problems

    def receive_blob(self) -> Receiving:
        """Return what takes the bytes of a blob, which a line or a bundle then names."""
        return self.receive_file()

    def _read(
        self, id: str, number: int, lines: Sequence[bytes]
    ) -> tuple[StoredRun, list[Artifact], list[tuple[int, str]], tuple[str, ...]]:
        """Return what lines say, which of them say nothing, and which blobs are not here."""
        batch = StoredRun(id, "", "running", 0)
        files: dict[str, StoredFile] = {}
        problems: list[tuple[int, str]] = []
        missing: list[str] = []

        def bytes_of(path: str, digest: str) -> StoredFile:
            size = self._size_of(digest)
            if size is None:
                missing.append(digest)
            return StoredFile(path, Path(), size or 0, digest)

        for at, line in enumerate(lines, number):
            try:
                take(batch, files, object_of(line), bytes_of)
            except _WRONG as error:
                problems.append((at, str(error)[:300] or type(error).__name__))
        kept = [Artifact(file.path, file.digest or "", file.size_bytes) for file in files.values()]
        return batch, kept, problems, tuple(dict.fromkeys(missing))

    def _size_of(self, digest: str) -> int | None:
        """Return a blob's size, None when it is not here. As with every blob that is put again, its age begins anew."""
        try:
            local = self.blobs.path(digest)
            if local is not None:
                os.utime(local)
                return local.stat().st_size
            with self.blobs.open(digest) as stream:
                return stream.seek(0, os.SEEK_END)
        except (NotFound, FileNotFoundError):
            return None

    def _take_batch(
        self, there: Run, batch: StoredRun, files: list[Artifact], before: int, after: int
    ) -> list[tuple[int, str]]:
        """Write what lines said, with how many are taken, in one change; return what could not be taken."""

        def write(world: Transaction) -> list[tuple[int, str]]:
            now = next(iter(world.runs.named([there.id])), None)
            if now is None:
                raise NotFound(f"there is no run {there.id[:40]!r} that has begun")
            if _count_of(now) != before:
                raise _Moved("lines were taken meanwhile")
            problems: list[tuple[int, str]] = []
            params = dict(batch.params)
            for key, value in batch.params.items():
                if key in now.params and as_text(now.params[key]) != as_text(value):
                    problems.append((before, f"the parameter {key} is {now.params[key]!r} and keeps its value"))
                    del params[key]
            tags = {**batch.tags, RECEIVED_TAG: str(after)}
            world.runs.record(there.id, points=batch.points, params=params, tags=tags)
            for target, role in batch.uses:
                try:
                    world.lineage.link(ref(target), now.ref, role)
                except InvalidInput as error:
                    problems.append((before, str(error)))
            for artifact in files:
                try:
                    world.artifacts.keep(there.id, artifact)
                except Conflict as error:
                    problems.append((before, str(error)))
            if batch.result or batch.error:
                result = {**now.result, **batch.result} if batch.result else None
                world.runs.rewrite(there.id, result=result, error=batch.error)
            if batch.status != "running":
                ended = None if batch.ended_ms is None else instant(batch.ended_ms)
                world.runs.revise(there.id, status=batch.status, ended_at=ended)
            return problems

        return self._recorded(write)

    # -- models

    def publish_bundle(self, name: str, digest: str, told: Mapping[str, Any]) -> Version | tuple[str, ...]:
        """Publish a bundle whose blobs a client has sent as the next version of a declared model.

        Args:
            name: the model.
            digest: of the bundle's manifest.
            told: `request`, which the client made up: asked again with the same, the answer is the same version; and
                `evaluation`, `windows`, `comparison`, `trained_on`, `also_from`, `run`, `note`, as
                `training.registering.publish` takes them.

        Returns:
            The version; or the digests of blobs that are not here yet.

        Raises:
            NotFound: the model was not declared.
            Forbidden: policies do not allow it, or a file is in an unsafe format and no trusted key signed it.
            InvalidInput, Corrupt, Incompatible: it is no whole bundle.
        """
        from flyball.models import bundle
        from flyball.training.registering import publish

        self._may("register")
        request = str(told["request"])
        with self._reading() as world:
            world.resources.get("model", name)
            before = [v for v in world.versions.all("model", name, 50) if v.metadata.get("request") == request]
        if before:
            return before[0]
        if self._size_of(check_digest(digest)) is None:
            return (digest,)
        found = bundle.read_manifest(self.blobs, digest)
        wanted = dict.fromkeys(entry["digest"] for entry in found.manifest["files"].values())
        missing = tuple(one for one in wanted if self._size_of(one) is None)
        if missing:
            return missing
        findings = bundle.scan(self.blobs, digest)  # every file is verified on the way
        self.trust.admit(found, lambda: findings)

        def permit(inputs: Sequence[str], learnt_from: Sequence[Ref]) -> None:
            broken = self.guard.judge(name, inputs, learnt_from)
            if broken:
                raise Forbidden(f"model/{name} may not be registered: {listed(broken, 5)}")

        trained_on = told.get("trained_on")
        version = publish(
            self.ledger,
            self.blobs,
            name,
            found,
            actor=self.actor,
            evaluation=told.get("evaluation"),
            windows=told.get("windows"),
            comparison=told.get("comparison"),
            trained_on=ref(trained_on) if trained_on else None,
            also_from=[(ref(source), str(role)) for source, role in told.get("also_from") or ()],
            run=told.get("run"),
            note=str(told.get("note") or ""),
            permit=permit,
            datasets=self.datasets,
            also={"request": request},
        )
        if self.trust.settings().sign:
            self.sign(version.ref)
        return version


class _Moved(FlyballError):
    """Another request was quicker."""


def _count_of(run: Run) -> int:
    if IMPORTED_TAG not in run.tags:
        raise Conflict(f"there is a run {run.id} here that another machine did not record; it was left as it is")
    if run.is_deleted:
        raise Conflict(f"run {run.id} is deleted and takes no more; restore it first")
    count = run.tags.get(RECEIVED_TAG, "0")
    return int(count) if count.isdecimal() else 0
