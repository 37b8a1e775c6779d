"""A dataset by name, as a notebook or a script holds it: publish versions, read them, compare them, learn from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from flyball.errors import Forbidden, InvalidInput, NotFound, did_you_mean
from flyball.ledger.refs import Ref
from flyball.ledger.versions import Version
from flyball.notebook.quarantine import Batch
from flyball.notebook.reproducing import reproduced, versions_read
from flyball.notebook.showing import Difference, Listing, Profile, text_of

if TYPE_CHECKING:
    import polars as pl

    from flyball.data.drift import ColumnDrift
    from flyball.data.profiles import ColumnComparison
    from flyball.data.publishing import Mode
    from flyball.data.quarantine import State
    from flyball.data.reports import ContractReport
    from flyball.data.rows import Rows
    from flyball.data.sources import Probe
    from flyball.data.terms import Contract
    from flyball.data.usage import Use
    from flyball.platform import Platform

__all__ = ["Dataset"]

_PLACES = frozenset({"path", "digest", "size_bytes", "blob", "offset", "location"})  # what leads to a file's bytes


class Dataset:
    """A declared dataset, by name. A version is a number, an alias or `latest`; `at` is a time with a zone."""

    def __init__(self, name: str, home: Callable[[], Platform]) -> None:
        self.name = name
        self._home = home

    # -- publishing

    def publish(
        self,
        source: Any = None,
        mode: Mode | None = None,
        *,
        key: str | Sequence[str] = (),
        purpose: str | None = None,
        note: str = "",
        **options: Any,
    ) -> Version:
        """Publish rows as the next version; the same rows again are the version that they already are.

        Args:
            source: a Polars, pandas or Arrow frame, records, `{column: values}`, a path or glob, `fb.files(…)`, or SQL
                over other datasets; default: the dataset's own source, of which only what is new is read.
            mode: `overwrite` makes a version of these rows alone, `append` puts them behind the newest version's,
                `upsert` replaces rows of the same key.
            key: the columns that name a row, for upsert; default: the dataset's `key`.
            purpose: what other datasets are read for, where the source is SQL and they ask for it.
            note: a sentence that stays with the version.
            options: see `data.datasets.Datasets.publish`.

        Raises:
            ContractBroken: the batch broke the contract and was kept aside; nothing else was changed.
            InvalidInput, NotFound, Conflict, Unavailable, Forbidden: nothing was published; the sentence says why.
        """
        again = reproduced()
        if again.is_on:  # what was published then is there, and what is published now would be news to others
            return self._home().version(self._ref(again.pins.get(self.name, "latest")))
        return (
            self._home().publish(self.name, source, mode=mode, key=key, purpose=purpose, note=note, **options).version
        )

    def probe(self) -> Probe:
        """Look whether the dataset's own source is reachable, fresh and of the expected shape; `.problems` says."""
        return self._home().probe(self.name)

    # -- reading

    def frame(
        self,
        version: str | int = "latest",
        *,
        at: datetime | None = None,
        columns: Sequence[str] | None = None,
        purpose: str | None = None,
    ) -> pl.LazyFrame:
        """Return a version's rows as a Polars LazyFrame, masked as the policies say.

        Raises:
            NotFound: there is no such version, or there was none yet.
            InvalidInput: there is no such column; `at` has no zone or stands beside a number.
            Forbidden: the dataset may not be read for this purpose.
        """
        return self._home().frame(self._asked(version, at), at=at, columns=columns, purpose=purpose)

    def to_arrow(self, version: str | int = "latest", **options: Any) -> Any:
        """Return a `pyarrow.RecordBatchReader` that streams the rows; options and errors as `frame`."""
        return self._home().read(self._asked(version, options.get("at")), "arrow", **options)

    def to_duckdb(self, version: str | int = "latest", **options: Any) -> Any:
        """Return a DuckDB relation over the rows; options and errors as `frame`."""
        return self._home().read(self._asked(version, options.get("at")), "duckdb", **options)

    def to_pandas(self, version: str | int = "latest", **options: Any) -> Any:
        """Return a `pandas.DataFrame` of all rows, in memory; options and errors as `frame`."""
        return self._home().read(self._asked(version, options.get("at")), "pandas", **options)

    def file(self, path: str, version: str | int = "latest", *, purpose: str | None = None) -> bytes:
        """Return the bytes of one file of a dataset of files, verified.

        Raises:
            NotFound: no such file, or it was kept by reference and is gone.
            InvalidInput: the dataset does not hold files.
            Corrupt: the bytes are not those that were taken in.
        """
        import polars as pl

        from flyball.data.files import is_file_table, read_file

        rows = self.frame(version, purpose=purpose)
        columns = rows.collect_schema().names()
        if not is_file_table(columns):
            raise InvalidInput(f"dataset/{self.name} holds rows, not files; publish files with fb.files(…)")
        if _PLACES & self._home().hidden(self._ref(version), columns, purpose):
            raise Forbidden(f"a policy hides where the files of dataset/{self.name} are")
        found = rows.filter(pl.col("path") == path).collect()
        if not found.height:
            near = did_you_mean(path, rows.select("path").head(10_000).collect()["path"].to_list())
            raise NotFound(f'dataset/{self.name} has no file "{path}"{near}')
        return read_file(found.row(0, named=True), self._home().blobs)

    def rows(
        self, version: str | int = "latest", inputs: Sequence[str] | None = None, *, purpose: str | None = None
    ) -> Rows:
        """Return a version as rows to learn from: `.X`, `.y`. Times, entities and the target are no inputs.

        A run that is judged on them keeps the purpose.
        """
        from flyball.data.rows import Rows

        at = self._home()
        found = at.version(self._asked(version))
        spec = at.resource(Ref("dataset", self.name)).spec
        frame = self.frame(found.number, purpose=purpose).collect()
        roles = [spec.get("known_at"), spec.get("label_time"), *spec.get("entity", [])]
        return Rows.of(
            frame,
            spec.get("target"),
            event_time=spec.get("event_time"),
            inputs=inputs,
            left_out=[c for c in roles if c],
            origin=found.ref,
            purpose=purpose,
        )

    def split(
        self,
        test: str | float = 0.2,
        by: str | None = None,
        version: str | int = "latest",
        *,
        purpose: str | None = None,
    ) -> tuple[Rows, Rows]:
        """Return (train, test): the newest rows are the test; see `Rows.split`."""
        return self.rows(version, purpose=purpose).split(test, by)

    # -- versions

    def versions(self) -> Listing[Version]:
        """Return all versions, newest first."""
        return Listing(
            self._home().versions("dataset", self.name),
            {
                "version": lambda v: v.ref.short,
                "rows": lambda v: f"{v.metadata.get('rows', 0):,}",
                "how": lambda v: v.metadata.get("mode") or "overwrite",
                "made by": lambda v: f"run {v.run[:8]}" if v.run else v.actor,
                "at": lambda v: v.created_at,
                "note": lambda v: v.metadata.get("note") or v.metadata.get("query") or "",
            },
            f"dataset/{self.name} has no version yet; publish one",
        )

    def latest(self) -> Version:
        """Return the newest version. Raises NotFound."""
        return self._home().version(self._ref("latest"))

    def diff(
        self, before: str | int, after: str | int = "latest", *, purpose: str | None = None, **options: Any
    ) -> Difference:
        """Return how two versions differ in columns, rows and distributions; prints itself.

        Args:
            options: `key` (default: the dataset's; empty: rows as wholes) and `sample`, how many rows to show.
        """
        return Difference.of(self._home().diff(self.name, before, after, purpose=purpose, **options))

    def profile(self, version: str | int = "latest", *, purpose: str | None = None) -> Profile:
        """Return what a version's rows look like, as it was found when they were published; prints itself."""
        found = self._home().profile(self._ref(version), purpose=purpose)
        return Profile(found.sketch, found.hidden)

    def compare(
        self, before: str | int, after: str | int = "latest", *, purpose: str | None = None
    ) -> Listing[ColumnComparison]:
        """Return the profiles of two versions side by side, column by column; reads no row."""
        found = self._home().compare_profiles(self._ref(before), self._ref(after), purpose)
        columns = {"column": lambda c: c.name, "change": lambda c: c.change, "what": lambda c: c.summary}
        return Listing(found, columns)

    def drift(
        self,
        before: str | int,
        after: str | int = "latest",
        columns: Sequence[str] | None = None,
        *,
        method: Literal["exact", "profile"] = "profile",
        purpose: str | None = None,
    ) -> Listing[ColumnDrift]:
        """Return how far each column of a version is from an earlier one's.

        Args:
            columns: which; default: all that both have.
            method: `profile` reads no row; `exact` reads and sorts them.
        """
        found = self._home().drift(self._ref(before), self._ref(after), columns, method=method, purpose=purpose)
        shown = {name: _distance(name) for name in ("psi", "js", "ks", "w1")}
        nulls = {"missing": lambda d: f"{d.nulls[0]:.1%} → {d.nulls[1]:.1%}", "why": lambda d: d.why}
        return Listing(found, {"column": lambda d: d.column, **shown, **nulls})

    # -- contract

    @property
    def contract(self) -> Contract | None:
        """The contract as it is declared now; None when there is none."""
        return self._home().datasets.agreements.of(self.name)

    def infer_contract(self, version: str | int = "latest", *, purpose: str | None = None) -> dict[str, Any]:
        """Propose a contract from a version's rows, as an ODCS document. It is a draft: read it, tighten it."""
        from flyball.data.inference import infer_contract

        return infer_contract(self.frame(version, purpose=purpose), self.name)

    def check(self, source: Any) -> ContractReport:
        """Check rows against the contract without publishing them. Raises InvalidInput when there is no contract."""
        from flyball.data.sources import open_source

        agreements, contract = self._home().datasets.agreements, self.contract
        if contract is None:
            raise InvalidInput(f"dataset/{self.name} has no contract, so nothing can be checked; declare one")
        return agreements.check(self.name, open_source(source, string_columns=contract.string_columns), contract, "")

    def quarantine(self, state: State | None = None) -> Listing[Batch]:
        """Return the batches that were kept aside, newest first; each can be fixed, released or dropped.

        Args:
            state: only the held, fixed, released or dropped.
        """
        return Listing(
            [Batch(held, self._home) for held in self._home().held(self.name, state)],
            {
                "batch": lambda b: b.ref.short,
                "state": lambda b: b.state,
                "rows": lambda b: f"{b.rows:,}",
                "breaks": lambda b: "; ".join(b.failures),
            },
            f"nothing of dataset/{self.name} was kept aside",
        )

    # -- use

    def uses(self) -> Listing[Use]:
        """Return which runs, models and people read which version, the last first."""
        return Listing(
            self._home().uses(Ref("dataset", self.name)),
            {
                "who": lambda u: u.who,
                "how": lambda u: u.how,
                "of": lambda u: u.of,
                "times": lambda u: f"{u.times:,}",
                "last": lambda u: text_of(u.last),
            },
            f"nobody has read dataset/{self.name} yet",
        )

    def _asked(self, version: str | int, at: datetime | None = None) -> Ref:
        """Return the version that is read: pinned while a run is reproduced, and noted for the runs of this process."""
        if at is not None or str(version).isdecimal():
            return self._ref(version)
        pinned = reproduced().pins.get(self.name)
        if pinned is not None:
            return self._ref(pinned)
        found = self._home().version(self._ref(version))
        versions_read[self.name] = found.number
        return self._ref(version)

    def _ref(self, version: str | int) -> Ref:
        return Ref("dataset", self.name, str(version))

    def __repr__(self) -> str:
        return f"Dataset({self.name!r})"


def _distance(name: str) -> Callable[[ColumnDrift], Any]:
    return lambda found: getattr(found.distances, name, None)
