"""What the ledger and the blobs keep beside tables, without a subject: results of steps, files, models, metadata.

A result that can be looked into (a frame, JSON) loses the subject's rows; one that cannot (pickle, bytes, an array) is
dropped from the cache when it may have been made of the subject's rows, and is computed again when it is needed. A file
of a run, a logged model or a trace is rewritten in its own format when that is one of tables or text. Of a model only
the example rows are data that can be taken out; what it learnt stays, and the certificate names it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from flyball.data.rewriting import CONTRACT_DOCUMENT, Doomed, all_runs, reference_of
from flyball.errors import FlyballError
from flyball.ledger import Ledger
from flyball.ledger.artifacts import NOBODY
from flyball.ledger.journal import REDACTED
from flyball.ledger.runs import Artifact, Run
from flyball.ledger.versions import Version
from flyball.models import _manifest, bundle
from flyball.pipelines.results import Stored, load, store
from flyball.privacy.documents import Cleaner
from flyball.privacy.raw import found_in, redacted
from flyball.privacy.subjects import Subject
from flyball.storage.blobs import BlobStore

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Keeper"]

_OPAQUE = frozenset({"pickle", "bytes", "npy"})
_ALL = 10_000_000  # versions of a kind
_AT_ONCE = 100  # runs rewritten in one transaction
_PAGE = 200  # files or logged models looked at before some are rewritten


class Keeper:
    """Takes one subject out of what a ledger and its blobs keep.

    Args:
        since: when the first version with the subject's rows was made; None: no table has any. Opaque results of runs
            that started before it cannot hold the subject.
        doomed: gets the blobs that were replaced.
        request: what the journal's events say of the erasure.
    """

    def __init__(
        self,
        ledger: Ledger,
        blobs: BlobStore,
        subject: Subject,
        cleaner: Cleaner,
        doomed: Doomed,
        *,
        actor: str,
        request: Mapping[str, Any],
        since: datetime | None,
        dry_run: bool = False,
    ) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._subject = subject
        self._cleaner = cleaner
        self._doomed = doomed
        self._actor = actor
        self._request = request
        self._since = since
        self._dry_run = dry_run
        self._results: dict[str, dict[str, Any] | None] = {}  # by digest: what a result became; None: it stayed
        self.left: list[str] = []

    # -- runs

    def runs(self) -> dict[str, int]:
        """Clean every run; return how many rows or whole results went out of results, files and records."""
        counts = {"results": 0, "files": 0, "records": 0}
        changes: list[tuple[str, dict[str, Any]]] = []
        with self._ledger.read() as world:
            for run in all_runs(world):
                changed: dict[str, Any] = {}
                if (result := self._result(run, counts)) is not None:
                    changed["result"] = result
                changed |= self._record(run, counts)
                whose = f"run {run.id[:8]}"
                files = [new for kept in world.runs.artifacts(run.id) if (new := self._file(whose, kept, counts))]
                if files:
                    changed["artifacts"] = files
                if changed:
                    changes.append((run.id, changed))
        if not self._dry_run:
            for start in range(0, len(changes), _AT_ONCE):
                with self._ledger.write(self._actor) as world:
                    for run_id, changed in changes[start : start + _AT_ONCE]:
                        world.runs.rewrite(run_id, **changed)
        return counts

    def _result(self, run: Run, counts: dict[str, int]) -> dict[str, Any] | None:
        if run.kind == "erasure":
            return None
        outputs = run.result.get("outputs")
        before = counts["results"]
        rest = {k: v for k, v in run.result.items() if k != "outputs"}
        cleaned = self._counted(rest, counts, "records")
        kept: Any = outputs
        if isinstance(outputs, list):
            kept = [self._output(run, output, counts) if isinstance(output, dict) else output for output in outputs]
        if counts["results"] == before and cleaned is rest:
            return None
        return {**(cleaned or {}), **({"outputs": kept} if outputs is not None else {})}

    def _output(self, run: Run, output: dict[str, Any], counts: dict[str, int]) -> dict[str, Any]:
        try:
            stored = Stored.from_dict(output)
        except KeyError:
            return output
        if stored.digest not in self._results:
            self._results[stored.digest] = self._without(run, stored, counts)
        became = self._results[stored.digest]
        return output if became is None else became

    def _without(self, run: Run, stored: Stored, counts: dict[str, int]) -> dict[str, Any] | None:
        dropped = {"format": stored.format, "digest": stored.digest, "size_bytes": stored.size_bytes}
        if not stored.is_there(self._blobs):
            return None
        if stored.format in _OPAQUE:
            if self._since is None or not run.is_finished or run.started_at < self._since:
                return None
            counts["results"] += 1
            became = dropped
        elif stored.format == "arrow":
            frame = load(stored, self._blobs)
            condition = self._subject.condition(frame.schema)
            rows = 0 if condition is None else int(frame.lazy().select(condition.sum()).collect().item() or 0)
            if not rows or condition is None:
                return None
            counts["results"] += rows
            if self._dry_run:
                return dropped
            became = store(frame.filter(~condition.fill_null(False)), self._blobs, run.name).to_dict()
        else:
            value = load(stored, self._blobs)
            if self._counted(value, counts, "results", rows=True) is value:
                return None
            became = dropped
        if not self._dry_run:
            self._doomed.add([stored.digest])
        return became

    def _record(self, run: Run, counts: dict[str, int]) -> dict[str, Any]:
        """Return what changes of a run's parameters, tags and error."""
        if run.kind == "erasure":
            return {}
        changed: dict[str, Any] = dict(self._told(run.params, run.tags, counts))
        if run.error and self._subject.raw is not None:
            text = redacted(run.error.encode(), self._subject.raw)
            if text is not None:
                counts["records"] += 1
                changed["error"] = text.decode()
        return changed

    def _told(
        self, params: Mapping[str, Any], tags: Mapping[str, Any], counts: dict[str, int]
    ) -> dict[str, dict[str, Any]]:
        """Return what changes of parameters and tags."""
        changed: dict[str, dict[str, Any]] = {}
        for name, given in (("params", params), ("tags", tags)):
            about = {k for k, v in given.items() if k in self._subject.columns and self._subject.is_value(v)}
            rest = {key: value for key, value in given.items() if key not in about}
            cleaned = self._counted(rest, counts, "records")
            counts["records"] += len(about)
            if about or cleaned is not rest:
                changed[name] = cleaned or {}
        return changed

    # -- files

    def files(self) -> int:
        """Clean the files of logged models, of traces, and of nobody; return how many rows or texts went."""
        counts = {"files": 0}
        with self._ledger.read() as world:
            owners = [NOBODY, *world.artifacts.owners_of_models()]
        for owner in owners:
            whose, after = owner or "nobody", ""
            while True:
                with self._ledger.read() as world:
                    page = world.artifacts.below(owner, limit=_PAGE, after=after)
                if not page:
                    break
                after = page[-1].path
                changed = [new for kept in page if (new := self._file(whose, kept, counts))]
                if changed and not self._dry_run:
                    with self._ledger.write(self._actor) as world:
                        for new in changed:
                            world.artifacts.keep(owner, new)
        return counts["files"]

    def logged_models(self) -> int:
        """Clean parameters and tags of logged models; return how many places that were."""
        counts, after = {"records": 0}, ""
        while True:
            with self._ledger.read() as world:
                page = world.logged_models.every(after, _PAGE)
            if not page:
                return counts["records"]
            after = page[-1].id
            changed = {one.id: told for one in page if (told := self._told(one.params, one.tags, counts))}
            if changed and not self._dry_run:
                with self._ledger.write(self._actor) as world:
                    for id, told in changed.items():
                        world.logged_models.rewrite(id, **told)

    def _file(self, whose: str, kept: Artifact, counts: dict[str, int]) -> Artifact | None:
        suffix = Path(kept.path).suffix.lower()
        if not self._blobs.has(kept.digest):
            return None
        try:
            data = (
                self._table_file(kept, suffix, counts) if suffix in _TABLES else self._text_file(kept, suffix, counts)
            )
        except Exception as error:  # whatever a reader makes of a file that is not what its name says
            data = None
            self._leave(kept.digest, f"the file {kept.path} of {whose} ({type(error).__name__})")
        if data is None:
            return None
        if self._dry_run:
            return kept
        self._doomed.add([kept.digest])
        return Artifact(kept.path, self._blobs.put(data), len(data))

    def _table_file(self, kept: Artifact, suffix: str, counts: dict[str, int]) -> bytes | None:
        read, write = _TABLES[suffix]
        frame = read(self._blobs.get(kept.digest))
        condition = self._subject.condition(frame.schema)
        rows = 0 if condition is None else int(frame.lazy().select(condition.sum()).collect().item() or 0)
        if condition is None or not rows:
            return None
        counts["files"] += rows
        stream = io.BytesIO()
        write(frame.filter(~condition.fill_null(False)), stream)
        return stream.getvalue()

    def _text_file(self, kept: Artifact, suffix: str, counts: dict[str, int]) -> bytes | None:
        data = self._blobs.get(kept.digest)
        if suffix == ".json" and self._cleaner.may_hold(data):
            document = orjson.loads(data)
            cleaned = self._counted(document, counts, "files", rows=True)
            return None if cleaned is document else orjson.dumps(cleaned)
        if self._subject.raw is None or found_in(data, self._subject.raw) == 0:
            return None
        data.decode()  # what is no text must not be written into
        counts["files"] += 1
        return redacted(data, self._subject.raw)

    def _leave(self, digest: str, what: str) -> None:
        raw = self._subject.raw
        if raw is not None and found_in(self._blobs.get(digest), raw):
            self.left.append(f"{what} holds the value and could not be changed; delete it")

    # -- versions

    def models(self) -> dict[str, str]:
        """Take the subject out of the examples of models; return the digests of bundles that were replaced, by old."""
        became: dict[str, str] = {}
        with self._ledger.read() as world:
            versions = [world.versions.get(*v[:3]) for v in world.versions.digests("model")]
        for version in versions:
            before = self._cleaner.removed
            try:
                manifest = bundle.read_manifest(self._blobs, version.digest).manifest
            except FlyballError as error:
                self.left.append(f"{version.ref} could not be read: {error}")
                continue
            example = manifest["example"]
            cleaned = self._cleaner.clean(example) if example is not None else None
            if cleaned is not None and not any(cleaned.values()):
                cleaned = None
            document = {**manifest, "example": cleaned}
            document["metadata"] = self._cleaner.clean(manifest["metadata"], rows=False) or {}
            rows = self._cleaner.removed - before
            if rows:
                became[version.digest] = "" if self._dry_run else self._rewrite_model(version, document, rows)
            self._look_into(version, manifest["files"])
        return became

    def _rewrite_model(self, version: Version, manifest: Mapping[str, Any], rows: int) -> str:
        digest = self._blobs.put(_manifest.canonical(manifest))
        self._doomed.add([version.digest])
        detail = {"rows": rows, **self._request}
        with self._ledger.write(self._actor) as world:
            world.versions.rewrite(*_place(version), digest, version.metadata, detail=detail)
        return digest

    def _look_into(self, version: Version, files: Mapping[str, Mapping[str, Any]]) -> None:
        for path, entry in files.items():
            if self._subject.raw is None or not self._blobs.has(entry["digest"]):
                continue
            if found_in(self._blobs.get(entry["digest"]), self._subject.raw):
                self.left.append(f"{version.ref} holds the value in {path}: it learnt it; train it anew")

    def references(self) -> int:
        """Take the subject out of what is kept of the rows that models learnt from; return how many names that were.

        Counts stay: that there was a row tells nothing of whose it was.
        """
        total = 0
        with self._ledger.read() as world:
            versions = [world.versions.get(*v[:3]) for v in world.versions.digests("model")]
        for version in versions:
            digest = reference_of(version)
            if digest is None or not self._blobs.has(digest):
                continue
            document = orjson.loads(self._blobs.get(digest))
            before = self._cleaner.removed
            cleaned = self._cleaner.clean(document, rows=False)
            if cleaned is document:
                continue
            total += self._cleaner.removed - before
            if not self._dry_run:
                self._doomed.add([digest])
                kept = {**version.metadata["reference"], "blob": self._blobs.put(orjson.dumps(cleaned))}
                with self._ledger.write(self._actor) as world:
                    now = world.versions.get(*_place(version))
                    metadata, detail = {**now.metadata, "reference": kept}, {"rows": 0, **self._request}
                    world.versions.rewrite(*_place(version), now.digest, metadata, detail=detail)
        return total

    def contracts(self) -> int:
        """Take the subject out of the contracts that versions were checked by; return how many places that were.

        A contract in a declaration is what people want, and theirs to change: what is left there is told.
        """
        became: dict[str, str] = {}
        total = 0
        with self._ledger.read() as world:
            versions = [v for kind in ("dataset", "quarantine") for v in world.versions.all(kind, limit=_ALL)]
            resources = world.resources.all()
        for version in versions:
            digest = version.metadata.get(CONTRACT_DOCUMENT)
            if not isinstance(digest, str) or not self._blobs.has(digest):
                continue
            before = self._cleaner.removed
            document = orjson.loads(self._blobs.get(digest))
            cleaned = self._cleaner.clean(document, rows=False)
            if cleaned is document:
                continue
            if digest not in became:
                total += self._cleaner.removed - before
                became[digest] = "" if self._dry_run else self._blobs.put(_canonical(cleaned))
            if not self._dry_run:
                self._doomed.add([digest])
                metadata = {**version.metadata, CONTRACT_DOCUMENT: became[digest]}
                with self._ledger.write(self._actor) as world:
                    detail = {"rows": 0, **self._request}
                    world.versions.rewrite(*_place(version), version.digest, metadata, detail=detail)
        for resource in resources:
            counting = Cleaner(self._subject)
            counting.clean(dict(resource.spec), rows=False)
            if counting.removed:
                self.left.append(f"{resource.ref} says the value in its declaration; change it there and apply it")
        return total

    def statuses(self) -> int:
        """Take the subject out of what controllers noted of resources; return how many places that were."""
        total = 0
        with self._ledger.read() as world:
            resources = world.resources.all()
        for resource in resources:
            before = self._cleaner.removed
            cleaned = self._cleaner.clean(dict(resource.status), rows=False)
            places = self._cleaner.removed - before
            total += places
            if places and not self._dry_run:
                with self._ledger.write(self._actor) as world:
                    detail = {"rows": 0, "places": places, **self._request}
                    world.resources.set_status(
                        resource.kind, resource.name, cleaned or {}, action="erased", detail=detail
                    )
        return total

    def metadata(self) -> int:
        """Take the subject out of what versions say of themselves; return how many places that were."""
        total = 0
        with self._ledger.read() as world:
            digests = world.versions.digests()
        for kind, name, number, _ in digests:
            if kind == "erasure":
                continue
            with self._ledger.read() as world:
                version = world.versions.get(kind, name, number)
            before = self._cleaner.removed
            cleaned = self._cleaner.clean(version.metadata, rows=False)
            places = self._cleaner.removed - before
            if not places:
                continue
            total += places
            if not self._dry_run:
                detail = {"rows": 0, "places": places, **self._request}
                with self._ledger.write(self._actor) as world:
                    world.versions.rewrite(kind, name, number, version.digest, cleaned or {}, detail=detail)
        return total

    def journal(self) -> int:
        """Take the subject out of the details of events; return how many events that were."""
        changes: list[tuple[int, Any]] = []
        columns = self._subject.columns
        with self._ledger.read() as world:
            seq = 0
            while page := world.journal.since(seq, 2000):
                for event in page:
                    if event.action in (REDACTED, "erased"):
                        continue
                    detail = dict(event.detail)
                    for name in ("params", "tags"):
                        given = detail.get(name)
                        if isinstance(given, dict):
                            about = {k for k, v in given.items() if k in columns and self._subject.is_value(v)}
                            detail[name] = {k: v for k, v in given.items() if k not in about} if about else given
                    cleaned = self._cleaner.clean(detail, rows=False)
                    if cleaned != event.detail:
                        changes.append((event.seq, cleaned or {}))
                seq = page[-1].seq
        if not self._dry_run:
            for start in range(0, len(changes), _AT_ONCE):
                with self._ledger.write(self._actor) as world:
                    for number, detail in changes[start : start + _AT_ONCE]:
                        world.journal.redact(number, detail)
        return len(changes)

    def _counted(self, document: Any, counts: dict[str, int], where: str, *, rows: bool = False) -> Any:
        before = self._cleaner.removed
        cleaned = self._cleaner.clean(document, rows=rows)
        counts[where] += self._cleaner.removed - before
        return cleaned


