"""Requests about one row and their answers, for the short way (`serving.lane`), in the protocol's words.

What is read here is a part of what the long way reads, and means the same; what is not quite so is left to that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from flyball.serving.connection import Request, Response
from flyball.serving.lane import Asked, Lane, Shape, Turn
from flyball.serving.service import Service
from flyball.wire.oip.datatypes import datatype_of
from flyball.wire.oip.inference import trace_of
from flyball.wire.oip.routes import Route

__all__ = ["AnswerForm", "Express", "record_of", "row_of"]

_LONG = frozenset({b"x-flyball-variant", b"content-encoding", b"inference-header-content-length"})
_MOST_BYTES = 8 * 1024  # of a request, and so of an answer, which nobody wants compressed then

_TENSOR = frozenset({"name", "shape", "datatype", "data"})
_RESERVED = frozenset({"records", "columns"})  # which make an object another thing than a record


class Express:
    """Inference requests, or records, that take the short way; a `serving.lane.Front`.

    Arguments:
        again: what answers them the long way.
    """

    def __init__(
        self,
        service: Service,
        is_record: bool,
        again: Callable[[Route, Request, Callable[[Response], None], float], None],
    ) -> None:
        self._service = service
        self._is_record = is_record
        self._read = record_of if is_record else row_of
        self._long_way = again
        self._turn: Turn | None = None  # the last one, whose templates these are
        self._headers = self._body = b""

    def take(self, route: Route, request: Request, respond: Callable[[Response], None]) -> bool:
        """Take a request that can go the short way; False: it cannot, and nothing was done."""
        lane = self._service.lane(route.name)
        headers = request.headers
        if lane is None or route.version is not None or not _LONG.isdisjoint(headers):
            return False
        if len(request.body) > _MOST_BYTES:
            return False
        received = time.perf_counter()
        values = self._read(request.body, lane)
        if values is None:
            return False
        parent = headers.get(b"traceparent")
        trace = None if parent is None else trace_of(parent.decode("latin-1"))
        lane.ask(Asked(self, values, received, trace, (respond, lane, route, request)))
        return True

    def answer(self, asked: Asked, turn: Turn, place: int) -> None:
        """Write the answer of one row; see `Front`."""
        if turn is not self._turn:
            form = AnswerForm(asked.context[1], turn.shape)
            self._headers, self._body = form.headers, form.record if self._is_record else form.tensors
            self._turn = turn
        id_ = turn.ids[place]
        body = self._body % (id_, *[texts[place] for texts in turn.texts])
        asked.context[0](Response(200, body, headers=self._headers % id_))

    def again(self, asked: Asked) -> None:
        """Go the long way; see `Front`."""
        respond, _, route, request = asked.context
        self._long_way(route, request, respond, asked.received)


def row_of(body: bytes, lane: Lane) -> list[Any] | None:
    """Return the values of an inference request that is one FP64 tensor of one row as JSON; None for any other."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(document) is not dict or len(document) != 1:
        return None
    inputs = document.get("inputs")
    if type(inputs) is not list or len(inputs) != 1:
        return None
    tensor = inputs[0]
    if type(tensor) is not dict or tensor.keys() != _TENSOR or tensor["datatype"] != "FP64":
        return None
    if type(tensor["name"]) is not str or repr(tensor["shape"]) != lane.row_shape:  # 1.0 and true are no sizes
        return None
    values = tensor["data"]
    if type(values) is not list or len(values) != lane.width or not lane.kinds.issuperset(map(type, values)):
        return None
    return values


def record_of(body: bytes, lane: Lane) -> list[Any] | None:
    """Return the values of a request that is one record with exactly the model's inputs; None for any other."""
    try:
        record = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(record) is not dict or len(record) != lane.width or not _RESERVED.isdisjoint(record):
        return None
    try:
        values = [record[name] for name in lane.names]
    except KeyError:
        return None
    return values if lane.kinds.issuperset(map(type, values)) else None


class AnswerForm:
    """Everything in the answers of a lane but ids and numbers, as templates for `%`.

    Attributes:
        headers: takes the id.
        tensors, record: bodies; they take the id, then the JSON of each output.
    """

    def __init__(self, lane: Lane, shape: Shape) -> None:
        tracks = f"x-flyball-variant: {lane.variant}\r\nx-flyball-version: {lane.version}\r\n"
        self.headers = b"x-flyball-prediction-id: %b\r\n" + tracks.encode("latin-1", "replace").replace(b"%", b"%%")
        name, version, variant = _literal(lane.name), _literal(lane.version), _literal(lane.variant)
        tensors = b",".join(
            b'{"name":' + _literal(output) + b',"datatype":' + _literal(datatype_of(output, np.empty(0, dtype)))
            + b',"shape":' + _literal([1, *sizes]) + b',"data":[%b]}'
            for output, dtype, sizes in shape
        )  # fmt: skip
        self.tensors = (
            b'{"model_name":' + name + b',"model_version":' + version + b',"parameters":{"variant":' + variant
            + b',"prediction_ids":"%b"},"outputs":[' + tensors + b"]}"
        )  # fmt: skip
        outputs = b",".join(_literal(output) + (b":[%b]" if sizes else b":%b") for output, _, sizes in shape)
        self.record = (
            b'{"predictions":[{"id":"%b","version":' + version + b',"variant":' + variant
            + b',"outputs":{' + outputs + b"}}]}"
        )  # fmt: skip


def _literal(value: Any) -> bytes:
    """Return a value's JSON as it stands in a template."""
    return orjson.dumps(value).replace(b"%", b"%%")
