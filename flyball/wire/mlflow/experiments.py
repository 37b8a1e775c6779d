"""Experiments of MLflow's protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flyball.errors import Conflict, NotFound
from flyball.ledger.experiments import Experiment
from flyball.platform import Platform
from flyball.platform.tracking import View
from flyball.wire.mlflow.fields import choice, messages, text, texts, whole
from flyball.wire.mlflow.keys import at_most, check_key, repeated
from flyball.wire.mlflow.locations import absolute, check_location
from flyball.wire.mlflow.refusals import Refused, already_exists, invalid, not_found, wrong_state
from flyball.wire.mlflow.routing import Asked, Routes
from flyball.wire.mlflow.values import milliseconds, offset_of, pairs, token_of

__all__ = ["PAGE", "VIEW", "VIEWS", "add_experiments", "experiment_id", "inactive", "no_experiment", "page_size"]

VIEWS = ("ACTIVE_ONLY", "DELETED_ONLY", "ALL")
VIEW: Mapping[str, View] = {"ACTIVE_ONLY": "active", "DELETED_ONLY": "deleted", "ALL": "all"}
"""What the platform calls a view."""
PAGE = 50_000
"""Experiments or runs of one page at most."""

_INT64 = 1 << 63
_NAME = 500
_TAG_VALUE = 20_000
_CUSTOM_VIEW = "mlflow.customView.view"
_CUSTOM_VIEWS = 50


def add_experiments(routes: Routes, platform: Platform) -> None:
    """Add the routes of experiments."""
    identity = text("experiment_id", required=True)
    tag = (text("key"), text("value"))

    @routes.add(
        "POST",
        "2.0/mlflow/experiments/create",
        text("name", required=True),
        text("artifact_location"),
        messages("tags", *tag),
    )
    def create(asked: Asked) -> dict[str, Any]:
        name, location = asked["name"], asked.get("artifact_location")
        tags = [(given.get("key", ""), given.get("value", "")) for given in asked.get("tags", ())]
        if sum(key.startswith(_CUSTOM_VIEW) for key, _ in tags) > _CUSTOM_VIEWS:
            raise _too_many_views()
        if location:
            check_location(location)
        _check_name(name)
        for key, value in tags:
            _check_tag(key, value)
        again = repeated([key for key, _ in tags])
        if again:
            raise invalid(f"Duplicate tag keys have been submitted: {again}.")
        try:
            made = platform.create_experiment(name, absolute(location) if location else None, dict(tags))
        except Conflict:
            raise already_exists(f"Experiment(name={name}) already exists.") from None
        return {"experiment_id": made.id}

    @routes.add("GET", "2.0/mlflow/experiments/get", identity)
    def get(asked: Asked) -> dict[str, Any]:
        return {"experiment": document(_find(platform, asked["experiment_id"]))}

    @routes.add("GET", "2.0/mlflow/experiments/get-by-name", text("experiment_name", required=True))
    def get_by_name(asked: Asked) -> dict[str, Any]:
        name = asked["experiment_name"]
        try:
            return {"experiment": document(platform.experiment_by_name(name))}
        except NotFound:
            raise not_found(f"Could not find experiment with name '{name}'") from None

    @routes.add("POST", "2.0/mlflow/experiments/update", identity, text("new_name", required=True))
    def update(asked: Asked) -> dict[str, Any]:
        name = asked["new_name"]
        _check_name(name)
        found = _find(platform, asked["experiment_id"])
        if found.is_deleted:
            raise wrong_state("Cannot rename a non-active experiment.")
        if name != found.name:
            try:
                platform.rename_experiment(found.id, name)
            except Conflict:
                raise already_exists(f"Experiment(name={name}) already exists.") from None
        return {}

    @routes.add("POST", "2.0/mlflow/experiments/delete", identity)
    def delete(asked: Asked) -> dict[str, Any]:
        with _known(asked["experiment_id"]) as id:
            platform.delete_experiment(id)
        return {}

    @routes.add("POST", "2.0/mlflow/experiments/restore", identity)
    def restore(asked: Asked) -> dict[str, Any]:
        with _known(asked["experiment_id"]) as id:
            platform.restore_experiment(id)
        return {}

    @routes.add(
        "POST", "2.0/mlflow/experiments/set-experiment-tag", identity, text("key", required=True), text("value")
    )
    def set_tag(asked: Asked) -> dict[str, Any]:
        key, value = asked["key"], asked.get("value", "")
        found = _find(platform, asked["experiment_id"]) if key.startswith(_CUSTOM_VIEW) else None
        views = [known for known in found.tags if known.startswith(_CUSTOM_VIEW)] if found else []
        if found is not None and key not in views and len(views) >= _CUSTOM_VIEWS:
            raise _too_many_views(found.id)
        _check_tag(key, value)
        _active(platform, asked["experiment_id"])
        with _known(asked["experiment_id"]) as id:
            platform.tag_experiment(id, key, value)
        return {}

    @routes.add("POST", "2.0/mlflow/experiments/delete-experiment-tag", identity, text("key", required=True))
    def delete_tag(asked: Asked) -> dict[str, Any]:
        found, key = _active(platform, asked["experiment_id"]), asked["key"]
        if key not in found.tags:
            raise not_found(f"No tag with name: {key} in experiment with id {found.id}")
        with _known(found.id) as id:
            platform.untag_experiment(id, key)
        return {}

    @routes.add(
        "GET POST",
        "2.0/mlflow/experiments/search",
        whole("max_results"),
        text("page_token"),
        text("filter"),
        texts("order_by"),
        choice("view_type", VIEWS),
    )
    def search(asked: Asked) -> dict[str, Any]:
        limit = page_size(asked.get("max_results", 0))
        offset = offset_of(asked.get("page_token"))
        found, is_more = platform.search_experiments(
            asked.get("filter", ""),
            asked.get("order_by", ()),
            VIEW[asked.get("view_type", "ACTIVE_ONLY")],
            limit,
            offset,
        )
        answer: dict[str, Any] = {"experiments": [document(one) for one in found]} if found else {}
        if is_more:
            answer["next_page_token"] = token_of(offset + limit)
        return answer


def document(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment as MLflow's JSON."""
    found: dict[str, Any] = {
        "experiment_id": experiment.id,
        "name": experiment.name,
        "artifact_location": experiment.artifact_location,
        "lifecycle_stage": "deleted" if experiment.is_deleted else "active",
        "creation_time": milliseconds(experiment.created_at),
        "last_update_time": milliseconds(experiment.updated_at),
    }
    if experiment.tags:
        found["tags"] = pairs(experiment.tags)
    return found


