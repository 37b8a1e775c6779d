"""The kind Policy: who sees which columns, for what and where data may be read, how long it is kept.

A policy is declared like everything else and enforced where data is read and written: `policies` decides, the rooms
that hold rows obey. Several policies may speak of the same column; `policies` documents which of them wins.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from pydantic import Field, field_validator, model_validator

from flyball.clock import parse_duration
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.governance.identity import ROLES
from flyball.ledger.kinds import Spec, register

__all__ = ["CLASSIFICATIONS", "HOWS", "OPEN", "AppliesTo", "Mask", "Policy", "Require", "matches"]

# From open to closed. A dataset may use another word; it then counts as "confidential".
CLASSIFICATIONS = ("public", "open", "internal", "confidential", "personal", "restricted", "sensitive", "secret")
OPEN = frozenset({"", "public", "open", "internal", "none", "non-sensitive", "unclassified"})
# From the strictest to the mildest.
HOWS = ("null", "redact", "hash", "generalise", "partial")


class AppliesTo(Spec):
    """What a policy speaks of. Of each list one entry must fit; an empty list fits everything."""

    datasets: list[str] = Field(default_factory=list, description="names or patterns such as crm_*")
    models: list[str] = Field(default_factory=list, description="names or patterns")
    tags: list[str] = Field(default_factory=list, description="of the dataset or model")
    domains: list[str] = Field(default_factory=list, description="of the dataset")
    classifications: list[str] = Field(default_factory=list, description="that a column of the dataset has")

    @field_validator("classifications")
    @classmethod
    def _known(cls, words: list[str]) -> list[str]:
        return [_classification(word) for word in words]


class Mask(Spec):
    """Which columns are shown in another form: those that any of the three lists names."""

    classifications: list[str] = Field(default_factory=list, description="personal, sensitive, confidential, secret…")
    tags: list[str] = Field(default_factory=list, description="of the column, such as pii")
    columns: list[str] = Field(default_factory=list, description="names or patterns; customer.email is a nested field")
    how: str = Field(description="null, redact, hash, generalise or partial")
    keep: int = Field(4, ge=0, le=64, description="of partial: how many last characters stay")
    band: float = Field(10, gt=0, description="of generalise: the width of a band of numbers")

    @field_validator("classifications")
    @classmethod
    def _known(cls, words: list[str]) -> list[str]:
        return [_classification(word) for word in words]

    @field_validator("how")
    @classmethod
    def _known_how(cls, word: str) -> str:
        if word not in HOWS:
            raise ValueError(f'a value cannot be masked by "{word}"{did_you_mean(word, HOWS)} (known: {listed(HOWS)})')
        return word

    @model_validator(mode="after")
    def _names_something(self) -> Mask:
        if not (self.classifications or self.tags or self.columns):
            raise ValueError("a mask needs classifications, tags or columns; this one masks nothing")
        return self


class Require(Spec):
    """What a model version must keep to be registered."""

    without_classifications: list[str] = Field(
        default_factory=list, description="no input may be a column of such a classification"
    )
    without_tags: list[str] = Field(default_factory=list, description="no input may be a column with such a tag")
    only_datasets: list[str] = Field(default_factory=list, description="names or patterns of what it may learn from")

    @field_validator("without_classifications")
    @classmethod
    def _known(cls, words: list[str]) -> list[str]:
        return [_classification(word) for word in words]


@register
class Policy(Spec):
    """A rule on data and models that is enforced, not only written down."""

    description: str = ""
    applies_to: AppliesTo = AppliesTo()
    mask: list[Mask] = Field(default_factory=list)
    unless_role: str | None = Field(None, description="who has this role or a higher one sees this policy's columns")
    unless_actor: list[str] = Field(
        default_factory=list, description="these see them too, such as user/alice or team/fraud-*"
    )
    purposes: list[str] = Field(default_factory=list, description="what the data may be read for; empty: anything")
    regions: list[str] = Field(default_factory=list, description="where it may be kept and read; empty: anywhere")
    retention: str | None = Field(None, description="how long rows are kept after their event time, such as 400d")
    require: Require | None = Field(None, description="of models that learn from it")

    @field_validator("unless_role")
    @classmethod
    def _known_role(cls, role: str | None) -> str | None:
        if role is not None and role not in ROLES:
            raise ValueError(f'there is no role "{role}"{did_you_mean(role, ROLES)} (known: {listed(ROLES)})')
        return role

    @field_validator("retention")
    @classmethod
    def _a_duration(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                span = parse_duration(text)
            except InvalidInput as error:
                raise ValueError(str(error)) from None
            if not span:
                raise ValueError("a retention of nothing would remove every row; write it like 400d")
        return text

    @model_validator(mode="after")
    def _says_something(self) -> Policy:
        if not (self.mask or self.purposes or self.regions or self.retention or self.require):
            raise ValueError("a policy needs mask, purposes, regions, retention or require; this one says nothing")
        return self


def matches(name: str, patterns: list[str]) -> bool:
    """Whether a name fits one of the patterns (`*`, `?`, `[…]`, with case); no patterns fit everything."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _classification(word: str) -> str:
    found = word.strip().lower()
    if found not in CLASSIFICATIONS:
        near = did_you_mean(found, CLASSIFICATIONS)
        raise ValueError(f'there is no classification "{word}"{near} (known: {listed(CLASSIFICATIONS)})')
    return found
