"""What people and judges say of traces: feedback, expectations, references to issues."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from flyball.errors import Conflict, InvalidInput
from flyball.ledger.traces import Assessment
from flyball.llm.spans import check_depth
from flyball.platform import Platform
from flyball.wire.mlflow.fields import Field, flag, mapping, message, text, value
from flyball.wire.mlflow.refusals import invalid, required
from flyball.wire.mlflow.routing import Asked, Routes
from flyball.wire.mlflow.trace_values import assessment_value, instant_ms, parsed

__all__ = ["ASSESSMENT", "add_assessments", "assessment_of"]

_PATH = "3.0/mlflow/traces/{trace_id}/assessments"
_SOURCES = ("SOURCE_TYPE_UNSPECIFIED", "HUMAN", "LLM_JUDGE", "CODE")
_LONGEST_NAME = 250
_LARGEST_VALUE = 1 << 20  # bytes of JSON
_MASKED = {
    "assessment_name": "name", "expectation": "value", "feedback": "value", "rationale": "rationale",
    "metadata": "metadata", "valid": "is_valid",
}  # fmt: skip

ASSESSMENT: tuple[Field, ...] = (
    text("assessment_id"),
    text("assessment_name"),
    text("span_id"),
    text("rationale"),
    text("overrides"),
    flag("valid"),
    mapping("metadata"),
    value("create_time"),
    value("last_update_time"),
    message("source", value("source_type"), text("source_id")),
    message(
        "feedback", value("value"), message("error", text("error_code"), text("error_message"), text("stack_trace"))
    ),
    message("expectation", value("value"), message("serialized_value", text("serialization_format"), text("value"))),
    message("issue", text("issue_name")),
)
"""The fields of the message."""


def add_assessments(routes: Routes, platform: Platform) -> None:
    """Add the routes of assessments."""

    @routes.add("POST", _PATH, message("assessment", *ASSESSMENT, required=True))
    def create(asked: Asked) -> dict[str, Any]:
        given = assessment_of(asked["assessment"], asked.parts["trace_id"])
        try:
            made = platform.assess(given)
        except Conflict as error:
            raise invalid(str(error)) from None
        return {"assessment": assessment_value(made)}

    one = f"{_PATH}/{{assessment_id}}"

    @routes.add("GET", one)
    def get(asked: Asked) -> dict[str, Any]:
        found = platform.assessment(asked.parts["trace_id"], asked.parts["assessment_id"])
        return {"assessment": assessment_value(found)}

    @routes.add("PATCH", one, message("assessment", *ASSESSMENT, required=True), value("update_mask", required=True))
    def update(asked: Asked) -> dict[str, Any]:
        paths = _paths(asked["update_mask"])
        given = asked["assessment"]

        def change(known: Assessment) -> Assessment:
            return _revised(known, given, paths)

        found = platform.revise_assessment(asked.parts["trace_id"], asked.parts["assessment_id"], change)
        return {"assessment": assessment_value(found)}

    @routes.add("DELETE", one)
    def delete(asked: Asked) -> dict[str, Any]:
        platform.withdraw_assessment(asked.parts["trace_id"], asked.parts["assessment_id"])
        return {}


def assessment_of(given: Mapping[str, Any], trace: str) -> Assessment:
    """Return the assessment of a message. Raises Refused: it says nothing, or something that cannot be kept."""
    kind, said, error = _said(given)
    name = given.get("assessment_name", "")
    if len(name) > _LONGEST_NAME:
        raise invalid(f"'assessment_name' exceeds the maximum length of {_LONGEST_NAME} characters")
    now = int(time.time() * 1000)
    source = given.get("source", {})
    return Assessment(
        id=f"a-{secrets.token_hex(16)}",
        trace=trace,
        name=name,
        kind=kind,
        value=said,
        source_type=_source_type(source.get("source_type")),
        source=source.get("source_id") or None,
        created_ms=_at(given, "create_time", now),
        updated_ms=_at(given, "last_update_time", now),
        error=error,
        rationale=given.get("rationale") or None,
        span=given.get("span_id") or None,
        overrides=given.get("overrides") or None,
        metadata=given.get("metadata") or None,
    )


def _said(given: Mapping[str, Any]) -> tuple[Literal["feedback", "expectation", "issue"], Any, dict[str, str] | None]:
    if "feedback" in given:
        feedback = given["feedback"]
        return "feedback", _checked(_as_doubles(feedback.get("value"))), feedback.get("error")
    if "expectation" in given:
        expectation = given["expectation"]
        kept = expectation.get("serialized_value")
        found = (
            _as_doubles(expectation.get("value")) if kept is None else parsed(kept.get("value", ""), "serialized_value")
        )
        if found is None:
            raise invalid("The `value` field must be specified.")
        return "expectation", _checked(found), None
    if "issue" in given:
        return "issue", given["issue"].get("issue_name", ""), None
    raise invalid("Unknown assessment type: None")


def _revised(known: Assessment, given: Mapping[str, Any], paths: list[str]) -> Assessment:
    changed: dict[str, Any] = {}
    for path in paths:
        if path not in _MASKED:
            raise InvalidInput(f"update_mask names {path[:80]!r}; expected one of {', '.join(_MASKED)}")
        if path in ("expectation", "feedback"):
            if known.kind != path:
                article = "a Feedback" if known.kind == "feedback" else "an Expectation"
                raise InvalidInput(f"Cannot update {path} value on {article} assessment.")
            if path not in given:
                raise required(f"assessment.{path}")
            _, changed["value"], changed["error"] = _said({path: given[path]})
        elif path == "metadata":
            changed["metadata"] = {**(known.metadata or {}), **given.get("metadata", {})} or None
        elif path == "assessment_name":
            changed["name"] = given.get(path, "")[:_LONGEST_NAME]
        elif path == "valid":
            changed["is_valid"] = bool(given.get("valid", False))
        else:
            changed["rationale"] = given.get("rationale", "")
    return replace(known, **changed)


def _paths(mask: Any) -> list[str]:
    """Return the paths of a field mask: `assessmentName,feedback`, or {"paths": [...]}."""
    if isinstance(mask, Mapping):
        mask = mask.get("paths", [])
    found = mask.split(",") if isinstance(mask, str) else mask
    if not isinstance(found, list) or not all(isinstance(path, str) for path in found):
        raise invalid(f"Invalid value {str(mask)[:100]!r} for parameter 'update_mask' supplied: expected names, 'a,b'.")
    return ["".join(f"_{c.lower()}" if c.isupper() else c for c in path.strip()) for path in found]


def _source_type(given: Any) -> str:
    if isinstance(given, bool) or given is None:
        return _SOURCES[0]
    if isinstance(given, int):
        return _SOURCES[given] if 0 <= given < len(_SOURCES) else _SOURCES[0]
    return "LLM_JUDGE" if given == "AI_JUDGE" else given if given in _SOURCES else _SOURCES[0]


def _at(given: Mapping[str, Any], name: str, now: int) -> int:
    return instant_ms(given[name], f"assessment.{name}") if name in given else now


def _checked(found: Any) -> Any:
    check_depth(found)
    try:
        size = len(json.dumps(found, allow_nan=False, ensure_ascii=False).encode())
    except ValueError:
        raise invalid("The value of an assessment holds NaN, an infinity or half a sign; write it as text.") from None
    if size > _LARGEST_VALUE:
        raise invalid(f"The value of an assessment has {size:,} bytes of JSON; expected at most {_LARGEST_VALUE:,}.")
    return found


def _as_doubles(found: Any, depth: int = 0) -> Any:
    """Return a value with its numbers as doubles, as protobuf's `Value` holds them."""
    if depth > 100:
        raise invalid("The value of an assessment holds values within values more than 100 deep.")
    if isinstance(found, dict):
        return {key: _as_doubles(item, depth + 1) for key, item in found.items()}
    if isinstance(found, list):
        return [_as_doubles(item, depth + 1) for item in found]
    if isinstance(found, int) and not isinstance(found, bool):
        try:
            return float(found)
        except OverflowError:
            raise invalid("The value of an assessment holds a number beyond a double.") from None
    if isinstance(found, float) and not math.isfinite(found):
        raise invalid("The value of an assessment holds NaN or an infinity; write it as text.")
    return found
