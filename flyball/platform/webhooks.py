"""Webhooks: making, changing, testing them, and what was delivered."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from flyball.clock import format_instant
from flyball.errors import Conflict, InvalidInput, NotFound
from flyball.ledger import Transaction
from flyball.ledger.deliveries import Delivery, State
from flyball.ledger.resources import Resource
from flyball.platform.home import Home

if TYPE_CHECKING:
    from flyball.delivery.webhooks.deliverer import Deliverer
    from flyball.delivery.webhooks.secrets import Secrets
    from flyball.delivery.webhooks.sending import Answer
    from flyball.delivery.webhooks.settings import WebhookSettings

__all__ = ["Hook", "WebhookActs"]

_SECRET = 1000  # characters
_MADE_SIGNED = 2  # the revision of a webhook that was made with a secret and not changed since


@dataclass(frozen=True)
class Hook:
    """A webhook as it stands, with how many of its deliveries wait, were taken, or failed."""

    resource: Resource
    counts: Mapping[str, int]

    @property
    def name(self) -> str:
        return self.resource.name

    @property
    def title(self) -> str:
        return str(self.resource.spec.get("display_name") or self.resource.name)

    @property
    def url(self) -> str:
        return str(self.resource.spec["url"])

    @property
    def events(self) -> tuple[str, ...]:
        return tuple(self.resource.spec["events"])

    @property
    def format(self) -> str:
        return str(self.resource.spec.get("format", "cloudevents"))

    @property
    def is_active(self) -> bool:
        return bool(self.resource.spec.get("active", True))

    @property
    def is_signed(self) -> bool:
        return bool(self.resource.status.get("signed"))

    @property
    def description(self) -> str:
        return str(self.resource.spec.get("description", ""))

    @property
    def created_at(self) -> datetime | None:
        return self.resource.created_at

    @property
    def updated_at(self) -> datetime | None:
        """When it was changed last; to be made with a secret is one act, though the ledger has two changes of it."""
        one, made = self.resource, self.resource.status.get("made_signed")
        return one.created_at if made and one.revision == _MADE_SIGNED else one.updated_at


class WebhookActs(Home):
    """Who is told what happens."""

    @property
    def webhook_settings(self) -> WebhookSettings:
        from flyball.delivery.webhooks.settings import webhook_settings

        return webhook_settings(self.home)

    @property
    def _webhook_secrets(self) -> Secrets:
        from flyball.delivery.webhooks.secrets import Secrets

        return Secrets(self.home)

    def webhooks(self) -> list[Hook]:
        """Return all webhooks, the newest first."""
        with self._reading() as world:
            counts = world.deliveries.counts()
            found = world.resources.all("webhook")
        found.sort(key=lambda one: (str(one.created_at), one.name), reverse=True)
        return [Hook(one, counts.get(one.name, {})) for one in found]

    def webhook(self, name: str) -> Hook:
        """Return a webhook. Raises NotFound."""
        with self._reading() as world:
            return Hook(_get(world, name), world.deliveries.counts().get(name, {}))

    def create_webhook(
        self,
        url: str,
        events: Sequence[str],
        *,
        name: str | None = None,
        display_name: str = "",
        description: str = "",
        secret: str | None = None,
        is_active: bool = True,
        format: Literal["cloudevents", "mlflow"] = "cloudevents",
    ) -> Hook:
        """Make a webhook, under a new id unless a name is given; with a secret its messages are signed.

        Raises:
            InvalidInput: its address is none that messages may be sent to now, or an event is unknown.
            Conflict: there is one of this name.
        """
        self._may("apply")
        chosen = name or str(uuid.uuid4())
        self._check_url(url)
        spec = {"url": url, "events": list(dict.fromkeys(events)), "format": format, "active": is_active}
        spec |= {"description": description, "display_name": display_name}
        if secret:
            _check_secret(secret)
        with self._writing("apply") as world:
            if world.resources.find("webhook", chosen) is not None:
                raise Conflict(f"there is already a webhook/{chosen}")
            made = world.resources.apply("webhook", chosen, spec).resource
            if secret:
                self._webhook_secrets.keep(chosen, secret)  # before the commit, so that nothing goes out unsigned
                made = self._mark_signed(world, made, is_signed=True, made_signed=True)
            return Hook(made, {})

    def update_webhook(self, name: str, *, secret: str | None = None, **changes: Any) -> Hook:
        """Change some fields of a webhook's declaration, and its secret; the empty secret takes it away.

        Raises:
            NotFound: there is no such webhook.
            InvalidInput: as `create_webhook`.
        """
        self._may("apply")
        self.webhook(name)
        if changes.get("url") is not None:
            self._check_url(changes["url"])
        if secret:
            _check_secret(secret)
        with self._writing("apply") as world:
            before = _get(world, name)
            given = {key: value for key, value in changes.items() if value is not None}
            after = world.resources.apply("webhook", name, {**before.spec, **given}).resource
            if secret:
                self._webhook_secrets.keep(name, secret)
            if secret is not None:
                after = self._mark_signed(world, after, is_signed=bool(secret))
            found = Hook(after, world.deliveries.counts().get(name, {}))
        if secret == "":
            self._webhook_secrets.drop(name)
        return found

    def delete_webhook(self, name: str) -> None:
        """Remove a webhook with its secret and what was to be sent to it. Raises NotFound."""
        with self._writing("delete") as world:
            _get(world, name)
            world.resources.delete("webhook", name)
            others = [one.name for one in world.resources.all("webhook")]
            world.deliveries.forget(webhooks_but=others)
        self._webhook_secrets.drop(name)

    def test_webhook(self, name: str, event: str | None = None) -> Answer:
        """Send an example of an event, by default of the first that it subscribes to, once; return how it was taken.

        Raises:
            NotFound: there is no such webhook.
            InvalidInput: MLflow has no such event.
        """
        from flyball.delivery.webhooks.deliverer import secret_of
        from flyball.delivery.webhooks.events import EXAMPLES, MlflowEvent
        from flyball.delivery.webhooks.messages import cloud_event, example_event, headers_of, mlflow_body
        from flyball.delivery.webhooks.sending import send

        self._may("apply")
        hook = self.webhook(name)
        now, chosen = self.clock.now(), self.webhook_settings
        wanted = event or hook.events[0]
        if hook.format == "mlflow":
            if wanted not in EXAMPLES:
                raise InvalidInput(f'MLflow has no event "{wanted}"')
            body = mlflow_body(MlflowEvent(wanted, EXAMPLES[wanted]), now)
        else:
            name_of = wanted.replace("*", "any") if wanted != "*" else "webhook.tested"
            body = cloud_event(example_event(name_of, now), chosen.source)
        secret = secret_of(hook.resource, self._webhook_secrets)
        sent = body.encode()
        return send(hook.url, headers_of(hook.format, str(uuid.uuid4()), sent, now, secret), sent, chosen)

    def deliveries(
        self,
        webhook: str | None = None,
        state: State | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[Delivery]:
        """Return deliveries, those of the newest events first. Raises NotFound: the webhook."""
        with self._reading() as world:
            if webhook is not None:
                _get(world, webhook)
            return world.deliveries.find(webhook, state, limit, before)

    def redeliver(self, webhook: str, event: int) -> Delivery:
        """Send a delivery again, with the same id, as soon as the deliverer comes to it. Raises NotFound."""
        with self._writing("apply") as world:
            _get(world, webhook)
            return world.deliveries.again(webhook, event)

    def deliverer(self) -> Deliverer:
        """Return what delivers for this home; start it, and stop it before the home is closed."""
        from flyball.delivery.webhooks.deliverer import Deliverer

        return Deliverer(self.ledger, self.home, self.webhook_settings, self.clock)

    def _check_url(self, url: str) -> None:
        from flyball.delivery.webhooks.addresses import check_address

        check_address(url, self.webhook_settings)

    def _mark_signed(self, world: Transaction, webhook: Resource, *, is_signed: bool, **more: bool) -> Resource:
        status = {"signed": True, "secret_set_at": format_instant(self.clock.now()), **more} if is_signed else {}
        action = "secret set" if is_signed else "secret removed"
        return world.resources.set_status("webhook", webhook.name, status, action=action).resource


def _get(world: Transaction, name: str) -> Resource:
    found = world.resources.find("webhook", name)
    if found is None:
        raise NotFound(f"Webhook with ID {name} not found.")
    return found


def _check_secret(secret: str) -> None:
    if len(secret) > _SECRET:
        raise InvalidInput(f"the secret has {len(secret):,} characters; at most {_SECRET:,} are possible")
