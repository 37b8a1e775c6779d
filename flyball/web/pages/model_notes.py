"""What people say of a model or a version: description, tags, aliases, origin; and the forms that change it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from flyball.errors import InvalidInput
from flyball.ledger.refs import check_name, ledger_name, shown_name
from flyball.platform import MAY, Platform
from flyball.web.formats import ref_url
from flyball.web.pages.site import Goto, Site

__all__ = ["about_model", "about_version", "mount_forms", "name_in"]

_PROMPT_TEXT = "mlflow.prompt.text"
_PROGRAMS = ("mlflow.", "_mlflow")  # how keys of tags begin that programs set for each other
_MOST_VERSIONS = 200  # to choose from


def name_in(request: Request) -> str:
    """Return the ledger's name of the model in an address, where it may stand encoded or as people write it."""
    text = str(request.path_params["name"])
    try:
        return check_name(text, "model")
    except InvalidInput:
        return ledger_name(text)


def about_model(platform: Platform, name: str) -> dict[str, Any]:
    """Return what the page of a model shows of what is said of it; `name` is the ledger's."""
    model = platform.model(shown_name(name))
    newest = platform.versions("model", name, limit=_MOST_VERSIONS)
    return {
        "shown": model.name,
        "address": ref_url(model.resource.ref),
        "description": model.description,
        "tags": _tags(model.note.tags),
        "is_prompt": model.is_prompt,
        "aliases": [(alias, number) for alias, number in model.aliases.items()],
        "numbers": [version.number for version in newest],
        "stages": {version.number: version.note.stage for version in model.latest if version.note.stage},
        "may_change": platform.principal.has(MAY["register"]),
    }


def about_version(platform: Platform, name: str, number: int) -> dict[str, Any]:
    """Return what the page of a version shows of what is said of it."""
    version = platform.model_version(shown_name(name), number)
    model_id = version.made.metadata.get("model_id")
    return {
        "shown": version.name,
        "address": ref_url(version.made.ref),
        "description": version.note.description or "",
        "tags": _tags(version.note.tags),
        "text": version.note.tags.get(_PROMPT_TEXT),
        "source": version.note.source,
        "location": version.location,
        "run": version.made.run,
        "told_run": version.run if version.run != version.made.run else None,
        "model_id": model_id,
        "run_link": version.made.metadata.get("run_link"),
        "stage": version.note.stage,
        "may_change": platform.principal.has(MAY["register"]),
    }


def mount_forms(site: Site) -> None:
    """Add the forms that change what is said, for a model and for a version of it."""
    platform = site.platform

    def describe(request: Request, fields: Mapping[str, str]) -> Goto:
        name, number = _whose(request)
        text = fields.get("description", "").replace("\r\n", "\n").strip()
        if number is None:
            platform.describe_model(name, text)
        else:
            platform.describe_version(name, number, text)
        return _back(name, number)

    def tag(request: Request, fields: Mapping[str, str]) -> Goto:
        name, number = _whose(request)
        key, value = fields.get("key", "").strip(), fields.get("value", "").strip()
        if number is None:
            platform.tag_model(name, key, value)
        else:
            platform.tag_version(name, number, key, value)
        return _back(name, number)

    def untag(request: Request, fields: Mapping[str, str]) -> Goto:
        name, number = _whose(request)
        if number is None:
            platform.untag_model(name, fields.get("key", ""))
        else:
            platform.untag_version(name, number, fields.get("key", ""))
        return _back(name, number)

    def point(request: Request, fields: Mapping[str, str]) -> Goto:
        name, _ = _whose(request)
        alias, number = fields.get("alias", "").strip(), fields.get("version", "")
        if not alias:
            raise InvalidInput("an alias needs a name, such as champion; nothing was changed")
        if not (number.isascii() and number.isdecimal() and len(number) < 10):
            raise InvalidInput(f"{number[:40]!r} is no version of {name}; choose a number")
        platform.set_alias(name, alias, int(number))
        return _back(name, None)

    def unpoint(request: Request, fields: Mapping[str, str]) -> Goto:
        name, _ = _whose(request)
        platform.remove_alias(name, fields.get("alias", ""))
        return _back(name, None)

    for path in ("/models/{name}", "/models/{name}/{version}"):
        site.form(f"{path}/describe", describe)
        site.form(f"{path}/tag", tag)
        site.form(f"{path}/untag", untag)
    site.form("/models/{name}/alias", point)
    site.form("/models/{name}/unalias", unpoint)


def _whose(request: Request) -> tuple[str, int | None]:
    name, version = shown_name(name_in(request)), request.path_params.get("version")
    if version is None:
        return name, None
    if not (version.isascii() and version.isdecimal() and len(version) < 10):
        raise InvalidInput(f"{version[:40]!r} is no version of {name}; the address needs its number")
    return name, int(version)


def _back(name: str, number: int | None) -> Goto:
    address = ref_url(f"model/{ledger_name(name)}")
    return Goto(address if number is None else f"{address}/{number}")


def _tags(tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return tags for a page: people's first, behind them those that programs set for each other, as they are."""
    found = [
        {"key": key, "value": value, "is_program": key.startswith(_PROGRAMS)}
        for key, value in tags.items()
        if key != _PROMPT_TEXT
    ]
    return sorted(found, key=lambda tag: (tag["is_program"], tag["key"]))
