"""Logged models."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from flyball.errors import Conflict
from flyball.ledger.artifacts import check_path
from flyball.ledger.logged_models import LoggedModel, ModelStatus
from flyball.ledger.runs import Artifact
from flyball.platform import Platform
from flyball.wire.mlflow.artifacts import file_below, file_infos
from flyball.wire.mlflow.fields import choice, flag, messages, text, texts, whole
from flyball.wire.mlflow.files import send
from flyball.wire.mlflow.refusals import Refused, invalid, required
from flyball.wire.mlflow.routing import Asked, Routes
from flyball.wire.mlflow.values import double, pairs

__all__ = ["add_logged_models", "logged_model_value"]

_PATH = "2.0/mlflow/logged-models"
_DEFAULT_PAGE = 100
_LARGEST_PAGE = 50_000
_STATUSES: tuple[tuple[str, ModelStatus], ...] = (
    ("LOGGED_MODEL_STATUS_UNSPECIFIED", "unspecified"),
    ("LOGGED_MODEL_PENDING", "pending"),
    ("LOGGED_MODEL_READY", "ready"),
    ("LOGGED_MODEL_UPLOAD_FAILED", "failed"),
)
_NAMES = {ours: theirs for theirs, ours in _STATUSES}
_PAIR = (text("key"), text("value"))


def add_logged_models(routes: Routes, platform: Platform) -> None:
    """Add all routes of logged models."""
    _add_writing(routes, platform)
    _add_reading(routes, platform)
    _add_files(routes, platform)


def logged_model_value(model: LoggedModel) -> dict[str, Any]:
    """Return a logged model as MLflow writes it."""
    info: dict[str, Any] = {
        "model_id": model.id,
        "experiment_id": model.experiment,
        "name": model.name,
        "creation_timestamp_ms": model.created_ms,
        "last_updated_timestamp_ms": model.updated_ms,
        "artifact_uri": model.location,
        "status": _NAMES[model.status],
    }
    kept = {"model_type": model.type, "source_run_id": model.run, "status_message": model.status_message}
    info |= {name: value for name, value in kept.items() if value is not None}
    if model.tags:
        info["tags"] = pairs(model.tags)
    data: dict[str, Any] = {}
    if model.params:
        data["params"] = pairs(model.params)
    if model.points:
        data["metrics"] = [
            {
                "key": point.key,
                "value": double(point.value),
                "timestamp": point.at_ms,
                "step": point.step,
                **({"dataset_name": point.dataset} if point.dataset else {}),
                **({"dataset_digest": point.digest} if point.digest else {}),
                "model_id": model.id,
                "run_id": point.run,
            }
            for point in model.points
        ]
    return {"info": info, "data": data}


def _add_writing(routes: Routes, platform: Platform) -> None:
    @routes.add(
        "POST",
        _PATH,
        text("experiment_id", required=True),
        text("name"),
        text("model_type"),
        text("source_run_id"),
        messages("params", *_PAIR),
        messages("tags", *_PAIR),
    )
    def create(asked: Asked) -> dict[str, Any]:
        try:
            made = platform.create_logged_model(
                asked["experiment_id"],
                asked.get("name") or None,
                type=asked.get("model_type", ""),
                run=asked.get("source_run_id", ""),
                params=_pairs(asked.get("params"), "params", is_once=True),
                tags=_pairs(asked.get("tags"), "tags", is_once=True),
            )
        except Conflict as error:
            raise invalid(str(error)) from None
        return {"model": logged_model_value(made)}

    @routes.add("PATCH", f"{_PATH}/{{model_id}}", choice("status", [theirs for theirs, _ in _STATUSES[1:]]))
    def finalize(asked: Asked) -> dict[str, Any]:
        if "status" not in asked:
            raise required("status")
        changed = platform.update_logged_model(asked.parts["model_id"], status=dict(_STATUSES)[asked["status"]])
        return {"model": logged_model_value(changed)}

    @routes.add("DELETE", f"{_PATH}/{{model_id}}")
    def delete(asked: Asked) -> dict[str, Any]:
        platform.delete_logged_model(asked.parts["model_id"])
        return {}

    @routes.add("POST", f"{_PATH}/{{model_id}}/params", messages("params", *_PAIR))
    def log_params(asked: Asked) -> dict[str, Any]:
        params = _pairs(asked.get("params"), "params", is_once=True)
        try:
            platform.update_logged_model(asked.parts["model_id"], params=params)
        except Conflict as error:
            raise invalid(str(error)) from None
        return {}

    @routes.add("PATCH", f"{_PATH}/{{model_id}}/tags", messages("tags", *_PAIR))
    def set_tags(asked: Asked) -> dict[str, Any]:
        platform.update_logged_model(asked.parts["model_id"], tags=_pairs(asked.get("tags"), "tags"))
        return {}

    @routes.add("DELETE", f"{_PATH}/{{model_id}}/tags/{{tag_key:path}}")
    def delete_tag(asked: Asked) -> dict[str, Any]:
        platform.update_logged_model(asked.parts["model_id"], without_tag=asked.parts["tag_key"])
        return {}


def _add_reading(routes: Routes, platform: Platform) -> None:
    @routes.add("GET", f"{_PATH}/{{model_id}}", flag("allow_deleted"))
    def get(asked: Asked) -> dict[str, Any]:
        is_any = asked.get("allow_deleted", False)
        return {"model": logged_model_value(platform.logged_model(asked.parts["model_id"], deleted=is_any))}

    @routes.add(
        "POST",
        f"{_PATH}/search",
        texts("experiment_ids"),
        text("filter"),
        messages("datasets", text("dataset_name"), text("dataset_digest")),
        whole("max_results"),
        messages("order_by", text("field_name"), flag("ascending"), text("dataset_name"), text("dataset_digest")),
        text("page_token"),
    )
    def search(asked: Asked) -> dict[str, Any]:
        if "experiment_ids" not in asked:
            raise required("experiment_ids")
        datasets = [(one.get("dataset_name"), one.get("dataset_digest") or None) for one in asked.get("datasets", ())]
        if not all(name for name, _ in datasets):
            raise invalid("`dataset_name` in the `datasets` clause must be specified.")
        limit = asked.get("max_results") or _DEFAULT_PAGE
        if not 1 <= limit <= _LARGEST_PAGE:
            raise invalid(
                f"Invalid value {limit} for parameter 'max_results' supplied: It must be a positive integer of at most "
                f"{_LARGEST_PAGE}."
            )
        question = _question(asked)
        offset = _offset(asked.get("page_token"), question)
        found, has_more = platform.search_logged_models(
            asked["experiment_ids"], asked.get("filter", ""), datasets, asked.get("order_by", ()), limit, offset
        )
        answer: dict[str, Any] = {"models": [logged_model_value(model) for model in found]} if found else {}
        if has_more:
            answer["next_page_token"] = _token(question, offset + limit)
        return answer


def _add_files(routes: Routes, platform: Platform) -> None:
    @routes.add(
        "GET", f"{_PATH}/{{model_id}}/artifacts/directories", text("artifact_directory_path"), text("page_token")
    )
    def directories(asked: Asked) -> dict[str, Any]:
        folder = check_path(asked.get("artifact_directory_path", ""), is_folder=True)
        model = platform.logged_model(asked.parts["model_id"])
        entries = platform.files_in(platform.place_at(f"models:/{model.id}", folder))
        return {"root_uri": model.location, **file_infos(entries, folder)}

    @routes.add("GET", f"{_PATH}/{{model_id}}/artifacts/files", ajax_only=True, is_raw=True)
    async def files(request: Request, model_id: str) -> Response:
        path = request.query_params.get("artifact_file_path")
        if not path:
            raise Refused("BAD_REQUEST", 'Request must include the "artifact_file_path" query parameter.')

        def find() -> Artifact:
            checked = check_path(path, is_folder=True)
            model = platform.logged_model(model_id)
            return file_below(platform, model.location, f"models:/{model.id}", checked)

        return await send(request, platform, find)


def _pairs(given: list[Mapping[str, str]] | None, name: str, *, is_once: bool = False) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, one in enumerate(given or ()):
        key, value = one.get("key"), one.get("value")
        if not key:
            raise required(f"{name}[{number}].key")
        if value is None:
            raise required(f"{name}[{number}].value")
        if is_once and found.get(key, value) != value:
            raise invalid(f"Duplicate {name} keys have been submitted: {key[:200]!r}. Give each once.")
        found[key] = value
    return found


def _question(asked: Asked) -> dict[str, Any]:
    """Return what a token is bound to, as MLflow's own tokens hold it."""
    order = [
        {
            "field_name": one.get("field_name", ""),
            "ascending": one.get("ascending", True),
            "dataset_name": one.get("dataset_name") or None,
            "dataset_digest": one.get("dataset_digest") or None,
        }
        for one in asked.get("order_by", ())
    ]
    return {
        "experiment_ids": list(asked["experiment_ids"]),
        "filter_string": asked.get("filter") or None,
        "order_by": order or None,
    }


def _token(question: Mapping[str, Any], offset: int) -> str:
    return base64.b64encode(json.dumps({**question, "offset": offset}).encode()).decode()


def _offset(token: str | None, question: Mapping[str, Any]) -> int:
    """Return where a page begins; the token must be one of the same question."""
    if not token:
        return 0
    try:
        held: Any = json.loads(base64.b64decode(token, validate=True))
        offset = held.get("offset") or 0
    except (ValueError, binascii.Error, RecursionError, AttributeError):
        raise invalid(f"Invalid page token: {token[:100]}.") from None
    for name, what in (
        ("experiment_ids", "Experiment IDs"),
        ("filter_string", "Filter string"),
        ("order_by", "Order by"),
    ):
        if (held.get(name) or None) != (question[name] or None):
            verb = "do" if name == "experiment_ids" else "does"
            raise invalid(
                f"{what} in the page token {verb} not match the requested {what[0].lower()}{what[1:]}. "
                f"Expected: {question[name]}. Found: {held.get(name)}"
            )
    if not isinstance(offset, int) or isinstance(offset, bool) or not 0 <= offset < 1 << 62:
        raise invalid(f"Invalid page token: {token[:100]}.")
    return offset
