"""Inference requests as questions and answers as outputs with a head: the same for REST and gRPC."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import orjson

from flyball.clock import parse_instant
from flyball.errors import InvalidInput
from flyball.serving.lineup import Served
from flyball.serving.questions import Answer, Question
from flyball.wire.oip.datatypes import Array
from flyball.wire.oip.tensors import InferRequest, WantedOutput

__all__ = ["head_of", "question_of_tensors", "tensors_of", "trace_of"]

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def question_of_tensors(
    served: Served, infer: InferRequest, headers: Mapping[str, str], version: str | None, received: float
) -> Question:
    """Return an inference request as a question; a column may come as [n] or [n, 1], all of them as one [n, columns].

    Args:
        headers: `x-flyball-variant`, `x-request-id` and `traceparent` as far as they were sent, whatever the transport.
        version: that the call names.
        received: `time.perf_counter()` when the request was complete.

    Raises:
        InvalidInput: a column is a single value, or a parameter that means something here (`key`, `at`, `variant`,
            `explain`, `approximate`) has a wrong value; others are let through, as clients send `priority`,
            `sequence_id` and more.
    """
    tensors = served.tensors
    columns = dict(infer.inputs)
    for name, array in infer.inputs.items():
        if array.ndim != 1 and name not in tensors:
            if array.ndim == 0:
                raise InvalidInput(f'the input "{name}" has the shape []; expected [rows] or [rows, 1]')
            if array.ndim == 2 and array.shape[1] == 1:
                columns[name] = array[:, 0]
    question = Question(served.name, columns=columns, request_id=infer.id, is_whole=True, version=version)
    question.received = received
    if len(columns) == 1 and not tensors:
        # All columns at once, in the model's order.
        question.is_matrix = next(iter(columns.values())).ndim == 2
    if infer.parameters:
        _take_parameters(question, infer.parameters)
    if headers:
        take_headers(question, headers)
    return question


def take_headers(question: Question, headers: Mapping[str, str]) -> None:
    """Set what headers say: the variant for testers, the request's id, the trace."""
    question.variant = headers.get("x-flyball-variant", question.variant)
    if question.request_id is None:
        question.request_id = headers.get("x-request-id")
    parent = headers.get("traceparent")
    if parent is not None:
        question.trace = trace_of(parent)


def trace_of(parent: str) -> str | None:
    """Return the trace id of a `traceparent`; None for a value that W3C Trace Context §3.2 says to ignore."""
    found = _TRACEPARENT.fullmatch(parent.strip())
    return None if found is None or (parent.startswith("00") and found[2]) else found[1]


def head_of(answer: Answer, infer: InferRequest) -> dict[str, Any]:
    """Return the members of an answer before its outputs; `id` exactly when the request had one."""
    part = answer.parts[0]
    head: dict[str, Any] = {"model_name": answer.deployment, "model_version": part.version}
    if infer.id is not None:
        head["id"] = infer.id
    head["parameters"] = {"variant": part.variant, "prediction_ids": ",".join(answer.ids)}
    if (found := part.explanation) is not None:
        head["parameters"] |= {
            "explanation_method": found.method,
            "explanation_output": found.output,
            "explanation_scale": found.scale,
            "explanation_inputs": orjson.dumps(list(found.contributions)).decode(),
        }
    return head


def tensors_of(answer: Answer, infer: InferRequest) -> tuple[Mapping[str, Array], InferRequest]:
    """Return an answer's outputs, those of its explanation among them, and the request as it wants them all."""
    part = answer.parts[0]
    found = part.explanation
    if found is None:
        return part.outputs, infer
    contributions = np.column_stack(list(found.contributions.values()))
    told = {"explanation": contributions, "explanation_base": found.base, "explanation_score": found.score}
    if found.classes is not None:
        classes = found.classes
        told["explanation_class"] = classes.astype(object) if classes.dtype.kind == "U" else classes
    if infer.outputs is not None:
        known = {wanted.name for wanted in infer.outputs}
        infer = replace(infer, outputs=(*infer.outputs, *(WantedOutput(n, None) for n in told if n not in known)))
    return {**part.outputs, **told}, infer


def _take_parameters(question: Question, parameters: Mapping[str, Any]) -> None:
    key, at, variant = (parameters.get(name) for name in ("key", "at", "variant"))
    explain, is_approximate = (parameters.get(name, False) for name in ("explain", "approximate"))
    if not isinstance(explain, bool) or not isinstance(is_approximate, bool):
        raise InvalidInput('the parameters "explain" and "approximate" are true or false')
    if isinstance(key, bool) or not isinstance(key, str | int | None):
        raise InvalidInput('the parameter "key" is neither text nor a whole number')
    if not isinstance(at, str | None):
        raise InvalidInput('the parameter "at" is not a text; expected an instant like 2026-03-01T17:05:00Z')
    if not isinstance(variant, str | None):
        raise InvalidInput('the parameter "variant" is not a text; expected the name of a variant')
    question.explain, question.is_approximate = explain, is_approximate
    question.key = None if key is None else str(key)
    question.at = None if at is None else parse_instant(at)
    question.variant = variant
