"""Versions of registered models."""

from __future__ import annotations

from typing import Any

from flyball.errors import NotFound
from flyball.platform import Platform
from flyball.platform.registry import IS_PROMPT
from flyball.wire.mlflow.fields import flag, messages, text, texts, whole, wrong
from flyball.wire.mlflow.refusals import Refused, invalid
from flyball.wire.mlflow.registry_values import (
    ACTIVE,
    ARCHIVED,
    check_name,
    check_tag,
    stage_of,
    tags_of,
    version_document,
    version_number,
)
from flyball.wire.mlflow.routing import Asked, Routes
from flyball.wire.mlflow.sources import check_prompt, check_source
from flyball.wire.mlflow.values import offset_of, token_of

__all__ = ["add_model_versions"]

_PATH = "2.0/mlflow/model-versions"
_WHICH = (text("name", required=True), text("version", required=True))
_DEFAULT_PAGE = 10_000
_LARGEST_PAGE = 200_000


def add_model_versions(routes: Routes, platform: Platform) -> None:
    """Add all routes of versions."""
    _add_making(routes, platform)
    _add_changing(routes, platform)
    _add_finding(routes, platform)


def _add_making(routes: Routes, platform: Platform) -> None:
    @routes.add(
        "POST",
        f"{_PATH}/create",
        text("name", required=True),
        text("source", required=True),
        text("run_id"),
        messages("tags", text("key"), text("value")),
        text("run_link"),
        text("description"),
        text("model_id"),
    )
    def create(asked: Asked) -> dict[str, Any]:
        tags = tags_of(asked.get("tags"))
        source, run, model = asked["source"], asked.get("run_id"), asked.get("model_id")
        if tags.get(IS_PROMPT, "").lower() == "true":
            check_prompt(source)
            model = None
        else:
            source, run, model = check_source(platform, source, run, model)
        try:
            made = platform.create_version(
                check_name(asked["name"]),
                source,
                run=run,
                model_id=model,
                run_link=asked.get("run_link"),
                description=asked.get("description"),
                tags=tags,
            )
        except NotFound as error:
            if not source.startswith("models:"):
                raise
            raise invalid(f"Unable to fetch model from model URI source artifact location '{source}'.{error}") from None
        return {"model_version": version_document(made)}

    @routes.add("DELETE", f"{_PATH}/delete", *_WHICH)
    def delete(asked: Asked) -> dict[str, Any]:
        platform.delete_version(*_which(asked))
        return {}


def _add_changing(routes: Routes, platform: Platform) -> None:
    @routes.add("PATCH", f"{_PATH}/update", *_WHICH, text("description"))
    def update(asked: Asked) -> dict[str, Any]:
        changed = platform.describe_version(*_which(asked), asked.get("description", ""))
        return {"model_version": version_document(changed)}

    @routes.add(
        "POST", f"{_PATH}/transition-stage", *_WHICH, text("stage", required=True), flag("archive_existing_versions")
    )
    def transition(asked: Asked) -> dict[str, Any]:
        stage = stage_of(asked["stage"])
        does_archive = asked.get("archive_existing_versions", False)
        if does_archive and stage not in ACTIVE:
            # Bad input, which MLflow's own server answers with a 5xx that clients repeat for minutes.
            raise Refused(
                "INTERNAL_ERROR",
                "Model version transition cannot archive existing model versions because "
                f"'{asked['stage']}' is not an Active stage. Valid stages are {list(ACTIVE)}",
                400,
            )
        changed = platform.set_stage(*_which(asked), stage, archived=ARCHIVED if does_archive else None)
        return {"model_version": version_document(changed)}

    @routes.add("POST", f"{_PATH}/set-tag", *_WHICH, text("key", required=True), text("value"))
    def set_tag(asked: Asked) -> dict[str, Any]:
        check_tag(asked["key"], asked.get("value", ""))
        platform.tag_version(*_which(asked), asked["key"], asked.get("value", ""))
        return {}

    @routes.add("DELETE", f"{_PATH}/delete-tag", *_WHICH, text("key", required=True))
    def delete_tag(asked: Asked) -> dict[str, Any]:
        check_tag(asked["key"], "")
        platform.untag_version(*_which(asked), asked["key"])
        return {}


def _add_finding(routes: Routes, platform: Platform) -> None:
    @routes.add("GET", f"{_PATH}/get", *_WHICH)
    def get(asked: Asked) -> dict[str, Any]:
        return {"model_version": version_document(platform.model_version(*_which(asked)))}

    @routes.add("GET", f"{_PATH}/get-download-uri", text("name"), text("version"))
    def download_uri(asked: Asked) -> dict[str, Any]:
        name = asked.get("name", "")
        found = platform.model_version(check_name(name), version_number(asked.get("version", ""), name))
        return {"artifact_uri": found.location}

    @routes.add("GET", f"{_PATH}/search", text("filter"), whole("max_results"), texts("order_by"), text("page_token"))
    def search(asked: Asked) -> dict[str, Any]:
        limit = asked.get("max_results", _DEFAULT_PAGE)
        if limit < 1:
            raise invalid(f"Invalid value for max_results. It must be a positive integer, but got {limit}")
        if limit > _LARGEST_PAGE:
            raise wrong("max_results", str(limit))
        offset = offset_of(asked.get("page_token"))
        found, more = platform.search_versions(asked.get("filter", ""), asked.get("order_by", ()), limit, offset)
        answer: dict[str, Any] = {"model_versions": [version_document(one) for one in found]} if found else {}
        return answer | ({"next_page_token": token_of(offset + limit)} if more else {})


def _which(asked: Asked) -> tuple[str, int]:
    name = check_name(asked["name"])
    return name, version_number(asked["version"], name)
