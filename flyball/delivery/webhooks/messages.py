"""What is sent: the body, and the headers that say who sent it, when, and which delivery it is.

Sources: MLflow 3.17 (`X-MLflow-Delivery-Id`, `-Timestamp`, `-Signature`), Standard Webhooks 1.0 (`webhook-id`,
`webhook-timestamp`, `webhook-signature`), CloudEvents 1.0.2 with its HTTP binding (structured mode, §3.2). Both
signatures are HMAC-SHA256 over `id.timestamp.body`, in base64 behind `v1,`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flyball.clock import format_instant
from flyball.delivery.webhooks.events import MlflowEvent, event_name
from flyball.ledger.journal import Event

__all__ = ["cloud_event", "delivery_id", "example_event", "headers_of", "mlflow_body", "signature"]

_NAMESPACE = uuid.UUID("6d0f3c5a-3f0e-5f5b-9f0c-6b1f0c1c7b11")  # of delivery ids
_PREFIX = "whsec_"  # Standard Webhooks: what follows is the key in base64


def delivery_id(webhook: str, made: int, seq: int) -> str:
    """Return the id of the delivery of an event to a webhook: the same whenever and by whomever it is sent.

    Args:
        made: the event by which the webhook was made, since another may get its name.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{webhook}\n{made}\n{seq}"))


def mlflow_body(event: MlflowEvent, at: datetime) -> str:
    """Return MLflow's message."""
    entity, _, action = event.name.partition(".")
    message = {"entity": entity, "action": action, "timestamp": at.astimezone(UTC).isoformat(), "data": event.data}
    return json.dumps(message)


def cloud_event(event: Event, source: str) -> str:
    """Return a journal event as a CloudEvent; `id` is its number, which with `source` names it for ever."""
    message = {
        "specversion": "1.0",
        "id": str(event.seq),
        "source": source,
        "type": f"flyball.{event_name(event)}",
        "subject": event.ref,
        "time": format_instant(event.at),
        "datacontenttype": "application/json",
        "data": {
            "actor": event.actor,
            "action": event.action,
            "ref": event.ref,
            "cause": event.cause,
            "detail": dict(event.detail),
        },
    }
    return json.dumps(message, ensure_ascii=False)


def headers_of(form: str, id: str, body: bytes, at: datetime, secret: str | None) -> Mapping[str, str]:
    """Return the headers of one attempt.

    Args:
        form: the webhook's format.
        at: when it is sent; a receiver refuses what is old, so each attempt is signed anew.
    """
    stamp = str(int(at.timestamp()))
    signed = signature(secret, id, stamp, body, is_standard=form != "mlflow") if secret else None
    if form == "mlflow":
        headers = {"Content-Type": "application/json", "X-MLflow-Delivery-Id": id, "X-MLflow-Timestamp": stamp}
        return headers | ({"X-MLflow-Signature": signed} if signed else {})
    headers = {
        "Content-Type": "application/cloudevents+json; charset=utf-8",
        "webhook-id": id,
        "webhook-timestamp": stamp,
    }
    return headers | ({"webhook-signature": signed} if signed else {})


def signature(secret: str, id: str, stamp: str, body: bytes, *, is_standard: bool = False) -> str:
    """Return the signature of a message; a secret of Standard Webhooks' form (`whsec_…`) is its key in base64."""
    key = secret.encode("utf-8")
    if is_standard and secret.startswith(_PREFIX):
        with contextlib.suppress(binascii.Error):  # any text may be a secret, also one that begins so
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    made = hmac.new(key, f"{id}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(made).decode()}"


def example_event(name: str, at: datetime) -> Event:
    """Return an event that did not happen, as a test of a webhook sends it."""
    kind, _, action = name.partition(".")
    detail: dict[str, Any] = {"test": True}
    return Event(0, at, "user/test", action or "tested", f"{kind or 'webhook'}/example", detail, None, "")
