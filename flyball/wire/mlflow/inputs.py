"""What runs used and made in MLflow's protocol: data sets and logged models, and the record of the old `log_model`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flyball.errors import Conflict
from flyball.ledger.experiments import InputDataset
from flyball.platform import Platform
from flyball.wire.mlflow.experiments import experiment_id
from flyball.wire.mlflow.fields import message, messages, text, texts, whole
from flyball.wire.mlflow.keys import at_most, check_run_id
from flyball.wire.mlflow.refusals import invalid
from flyball.wire.mlflow.routing import Asked, Routes
from flyball.wire.mlflow.run_writing import existing, refusal

__all__ = ["MODELS_TAG", "add_inputs"]

_LENGTHS = {
    "name": 500,
    "digest": 36,
    "source": 65_535,
    "schema": 1_048_575,
    "profile": 16_777_215,
}
_TAG_KEY = 255
_TAG_VALUE = 500
_EXPERIMENTS = 20
MODELS_TAG = "mlflow.log-model.history"
_RUN = text("run_id", required=True)
_DATASET = message("dataset", *(text(name) for name in (*_LENGTHS, "source_type")))


def add_inputs(routes: Routes, platform: Platform) -> None:
    """Add the routes of what runs used and made."""

    @routes.add(
        "POST",
        "2.0/mlflow/runs/log-inputs",
        _RUN,
        messages("datasets", messages("tags", text("key"), text("value")), _DATASET),
        messages("models", text("model_id")),
    )
    def log_inputs(asked: Asked) -> dict[str, Any]:
        run = asked["run_id"]
        check_run_id(run)
        datasets = [_used(given) for given in asked.get("datasets", ())]
        models = [given.get("model_id", "") for given in asked.get("models", ())]
        with existing(run):
            try:
                platform.log_inputs(run, datasets, models)
            except Conflict as error:
                raise refusal(platform, run, error) from None
        return {}

    @routes.add(
        "POST",
        "2.0/mlflow/runs/outputs",
        _RUN,
        messages("models", text("model_id"), whole("step"), required=True),
    )
    def log_outputs(asked: Asked) -> dict[str, Any]:
        run = asked["run_id"]
        models = [(given.get("model_id", ""), given.get("step", 0)) for given in asked["models"]]
        with existing(run):
            try:
                platform.log_outputs(run, models)
            except Conflict as error:
                raise refusal(platform, run, error) from None
        return {}

    @routes.add("POST", "2.0/mlflow/experiments/search-datasets", texts("experiment_ids"), ajax_only=True)
    def search_datasets(asked: Asked) -> dict[str, Any]:
        given = asked.get("experiment_ids", [])
        if not given:
            raise invalid("SearchDatasets request must specify at least one experiment_id.")
        if len(given) > _EXPERIMENTS:
            raise invalid(
                f"SearchDatasets request cannot specify more than {_EXPERIMENTS} experiment_ids. "
                f"Received {len(given)} experiment_ids."
            )
        found = platform.input_datasets([experiment_id(one) for one in given])
        summaries = []
        for experiment, name, digest, context in found:
            summary = {"experiment_id": experiment, "name": name, "digest": digest}
            summaries.append(summary if context is None else {**summary, "context": context})
        return {"dataset_summaries": summaries} if summaries else {}

    @routes.add("POST", "2.0/mlflow/runs/log-model", _RUN, text("model_json", required=True))
    def log_model(asked: Asked) -> dict[str, Any]:
        run, told = asked["run_id"], asked["model_json"]
        try:
            model = json.loads(told)
        except (ValueError, RecursionError):
            raise invalid(f"Malformed model info. \n {told} \n is not a valid JSON.") from None
        if not isinstance(model, dict):
            raise invalid(f"Malformed model info. \n {told} \n is not a JSON object.")
        missing = {"artifact_path", "flavors", "utc_time_created", "run_id"} - set(model)
        if missing:
            raise invalid(f"Model json is missing mandatory fields: {missing}")
        with existing(run):
            try:
                platform.append_to_tag(run, MODELS_TAG, _recorded(model))
            except Conflict as error:
                raise refusal(platform, run, error) from None
        return {}


def _used(given: Mapping[str, Any]) -> tuple[InputDataset, dict[str, str]]:
    """Return a data set with its tags. Raises Refused when a part of it is too long."""
    found = given.get("dataset", {})
    for name, most in _LENGTHS.items():
        if len(found.get(name, "")) > most:
            raise at_most(name, most)
    tags: dict[str, str] = {}
    for tag in given.get("tags", ()):
        key, value = tag.get("key", ""), tag.get("value", "")
        if len(key) > _TAG_KEY:
            raise at_most("key", _TAG_KEY)
        if len(value) > _TAG_VALUE:
            raise at_most("value", _TAG_VALUE)
        tags[key] = value
    dataset = InputDataset(
        found.get("name", ""),
        found.get("digest", ""),
        found.get("source_type", ""),
        found.get("source", ""),
        found.get("schema"),
        found.get("profile"),
    )
    return dataset, tags


def _recorded(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the tag keeps of a model: where it is, and its flavours without their configuration."""
    kept = {
        name: model[name] for name in ("run_id", "artifact_path", "utc_time_created", "model_uuid") if name in model
    }
    flavors = model["flavors"]
    kept["flavors"] = {
        name: {k: v for k, v in told.items() if k != "config"} if isinstance(told, dict) else told
        for name, told in (flavors.items() if isinstance(flavors, dict) else ())
    }
    return kept
