"""Registered models and their aliases; prompts are registered models with a tag that says so."""

from __future__ import annotations

from typing import Any

from flyball.errors import Conflict
from flyball.platform import Platform
from flyball.wire.mlflow.fields import messages, text, texts, whole, wrong
from flyball.wire.mlflow.refusals import invalid, wrong_state
from flyball.wire.mlflow.registry_values import (
    check_alias,
    check_name,
    check_tag,
    model_document,
    stage_of,
    tags_of,
    version_document,
    version_number,
)
from flyball.wire.mlflow.routing import Asked, Routes
from flyball.wire.mlflow.values import offset_of, token_of

__all__ = ["add_registered_models"]

_PATH = "2.0/mlflow/registered-models"
_NAME = text("name", required=True)
_DEFAULT_PAGE = 100
_LARGEST_PAGE = 1000


def add_registered_models(routes: Routes, platform: Platform) -> None:
    """Add all routes of registered models."""
    _add_models(routes, platform)
    _add_tags(routes, platform)
    _add_aliases(routes, platform)
    _add_finding(routes, platform)


def _add_models(routes: Routes, platform: Platform) -> None:
    @routes.add(
        "POST",
        f"{_PATH}/create",
        _NAME,
        messages("tags", text("key"), text("value")),
        text("description"),
        text("deployment_job_id"),
    )
    def create(asked: Asked) -> dict[str, Any]:
        name, tags = check_name(asked["name"]), tags_of(asked.get("tags"))
        return {"registered_model": model_document(platform.create_model(name, tags, asked.get("description")))}

    @routes.add("GET", f"{_PATH}/get", _NAME)
    def get(asked: Asked) -> dict[str, Any]:
        return {"registered_model": model_document(platform.model(check_name(asked["name"])))}

    @routes.add("PATCH", f"{_PATH}/update", _NAME, text("description"), text("deployment_job_id"))
    def update(asked: Asked) -> dict[str, Any]:
        described = platform.describe_model(check_name(asked["name"]), asked.get("description", ""))
        return {"registered_model": model_document(described)}

    @routes.add("POST", f"{_PATH}/rename", _NAME, text("new_name", required=True))
    def rename(asked: Asked) -> dict[str, Any]:
        new = check_name(asked["new_name"], "new_name")
        try:
            return {"registered_model": model_document(platform.rename_model(check_name(asked["name"]), new))}
        except Conflict as error:
            if "already" in str(error):
                raise Conflict(f"Registered Model (name={new}) already exists.") from None
            raise wrong_state(str(error)) from None

    @routes.add("DELETE", f"{_PATH}/delete", _NAME)
    def delete(asked: Asked) -> dict[str, Any]:
        try:
            platform.delete_model(check_name(asked["name"]))
        except Conflict as error:
            raise wrong_state(str(error)) from None
        return {}


def _add_tags(routes: Routes, platform: Platform) -> None:
    @routes.add("POST", f"{_PATH}/set-tag", _NAME, text("key", required=True), text("value"))
    def set_tag(asked: Asked) -> dict[str, Any]:
        check_tag(asked["key"], asked.get("value", ""))
        platform.tag_model(check_name(asked["name"]), asked["key"], asked.get("value", ""))
        return {}

    @routes.add("DELETE", f"{_PATH}/delete-tag", _NAME, text("key", required=True))
    def delete_tag(asked: Asked) -> dict[str, Any]:
        check_tag(asked["key"], "")
        platform.untag_model(check_name(asked["name"]), asked["key"])
        return {}


def _add_aliases(routes: Routes, platform: Platform) -> None:
    alias = text("alias", required=True)

    @routes.add("POST", f"{_PATH}/alias", _NAME, alias, text("version", required=True))
    def set_alias(asked: Asked) -> dict[str, Any]:
        name, chosen = check_name(asked["name"]), check_alias(asked["alias"], is_set=True)
        platform.set_alias(name, chosen, version_number(asked["version"], name))
        return {}

    @routes.add("GET", f"{_PATH}/alias", _NAME, alias)
    def by_alias(asked: Asked) -> dict[str, Any]:
        found = platform.model_version_by_alias(check_name(asked["name"]), check_alias(asked["alias"]))
        if found is None:
            raise invalid(f"Registered model alias {asked['alias']} not found.")
        return {"model_version": version_document(found)}

    @routes.add("DELETE", f"{_PATH}/alias", _NAME, alias)
    def remove_alias(asked: Asked) -> dict[str, Any]:
        platform.remove_alias(check_name(asked["name"]), check_alias(asked["alias"]))
        return {}


def _add_finding(routes: Routes, platform: Platform) -> None:
    @routes.add("GET", f"{_PATH}/search", text("filter"), whole("max_results"), texts("order_by"), text("page_token"))
    def search(asked: Asked) -> dict[str, Any]:
        limit = asked.get("max_results", _DEFAULT_PAGE)
        if not 1 <= limit <= _LARGEST_PAGE:
            raise wrong("max_results", str(limit))
        offset = offset_of(asked.get("page_token"))
        found, more = platform.search_models(asked.get("filter", ""), asked.get("order_by", ()), limit, offset)
        answer: dict[str, Any] = {"registered_models": [model_document(model) for model in found]} if found else {}
        return answer | ({"next_page_token": token_of(offset + limit)} if more else {})

    @routes.add("GET POST", f"{_PATH}/get-latest-versions", _NAME, texts("stages"))
    def latest(asked: Asked) -> dict[str, Any]:
        stages = [stage_of(stage) for stage in asked.get("stages", ())]
        found = platform.latest_versions(check_name(asked["name"]), stages or None)
        return {"model_versions": [version_document(version) for version in found]} if found else {}
