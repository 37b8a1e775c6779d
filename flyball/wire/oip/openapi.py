"""The OpenAPI document of the data plane, which `GET /openapi.json` answers: true to `routes.ROUTES`, held by a test.

Specification: OpenAPI 3.1.0. Schemas of the Open Inference Protocol follow its `open_inference_rest.yaml`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson

from flyball.wire.oip.routes import ROUTES

__all__ = ["document"]

_TEXT: dict[str, Any] = {"type": "string"}
_OBJECT: dict[str, Any] = {"type": "object"}
_YES: dict[str, Any] = {"type": "boolean"}
_NUMBER: dict[str, Any] = {"type": ["number", "null"]}
_DATATYPES = ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"]


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_INSTANT = {"type": "string", "format": "date-time"}
_KEY = {"type": ["string", "integer", "null"]}
_RECORD = {"type": "object", "description": "One row: the inputs of the model by name; null where a value is missing."}
_SCHEMAS: dict[str, Any] = {
    "Error": _object(("error",), error=_TEXT),
    "TensorMetadata": _object(
        ("name", "datatype", "shape"), name=_TEXT, datatype=_TEXT, shape=_list({"type": "integer", "minimum": -1})
    ),
    "ModelMetadata": _object(
        ("name", "platform", "inputs", "outputs"),
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_ref("TensorMetadata")),
        outputs=_list(_ref("TensorMetadata")),
    ),
    "InferTensor": _object(
        ("name", "shape", "datatype"),
        name=_TEXT,
        shape={"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 16},
        datatype={"enum": [*_DATATYPES, "BF16", "BYTES"]},
        parameters=_OBJECT,
        data={"type": "array", "description": "Row-major, flat or nested as the shape says."},
    ),
    "InferRequest": _object(
        ("inputs",),
        id=_TEXT,
        parameters=_object(
            key=_KEY, at=_INSTANT, variant=_TEXT, binary_data_output=_YES, explain=_YES, approximate=_YES
        ),
        inputs={"type": "array", "items": _ref("InferTensor"), "minItems": 1},
        outputs=_list(_object(("name",), name=_TEXT, parameters=_OBJECT)),
    ),
    "InferResponse": _object(
        ("model_name", "outputs"),
        model_name=_TEXT,
        model_version=_TEXT,
        id=_TEXT,
        parameters=_OBJECT,
        outputs=_list(_ref("InferTensor")),
    ),
    "PredictRequest": {
        "anyOf": [
            _object(
                ("records",),
                records={"type": "array", "items": _RECORD, "minItems": 1},
                key=_KEY,
                at=_INSTANT,
                variant=_TEXT,
                version=_TEXT,
                explain=_YES,
                approximate=_YES,
            ),
            _object(
                ("columns",),
                columns={"type": "object", "additionalProperties": {"type": "array"}},
                key=_KEY,
                at=_INSTANT,
                variant=_TEXT,
                version=_TEXT,
                explain=_YES,
                approximate=_YES,
            ),
            {"type": "array", "items": _RECORD, "minItems": 1},
            _RECORD,
        ]
    },
    "PredictResponse": _object(
        ("predictions",),
        predictions=_list(
            _object(
                ("id", "version", "variant", "outputs"),
                id=_TEXT,
                version=_TEXT,
                variant=_TEXT,
                outputs=_OBJECT,
                explanation=_ref("Explanation"),
            )
        ),
    ),
    "Explanation": _object(
        ("method", "output", "scale", "base", "score", "contributions"),
        method={"enum": ["linear", "trees", "trees_path_dependent", "sampled"]},
        output=_TEXT,
        scale={"enum": ["value", "log", "log-odds", "probability", "score"]},
        base=_NUMBER,
        score=_NUMBER,
        contributions={"type": "object", "additionalProperties": _NUMBER},
        **{"class": {"description": "Of more than two classes the one that is explained."}},
    ),
    "Label": _object(("id", "label"), id=_TEXT, label={}, at=_INSTANT, source=_TEXT),
    "Statistics": _object(("model_stats",), model_stats=_list(_OBJECT)),
}

_Schema = dict[str, Any]
# What a route is for, what is sent to it (None: nothing), and what it answers with 200.
_ACTIONS: dict[str, tuple[str, _Schema | None, _Schema]] = {
    "server": ("Name, version and extensions of the server", None, _OBJECT),
    "live": ("Whether the process answers", None, _OBJECT),
    "ready": ("Whether the models are loaded", None, _OBJECT),
    "models": ("The names of all deployments", None, _object(("models",), models=_list(_TEXT))),
    "model": ("Inputs and outputs of a model", None, _ref("ModelMetadata")),
    "model_ready": ("Whether a model is served", None, _OBJECT),
    "configuration": ("A model's configuration as Triton words it", None, _OBJECT),
    "statistics": ("What a model has answered since the start", None, _ref("Statistics")),
    "all_statistics": ("What all models have answered since the start", None, _ref("Statistics")),
    "infer": ("Predict tensors", _ref("InferRequest"), _ref("InferResponse")),
    "index": ("Every version that is served", _object(ready={"type": "boolean"}), _list(_OBJECT)),
    "load": ("Make sure that a model is loaded", _OBJECT, _OBJECT),
    "unload": ("Refused: what is declared stays loaded", _OBJECT, _OBJECT),
    "predict": ("Predict records", _ref("PredictRequest"), _ref("PredictResponse")),
    "label": (
        "Say what became of predictions",
        {"anyOf": [_ref("Label"), _list(_ref("Label")), _object(("labels",), labels=_list(_ref("Label")))]},
        _object(("labelled",), labelled={"type": "integer"}),
    ),
    "health": ("What is served, what is refused, and why", None, _OBJECT),
    "metrics": ("Counters for Prometheus", None, _TEXT),
    "openapi": ("This document", None, _OBJECT),
    "features": ("Newest values of features", None, _OBJECT),
    "features_asked": ("Newest values of features for several entities", _OBJECT, _OBJECT),
}
_OPTIONAL_BODIES = ("index", "load", "unload")


@cache
def document() -> bytes:
    """Return the document as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for method, template, action in ROUTES:
        paths.setdefault(template, {})[method.lower()] = _operation(template, action)
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "Flyball data plane",
            "version": "2",
            "description": "Open Inference Protocol v2, plain records, labels and features.",
        },
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }
    return orjson.dumps(whole)


def _operation(template: str, action: str) -> dict[str, Any]:
    summary, body, answer = _ACTIONS[action]
    names = [part.partition("}")[0] for part in template.split("{")[1:]]
    coded = {"application/json": {"schema": answer}}
    if action == "metrics":
        coded = {"text/plain": {"schema": answer}}
    elif action == "infer":
        coded["application/octet-stream"] = {"schema": {}}
    ending = "_of_version" if "{version}" in template else "_of" if action == "features" and names else ""
    found: dict[str, Any] = {
        "operationId": action + ending,
        "summary": summary,
        "responses": {
            "200": {"description": "The answer", "content": coded},
            "default": {"description": "Why not", "content": {"application/json": {"schema": _ref("Error")}}},
        },
    }
    if names:
        found["parameters"] = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]
    if action == "features" and names:
        found["description"] = "The keys of the entity are given as query parameters by their names."
    if body is not None:
        content: dict[str, Any] = {"application/json": {"schema": body}}
        if action == "infer":
            content["application/octet-stream"] = {"schema": {}}  # with the binary tensor extension
        found["requestBody"] = {"required": action not in _OPTIONAL_BODIES, "content": content}
    return found
