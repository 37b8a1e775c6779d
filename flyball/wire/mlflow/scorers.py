"""Scorers: documents of clients, in versions. None of them is ever executed here."""

from __future__ import annotations

from typing import Any

from flyball.errors import Conflict, NotFound
from flyball.ledger.evaluation_sets import Scorer
from flyball.platform import Platform
from flyball.wire.mlflow.fields import text, texts, whole
from flyball.wire.mlflow.refusals import invalid, not_found
from flyball.wire.mlflow.routing import Asked, Routes
from flyball.wire.mlflow.trace_values import parsed

__all__ = ["add_scorers"]

_PATH = "3.0/mlflow/scorers"
_LONGEST_NAME = 256
_LARGEST = 1 << 20
_DEEPEST = 100


def add_scorers(routes: Routes, platform: Platform) -> None:
    """Add the routes of scorers."""
    _add_writing(routes, platform)
    _add_reading(routes, platform)


def _add_writing(routes: Routes, platform: Platform) -> None:
    @routes.add(
        "POST",
        f"{_PATH}/register",
        text("experiment_id", required=True),
        text("name", required=True),
        text("serialized_scorer", required=True),
    )
    def register(asked: Asked) -> dict[str, Any]:
        name, document = asked["name"], asked["serialized_scorer"]
        if len(name) > _LONGEST_NAME or not name.strip():
            raise invalid(f"Scorer name must be 1 to {_LONGEST_NAME} characters, received {name[:80]!r}")
        if len(document) > _LARGEST:
            raise invalid(f"serialized_scorer has {len(document):,} characters; expected at most {_LARGEST:,}")
        if _is_code(parsed(document, "serialized_scorer")):
            raise invalid(
                "Custom scorer registration (using @scorer decorator) is disabled by default outside of Databricks "
                "tracking environments due to security concerns. Keep the scorer's code with your own, or register "
                "a built-in scorer or one of make_judge()."
            )
        try:
            made = platform.register_scorer(asked["experiment_id"], name, document)
        except Conflict as error:
            raise invalid(str(error)) from None
        return {
            "version": made.version,
            "scorer_id": made.id,
            "experiment_id": made.experiment,
            "name": made.name,
            "serialized_scorer": made.document,
            "creation_time": made.created_ms,
        }

    @routes.add(
        "DELETE",
        f"{_PATH}/delete",
        text("experiment_id", required=True),
        text("name", required=True),
        whole("version"),
    )
    def delete(asked: Asked) -> dict[str, Any]:
        platform.delete_scorer(asked["experiment_id"], asked["name"], asked.get("version"))
        return {}

    @routes.add("PUT", f"{_PATH}/online-config", ajax_only=True)
    def online(_asked: Asked) -> dict[str, Any]:
        raise invalid(
            "Automatic evaluation is only supported for scorers that use gateway models; there is no gateway."
        )

    @routes.add("GET", f"{_PATH}/online-configs", texts("scorer_ids"), ajax_only=True)
    def online_all(_asked: Asked) -> dict[str, Any]:
        return {"configs": []}


def _add_reading(routes: Routes, platform: Platform) -> None:
    @routes.add("GET", f"{_PATH}/list", text("experiment_id"), texts("experiment_ids"))
    def list_them(asked: Asked) -> dict[str, Any]:
        one, many = asked.get("experiment_id"), asked.get("experiment_ids")
        if one and many is not None:
            raise invalid(
                "Cannot specify both 'experiment_id' and 'experiment_ids'. Use 'experiment_ids' to scope the query to "
                "multiple experiments, or 'experiment_id' to scope it to a single experiment."
            )
        if one and platform.experiment(one).is_deleted:
            raise invalid(f"The experiment {one} must be in the 'active' state. Current state is deleted.")
        found = platform.scorers([one] if one else many)
        return {"scorers": [_value(scorer) for scorer in found]} if found else {}

    where = (text("experiment_id", required=True), text("name", required=True))

    @routes.add("GET", f"{_PATH}/versions", *where)
    def versions(asked: Asked) -> dict[str, Any]:
        return {"scorers": [_value(one) for one in _versions(platform, asked)]}

    @routes.add("GET", f"{_PATH}/get", *where, whole("version"))
    def get(asked: Asked) -> dict[str, Any]:
        wanted = asked.get("version")
        known = _versions(platform, asked)
        found = known[-1] if wanted is None else next((one for one in known if one.version == wanted), None)
        if found is None:
            name, experiment = asked["name"], asked["experiment_id"]
            raise not_found(f"Scorer with name '{name}' and version {wanted} not found for experiment {experiment}.")
        return {"scorer": _value(found)}


def _versions(platform: Platform, asked: Asked) -> list[Scorer]:
    try:
        return platform.scorer_versions(asked["experiment_id"], asked["name"])
    except Conflict as error:  # the experiment is deleted
        raise invalid(str(error)) from None
    except NotFound as error:
        raise not_found(str(error)) from None


def _value(one: Scorer) -> dict[str, Any]:
    return {
        "experiment_id": int(one.experiment),
        "scorer_name": one.name,
        "scorer_version": one.version,
        "serialized_scorer": one.document,
        "creation_time": one.created_ms,
        "scorer_id": one.id,
    }


def _is_code(document: Any, depth: int = 0) -> bool:
    """Whether a document carries code that whoever loads it would execute."""
    if depth > _DEEPEST:
        raise invalid("serialized_scorer holds values within values more than 100 deep")
    if isinstance(document, dict):
        return bool(document.get("call_source")) or any(_is_code(item, depth + 1) for item in document.values())
    return isinstance(document, list) and any(_is_code(item, depth + 1) for item in document)
