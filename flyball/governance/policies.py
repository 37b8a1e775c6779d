"""What policies decide: pure functions from facts to a decision, for whoever reads or writes rows or registers models.

How several policies work together, from the strictest rule down:

1. A purpose or a region must be allowed by the dataset and by every policy that restricts it.
2. A column is masked by each policy that names it (by name, tag or classification) and does not except the reader by
   `unless_role` or `unless_actor`; an exception lifts only the policy that states it. Of several masks the strictest
   wins: null, redact, hash, generalise, partial; then the fewer kept characters and the wider band.
3. A column that no policy names and that is classified (anything but public, open, internal) or tagged as personal is
   redacted for roles below editor. So a home without policies shows personal data to those who may change it anyway,
   and to nobody else. A policy that names the column replaces this default, also to loosen it.
4. The shortest retention of the dataset and its policies holds.
5. What is made of datasets inherits their purposes and their retention, those of policies that speak of them too, by
   1 and 4: it may be read for what all of them allow, and is kept as long as all of them allow. Regions too, unless a
   policy with regions says otherwise: one that speaks of what was made, and not of what it was made of.

Facts are plain values, because this room knows neither datasets nor models: `privacy` gathers them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from flyball.clock import parse_duration
from flyball.errors import did_you_mean, listed
from flyball.governance.identity import Principal
from flyball.governance.kinds import HOWS, OPEN, Mask, Policy, matches

__all__ = [
    "DEFAULT_ROLE",
    "PERSONAL_TAGS",
    "ColumnFacts",
    "Decision",
    "Facts",
    "Masking",
    "decide",
    "judge_model",
    "judge_residency",
    "masking_of",
    "purposes_of",
    "retention_of",
]

DEFAULT_ROLE = "editor"  # who sees classified columns when no policy speaks of them
PERSONAL_TAGS = frozenset({"pii", "personal", "personal-data", "sensitive", "confidential", "secret"})


@dataclass(frozen=True)
class ColumnFacts:
    """What is known of a column: its classification in lower case, empty for none, and its tags in lower case."""

    classification: str = ""
    tags: frozenset[str] = frozenset()

    @property
    def is_protected(self) -> bool:
        """Whether it holds what not everybody may see."""
        return self.classification not in OPEN or bool(self.tags & PERSONAL_TAGS)


@dataclass(frozen=True)
class Facts:
    """What policies go by of a dataset, or of a model (`kind`).

    `columns` has the nested ones too, dotted; `behind` are the datasets that it was made of, also through others.
    """

    name: str
    kind: str = "dataset"
    tags: frozenset[str] = frozenset()
    domain: str | None = None
    purposes: tuple[str, ...] = ()
    residency: str | None = None
    retention: str | None = None
    columns: Mapping[str, ColumnFacts] = field(default_factory=dict)
    behind: tuple[Facts, ...] = ()


@dataclass(frozen=True)
class Masking:
    """How one column is shown; `because` names the policy, for whoever asks why."""

    how: str
    keep: int = 4
    band: float = 10
    because: str = "default"

    @property
    def strictness(self) -> tuple[int, int, float]:
        """Sorts the strictest first."""
        return HOWS.index(self.how), self.keep, -self.band


@dataclass(frozen=True)
class Decision:
    """Whether a read is allowed; if not, `reason` is the sentence to say. `masks` is by column."""

    allowed: bool
    reason: str = ""
    masks: Mapping[str, Masking] = field(default_factory=dict)
    purpose: str | None = None


def decide(
    facts: Facts,
    policies: Mapping[str, Policy],
    principal: Principal,
    purpose: str | None = None,
    region: str | None = None,
) -> Decision:
    """Return whether `principal` may read a dataset for a purpose in a region, and what is masked.

    Args:
        policies: all policies of the home by name; those that do not apply are passed over.
        purpose: what for, one of the dataset's words; None: not said.
        region: where this home is; None: not said.
    """
    applying = _applying(facts, policies)
    reason = _purpose_refused(facts, policies, purpose) or _region_refused(facts, policies, region, "read")
    if reason is not None:
        return Decision(False, reason, purpose=purpose)
    masks: dict[str, Masking] = {}
    for column, known in facts.columns.items():
        found = _masking(column, known, applying, principal)
        if found is not None:
            masks[column] = found
    return Decision(True, masks=masks, purpose=purpose)


def masking_of(column: str, facts: Facts, policies: Mapping[str, Policy], principal: Principal) -> Masking | None:
    """Return how one column of a dataset is shown to `principal`, whatever the purpose; None: as it is."""
    return _masking(column, facts.columns.get(column, ColumnFacts()), _applying(facts, policies), principal)


def judge_residency(facts: Facts, policies: Mapping[str, Policy], region: str | None) -> str | None:
    """Return why rows of a dataset may not be written to a home in `region`, None when they may."""
    return _region_refused(facts, policies, region, "kept")


def judge_model(
    model: Facts, inputs: Iterable[str], datasets: Iterable[Facts], policies: Mapping[str, Policy]
) -> list[str]:
    """Return how a model breaks the policies, a sentence each; an empty list when it keeps them.

    Args:
        model: facts of the model (`kind="model"`).
        inputs: the names of its inputs, looked-up features included.
        datasets: facts of every dataset that it learnt from, directly or by its features.
        policies: all policies of the home by name.
    """
    wanted, sources = list(inputs), list(datasets)
    found: list[str] = []
    for name, policy in sorted(policies.items()):
        if policy.require is None:
            continue
        speaks_of_model = _applies(policy, model)
        for source in sources:
            if not speaks_of_model and not _applies(policy, source):
                continue
            rule = policy.require
            if not matches(source.name, rule.only_datasets):
                found.append(
                    f"policy/{name}: model/{model.name} learnt from dataset/{source.name}; "
                    f"it may learn from {listed(rule.only_datasets)} only"
                )
            for column in wanted:
                known = source.columns.get(column)
                if known is None:
                    continue
                if known.classification in rule.without_classifications:
                    found.append(
                        f'policy/{name}: the input "{column}" of model/{model.name} is {known.classification} in '
                        f"dataset/{source.name}; leave it out"
                    )
                found += [
                    f'policy/{name}: the input "{column}" of model/{model.name} is tagged {tag} in '
                    f"dataset/{source.name}; leave it out"
                    for tag in sorted(known.tags & {tag.lower() for tag in rule.without_tags})
                ]
    return list(dict.fromkeys(found))


def purposes_of(facts: Facts, policies: Mapping[str, Policy]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return what a dataset may be read for, and who restricts it to that; None: anything."""
    restrictions = _restrictions(facts, policies)
    if not restrictions:
        return None
    return _in_common(restrictions), tuple(dict.fromkeys(who for who, _ in restrictions))


