"""GraphQL as MLflow's web page asks it: each question is one of the REST routes, its answer that route's answer.

The schema stands in `schema.graphql`. A question is bounded before it is carried out: its length, its depth, and how
often it names one of the routes, which are what MLflow's own server bounds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from flyball.errors import FlyballError
from flyball.platform import Platform
from flyball.wire.mlflow import fields as field_kinds
from flyball.wire.mlflow.fields import text, value
from flyball.wire.mlflow.refusals import Refused, invalid, refusal_of
from flyball.wire.mlflow.routing import Asked, Routes

if TYPE_CHECKING:
    from graphql import GraphQLSchema

__all__ = ["add_graphql"]

_QUESTIONS = {  # field of the schema → the route that answers it
    "mlflowGetExperiment": ("GET", "experiments/get"),
    "mlflowGetRun": ("GET", "runs/get"),
    "mlflowSearchRuns": ("POST", "runs/search"),
    "mlflowGetMetricHistoryBulkInterval": ("GET", "metrics/get-history-bulk-interval"),
    "mlflowListArtifacts": ("GET", "artifacts/list"),
    "mlflowSearchModelVersions": ("GET", "model-versions/search"),
    "mlflowSearchDatasets": ("POST", "experiments/search-datasets"),
}
_QUESTION_CHARACTERS = 50_000
_DEPTH = 12
_ROUTES_ASKED = 10
_FIELDS = 1_000


def add_graphql(routes: Routes, _platform: Platform) -> None:
    """Add `/graphql`, at the front's own path and below `/ajax-api`."""

    @routes.add("GET POST", "/graphql", value("query"), value("variables"), text("operationName"))
    def graphql(asked: Asked) -> dict[str, Any]:
        question, variables = asked.get("query"), asked.get("variables")
        if not isinstance(question, str):
            raise Refused("BAD_REQUEST", "The request has no text `query`.")
        if variables is not None and not isinstance(variables, dict):
            raise Refused("BAD_REQUEST", "`variables` must be an object.")
        return _carry_out(routes, question, variables, asked.get("operationName"))


def _carry_out(
    routes: Routes, question: str, variables: Mapping[str, Any] | None, operation: str | None
) -> dict[str, Any]:
    from graphql import GraphQLError, execute_sync, parse, validate  # only MLflow's page needs it

    if len(question) > _QUESTION_CHARACTERS:
        return _refusal(f"the query is longer than {_QUESTION_CHARACTERS} characters")
    try:
        document = parse(question, max_tokens=_QUESTION_CHARACTERS // 4)
    except GraphQLError as error:
        return _refusal(error.message)
    except RecursionError:
        return _refusal("the query is nested too deeply")
    beyond = _beyond(document)
    if beyond:
        return _refusal(beyond)
    wrong = validate(_schema(), document, max_errors=10)
    if wrong:
        return {"data": None, "errors": [error.message for error in wrong]}
    found: Any = execute_sync(
        _schema(),
        document,
        variable_values=dict(variables) if variables else None,
        operation_name=operation,
        context_value=routes,
        field_resolver=_resolve,
    )
    return {"data": found.data, "errors": [error.message for error in found.errors] if found.errors else None}


def _refusal(sentence: str) -> dict[str, Any]:
    return {"data": None, "errors": [sentence]}


def _beyond(document: Any) -> str | None:
    """Return how a question is beyond its bounds, None when it is within them."""
    asked = fields = 0
    waiting = [(node, 0) for node in document.definitions]
    while waiting:
        node, depth = waiting.pop()
        if depth > _DEPTH:
            return "the query is nested too deeply"
        name = getattr(getattr(node, "name", None), "value", "")
        fields += 1
        asked += name in _QUESTIONS
        if asked > _ROUTES_ASKED or fields > _FIELDS:
            return "the query asks for too much at once; ask in several requests"
        chosen = getattr(node, "selection_set", None)
        waiting += [(inner, depth + 1) for inner in (chosen.selections if chosen is not None else ())]
    return None


@cache
def _schema() -> GraphQLSchema:
    from graphql import build_schema

    found = build_schema((files("flyball.wire.mlflow") / "schema.graphql").read_text(encoding="utf-8"))
    long: Any = found.type_map["LongString"]
    long.serialize = str
    return found


def _resolve(parent: Any, info: Any, **given: Any) -> Any:
    """Return the value of a field: of a question its route's answer, else what the answer above holds."""
    name = info.field_name
    if info.path.prev is None:
        return _asked_of(info.context, name, given.get("input") or {})
    if name == "experiment" and "info" in parent:
        asked = {"experimentId": parent["info"]["experiment_id"]}
        return _asked_of(info.context, "mlflowGetExperiment", asked).get("experiment")
    if name == "modelVersions" and "info" in parent:
        asked = {"filter": f"run_id='{parent['info']['run_id']}'"}
        return _asked_of(info.context, "mlflowSearchModelVersions", asked).get("model_versions", [])
    found = parent.get(_snake(name))
    if name == "value" and found in ("NaN", "Infinity", "-Infinity"):
        return None  # JSON's numbers, which GraphQL's Float is made of, have no word for it
    if found is None and str(info.return_type).startswith("["):
        return []
    return found


def _asked_of(routes: Routes, question: str, given: Mapping[str, Any]) -> Any:
    verb, path = _QUESTIONS[question]
    found = routes.find(verb, f"/ajax-api/2.0/mlflow/{path}")
    if found is None:
        return {"apiError": {"code": "ENDPOINT_NOT_FOUND", "message": f"{path} is not served"}}
    known = {field.name for field in found.route.fields}
    raw = {_snake(name): one for name, one in given.items() if one is not None}
    try:
        asked = Asked(field_kinds.read(found.route.fields, {k: v for k, v in raw.items() if k in known}), {}, {}, verb)
        answer = found.route.handler(asked)
    except (Refused, FlyballError) as error:
        refusal = error if isinstance(error, Refused) else refusal_of(error)
        return {"apiError": {"code": refusal.code, "message": refusal.message}}
    return answer if isinstance(answer, dict) else _plain(answer)


def _plain(answer: Any) -> Any:
    import orjson

    body = answer[1] if isinstance(answer, tuple) else getattr(answer, "body", None)
    if body is None:
        raise invalid("this question has no answer in JSON")
    return orjson.loads(body)


def _snake(name: str) -> str:
    if name == "apiError":
        return name
    return re.sub(r"(?<!^)([A-Z])", lambda found: "_" + found[1].lower(), name)
