"""Data sets to evaluate on, as MLflow's `genai.datasets` keeps them."""

from __future__ import annotations

import base64
import binascii
import json
from contextlib import suppress
from typing import Any

from flyball.errors import NotFound
from flyball.ledger.evaluation_sets import EvaluationRecord, EvaluationSet
from flyball.platform import Platform
from flyball.wire.mlflow.fields import text, texts, whole, wrong
from flyball.wire.mlflow.refusals import invalid, not_found
from flyball.wire.mlflow.routing import Asked, Routes
from flyball.wire.mlflow.trace_values import parsed
from flyball.wire.mlflow.values import offset_of, token_of

__all__ = ["add_evaluation_datasets"]

_PATH = "3.0/mlflow/datasets"
_ONE = f"{_PATH}/{{dataset_id}}"
_PAGE = 1000
_MOST = 50_000
_LONGEST_NAME = 255
_TAG_LIMITS = (255, 5000)


def add_evaluation_datasets(routes: Routes, platform: Platform) -> None:
    """Add the routes of data sets to evaluate on."""
    _add_sets(routes, platform)
    _add_records(routes, platform)
    _add_experiments(routes, platform)


def _add_sets(routes: Routes, platform: Platform) -> None:
    @routes.add("POST", f"{_PATH}/create", text("name", required=True), texts("experiment_ids"), text("tags"))
    def create(asked: Asked) -> dict[str, Any]:
        name, experiments = asked["name"], asked.get("experiment_ids", [])
        if len(name) > _LONGEST_NAME:
            raise invalid(f"'name' exceeds the maximum length of {_LONGEST_NAME} characters")
        made = platform.create_evaluation_set(name, experiments, _tags(asked.get("tags") or "{}", {}))
        return {"dataset": {**_set_value(made), **({"experiment_ids": experiments} if experiments else {})}}

    @routes.add("GET", _ONE)
    def get(asked: Asked) -> dict[str, Any]:
        return {"dataset": _set_value(platform.evaluation_set(asked.parts["dataset_id"]))}

    @routes.add("DELETE", _ONE)
    def delete(asked: Asked) -> dict[str, Any]:
        platform.delete_evaluation_set(asked.parts["dataset_id"])
        return {}

    @routes.add(
        "GET POST",
        f"{_PATH}/search",
        texts("experiment_ids"),
        text("filter_string"),
        whole("max_results"),
        texts("order_by"),
        text("page_token"),
    )
    def search(asked: Asked) -> dict[str, Any]:
        limit, offset = _limit(asked), offset_of(asked.get("page_token"))
        found, is_more = platform.search_evaluation_sets(
            asked.get("experiment_ids") or None,
            asked.get("filter_string", ""),
            asked.get("order_by", ()),
            limit,
            offset,
        )
        answer: dict[str, Any] = {"datasets": [_set_value(one) for one in found]} if found else {}
        if is_more:
            answer["next_page_token"] = token_of(offset + limit)
        return answer

    @routes.add("PATCH", f"{_ONE}/tags", text("tags", required=True))
    def tag(asked: Asked) -> dict[str, Any]:
        id = asked.parts["dataset_id"]
        try:
            platform.tag_evaluation_set(id, {k: v for k, v in _tags(asked["tags"]).items() if v is not None})
        except NotFound:
            raise not_found(f"Could not find evaluation dataset with ID {id}") from None
        return {}

    @routes.add("DELETE", f"{_ONE}/tags/{{key}}")
    def untag(asked: Asked) -> dict[str, Any]:
        with suppress(NotFound):  # as in MLflow: what is not there has no tag either
            platform.tag_evaluation_set(asked.parts["dataset_id"], {asked.parts["key"]: None})
        return {}


def _add_records(routes: Routes, platform: Platform) -> None:
    path = f"{_ONE}/records"

    @routes.add("POST", path, text("records", required=True), text("updated_by"))
    def put(asked: Asked) -> dict[str, Any]:
        inserted, updated = platform.put_records(asked.parts["dataset_id"], parsed(asked["records"], "records"))
        return {"inserted_count": inserted, "updated_count": updated}

    @routes.add("GET", path, whole("max_results"), text("page_token"))
    def get(asked: Asked) -> dict[str, Any]:
        limit, after = _limit(asked), _place(asked.get("page_token"))
        found, is_more = platform.evaluation_records(asked.parts["dataset_id"], limit, after)
        answer: dict[str, Any] = {"records": json.dumps([_record_value(one) for one in found])}
        if is_more:
            last = found[-1]
            answer["next_page_token"] = base64.b64encode(f"{last.created_ms}:{last.id}".encode()).decode()
        return answer

    @routes.add("DELETE", path, texts("dataset_record_ids"))
    def drop(asked: Asked) -> dict[str, Any]:
        return {"deleted_count": platform.drop_records(asked.parts["dataset_id"], asked.get("dataset_record_ids", ()))}