def retention_of(facts: Facts, policies: Mapping[str, Policy]) -> tuple[timedelta, str] | None:
    """Return the shortest time that rows of a dataset are kept, and who says so; None: for ever.

    Raises:
        InvalidInput: the retention of the dataset, or of one that it was made of, is no duration.
    """
    spans = []
    for one in (facts, *facts.behind):
        if one.retention:
            spans.append((parse_duration(one.retention), f"dataset/{one.name}"))
        for name, policy in _applying(one, policies).items():
            if policy.retention:
                spans.append((parse_duration(policy.retention), f"policy/{name}"))
    return min(spans, key=lambda span: span[0]) if spans else None


def _applying(facts: Facts, policies: Mapping[str, Policy]) -> dict[str, Policy]:
    return {name: policy for name, policy in sorted(policies.items()) if _applies(policy, facts)}


def _applies(policy: Policy, facts: Facts) -> bool:
    wanted = policy.applies_to
    named, others = (wanted.datasets, wanted.models) if facts.kind == "dataset" else (wanted.models, wanted.datasets)
    if others and not named:
        return False  # it speaks of the other kind alone
    return (
        matches(facts.name, named)
        and _meet(wanted.tags, facts.tags)
        and (not wanted.domains or (facts.domain or "") in wanted.domains)
        and _meet(wanted.classifications, {column.classification for column in facts.columns.values()})
    )


