"""Webhooks of MLflow's format; those of another are not its clients' to see."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flyball.delivery.webhooks.events import MLFLOW_EVENTS
from flyball.platform import Platform
from flyball.platform.webhooks import Hook
from flyball.wire.mlflow.fields import choice, message, messages, text, whole
from flyball.wire.mlflow.refusals import invalid, not_found, required
from flyball.wire.mlflow.routing import Asked, Routes
from flyball.wire.mlflow.values import milliseconds, offset_of, token_of

__all__ = ["add_webhooks"]

_PATH = "2.0/mlflow/webhooks"
_ONE = f"{_PATH}/{{webhook_id}}"
_NAME = re.compile(r"(?=.{1,63}$)[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE | re.ASCII)
_DEFAULT_PAGE = 100
_LARGEST_PAGE = 1000
_ENTITIES = (
    *("REGISTERED_MODEL", "MODEL_VERSION", "MODEL_VERSION_TAG", "MODEL_VERSION_ALIAS"),
    *("PROMPT", "PROMPT_VERSION", "PROMPT_TAG", "PROMPT_VERSION_TAG", "PROMPT_ALIAS", "BUDGET_POLICY"),
)
_ACTIONS = ("CREATED", "UPDATED", "DELETED", "SET", "EXCEEDED")
_EVENT = (choice("entity", _ENTITIES), choice("action", _ACTIONS))
_STATUS = choice("status", ("ACTIVE", "DISABLED"))


def add_webhooks(routes: Routes, platform: Platform) -> None:
    """Add all routes of webhooks."""

    def one(asked: Asked) -> Hook:
        found = platform.webhook(asked.parts["webhook_id"])
        if found.format != "mlflow":
            raise not_found(f"Webhook with ID {found.name} not found.")
        return found

    @routes.add("POST", _PATH, text("name", required=True), text("description"), text("url", required=True),
                messages("events", *_EVENT), text("secret"), _STATUS)  # fmt: skip
    def create(asked: Asked) -> dict[str, Any]:
        if "events" not in asked:
            raise required("events")
        if not asked["events"]:
            raise invalid("Webhook events must be a non-empty list of WebhookEvent objects: [].")
        made = platform.create_webhook(
            asked["url"],
            _events(asked["events"]),
            display_name=_name(asked["name"]),
            description=asked.get("description", ""),
            secret=asked.get("secret") or None,
            is_active=asked.get("status", "ACTIVE") == "ACTIVE",
            format="mlflow",
        )
        return {"webhook": _document(made)}

    @routes.add("GET", _PATH, whole("max_results"), text("page_token"))
    def find(asked: Asked) -> dict[str, Any]:
        limit = asked.get("max_results") or _DEFAULT_PAGE
        if not 1 <= limit <= _LARGEST_PAGE:
            raise invalid(f"max_results must be between 1 and {_LARGEST_PAGE}.")
        offset = offset_of(asked.get("page_token"))
        found = [hook for hook in platform.webhooks() if hook.format == "mlflow"]
        page = [_document(hook) for hook in found[offset : offset + limit]]
        answer: dict[str, Any] = {"webhooks": page} if page else {}
        return answer | ({"next_page_token": token_of(offset + limit)} if len(found) > offset + limit else {})

    @routes.add("GET", _ONE)
    def get(asked: Asked) -> dict[str, Any]:
        return {"webhook": _document(one(asked))}

    @routes.add("PATCH", _ONE, text("name"), text("description"), text("url"), messages("events", *_EVENT),
                text("secret"), _STATUS)  # fmt: skip
    def update(asked: Asked) -> dict[str, Any]:
        changed = platform.update_webhook(
            one(asked).name,
            secret=asked.get("secret"),
            display_name=_name(asked["name"]) if asked.get("name") else None,
            description=asked.get("description"),
            url=asked.get("url") or None,
            events=_events(asked["events"]) if asked.get("events") else None,
            active=asked["status"] == "ACTIVE" if "status" in asked else None,
        )
        return {"webhook": _document(changed)}

    @routes.add("DELETE", _ONE)
    def delete(asked: Asked) -> dict[str, Any]:
        platform.delete_webhook(one(asked).name)
        return {}

    @routes.add("POST", f"{_ONE}/test", message("event", *_EVENT))
    def test(asked: Asked) -> dict[str, Any]:
        chosen = _events([asked["event"]])[0] if "event" in asked else None
        answer = platform.test_webhook(one(asked).name, chosen)
        result: dict[str, Any] = {"success": answer.is_taken}
        if answer.status is None:
            return {"result": {**result, "error_message": f"Failed to test webhook: {answer.error}"}}
        return {"result": {**result, "response_status": answer.status, "response_body": answer.body}}


def _name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise invalid(
            f"Webhook name {name[:200]!r} is invalid. It must start and end with a letter or digit, "
            "be less than 63 characters long, and contain only letters, digits, dots (.), "
            "underscores (_), and hyphens (-)."
        )
    return name


def _events(given: Sequence[Mapping[str, str]]) -> list[str]:
    found = []
    for event in given:
        entity, action = (
            event.get("entity", "entity_unspecified").lower(),
            event.get("action", "action_unspecified").lower(),
        )
        if f"{entity}.{action}" not in MLFLOW_EVENTS:
            valid = sorted(name.partition(".")[2] for name in MLFLOW_EVENTS if name.startswith(f"{entity}."))
            raise invalid(f"Invalid action '{action}' for entity '{entity}'. Valid actions are: {valid}")
        found.append(f"{entity}.{action}")
    return found


def _document(hook: Hook) -> dict[str, Any]:
    events = [event.upper().split(".") for event in sorted(hook.events) if event in MLFLOW_EVENTS]
    document: dict[str, Any] = {
        "webhook_id": hook.name,
        "name": hook.title,
        "url": hook.url,
        "events": [{"entity": entity, "action": action} for entity, action in events],
        "status": "ACTIVE" if hook.is_active else "DISABLED",
    }
    if hook.description:
        document["description"] = hook.description
    if hook.created_at is not None and hook.updated_at is not None:
        document["creation_timestamp"] = milliseconds(hook.created_at)
        document["last_updated_timestamp"] = milliseconds(hook.updated_at)
    return document