def _canonical(document: Any) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def _place(version: Version) -> tuple[str, str, int]:
    return version.kind, version.name, version.number


def _reader(name: str, **options: Any) -> Callable[[bytes], pl.DataFrame]:
    def read(data: bytes) -> pl.DataFrame:
        import polars as pl

        frame: pl.DataFrame = getattr(pl, name)(io.BytesIO(data), **options)
        return frame

    return read


def _writer(name: str, **options: Any) -> Callable[[pl.DataFrame, io.BytesIO], None]:
    def write(frame: pl.DataFrame, stream: io.BytesIO) -> None:
        getattr(frame, name)(stream, **options)

    return write


# Text stays text: a file that is read only to take rows out must come back with its other cells as they were.
_TABLES = {
    ".parquet": (_reader("read_parquet"), _writer("write_parquet")),
    ".csv": (_reader("read_csv", infer_schema=False), _writer("write_csv")),
    ".tsv": (_reader("read_csv", infer_schema=False, separator="\t"), _writer("write_csv", separator="\t")),
    ".jsonl": (_reader("read_ndjson", infer_schema_length=None), _writer("write_ndjson")),
    ".ndjson": (_reader("read_ndjson", infer_schema_length=None), _writer("write_ndjson")),
    ".arrow": (_reader("read_ipc"), _writer("write_ipc")),
    ".feather": (_reader("read_ipc"), _writer("write_ipc")),
    ".ipc": (_reader("read_ipc"), _writer("write_ipc")),
}