def _meet(wanted: list[str], there: Iterable[str]) -> bool:
    return not wanted or bool({word.lower() for word in wanted} & {word.lower() for word in there})


_Restriction = tuple[str, tuple[str, ...]]  # who restricts, and what it allows


def _restrictions(facts: Facts, policies: Mapping[str, Policy]) -> list[_Restriction]:
    found: list[_Restriction] = []
    for one in (facts, *facts.behind):
        if one.purposes:
            found.append((f"dataset/{one.name}", one.purposes))
        found += [(f"policy/{name}", tuple(p.purposes)) for name, p in _applying(one, policies).items() if p.purposes]
    return list(dict.fromkeys(found))


def _in_common(restrictions: Sequence[_Restriction]) -> tuple[str, ...]:
    return tuple(word for word in restrictions[0][1] if all(word in allowed for _, allowed in restrictions))


def _purpose_refused(facts: Facts, policies: Mapping[str, Policy], purpose: str | None) -> str | None:
    restrictions = _restrictions(facts, policies)
    if not restrictions:
        return None
    common = _in_common(restrictions)
    if not common:
        return (
            f"dataset/{facts.name} may be read for nothing: {listed(who for who, _ in restrictions)} allow no purpose "
            "in common; change one of them"
        )
    if purpose is None:
        return (
            f"dataset/{facts.name} may be read only for a stated purpose; pass purpose={common[0]!r} "
            f"(allowed: {listed(common)})"
        )
    for who, allowed in restrictions:
        if purpose not in allowed:
            near = did_you_mean(purpose, common)
            inherited = who.startswith("dataset/") and who != f"dataset/{facts.name}"
            which = f", which dataset/{facts.name} was made of," if inherited else ""
            return f'{who}{which} does not allow reading for "{purpose[:60]}"{near} (allowed: {listed(common)})'
    return None


def _region_refused(facts: Facts, policies: Mapping[str, Policy], region: str | None, act: str) -> str | None:
    for who, allowed, one in _places(facts, policies):
        what = f"dataset/{facts.name}" + (f", made of dataset/{one.name}," if one is not facts else "")
        if region is None:
            return (
                f"{who} says that {what} may be {act} in {listed(allowed)} only, and this home does not "
                f'say where it is; set region = "{allowed[0]}" under [governance] in flyball.toml'
            )
        if region not in allowed:
            return f"{who} says that {what} may be {act} in {listed(allowed)} only; this home is in {region}"
    return None


def _places(facts: Facts, policies: Mapping[str, Policy]) -> Iterator[tuple[str, list[str], Facts]]:
    """Yield who says where rows may be, which regions, and of which dataset it says so."""
    own = {name for name, policy in _applying(facts, policies).items() if policy.regions}
    for one in (facts, *facts.behind):
        said = {name: policy for name, policy in _applying(one, policies).items() if policy.regions}
        if one is not facts and own - set(said):
            continue  # somebody who makes policies says where what was made of it may be
        if one.residency:
            yield f"dataset/{one.name}", [one.residency], one
        for name, policy in said.items():
            yield f"policy/{name}", policy.regions, one


def _masking(column: str, known: ColumnFacts, policies: Mapping[str, Policy], principal: Principal) -> Masking | None:
    is_named, found = False, []
    for name, policy in policies.items():
        for mask in policy.mask:
            if _names(mask, column, known):
                is_named = True
                if not _is_excepted(policy, principal):
                    found.append(Masking(mask.how, mask.keep, mask.band, f"policy/{name}"))
    if found:
        return min(found, key=lambda masking: masking.strictness)
    if not is_named and known.is_protected and not principal.has(DEFAULT_ROLE):
        return Masking("redact")
    return None


def _names(mask: Mask, column: str, known: ColumnFacts) -> bool:
    return (
        (bool(mask.columns) and matches(column, mask.columns))
        or known.classification in mask.classifications
        or bool(known.tags & {tag.lower() for tag in mask.tags})
    )


def _is_excepted(policy: Policy, principal: Principal) -> bool:
    if policy.unless_role is not None and principal.has(policy.unless_role):
        return True
    return bool(policy.unless_actor) and matches(principal.actor, policy.unless_actor)
