"""What a dataset has from those that it was made of: purposes, retention, regions; of columns classification and masks.

A dataset that SQL makes says of each column which columns of which versions it came from, and a feature view does too.
A column whose own dataset does not classify it is held to be what those are: `select email as contact` makes `contact`
personal. Whoever knows better, because only a count is left, classifies the new column (`internal`, `public`).
What is made of a struct is as closed as its most closed field, because nothing says which fields it was made of.
Of masks the strictest holds: those of the datasets behind it by their policies, and its own.

Purposes, retention and regions are of whole datasets. The datasets behind one are told by the lineage of its newest
version, and of the versions that it was appended to: what SQL read, and what the run used that published it. A model or
a deployment is no way for rows to come, so what lies behind one is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flyball.data.classification import notes_of
from flyball.data.kinds import Dataset
from flyball.errors import InvalidInput, NotFound
from flyball.governance.identity import Principal
from flyball.governance.kinds import CLASSIFICATIONS, OPEN, Policy
from flyball.governance.policies import ColumnFacts, Facts, Masking, masking_of
from flyball.ledger import Transaction
from flyball.ledger.refs import ref
from flyball.ledger.versions import Version

__all__ = ["MadeOf", "World"]

MadeOf = Mapping[str, Iterable[Iterable[str]]]
"""Column → the columns that it was made of: source (`dataset/flights@3` or a name), column, `direct` or `indirect`."""

_MOST_DEEP = 50  # datasets made of datasets
_MOST_APPENDED = 100  # versions behind one another whose lineage is looked at
_MOST_REMEMBERED = 10_000
_CARRIES_ROWS = frozenset({"dataset", "feature", "labels", "quarantine", "run"})


class World:
    """What is known of datasets within one transaction; what was asked once is remembered.

    Args:
        behind: by version, the datasets behind it. It never changes, so whoever asks often hands over the same again.
    """

    def __init__(
        self,
        world: Transaction,
        project: Path,
        policies: Mapping[str, Policy],
        behind: dict[str, frozenset[str]] | None = None,
    ) -> None:
        self._world = world
        self._project = project
        self._policies = policies
        masks = [mask for policy in policies.values() for mask in policy.mask]
        self._fields = {name for mask in masks for name in mask.columns if "." in name and not set(name) & set("*?[")}
        self._specs: dict[str, tuple[Dataset, dict[str, ColumnFacts]]] = {}
        self._made_of: dict[str, MadeOf] = {}
        self._newest_by_name: dict[str, Version | None] = {}
        self._behind = behind if behind is not None else {}

    def whole(self, dataset: str, columns: Iterable[str], made_of: MadeOf | None = None) -> Facts:
        """Return the facts of a dataset, with those of the datasets behind it; see `facts`."""
        behind = tuple(self.facts(name, ()) for name in sorted(self.behind(dataset)))
        return replace(self.facts(dataset, columns, made_of), behind=behind)

    def behind(self, dataset: str) -> frozenset[str]:
        """Return the datasets that a dataset was made of, directly or through others."""
        newest = self._newest(dataset)
        if newest is None:
            return frozenset()
        known = self._behind.get(f"{newest.ref} and before")
        if known is None:
            known = self._behind_version(str(newest.ref))
            if newest.metadata.get("mode"):  # its rows came behind those of the version before, and so on
                known |= self._behind_appended(dataset, newest.number)
            if len(self._behind) > _MOST_REMEMBERED:
                self._behind.clear()
            self._behind[f"{newest.ref} and before"] = known
        return known - {dataset}

    def _newest(self, dataset: str) -> Version | None:
        if dataset not in self._newest_by_name:
            self._newest_by_name[dataset] = next(iter(self._world.versions.all("dataset", dataset, limit=1)), None)
        return self._newest_by_name[dataset]

    def _behind_appended(self, dataset: str, number: int) -> frozenset[str]:
        """Return the datasets behind the versions that a version of this number was appended to."""
        known = self._behind.get(f"dataset/{dataset}@{number - 1} and before")
        if known is not None:  # whoever appends often must not look at a hundred versions each time
            return known
        versions = self._world.versions.all("dataset", dataset, limit=_MOST_APPENDED)
        replaced = (i for i, version in enumerate(versions) if not version.metadata.get("mode"))
        versions = versions[: next(replaced, len(versions)) + 1]
        return frozenset[str]().union(*(self._behind_version(str(version.ref)) for version in versions))

    def _behind_version(self, version: str) -> frozenset[str]:
        if version not in self._behind:
            found: set[str] = set()
            seen, waiting = {version}, [version]
            while waiting:
                node = waiting.pop()
                for source in self._world.lineage.walk(ref(node), "upstream", depth=1).nodes:
                    kind, _, rest = source.partition("/")
                    if source in seen or kind not in _CARRIES_ROWS:
                        continue
                    seen.add(source)
                    if kind == "dataset":
                        found.add(rest.partition("@")[0])
                    if source in self._behind:
                        found |= self._behind[source]
                    else:
                        waiting.append(source)
            self._behind[version] = frozenset(found)
        return self._behind[version]

    def facts(self, dataset: str, columns: Iterable[str], made_of: MadeOf | None = None) -> Facts:
        """Return what policies go by; of a dataset that is not declared there are no notes.

        Args:
            made_of: where its columns come from; default: as the newest version says.
        """
        spec, notes = self._spec(dataset)
        wanted = dict.fromkeys([*columns, *notes])
        wanted |= dict.fromkeys(name for name in sorted(self._fields) if name.partition(".")[0] in wanted)
        found = {name: self._column(dataset, name, made_of, 0) for name in wanted}
        words = frozenset(spec.tags), spec.domain, tuple(spec.purposes), spec.residency, spec.retention
        return Facts(dataset, "dataset", *words, found)

    def masks(self, facts: Facts, principal: Principal, made_of: MadeOf | None = None) -> dict[str, Masking]:
        """Return how columns are masked, also because of the columns that they were made of."""
        found = {}
        for column in facts.columns:
            masks = self._masks(facts, column, principal, made_of, 0)
            if masks:
                found[column] = min(masks, key=lambda masking: masking.strictness)
        return found

    def _masks(
        self,
        facts: Facts,
        column: str,
        principal: Principal,
        made_of: MadeOf | None,
        depth: int,
    ) -> list[Masking]:
        own = masking_of(column, facts, self._policies, principal)
        masks = [own] if own is not None else []
        if self._spec(facts.name)[1].get(column, ColumnFacts()).classification or depth > _MOST_DEEP:
            return masks
        for source, name in self._sources(facts.name, column, made_of):
            behind = _dataset_of(source)
            origins = self._of_version(source)
            below = self.facts(behind, [name], origins)
            for part in below.columns:
                if part == name or part.startswith(f"{name}."):
                    masks += self._masks(below, part, principal, origins, depth + 1)
        return masks

    def _column(self, dataset: str, column: str, made_of: MadeOf | None, depth: int) -> ColumnFacts:
        known = self._spec(dataset)[1].get(column, ColumnFacts())
        if known.classification or depth > _MOST_DEEP:
            return known
        for source, name in self._sources(dataset, column, made_of):
            of = _dataset_of(source)
            fields = [field for field in self._spec(of)[1] if field.startswith(f"{name}.")]
            for part in (name, *fields):
                behind = self._column(of, part, self._of_version(source), depth + 1)
                closer = max(known.classification, behind.classification, key=_closed)
                known = ColumnFacts(closer, known.tags | behind.tags)
        return known

    def _sources(self, dataset: str, column: str, made_of: MadeOf | None) -> list[tuple[str, str]]:
        origins = self._of_version(f"dataset/{dataset}") if made_of is None else made_of
        return [(str(source), str(name)) for source, name, how in origins.get(column, ()) if how == "direct"]

    def _of_version(self, source: str) -> MadeOf:
        """Return where the columns of a version come from, as it says; nothing of one that does not say it."""
        if source not in self._made_of:
            self._made_of[source] = {}
            try:
                found = ref(source, "dataset")
                if found.version is None:
                    version = self._newest(found.name)
                else:
                    version = self._world.versions.get("dataset", found.name, found.version)
                columns: Any = version.metadata.get("columns") if version is not None else None
                self._made_of[source] = columns if isinstance(columns, Mapping) else {}
            except (NotFound, InvalidInput):  # deleted since, or not of this home
                pass
        return self._made_of[source]

    def _spec(self, dataset: str) -> tuple[Dataset, dict[str, ColumnFacts]]:
        if dataset not in self._specs:
            resource = self._world.resources.find("dataset", dataset)
            spec = Dataset.model_validate(resource.spec) if resource else Dataset.model_validate({})
            contract = str(self._project / spec.contract) if isinstance(spec.contract, str) else spec.contract
            notes = {name: ColumnFacts(*note) for name, note in notes_of(spec, contract).items()}
            self._specs[dataset] = spec, notes
        return self._specs[dataset]


def _dataset_of(source: str) -> str:
    return ref(source, "dataset").name


def _closed(classification: str) -> tuple[bool, int]:
    """Sorts the most open first; a word of one's own counts as confidential."""
    known = classification if classification in CLASSIFICATIONS else "confidential"
    return classification not in OPEN, CLASSIFICATIONS.index(known) if classification else -1