def _add_experiments(routes: Routes, platform: Platform) -> None:
    @routes.add("GET", f"{_ONE}/experiment-ids")
    def experiments(asked: Asked) -> dict[str, Any]:
        found = platform.evaluation_set_experiments(asked.parts["dataset_id"])
        return {"experiment_ids": found} if found else {}

    @routes.add("POST", f"{_ONE}/add-experiments", texts("experiment_ids"))
    def add(asked: Asked) -> dict[str, Any]:
        return {"dataset": _set_value(_moved(platform, asked, into=asked.get("experiment_ids", ())))}

    @routes.add("POST", f"{_ONE}/remove-experiments", texts("experiment_ids"))
    def remove(asked: Asked) -> dict[str, Any]:
        return {"dataset": _set_value(_moved(platform, asked, out_of=asked.get("experiment_ids", ())))}


def _moved(platform: Platform, asked: Asked, **where: Any) -> EvaluationSet:
    id = asked.parts["dataset_id"]
    try:
        return platform.move_evaluation_set(id, **where)
    except NotFound as error:
        if "dataset" in str(error):
            raise not_found(f"Dataset '{id}' not found") from None
        raise


def _set_value(one: EvaluationSet) -> dict[str, Any]:
    found: dict[str, Any] = {
        "dataset_id": one.id,
        "name": one.name,
        "tags": json.dumps(dict(one.tags)),
        "digest": one.digest,
        "created_time": one.created_ms,
        "last_update_time": one.updated_ms,
    }
    profile = None if one.count is None else json.dumps({"num_records": one.count})
    more = {"schema": one.schema, "profile": profile, "created_by": one.created_by, "last_updated_by": one.updated_by}
    return {**found, **{name: said for name, said in more.items() if said is not None}}


def _record_value(one: EvaluationRecord) -> dict[str, Any]:
    kept = one.document
    found: dict[str, Any] = {"dataset_record_id": one.id, "dataset_id": one.set, "inputs": kept["inputs"]}
    found |= {name: kept[name] for name in ("outputs", "expectations") if kept.get(name) is not None}
    found["tags"] = kept["tags"]
    source = kept.get("source")
    if isinstance(source, dict):
        found["source"] = source
        data = source.get("source_data")
        id = (
            data.get("trace_id" if source.get("source_type") == "TRACE" else "source_id")
            if isinstance(data, dict)
            else None
        )
        more = {"source_id": id, "source_type": source.get("source_type")}
        found |= {name: said for name, said in more.items() if said is not None}
    more = {"created_by": kept.get("created_by"), "last_updated_by": kept.get("updated_by")}
    found |= {name: said for name, said in more.items() if said is not None}
    return {**found, "created_time": one.created_ms, "last_update_time": one.updated_ms}


def _tags(written: str, default: Any = None) -> dict[str, Any]:
    found = parsed(written, "tags")
    if found is None and default is not None:
        return dict(default)
    if not isinstance(found, dict):
        raise wrong("tags", written)
    longest_key, longest_value = _TAG_LIMITS
    kept = {key: said if said is None or isinstance(said, str) else json.dumps(said) for key, said in found.items()}
    for key, said in kept.items():
        if len(key) > longest_key or len(said or "") > longest_value or "\0" in key + (said or ""):
            raise invalid(
                f"The tag {key[:80]!r} cannot be kept: expected at most {longest_key} characters of key and "
                f"{longest_value} of value, without NUL"
            )
    return kept


def _limit(asked: Asked) -> int:
    limit: int = asked.get("max_results") or _PAGE
    if not 1 <= limit <= _MOST:
        raise invalid(f"Invalid value {limit} for parameter 'max_results' supplied. It must be at most {_MOST}")
    return limit


def _place(token: str | None) -> tuple[int, str] | None:
    if not token:
        return None
    try:
        at, separator, id = base64.b64decode(token, validate=True).decode().partition(":")
        if separator and at.isascii() and at.isdecimal() and len(at) < 18 and "\0" not in id:
            return int(at), id
    except (ValueError, binascii.Error):
        pass
    raise invalid(f"Invalid page token: {token[:100]}")
