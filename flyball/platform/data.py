"""What is done with data: publishing, reading, comparing; quarantine, catalogue, products, labels.

Rows leave only through `frame` and `read`: what the policies hide is hidden there, and that they were read is noted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.ledger.refs import Ref, ref
from flyball.ledger.search import Found
from flyball.ledger.versions import Version
from flyball.platform.home import Home

if TYPE_CHECKING:
    import polars as pl

    from flyball.data.datasets import Published
    from flyball.data.diffs import Diff
    from flyball.data.drift import ColumnDrift
    from flyball.data.formats import Format
    from flyball.data.labels.sets import Imported
    from flyball.data.products.managing import Moved
    from flyball.data.profiles import ColumnComparison, TableProfile
    from flyball.data.quarantine import Held
    from flyball.data.sources import Probe
    from flyball.data.usage import Use

__all__ = ["DataActs"]


class DataActs(Home):
    """What is done with data."""

    # -- versions

    def publish(self, dataset: str, source: Any = None, *, purpose: str | None = None, **options: Any) -> Published:
        """Publish rows as the dataset's next version; see `Datasets.publish`.

        Args:
            purpose: what the datasets that SQL names are read for; the policies hold as in `frame`.
        """
        self._may("publish")

        def see(version: Ref, rows: pl.LazyFrame) -> pl.LazyFrame:
            self.products.check_read(version)
            self.usage.record(self.actor, version, purpose or "")
            return self._shown(version, rows, purpose)

        return self.datasets.publish(dataset, source, actor=self.actor, see=see, **options)

    def probe(self, dataset: str) -> Probe:
        """Return whether a dataset's own source is reachable, fresh and of the expected shape; reads no rows."""
        self._may("read")
        return self.datasets.agreements.probe(dataset)

    def frame(
        self,
        target: str | Ref,
        *,
        purpose: str | None = None,
        at: datetime | None = None,
        columns: Sequence[str] | None = None,
    ) -> pl.LazyFrame:
        """Return the rows of a version of a dataset, a quarantine, a stored view or a label set, lazily.

        Args:
            target: `flights`, `flights@3`, `dataset/flights@champion`, `quarantine/flights`.
            purpose: what they are read for, where the dataset or a policy asks for it.
            at: with a zone; what `latest` or an alias meant then.
            columns: only these.

        Raises:
            NotFound: no such version.
            InvalidInput: it has no such column; or `at` has no zone, or stands beside a number.
            Forbidden: policies do not allow it, or only a retired data product gives this dataset.
        """
        found, version = self._found(target, at)
        rows = self.datasets.frame(found.name, version.number, found.kind)
        shown = _columns(version.ref, self._shown(found, rows, purpose), columns)
        self.usage.record(self.actor, version.ref, purpose or "", columns or ())
        return shown

    def read(
        self,
        target: str | Ref,
        format: Format = "polars",
        *,
        purpose: str | None = None,
        at: datetime | None = None,
        columns: Sequence[str] | None = None,
    ) -> Any:
        """Return the rows of a version, or some of its columns, as `polars` (lazy), `arrow`, `duckdb` or `pandas`.

        Raises as `frame`, and MissingExtra where the library is not installed.
        """
        from flyball.data.formats import converted

        found, version = self._found(target, at)
        rows = self.datasets.frame(found.name, version.number, found.kind)
        shown = _columns(version.ref, self._shown(found, rows, purpose), columns)
        self.usage.record(self.actor, version.ref, purpose or "", columns or ())
        paths = self.tables.paths(version.digest) if shown is rows else None
        return converted(shown, paths, format)

    def hidden(self, target: str | Ref, columns: Sequence[str], purpose: str | None = None) -> frozenset[str]:
        """Return the columns whose values whoever asks may not see as they are: all, where the rows may not be read."""
        dataset, made_of = self._behind(self._ref_of(target))
        decision = self.guard.decision(dataset, columns, self.principal, purpose, made_of)
        if not decision.allowed:
            return frozenset(columns)
        masked = {part for name in decision.masks for part in (name, name.partition(".")[0])}
        return frozenset(columns) & masked  # of a struct with a hidden field all is hidden where only values are told

    def diff(
        self,
        dataset: str,
        before: str | int,
        after: str | int = "latest",
        *,
        purpose: str | None = None,
        **options: Any,
    ) -> Diff:
        """Return how two versions of a dataset differ; see `Datasets.diff`. Hidden columns show no sample."""
        from flyball.data.profiles import TableProfile, distances_of

        self._may("read")

        def distances(old: bytes, new: bytes) -> dict[str, float]:
            one, two = TableProfile.from_bytes(old), TableProfile.from_bytes(new)
            old_columns, new_columns = one.sketch.columns, two.sketch.columns
            pairs = {n: distances_of(c, new_columns[n]) for n, c in old_columns.items() if n in new_columns}
            return {name: found.js for name, found in pairs.items() if found is not None}

        made = self.datasets.diff(dataset, before, after, **{"distances": distances, **options})
        schemas = [self.version_of(dataset, one).metadata.get("schema", {}) for one in (before, after)]
        hidden = self.hidden(dataset, list({**schemas[0], **schemas[1]}), purpose)
        return replace(made, samples=_without(made.samples, hidden)) if hidden else made

    def profile(self, target: str | Ref, at: datetime | None = None, purpose: str | None = None) -> TableProfile:
        """Return what the rows of a version look like; made when it was published, or now for an older one.

        Hidden columns show no value. Raises NotFound.
        """
        found = self._profile(target, at)
        return found.without(self.hidden(target, list(found.columns), purpose))

    def _profile(self, target: str | Ref, at: datetime | None = None) -> TableProfile:
        from flyball.data.profiles import TableProfile, profile_frame

        found, version = self._found(target, at)
        summary = self.datasets.summary(found.name, version.number, found.kind)
        if summary is not None:
            return TableProfile.from_bytes(summary)
        return profile_frame(self.datasets.frame(found.name, version.number, found.kind))

    def compare_profiles(
        self, before: str | Ref, after: str | Ref, purpose: str | None = None
    ) -> list[ColumnComparison]:
        """Return two versions side by side, column by column; hidden columns show no value. Raises NotFound."""
        from flyball.data.profiles import compare

        one, two = self._profile(before), self._profile(after)
        columns = list({**dict.fromkeys(one.columns), **dict.fromkeys(two.columns)})
        return compare(one, two, self.hidden(before, columns, purpose) | self.hidden(after, columns, purpose))

    def drift(
        self,
        before: str | Ref,
        after: str | Ref,
        columns: Sequence[str] | None = None,
        *,
        method: Literal["exact", "profile"] = "profile",
        purpose: str | None = None,
    ) -> list[ColumnDrift]:
        """Return how far each column of a version is from an earlier one's: from profiles, or exactly from the rows.

        Raises:
            NotFound: no such version, or a column is not in both.
            InvalidInput: another method, or no column in common.
            Forbidden: `exact` reads rows, and these may not be read.
        """
        from flyball.data.drift import drift

        if method == "exact":
            return drift(self.frame(before, purpose=purpose), self.frame(after, purpose=purpose), columns)
        return drift(self._profile(before), self._profile(after), columns, method=method)

    def version_of(self, dataset: str, version: str | int = "latest", at: datetime | None = None) -> Version:
        """Return a version of a dataset by number, alias or time. Raises NotFound."""
        with self._reading() as world:
            found = world.versions.get("dataset", dataset, version, at)
        return self._seen(found)

    # -- quarantine

    def held(self, dataset: str | None = None, state: Any = None, limit: int = 100) -> list[Held]:
        """Return batches that were kept aside, newest first."""
        self._may("read")
        return [self._seen_batch(batch) for batch in self.quarantine.all(dataset, state, limit)]

    def held_batch(self, dataset: str, version: str | int = "latest") -> Held:
        """Return one batch that was kept aside. Raises NotFound."""
        self._may("read")
        return self._seen_batch(self.quarantine.get(dataset, version))

    def inspect(self, dataset: str, version: str | int = "latest", *, failing: bool = True) -> pl.LazyFrame:
        """Return the rows of a batch that was kept aside, each with the rules that it breaks. Raises as `frame`."""
        self._may("read")
        return self._shown(Ref("quarantine", dataset), self.quarantine.inspect(dataset, version, failing=failing), None)

    def fix(self, dataset: str, version: str | int, change: Any, **options: Any) -> Version:
        """Publish a batch that was kept aside, changed; see `Quarantine.fix`. Changes by column may be SQL."""
        from polars.exceptions import PolarsError

        from flyball.data.corrections import corrections
        from flyball.data.reasons import reason_of

        self._may("publish")
        change = corrections(change) if isinstance(change, Mapping) else change
        try:
            return self.quarantine.fix(dataset, version, change, actor=self.actor, **options)
        except PolarsError as error:
            raise InvalidInput(
                f"quarantine/{dataset}@{version} is held as it was, the change cannot be made: {reason_of(error)}"
            ) from None

    def release(self, dataset: str, version: str | int, reason: str, **options: Any) -> Version:
        """Publish a batch although it breaks its contract; see `Quarantine.release`."""
        self._may("approve")
        return self.quarantine.release(dataset, version, actor=self.actor, reason=reason, **options)

    def drop(self, dataset: str, version: str | int, reason: str) -> Held:
        """Delete the rows of a batch that was kept aside; its report stays. See `Quarantine.drop`."""
        self._may("delete")
        return self.quarantine.drop(dataset, version, actor=self.actor, reason=reason)

    # -- catalogue

    def search(self, query: str, limit: int = 20, after: str | None = None) -> Found:
        """Return what is found for a query, best first; see `ledger.search` for what one may type."""
        with self._reading() as world:
            return world.search.find(query, limit=limit, after=after)

    def uses(self, target: str | Ref) -> list[Use]:
        """Return which runs, models and people read a version, or any version of a dataset."""
        self._may("read")
        return self.usage.of(self._ref_of(target), self.ledger)

    def advance_product(self, name: str, to: str, **options: Any) -> Moved:
        """Move a data product to a stage; see `Products.advance`."""
        self._may("apply")
        return self.products.advance(name, to, actor=self.actor, **options)

    # -- labels

    def add_labels(self, name: str, source: Any, **options: Any) -> Imported:
        """Add labels by people to a label set; see `LabelSets.add`."""
        self._may("label")
        return self.label_sets.add(name, source, actor=self.actor, **options)

    def label_table(self, name: str, at: datetime | None = None, purpose: str | None = None) -> pl.DataFrame:
        """Return what holds for each labelled item; see `LabelSets.table`. Hidden parts of the key are hidden."""
        self._may("read")
        return self._shown(Ref("labels", name), self.label_sets.table(name, at).lazy(), purpose).collect()

    def open_labels(self, name: str, limit: int = 100, purpose: str | None = None) -> pl.DataFrame:
        """Return the items that need somebody; see `LabelSets.open_items`. Hidden parts of the key are hidden."""
        self._may("read")
        return self._shown(Ref("labels", name), self.label_sets.open_items(name, limit).lazy(), purpose).collect()

    def _ref_of(self, target: str | Ref) -> Ref:
        return ref(str(target)) if "/" in str(target) else ref(str(target), "dataset")

    def _found(self, target: str | Ref, at: datetime | None) -> tuple[Ref, Version]:
        found = self._ref_of(target)
        with self._reading() as world:
            version = world.versions.get(found.kind, found.name, found.version or "latest", at)
        self.products.check_read(version.ref)
        return found, version

    def _shown(self, found: Ref, rows: pl.LazyFrame, purpose: str | None) -> pl.LazyFrame:
        """Return rows as whoever asks may see them, by the policies of the dataset that they come from."""
        dataset, made_of = self._behind(found)
        return self.guard.read(dataset, rows, self.principal, purpose, made_of)

    def _behind(self, found: Ref) -> tuple[str, Mapping[str, Any] | None]:
        """Return the dataset that rows come from, and of a view's rows which of its columns each was made of."""
        if found.kind not in ("feature", "feature-view", "labels"):
            return found.name, None
        with self._reading() as world:
            resource = world.resources.find("labels" if found.kind == "labels" else "feature-view", found.name)
        if resource is None:
            return found.name, None
        dataset = ref(str(resource.spec.get("dataset") or found.name), "dataset").name
        return dataset, resource.status.get("columns", {}) if found.kind != "labels" else None

    def _seen_batch(self, batch: Held) -> Held:
        version = self._seen(batch.version)
        return (
            batch
            if version is batch.version
            else replace(batch, version=version, report=version.metadata.get("contract") or {})
        )


def _columns(version: Ref, rows: pl.LazyFrame, columns: Sequence[str] | None) -> pl.LazyFrame:
    """Return some columns, all without `columns`."""
    if columns is None:
        return rows
    known = rows.collect_schema().names()
    for name in columns:
        if name not in known:
            raise InvalidInput(f'{version} has no column "{name}"{did_you_mean(name, known)} (it has: {listed(known)})')
    return rows.select(columns)


def _without(samples: Mapping[str, Sequence[Mapping[str, Any]]], hidden: frozenset[str]) -> dict[str, Any]:
    """Return the samples of a difference without the values of some columns."""

    def covered(row: Mapping[str, Any]) -> dict[str, Any]:
        return {name: "•••" if name in hidden and value is not None else value for name, value in row.items()}

    # A changed row has two parts, its key and its columns; these words are no names of columns.
    return {
        word: [{part: covered(row[part]) for part in row} if word == "changed" else covered(row) for row in rows]
        for word, rows in samples.items()
    }
