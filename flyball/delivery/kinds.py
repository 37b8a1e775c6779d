"""The kind Webhook: who is told, over HTTP, what happens."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from flyball.delivery.webhooks.addresses import parsed
from flyball.delivery.webhooks.events import MLFLOW_EVENTS, check_pattern
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.ledger.kinds import Spec, register

__all__ = ["Webhook"]


@register
class Webhook(Spec):
    """An address that is told of events. Its secret is kept apart: `flyball webhooks secret NAME` sets it."""

    url: str = Field(description="where to send; https, unless [webhooks] schemes says otherwise")
    events: list[str] = Field(
        min_length=1,
        description="format cloudevents: patterns of the journal's KIND.ACTION, such as model.published, alert.* or *; "
        "format mlflow: MLflow's events, such as model_version.created",
    )
    format: Literal["cloudevents", "mlflow"] = Field(
        "cloudevents",
        description="cloudevents: CloudEvents 1.0, signed as Standard Webhooks; mlflow: MLflow's messages",
    )
    active: bool = Field(True, description="false: nothing is sent, and what happens meanwhile is not told later")
    description: str = ""
    display_name: str = Field("", description="what MLflow's clients call it; empty: its name")

    @field_validator("url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        try:
            found = parsed(url)
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        if found.scheme not in ("http", "https"):
            raise ValueError(f"the url {url[:200]!r} begins with {found.scheme!r}; expected https://…")
        return url

    @model_validator(mode="after")
    def _known_events(self) -> Webhook:
        for event in self.events:
            if self.format == "mlflow" and event not in MLFLOW_EVENTS:
                near = did_you_mean(event, MLFLOW_EVENTS)
                raise ValueError(f'MLflow has no event "{event}"{near} (known: {listed(MLFLOW_EVENTS, 20)})')
            if self.format == "cloudevents":
                try:
                    check_pattern(event)
                except InvalidInput as error:
                    raise ValueError(str(error)) from None
        return self
