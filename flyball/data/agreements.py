"""Which contract holds for a dataset, whether it may change, and what a batch says to it.

`datasets` asks at each publication, `platform` when a declaration is applied and when a source is looked at.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from flyball.clock import Clock
from flyball.data.contracts import parse_document, read_contract
from flyball.data.kinds import Dataset
from flyball.data.terms import Contract
from flyball.errors import InvalidInput, NotFound
from flyball.ledger import Ledger
from flyball.ledger.refs import ref
from flyball.storage.blobs import BlobStore, digest_of
from flyball.storage.tables import TableStore

if TYPE_CHECKING:
    import polars as pl

    from flyball.data.reports import ContractReport
    from flyball.data.sources import Probe

__all__ = ["Agreements"]


class Agreements:
    """The contracts of a home's datasets.

    Args:
        project: what paths of contracts are relative to.
        blobs: keeps each contract's document as it was; without it changes between versions are not looked at.
    """

    def __init__(
        self, ledger: Ledger, tables: TableStore, project: Path, clock: Clock, blobs: BlobStore | None
    ) -> None:
        self._ledger = ledger
        self._tables = tables
        self._project = project
        self._clock = clock
        self._blobs = blobs

    def of(self, name: str, spec: Dataset | None = None) -> Contract | None:
        """Return a dataset's contract, read and compiled; None when it has none.

        Args:
            spec: its declaration; default: the one that holds now.

        Raises:
            NotFound: no such dataset.
            InvalidInput: the contract is not there or is wrong.
        """
        spec = spec or self._spec(name)
        if spec.contract is None:
            return None
        if isinstance(spec.contract, str):
            path = self._project / spec.contract
            if not path.exists():
                raise InvalidInput(f"dataset/{name}: its contract {spec.contract} is not there; looked for {path}")
            return read_contract(path)
        return read_contract(spec.contract)

    def resolve(self, dataset: str) -> pl.LazyFrame:
        """Return the rows of a dataset that a rule refers to, `airlines` or `airlines@3`. Raises NotFound."""
        found = ref(dataset, "dataset")
        with self._ledger.read() as world:
            version = world.versions.get("dataset", found.name, found.version or "latest")
        return self._tables.scan(version.digest)

    def check_change(self, name: str, spec: Dataset) -> None:
        """Refuse a contract that breaks with the one of the newest version without saying so in its version.

        Raises:
            InvalidInput: lists what breaks; or the contract is wrong.
        """
        with self._ledger.read() as world:
            newest = next(iter(world.versions.all("dataset", name, limit=1)), None)
        before = newest.metadata.get("contract_document") if newest else None
        if before is None or self._blobs is None or spec.contract is None:
            return
        from flyball.data.evolution import check_version

        contract = self.of(name, spec)
        if contract is not None and before != digest_of(self._document(spec)):
            check_version(read_contract(orjson.loads(self._blobs.get(str(before)))), contract)

    def keep(self, name: str, spec: Dataset, contract: Contract) -> dict[str, str]:
        """Keep a contract's document, and return what the version's metadata says of it.

        Raises:
            InvalidInput: as `check_change`; or it refers to a dataset or a column that is not there.
        """
        from flyball.data.references import bind

        bind(contract, self.resolve)
        self.check_change(name, spec)
        return {} if self._blobs is None else {"contract_document": self._blobs.put(self._document(spec))}

    def check(self, name: str, frame: pl.LazyFrame, contract: Contract, mode: str) -> ContractReport:
        """Check a batch, and where it goes behind other rows also what the whole new version will be."""
        from flyball.data.checking import check
        from flyball.data.moments import check_append

        now = self._clock.now()
        if mode == "append":
            try:
                return check_append(frame, self.resolve(name), contract, now=now, resolve=self.resolve)
            except NotFound:
                pass  # there is nothing yet that it could go behind
        return check(frame, contract, now=now, resolve=self.resolve)

    def split(self, frame: pl.LazyFrame, contract: Contract) -> tuple[pl.LazyFrame, pl.LazyFrame]:
        """Return the rows that break no rule for rows, and those that do, each with the rules that it breaks."""
        from flyball.data.checking import split

        return split(frame, contract, now=self._clock.now(), resolve=self.resolve)

    def probe(self, name: str) -> Probe:
        """Return whether a dataset's own source is reachable, fresh and of the shape that its contract expects.

        Raises:
            NotFound: no such dataset.
            InvalidInput: it has no source of its own.
        """
        from flyball.data.moments import expectation_of
        from flyball.data.sources import probe

        spec = self._spec(name)
        if spec.source is None:
            raise InvalidInput(f"dataset/{name} has no source of its own, so there is nothing to look at")
        contract = self.of(name, spec)
        wanted = expectation_of(contract).types if contract is not None else None
        return probe(spec.source, wanted, project=self._project, clock=self._clock)

    def _spec(self, name: str) -> Dataset:
        with self._ledger.read() as world:
            return Dataset.model_validate(world.resources.get("dataset", name).spec)

    def _document(self, spec: Dataset) -> bytes:
        assert spec.contract is not None
        where = self._project / spec.contract if isinstance(spec.contract, str) else spec.contract
        return orjson.dumps(parse_document(where), option=orjson.OPT_SORT_KEYS)
