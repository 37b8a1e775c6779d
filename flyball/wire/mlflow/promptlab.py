"""Runs that the prompt engineering page of MLflow's web page makes: one answer of a model to a prompt, kept to compare.

The page shows such a run by its table `eval_results_table.json` and its parameters. The model folder holds what a
client needs to ask again: template, parameters and route.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from flyball.errors import Conflict, FlyballError, NotFound
from flyball.ledger.artifacts import proxied
from flyball.platform import Platform
from flyball.wire.mlflow.experiments import experiment_id, inactive, no_experiment
from flyball.wire.mlflow.fields import Field, messages, text, value, whole
from flyball.wire.mlflow.inputs import MODELS_TAG
from flyball.wire.mlflow.keys import PARAM_VALUE, check_key, cut
from flyball.wire.mlflow.refusals import invalid
from flyball.wire.mlflow.routing import Asked, Routes
from flyball.wire.mlflow.run_texts import RunTexts
from flyball.wire.mlflow.run_values import document
from flyball.wire.mlflow.values import instant

__all__ = ["add_promptlab"]

_TABLE = "eval_results_table.json"
_NEEDED = ("experiment_id", "prompt_template", "prompt_parameters", "model_route", "model_input", "mlflow_version")


def add_promptlab(routes: Routes, platform: Platform) -> None:
    """Add the route of the prompt engineering page."""
    told = RunTexts(platform)

    @routes.add(
        "POST",
        "2.0/mlflow/runs/create-promptlab-run",
        text("experiment_id"),
        text("run_name"),
        messages("tags", text("key"), text("value")),
        text("prompt_template"),
        _pairs("prompt_parameters"),
        text("model_route"),
        _pairs("model_parameters"),
        text("model_input"),
        text("model_output"),
        _pairs("model_output_parameters"),
        text("mlflow_version"),
        text("user_id"),
        whole("start_time"),
        ajax_only=True,
    )
    def create(asked: Asked) -> dict[str, Any]:
        for name in _NEEDED:
            if not asked.get(name):
                raise invalid(f"CreatePromptlabRun request must specify {name}.")
        params = {**_texts(asked, "model_parameters"), "model_route": asked["model_route"]}
        params["prompt_template"] = asked["prompt_template"]
        for key in params:
            check_key(key, "key", "Param key")
        params = {key: cut(given, PARAM_VALUE, "Param value") for key, given in params.items()}
        run = _begin(platform, asked)
        try:
            platform.recorder.log(run, params=params, tags=_tags(), truncate=None).result()
            platform.append_to_tag(run, MODELS_TAG, _model(platform, run))
            for path, data in _files(asked).items():
                _keep(platform, run, path, data)
        except FlyballError:
            platform.recorder.update_run(run, status="failed", ended_at=platform.clock.now()).result()
            raise
        platform.recorder.update_run(run, status="succeeded", ended_at=platform.clock.now()).result()
        found = platform.run_whole(run)
        return {"run": document(found, told.location_of(found.experiment or ""), {})}


def _begin(platform: Platform, asked: Asked) -> str:
    experiment = experiment_id(asked["experiment_id"])
    tags = {tag.get("key", ""): tag.get("value", "") for tag in asked.get("tags", ())}
    started = instant(asked["start_time"], "start_time") if "start_time" in asked else None
    user = asked.get("user_id", "unknown")
    try:
        return platform.recorder.create_run(experiment, asked.get("run_name"), user, started, tags).result().id
    except NotFound:
        raise no_experiment(experiment) from None
    except Conflict:
        raise inactive("experiment", experiment) from None


def _pairs(name: str) -> Field:
    return messages(name, text("key"), value("value"))


def _texts(asked: Asked, name: str) -> dict[str, str]:
    return {given.get("key", ""): str(given.get("value", "")) for given in asked.get(name, ())}


def _tags() -> dict[str, str]:
    table = [{"path": _TABLE, "type": "table"}]
    return {"mlflow.loggedArtifacts": json.dumps(table), "mlflow.runSourceType": "PROMPT_ENGINEERING"}


def _model(platform: Platform, run: str) -> dict[str, Any]:
    return {
        "run_id": run,
        "artifact_path": "model",
        "utc_time_created": platform.clock.now().strftime("%Y-%m-%d %H:%M:%S.%f"),
        "model_uuid": uuid.uuid4().hex,
        "flavors": {},
    }


def _files(asked: Asked) -> Mapping[str, bytes]:
    """Return the files of a run by path. What YAML would hold is written as JSON, which is YAML."""
    given, outcome = _texts(asked, "prompt_parameters"), _texts(asked, "model_output_parameters")
    columns: Sequence[str] = (*given, "prompt", "output", *outcome)
    row = [*given.values(), asked["model_input"], asked.get("model_output"), *outcome.values()]
    parameters = {
        "prompt_template": asked["prompt_template"],
        "prompt_parameters": given,
        "model_parameters": _texts(asked, "model_parameters"),
        "model_route": asked["model_route"],
    }
    return {
        _TABLE: json.dumps({"columns": columns, "data": [row]}).encode(),
        "model/parameters.yaml": json.dumps(parameters, indent=2).encode(),
    }


def _keep(platform: Platform, run: str, path: str, data: bytes) -> None:
    root = proxied(platform.artifact_root(run))
    if root is not None:  # else only clients reach the place where the experiment keeps its files
        platform.keep_bytes(f"{root}/{path}", data)
