"""Label sets over a ledger and a table store: import, ask what holds, as it was known when, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flyball.clock import SYSTEM, Clock
from flyball.data.datasets import Admit
from flyball.data.kinds import Labels
from flyball.data.labels import knowing
from flyball.data.labels.agreeing import Agreement, agreement
from flyball.data.labels.arrivals import COLUMNS, Names, taken
from flyball.data.labels.resolving import current
from flyball.errors import Conflict, InvalidInput, NotFound, did_you_mean, listed
from flyball.ledger import Ledger
from flyball.ledger.refs import Ref
from flyball.ledger.refs import ref as parse_ref
from flyball.ledger.versions import Version
from flyball.storage.tables import TableStore

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Imported", "LabelSets"]

_ATTEMPTS = 50  # to add behind what others add at the same time
_MOST_LABELLERS = 100  # that a version names
_MOST_ITEMS = 10_000_000  # that are looked through for those without a label
KIND = "labels"


@dataclass(frozen=True)
class Imported:
    """What came of a batch: the version that has its rows, how many were new, were there already, were dropped."""

    version: Version
    added: int
    repeated: int
    dropped: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as pages and JSON take them."""
        counts = {"added": self.added, "repeated": self.repeated, "dropped": self.dropped}
        return {"version": str(self.version.ref), "rows": self.version.metadata.get("rows"), **counts}