def experiment_id(given: str) -> str:
    """Return the id of an experiment as a plain decimal number. Raises Refused when it is no number."""
    try:
        number = int(given)
    except ValueError:
        raise invalid(f"Invalid experiment ID '{given}'. Experiment ID must be a valid integer.") from None
    if not -_INT64 <= number < _INT64:
        raise no_experiment(str(number))
    return str(number)


def page_size(limit: int) -> int:
    """Return how many a page may have. Raises Refused for less than one or more than `PAGE`."""
    if limit < 1:
        raise invalid(f"Invalid value {limit} for parameter 'max_results' supplied. It must be a positive integer")
    if limit > PAGE:
        raise invalid(f"Invalid value {limit} for parameter 'max_results' supplied. It must be at most {PAGE}")
    return limit


def inactive(noun: str, id: str) -> Refused:
    """Return the refusal to change an experiment or a run that is deleted."""
    return invalid(f"The {noun} {id} must be in the 'active' state. Current state is deleted.")


def no_experiment(id: str) -> Refused:
    """Return the refusal of an experiment that is not there."""
    return not_found(f"No Experiment with id={id} exists")


def _find(platform: Platform, given: str) -> Experiment:
    with _known(given) as id:
        return platform.experiment(id)


def _active(platform: Platform, given: str) -> Experiment:
    found = _find(platform, given)
    if found.is_deleted:
        raise inactive("experiment", found.id)
    return found


@contextmanager
def _known(given: str) -> Iterator[str]:
    """Give an experiment's id, and say in MLflow's words when nothing is there."""
    id = experiment_id(given)
    if id.startswith("-"):
        raise no_experiment(id)
    try:
        yield id
    except NotFound:
        raise no_experiment(id) from None


def _check_name(name: str) -> None:
    if len(name) > _NAME:
        raise at_most("name", _NAME)


def _check_tag(key: str, value: str) -> None:
    check_key(key, "key", "key")
    if len(value) > _TAG_VALUE:
        raise at_most("value", _TAG_VALUE)


def _too_many_views(id: str | None = None) -> Refused:
    of = f" for experiment {id}" if id else ""
    return invalid(
        f"Unable to create another custom view{of}; the maximum number of custom views per experiment is "
        f"{_CUSTOM_VIEWS}. Delete an existing custom view before creating a new one."
    )
