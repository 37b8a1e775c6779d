"""`/settings`: what this home is, which backends it uses, whether its data plane lives; and who did what in it."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import platform as machine
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from starlette.requests import Request

from flyball import settings
from flyball.governance.admission import SESSION_COOKIE
from flyball.ledger import kinds
from flyball.ledger.refs import check_name
from flyball.platform import MAY, Platform
from flyball.web.pages.looking import data_plane, instant
from flyball.web.pages.site import Page, Site

__all__ = ["mount"]

# The settings classes of the rooms, by the table of `flyball.toml` that fills them.
_ROOMS = {
    "ledger": "flyball.ledger.sql:LedgerSettings",
    "control": "flyball.control.loop:ControlSettings",
    "pipelines": "flyball.pipelines.claims:PipelineSettings",
    "webhooks": "flyball.delivery.webhooks.settings:WebhookSettings",
    "auth": "flyball.governance.admission:AuthSettings",
}
_LIBRARIES = ("fastapi", "polars", "numpy", "sqlalchemy", "scikit-learn", "onnxruntime", "skops")


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def show(request: Request) -> Page:
        plane = data_plane(platform)
        values = {
            "title": "Settings",
            "section": "settings",
            "crumbs": [("Settings", None)],
            "path": platform.home,
            "project": platform.project,
            "principal": platform.principal,
            "may": sorted(act for act, role in MAY.items() if platform.principal.has(role)),
            "plane": plane,
            "plane_started": instant(plane.status.started_at) if plane else None,
            "libraries": [(name, _version(name)) for name in _LIBRARIES],
            "python": machine.python_version(),
            "backends": _backends(platform),
            "rooms": [_room(platform, room, where) for room, where in _ROOMS.items()],
            "kinds": [{"kind": k, "count": len(platform.resources(k.word))} for k in kinds.all_kinds()],
            "last_event": platform.last_event(),
            "webhooks": _webhooks(platform),
            "has_session": SESSION_COOKIE in request.cookies,
            "may_admit": platform.principal.has(MAY["admit"]),
        }
        return Page("settings.html", values)

    def person(request: Request) -> Page:
        name = check_name(request.path_params["name"])
        values = {
            "title": name,
            "section": "settings",
            "crumbs": [("Settings", "/settings"), (name, None)],
            "name": name,
            "is_me": platform.actor == f"user/{name}",
            "role": platform.principal.role,
            "events": site.told(platform.events(actor=f"user/{name}", limit=50)),
        }
        return Page("person.html", values)

    site.page("/settings", show)
    site.page("/settings/people/{name}", person)


def _webhooks(platform: Platform) -> list[tuple[str, int]]:
    found = platform.webhooks()
    sums = [(state, sum(hook.counts.get(state, 0) for hook in found)) for state in ("delivered", "waiting", "failed")]
    return [("Webhooks", len(found)), *((f"Deliveries {state}", count) for state, count in sums)]


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _backends(platform: Platform) -> list[tuple[str, str]]:
    """Return what keeps what: the class that the platform has chosen."""
    parts = (("ledger", platform.ledger), ("blobs", platform.blobs), ("tables", platform.tables))
    return [(name, type(backend).__name__) for name, backend in (*parts, ("online", platform.online))]


def _room(platform: Platform, room: str, where: str) -> dict[str, Any]:
    """Return a room's settings beside their defaults."""
    module, _, name = where.partition(":")
    cls = getattr(importlib.import_module(module), name)
    chosen = settings.load(cls, room, platform.home)
    rows = [
        {
            "name": field.name,
            "value": _shown(getattr(chosen, field.name)),
            "default": _shown(None if field.default is dataclasses.MISSING else field.default),
            "is_default": getattr(chosen, field.name) == field.default,
        }
        for field in dataclasses.fields(cls)
    ]
    return {"name": room, "rows": rows}


def _shown(value: Any) -> str:
    """Return a setting as text, the password of an address left out."""
    text = "none" if value is None else str(value)
    if "://" not in text:
        return text
    parts = urlsplit(text)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"…@{host}" if "@" in parts.netloc else host, query=""))