class LabelSets:
    """The label sets of a home.

    Args:
        admit: which rows of a batch may be kept at all, asked for the dataset that is labelled; default: all.
    """

    def __init__(self, ledger: Ledger, tables: TableStore, clock: Clock = SYSTEM, admit: Admit | None = None) -> None:
        self._ledger = ledger
        self._tables = tables
        self._clock = clock
        self._admit = admit

    def add(
        self,
        name: str,
        source: Any,
        *,
        actor: str,
        labeller: str | None = None,
        names: Names | None = None,
        run: str | None = None,
        made_from: Iterable[tuple[Ref, str]] = (),
        note: str = "",
    ) -> Imported:
        """Add a batch of labels as the set's next version; the same batch again adds nothing.

        Args:
            name: the label set; it must have been applied.
            source: a frame, records, or a path of CSV, Parquet, JSON or Arrow, with the key's columns, `label`,
                `labeller`, `labelled_at` (default: when it arrived) and `known_at` (default: now).
            actor: who imports.
            labeller: who made all of the labels, where no column says it.
            names: how the columns are called, where they have other names.
            run: the run that made them.
            made_from: what they were made from besides the dataset, with the role of each.
            note: a sentence that stays with the version.

        Raises:
            NotFound: no such label set.
            InvalidInput: the batch cannot be read or a row is wrong; says which, and nothing was kept.
            Conflict: others added so often meanwhile that this gave up.
        """
        from flyball.data.sources import open_source

        spec = self.spec(name)
        opened = open_source(source)
        if self._admit is not None:
            about = parse_ref(spec.dataset, "dataset").name if spec.dataset is not None else name
            opened = self._admit(about, opened).frame
        batch = opened.collect()
        for _ in range(_ATTEMPTS):
            newest = self._newest(name)
            fresh, repeated, dropped = self._fresh(name, spec, batch, newest, names or Names(), labeller)
            if newest is not None and not fresh.height:
                return Imported(newest, 0, repeated, dropped)
            table = self._tables.write(fresh.lazy(), newest.digest if newest else None)
            metadata = {
                "rows": table.rows,
                "size_bytes": table.size_bytes,
                "schema": table.schema,
                "added": fresh.height,
                "labellers": sorted(fresh["labeller"].unique().to_list())[:_MOST_LABELLERS],
                "note": note or None,
            }
            of = self._dataset(spec)
            sources = [*([(of.ref, "labels of")] if of else []), *made_from]
            try:
                with self._ledger.write(actor) as world:
                    # The event comes first: its lock keeps others from publishing between the look and our own.
                    world.journal.note("labelled", f"{KIND}/{name}", {"added": fresh.height, "repeated": repeated})
                    now = next(iter(world.versions.all(KIND, name, 1)), None)
                    if (now.number if now else 0) != (newest.number if newest else 0):
                        raise _StaleError
                    kept = {key: value for key, value in metadata.items() if value is not None}
                    version = world.versions.publish(
                        KIND, name, table.digest, metadata=kept, run=run, made_from=sources
                    )
            except _StaleError:
                continue
            return Imported(version, fresh.height, repeated, dropped)
        raise Conflict(f"labels/{name}: others add labels all the time; nothing was kept, try again")

    def spec(self, name: str) -> Labels:
        """Return what a label set is. Raises NotFound."""
        with self._ledger.read() as world:
            return Labels.model_validate(world.resources.get(KIND, name).spec)

    def rows(self, name: str, version: str | int = "latest") -> pl.DataFrame:
        """Return every label as it came, in the order of arrival: the key, `COLUMNS`. Raises NotFound."""
        with self._ledger.read() as world:
            world.resources.get(KIND, name)
            found = world.versions.get(KIND, name, version)
        return self._tables.scan(found.digest).collect()

    def table(self, name: str, at: datetime | None = None, version: str | int = "latest") -> pl.DataFrame:
        """Return what holds for each labelled item, now or as it was known `at`; see `knowing.outcomes`."""
        return knowing.outcomes(self.rows(name, version), self.spec(name), at)

    def as_of(self, name: str, rows: pl.DataFrame, at_column: str, version: str | int = "latest") -> pl.DataFrame:
        """Return rows with `label` and `label_state` as they were known at each row's own time; see `knowing.as_of`."""
        return knowing.as_of(rows, at_column, self.rows(name, version), self.spec(name))

    def join(
        self,
        name: str,
        frame: pl.LazyFrame,
        target: str,
        label_time: str = "label_time",
        at: datetime | None = None,
        version: str | int = "latest",
    ) -> pl.LazyFrame:
        """Return rows of the dataset with their label as its target, and since when it was known.

        Args:
            frame: with the key's columns; an item without a resolved label gets null.
            target, label_time: names of the two new columns, such as the dataset's own.
            at: as it was known at this instant; default: now.

        Raises:
            InvalidInput: a key column is missing, or a column of these names is there already.
        """
        import polars as pl

        spec = self.spec(name)
        schema = frame.collect_schema()
        for column in spec.key:
            if column not in schema:
                raise InvalidInput(
                    f'the rows have no column "{column}"{did_you_mean(column, schema.names())} '
                    f"(they have: {listed(schema.names())})"
                )
        for column in (target, label_time):
            if column in schema:
                raise InvalidInput(f'the rows have a column "{column}" already; drop or rename it')
        held = self.table(name, at, version).filter(pl.col("state") == "resolved")
        held = held.select(*spec.key, pl.col("label").alias(target), pl.col("label_time").alias(label_time))
        held = held.with_columns(pl.col(column).cast(schema[column]) for column in spec.key)
        return frame.join(held.lazy(), on=spec.key, how="left", maintain_order="left")

    def agreement(self, name: str, at: datetime | None = None, version: str | int = "latest") -> Agreement:
        """Return how far the labellers agree, now or as it was known `at`. Raises NotFound."""
        spec = self.spec(name)
        return agreement(current(knowing.known(self.rows(name, version), at), spec.key), spec)

    def open_items(self, name: str, limit: int = 100, items: pl.LazyFrame | None = None) -> pl.DataFrame:
        """Return the items that need somebody: disputed ones first, the most even first; then waiting, then unlabelled.

        Args:
            limit: at most so many.
            items: whose labels are wanted, with the key's columns; default: the dataset's newest version.

        Returns:
            The key, `why` (unresolved, waiting, unlabelled), `labellers`, `share` and `said`, what was said how often.
        """
        import polars as pl

        spec = self.spec(name)
        if items is None:
            of = self._dataset(spec)
            items = self._tables.scan(of.digest) if of is not None else None
        newest = self._newest(name)
        parts = []
        if newest is not None:
            rows = self.rows(name)
            people = current(rows, spec.key)
            said = people.group_by([*spec.key, "label"]).len("n").sort([*spec.key, "n", "label"], descending=False)
            told = pl.concat_str(pl.col("n").cast(pl.String), pl.lit(" × "), pl.col("label").cast(pl.String))
            spoken = said.group_by(spec.key).agg(told.alias("said")).with_columns(pl.col("said").list.join(", "))
            held = knowing.outcomes(rows, spec).filter(pl.col("state") != "resolved")
            disputed = held.join(spoken, on=spec.key, nulls_equal=True).rename({"state": "why"})
            parts.append(disputed.select(*spec.key, "why", "labellers", "share", "said"))
        if items is not None:
            wanted = items.select(spec.key).unique(maintain_order=True).head(_MOST_ITEMS)
            if newest is not None:
                wanted = wanted.join(current(rows, spec.key).select(spec.key).unique().lazy(), on=spec.key, how="anti")
            none = wanted.head(limit).collect().with_columns(
                pl.lit("unlabelled").alias("why"), pl.lit(0, pl.UInt32).alias("labellers"),
                pl.lit(None, pl.Float64).alias("share"), pl.lit("").alias("said"),
            )  # fmt: skip
            parts.append(none)
        if not parts:
            raise NotFound(f"labels/{name} has neither labels nor a dataset with items; add labels, or name a dataset")
        order = {"unresolved": 0, "waiting": 1, "unlabelled": 2}
        found = pl.concat(parts, how="vertical_relaxed")
        rank = pl.col("why").replace_strict(order, return_dtype=pl.Int8)
        return found.sort([rank, pl.col("share")], maintain_order=True, nulls_last=True).head(limit)

    def _newest(self, name: str) -> Version | None:
        with self._ledger.read() as world:
            return next(iter(world.versions.all(KIND, name, 1)), None)

    def _dataset(self, spec: Labels) -> Version | None:
        """Return the newest version of the dataset whose rows are labelled, None when there is none yet."""
        if spec.dataset is None:
            return None
        with self._ledger.read() as world:
            return next(iter(world.versions.all("dataset", parse_ref(spec.dataset, "dataset").name, 1)), None)

    def _fresh(
        self, name: str, spec: Labels, batch: pl.DataFrame, newest: Version | None, names: Names, by: str | None
    ) -> tuple[pl.DataFrame, int, int]:
        """Return the rows of a batch that are not there yet, how many are, and how many were dropped."""
        import polars as pl

        before = self._tables.scan(newest.digest).collect() if newest else None
        of = self._dataset(spec)
        items = self._items(name, spec, self._tables.scan(of.digest)) if of is not None else None
        types: dict[str, Any] = dict(items.collect_schema()) if items is not None else {}
        types |= dict(before.schema) if before is not None else {}
        rows = taken(batch, name, spec, names, by, self._clock.now(), types)
        dropped = 0
        if items is not None and spec.unknown_keys != "keep":
            strange = rows.lazy().join(items, on=spec.key, how="anti").collect()
            if strange.height and spec.unknown_keys == "refuse":
                raise InvalidInput(
                    f"labels/{name}: {strange.height:,} of {rows.height:,} labels are of items that {of.ref} does not "  # type: ignore[union-attr]
                    "have; check the key, publish the rows first, or set unknown_keys to keep or drop; nothing was kept"
                )
            rows, dropped = rows.join(strange, on=spec.key, how="anti", maintain_order="left"), strange.height
        if before is not None:
            wanted = before["label"].dtype
            if rows["label"].dtype != wanted:
                if rows["label"].null_count() < rows.height:
                    raise InvalidInput(
                        f"labels/{name}: labels are {rows['label'].dtype} and were {wanted} so far; write them alike"
                    )
                rows = rows.with_columns(pl.col("label").cast(wanted))
            same = [*spec.key, *COLUMNS[:3]]
            rows = rows.join(before, on=same, how="anti", nulls_equal=True, maintain_order="left")
        if not rows.height and newest is None:
            raise InvalidInput(f"labels/{name}: no label of the batch is of a known item; nothing was kept")
        return rows, batch.height - rows.height - dropped, dropped

    def _items(self, name: str, spec: Labels, frame: pl.LazyFrame) -> pl.LazyFrame:
        columns = frame.collect_schema().names()
        for column in spec.key:
            if column not in columns:
                raise InvalidInput(
                    f'labels/{name}: its key column "{column}" is not in {spec.dataset}{did_you_mean(column, columns)} '
                    f"(it has: {listed(columns)})"
                )
        return frame.select(spec.key)


class _StaleError(Exception):
    """Somebody added labels between the look and the write."""
