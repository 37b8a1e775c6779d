"""The kind Model: what a model is for, and the gates that a version must pass before it may serve."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from flyball.clock import parse_duration
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.governance.identity import ROLES
from flyball.ledger.kinds import RefersTo, Spec, register
from flyball.ledger.refs import check_alias

__all__ = ["CARD_TEXTS", "REQUIREMENTS", "Approval", "Approvers", "Gate", "Model", "Question", "RiskForm", "Stage"]

REQUIREMENTS = ("signature", "card", "risk")
# What people write on a model card, in its order; the rest of a card is generated.
CARD_TEXTS = ("summary", "intended_use", "out_of_scope", "limits", "ethics", "licence", "owner", "contact")


class Gate(Spec):
    """One condition on a version's evaluation: a bound on a metric, or a comparison with the champion."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    against: Literal["champion"] | None = None
    verdict: Literal["better", "not worse"] = Field(
        "better", description="of the comparison: better needs evidence; not worse fails only on evidence against"
    )

    @model_validator(mode="after")
    def _checks_something(self) -> Gate:
        if self.at_least is None and self.at_most is None and self.against is None:
            raise ValueError("a gate needs at_least, at_most or against: champion; this one checks nothing")
        return self


class Approval(Spec):
    """Who must agree before a version becomes the challenger of a deployment."""

    by: Literal["nobody", "person"] = Field("nobody", description="person: it waits for `flyball approve`")


class Approvers(Spec):
    """Who must agree before a version enters a stage: any of these people, and whoever has the role."""

    role: str | None = Field(None, description="this or a higher one; default: editor, unless people are named")
    people: list[str] = Field(default_factory=list, description="such as user/alice, whatever their role")
    at_least: int = Field(1, ge=1, le=20, description="so many different people")
    separate_duties: bool = Field(True, description="who asked, or who made the version, may not agree")

    @field_validator("role")
    @classmethod
    def _known_role(cls, role: str | None) -> str | None:
        if role is not None and role not in ROLES:
            raise ValueError(f'there is no role "{role}"{did_you_mean(role, ROLES)} (known: {listed(ROLES)})')
        return role

    @field_validator("people")
    @classmethod
    def _as_actors(cls, people: list[str]) -> list[str]:
        return [person if "/" in person else f"user/{person}" for person in people]

    @model_validator(mode="after")
    def _can_be_met(self) -> Approvers:
        if self.role is None and self.people and len(set(self.people)) < self.at_least:
            raise ValueError(f"{self.at_least} people must agree but {len(set(self.people))} are named, and no role")
        return self

    @property
    def asked_role(self) -> str | None:
        """The role that may agree; None where only the people named may."""
        return self.role or (None if self.people else "editor")


class Stage(Spec):
    """Where a version stands in its life, and what is asked of one that enters."""

    name: str = Field(min_length=1, max_length=60)
    checks: list[Gate] = Field(default_factory=list, description="gates that its evaluation must pass")
    requires: list[str] = Field(
        default_factory=list,
        description="signature: by a key that is trusted; card: written; card.limits: that part; risk: assessed",
    )
    approvers: Approvers | None = Field(None, description="default: nobody needs to agree")
    alias: str | None = Field(None, description="moves with the stage; deployments follow it, such as champion")
    rollout: bool = Field(
        False, description="with alias champion: it becomes challenger first, and the rollout decides on evidence"
    )
    expires: str = Field("14d", description="how long a request for this stage waits")
    retired: bool = Field(False, description="out of use: any version that does not serve may go there")

    @field_validator("requires")
    @classmethod
    def _known_requirements(cls, words: list[str]) -> list[str]:
        known = [*REQUIREMENTS, *(f"card.{text}" for text in CARD_TEXTS)]
        for word in words:
            if word not in known:
                raise ValueError(f'"{word}" cannot be required{did_you_mean(word, known)} (known: {listed(known, 20)})')
        return words

    @field_validator("expires")
    @classmethod
    def _a_duration(cls, text: str) -> str:
        try:
            if not parse_duration(text):
                raise ValueError("a request that waits for no time can never be approved; write it like 14d")
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return text

    @field_validator("alias")
    @classmethod
    def _an_alias(cls, alias: str | None) -> str | None:
        try:
            return check_alias(alias) if alias is not None else None
        except InvalidInput as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _rolls_out_a_champion(self) -> Stage:
        if self.rollout and self.alias != "champion":
            raise ValueError("a rollout ends by moving the alias champion; bind the stage to it: alias: champion")
        if self.is_retired and self.alias is not None:
            raise ValueError(f'"{self.name}" is out of use and so cannot be bound to the alias {self.alias}')
        return self

    @property
    def is_retired(self) -> bool:
        """Whether versions here are out of use; a stage called archived is."""
        return self.retired or self.name.lower() == "archived"


class Question(Spec):
    """One question of a risk assessment."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")
    section: str = Field("This model", description="the heading under which it is asked")
    ask: str = Field(min_length=1)
    help: str = ""
    choices: list[str] = Field(default_factory=list, description="default: a text")
    forbids: list[str] = Field(default_factory=list, description="choices with which a version may not go on")
    is_required: bool = True

    @model_validator(mode="after")
    def _forbids_what_can_be_chosen(self) -> Question:
        strange = [choice for choice in self.forbids if choice not in self.choices]
        if strange:
            raise ValueError(f'"{strange[0]}" is forbidden but not among the choices ({listed(self.choices)})')
        return self


class RiskForm(Spec):
    """The questions of a model's risk assessment."""

    questions: list[Question] = Field(default_factory=list)
    file: str | None = Field(None, description="a YAML list of further questions, relative to the project")
    with_default: bool = Field(True, description="ask what flyball asks by default too: EU AI Act, NIST AI RMF")


@register
class Model(Spec):
    """A named model; its versions are made by runs, its aliases say which one does what."""

    description: str = ""
    dataset: Annotated[str, RefersTo("dataset")] | None = Field(None, description="what it learns from")
    task: Literal["binary", "multiclass", "regression"] | None = Field(
        None, description="default: seen from the target"
    )
    metric: str | None = Field(None, description="what decides; default: auc, accuracy or rmse by task")
    gates: list[Gate] = Field(default_factory=list)
    approve: Approval = Approval()
    tags: list[str] = Field(default_factory=list)
    promotion: Literal["automatic", "by hand"] = Field(
        "automatic", description="by hand: people set the aliases, as for models that an MLflow client made"
    )
    stages: list[Stage] = Field(
        default_factory=list, description="in order; default: development, staging, production, archived"
    )
    risk: RiskForm = Field(default_factory=RiskForm)

    @field_validator("stages")
    @classmethod
    def _a_ladder(cls, stages: list[Stage]) -> list[Stage]:
        names = [stage.name.lower() for stage in stages]
        aliases = [stage.alias for stage in stages if stage.alias is not None]
        for given in (names, aliases):
            twice = next((one for one in given if given.count(one) > 1), None)
            if twice is not None:
                raise ValueError(f'"{twice}" stands in two stages; a name or an alias belongs to one')
        if stages and stages[0].is_retired:
            raise ValueError(f'every new version begins in the first stage, and "{stages[0].name}" is out of use')
        return stages
