"""`/settings/keys`: who may ask from afar; making a key, whose secret is shown once, and revoking one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.requests import Request

from flyball.clock import parse_duration
from flyball.governance.identity import ROLES
from flyball.ledger.access_keys import AccessKey
from flyball.web.pages.site import Goto, Page, Site

__all__ = ["mount"]


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def overview(_request: Request) -> Page:
        return _page(None, None)

    def make(_request: Request, fields: Mapping[str, str]) -> Page:
        expires = fields.get("expires", "").strip()
        made, secret = platform.create_key(
            fields.get("name", "").strip(),
            fields.get("role", ""),
            deployments=fields.get("deployments", "").replace(",", " ").split(),
            expires=parse_duration(expires) if expires else None,
        )
        # Shown in the answer itself and not after a redirect: an address, or a place to fetch it from, would keep it.
        return _page(made, secret)

    def revoke(request: Request, _fields: Mapping[str, str]) -> Goto:
        platform.revoke_key(request.path_params["name"])
        return Goto("/settings/keys")

    def _page(made: AccessKey | None, secret: str | None) -> Page:
        now = platform.clock.now()
        values = {
            "title": "Access keys",
            "section": "settings",
            "crumbs": [("Settings", "/settings"), ("Access keys", None)],
            "keys": [_row(key) | {"has_expired": key.has_expired(now)} for key in platform.access_keys()],
            "roles": ROLES,
            "made": made,
            "secret": secret,
        }
        return Page("keys.html", values)

    site.page("/settings/keys", overview)
    site.form("/settings/keys", make)
    site.form("/settings/keys/{name}/revoke", revoke)


def _row(key: AccessKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "role": key.role,
        "deployments": key.deployments,
        "made_by": key.made_by,
        "made_at": key.made_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "revoke_at": f"/settings/keys/{quote(key.name)}/revoke",
    }
