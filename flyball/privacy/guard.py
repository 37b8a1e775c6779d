"""Policies in the path of rows: what may be read and how, what may be published, what a model may learn from.

`governance.policies` decides on plain facts; here they are gathered from datasets, contracts and the home's settings,
and what was decided is done. Whoever reads or writes rows for somebody goes through a `Guard`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball import settings
from flyball.data import masking
from flyball.data.personal import findings
from flyball.errors import Forbidden
from flyball.governance.identity import Principal
from flyball.governance.kinds import Policy
from flyball.governance.policies import (
    Decision,
    Facts,
    decide,
    judge_model,
    judge_residency,
    purposes_of,
    retention_of,
)
from flyball.governance.settings import GovernanceSettings
from flyball.ledger import Ledger, Transaction
from flyball.ledger.refs import Ref
from flyball.privacy.inheritance import MadeOf, World
from flyball.privacy.suppression import Suppressions

if TYPE_CHECKING:
    from datetime import timedelta

    import polars as pl

__all__ = ["Admitted", "Guard"]


@dataclass(frozen=True)
class Admitted:
    """Rows that may be published, and what the version's metadata says of it (empty when there is nothing to say)."""

    frame: pl.LazyFrame
    metadata: Mapping[str, Any]


class Guard:
    """The policies of one home.

    Args:
        project: what paths of contracts are relative to.
    """

    def __init__(self, home: Path, ledger: Ledger, project: Path) -> None:
        self._home = home
        self._ledger = ledger
        self._project = project
        self._suppressions = Suppressions(ledger)
        self._behind: dict[str, frozenset[str]] = {}

    @property
    def region(self) -> str | None:
        """Where this home says it is."""
        return settings.load(GovernanceSettings, "governance", self._home).region

    def decision(
        self,
        dataset: str,
        columns: Iterable[str],
        principal: Principal,
        purpose: str | None = None,
        made_of: MadeOf | None = None,
    ) -> Decision:
        """Return whether a dataset may be read, and which of its columns are masked how; for pages and profiles too.

        Args:
            columns: of the frame that is to be read; a dataset that is not declared has no notes, policies by name,
                column or kind hold all the same.
            made_of: which columns each was made of, whose masks it has too; default: as the dataset's newest version
                says.
        """
        with self._ledger.read() as world:
            policies = _policies(world)
            known = self._known(world, policies)
            facts = known.whole(dataset, columns, made_of)
            found = decide(facts, policies, principal, purpose, self.region)
            if not found.allowed:
                return found
            return replace(found, masks=known.masks(facts, principal, made_of))

    def read(
        self,
        dataset: str,
        frame: pl.LazyFrame,
        principal: Principal,
        purpose: str | None = None,
        made_of: MadeOf | None = None,
    ) -> pl.LazyFrame:
        """Return the frame as `principal` may see it; masking stands at its source, nothing is computed.

        Args:
            dataset: whose rows these are; of a quarantine or a stored view, the dataset that they come from.
            purpose: what the rows are read for; where the dataset or a policy asks for one it must be given.
            made_of: as `decision` takes it.

        Raises:
            Forbidden: the purpose or the region does not allow it; the message says what does.
        """
        found = self.decision(dataset, frame.collect_schema().names(), principal, purpose, made_of)
        if not found.allowed:
            raise Forbidden(found.reason)
        if not found.masks:
            return frame
        return masking.apply(frame, found.masks, masking.home_key(self._home))

    def admit(self, dataset: str, frame: pl.LazyFrame) -> Admitted:
        """Return the rows of a batch that may be published: those of erased subjects are left out.

        Metadata: `suppressed_rows`, how many those were; `looks_personal`, columns that look personal and are not
        classified (`data.personal`), without a value of theirs.

        Raises:
            Forbidden: the rows of the dataset, or of what it was made of so far, may not be kept in this home's region.
        """
        with self._ledger.read() as world:
            policies = _policies(world)
            facts = self._known(world, policies).whole(dataset, frame.collect_schema().names())
            refused = judge_residency(facts, policies, self.region)
            if refused is not None:
                raise Forbidden(refused)
            suppression = self._suppressions.now(masking.home_key(self._home), world)
        metadata: dict[str, Any] = {}
        if suppression is not None:
            count = suppression.count(frame)
            if count:
                frame, metadata["suppressed_rows"] = suppression.keep(frame), count
        known = [name for name, column in facts.columns.items() if column.classification or column.tags]
        found = findings(frame, known)
        if found:
            metadata["looks_personal"] = [finding.to_dict() for finding in found]
        return Admitted(frame, metadata)

    def judge(self, model: str, inputs: Iterable[str], learnt_from: Iterable[Ref]) -> list[str]:
        """Return how a model about to be registered breaks the policies, a sentence each.

        Args:
            inputs: its inputs, looked-up features included.
            learnt_from: versions that it was made from; the datasets behind them are found by their lineage.
        """
        with self._ledger.read() as world:
            policies = _policies(world)
            if not any(policy.require for policy in policies.values()):
                return []
            names = _learnt_from(world, learnt_from)
            wanted = list(inputs)
            resource = world.resources.find("model", model)
            tags = frozenset(str(tag) for tag in (resource.spec.get("tags", []) if resource else []))
            known = World(world, self._project, policies)
            sources = [known.facts(name, wanted) for name in sorted(names)]
        return judge_model(Facts(model, "model", tags), wanted, sources, policies)

    def protected(self, model_version: Ref) -> frozenset[str]:
        """Return the columns, of the datasets that a model learnt from, that not everybody may see."""
        with self._ledger.read() as world:
            known = World(world, self._project, _policies(world))
            return frozenset(
                column
                for name in _learnt_from(world, [model_version])
                for column, facts in known.facts(name, ()).columns.items()
                if facts.is_protected
            )

    def retention(self, dataset: str) -> tuple[timedelta, str] | None:
        """Return how long rows of a dataset are kept, and who says so; None: for ever.

        What says so may be a dataset that this one was made of, or a policy that speaks of that.
        """
        with self._ledger.read() as world:
            policies = _policies(world)
            return retention_of(self._known(world, policies).whole(dataset, ()), policies)

    def is_inherited(self, dataset: str) -> bool:
        """Whether only what a dataset was made of says how long its rows are kept."""
        with self._ledger.read() as world:
            policies = _policies(world)
            return retention_of(self._known(world, policies).facts(dataset, ()), policies) is None

    def purposes(self, dataset: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Return what a dataset may be read for, and who restricts it to that, as `retention` does; None: anything."""
        with self._ledger.read() as world:
            policies = _policies(world)
            return purposes_of(self._known(world, policies).whole(dataset, ()), policies)

    def _known(self, world: Transaction, policies: Mapping[str, Policy]) -> World:
        return World(world, self._project, policies, self._behind)


def _learnt_from(world: Transaction, sources: Iterable[Ref]) -> set[str]:
    """Return the datasets that some versions are or were made from, by their lineage."""
    names: set[str] = set()
    for source in sources:
        nodes = [str(source), *world.lineage.walk(source, "upstream").nodes]
        names |= {n.partition("/")[2].partition("@")[0] for n in nodes if n.startswith("dataset/")}
    return names


def _policies(world: Transaction) -> dict[str, Policy]:
    return {resource.name: Policy.model_validate(resource.spec) for resource in world.resources.all("policy")}
