"""The kinds Pipeline and Trigger: what can be run, and what starts it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from flyball.clock import parse_duration
from flyball.errors import InvalidInput
from flyball.ledger.kinds import RefersTo, Spec, register
from flyball.ledger.refs import Ref, ref

__all__ = ["Condition", "Cron", "Pipeline", "Trigger"]


@register
class Pipeline(Spec):
    """A function whose calls of steps make a graph."""

    description: str = ""
    function: str = Field(description="module:name, or file.py:name relative to the project")
    params: dict[str, Any] = Field(default_factory=dict, description="its arguments, unless a run gives others")
    uses: list[Annotated[str, RefersTo("*")]] = Field(
        default_factory=list, description="what it reads, for impact analysis"
    )

    @field_validator("function")
    @classmethod
    def _is_a_function(cls, function: str) -> str:
        if not re.fullmatch(r"[\w./\-]+:[A-Za-z_]\w*", function):
            raise ValueError("write it as module:name or file.py:name")
        return function


class Cron(Spec):
    """A schedule in the five fields of cron, in a time zone."""

    cron: str
    zone: str = "UTC"

    @model_validator(mode="after")
    def _can_be_read(self) -> Cron:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        from cronsim import CronSim, CronSimError

        try:
            ZoneInfo(self.zone)
            import datetime

            CronSim(self.cron, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"unknown time zone {self.zone!r}; use a name such as America/New_York") from error
        except CronSimError as error:
            raise ValueError(f"{error}; write five fields such as 0 4 * * 1") from error
        return self


class Condition:
    """`monitor/late.drifting` taken apart: the resource, and which of its conditions is meant."""

    def __init__(self, text: str) -> None:
        target, dot, self.name = text.rpartition(".")
        if not dot or self.name not in ("drifting", "decayed"):
            target, self.name = text, "changed"
        self.target: Ref = ref(target)


@register
class Trigger(Spec):
    """Starts a pipeline when something happens, within a budget."""

    description: str = ""
    on: list[str | Cron] = Field(min_length=1, description="monitor/x.drifting, monitor/x.decayed, dataset/x, {cron}")
    start: Annotated[str, RefersTo("pipeline")]
    params: dict[str, Any] = Field(default_factory=dict)
    budget: str = Field("3 a day", description="starts allowed: N a hour, a day or a week")
    cool_down: str = Field("0s", description="shortest time between the end of a run and the next start")
    after_labels: int = Field(
        0,
        ge=0,
        description="labelled answers since the first window of the condition that must be there before a start",
    )
    paused: bool = False
    missed: Literal["once", "skip"] = Field("once", description="schedules that fell due while nothing ran")

    @field_validator("budget")
    @classmethod
    def _is_a_budget(cls, budget: str) -> str:
        if not re.fullmatch(r"[1-9]\d* an? (hour|day|week)", budget):
            raise ValueError("write it like 3 a day, 1 an hour or 10 a week")
        return budget

    @field_validator("cool_down")
    @classmethod
    def _is_a_duration(cls, cool_down: str) -> str:
        parse_duration(cool_down)
        return cool_down

    def references(self) -> set[Ref]:
        found = {ref(self.start, "pipeline")}
        for item in self.on:
            if isinstance(item, str):
                try:
                    found.add(Condition(item).target)
                except InvalidInput as error:
                    raise InvalidInput(f'"{item}" in `on` is not a reference: {error}') from None
        return found
