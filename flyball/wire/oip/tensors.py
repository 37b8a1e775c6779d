"""Tensors of the Open Inference Protocol: JSON or raw bytes to NumPy arrays, and back.

Source: Open Inference Protocol v2, "Inference Request JSON Object", "Tensor Data", "Tensor Data Types"; Triton's
"Binary tensor data extension". Every size that a client names is counted in Python integers before it is allocated.

Choices that the specification leaves open: answers are flat; NaN and the infinities are null in JSON and exact in
binary; null in a request is NaN in FP32 and FP64 and refused elsewhere; FP16 and BF16 travel as raw bytes only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import orjson

from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.wire.oip.datatypes import (
    DTYPES,
    Array,
    checked_datatype,
    checked_shape,
    datatype_of,
    from_raw,
    text_of,
    to_raw,
)

__all__ = ["InferRequest", "WantedOutput", "parse_request", "render_response"]

_REQUEST_FIELDS = ("id", "parameters", "inputs", "outputs", "model_name", "model_version")
_INPUT_FIELDS = ("name", "shape", "datatype", "parameters", "data")
_REQUEST_KEYS, _INPUT_KEYS = frozenset(_REQUEST_FIELDS), frozenset(_INPUT_FIELDS)


class WantedOutput(NamedTuple):
    """An output that the client asks for; `is_binary` None leaves the form to the request's default."""

    name: str
    is_binary: bool | None


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One inference request as arrays."""

    inputs: dict[str, Array]
    id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[WantedOutput, ...] | None = None  # None: all

    @property
    def is_binary_default(self) -> bool:
        """Whether outputs without a wish of their own are answered in raw bytes."""
        return self.parameters.get("binary_data_output") is True


def parse_request(body: bytes, head_length: int | None = None) -> InferRequest:
    """Read an inference request.

    Args:
        body: the JSON, and after it the raw tensors when `head_length` (the header `Inference-Header-Content-Length`,
            bytes) says where the JSON ends.

    Raises:
        InvalidInput: anything in it is not as the specification says; the message names the tensor.
    """
    view = memoryview(body)
    if head_length is not None and not 0 <= head_length <= len(body):
        raise InvalidInput(
            f"Inference-Header-Content-Length is {head_length}, but the body has {len(body)} bytes; give the length of "
            "the JSON before the tensors"
        )
    try:
        document = orjson.loads(view[:head_length])
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the request is not JSON: {error}") from None
    if type(document) is not dict:
        raise InvalidInput(f'the request is a {type(document).__name__}; expected an object with "inputs"')
    if not document.keys() <= _REQUEST_KEYS:
        _refuse_unknown("the request", document, _REQUEST_FIELDS)
    identity = document.get("id")
    if identity is not None and type(identity) is not str:
        raise InvalidInput(f'"id" is {str(identity)[:40]}; expected a text')
    wanted = document.get("inputs")
    if type(wanted) is not list or not wanted:
        raise InvalidInput('the request has no "inputs"; expected a list of tensors')
    raw = _Raw(view[head_length:] if head_length is not None else None)
    inputs: dict[str, Array] = {}
    for tensor in wanted:
        name, array = _input(tensor, raw)
        if name in inputs:
            raise InvalidInput(f'the input "{name}" is given twice')
        inputs[name] = array
    raw.check_end()
    return InferRequest(inputs, identity, _parameters(document, "the request"), _outputs(document))


def render_response(
    head: dict[str, Any], outputs: Mapping[str, Array], request: InferRequest
) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the length of its JSON when raw tensors follow it (else None).

    Args:
        head: members of the answer other than "outputs": model_name, model_version, id, parameters.
        outputs: what the model gave; those that the request wants are sent, in the order in which it names them.

    Raises:
        InvalidInput: the request names an output that the model has not, or wants FP16 as JSON.
    """
    wanted = request.outputs if request.outputs is not None else [WantedOutput(n, None) for n in outputs]
    tensors: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for name, is_binary in wanted:
        if name not in outputs:
            raise InvalidInput(f'there is no output "{name}"{did_you_mean(name, outputs)} (known: {listed(outputs)})')
        array = outputs[name]
        datatype = datatype_of(name, array)
        if array.dtype.kind == "M":
            array = array.astype("datetime64[us]").astype(np.int64)
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if request.is_binary_default if is_binary is None else is_binary:
            data = to_raw(array)
            tensor["parameters"] = {"binary_data_size": len(data)}
            raw.append(data)
        elif datatype == "FP16":
            raise InvalidInput(f'the output "{name}" is FP16, which has no JSON form; ask for it with binary_data')
        elif datatype == "BYTES":
            tensor["data"] = [text_of(value) for value in array.ravel().tolist()]
        else:
            tensor["data"] = np.ascontiguousarray(array.ravel())
        tensors.append(tensor)
    body = orjson.dumps({**head, "outputs": tensors}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not raw:
        return body, None
    return b"".join((body, *raw)), len(body)


class _Raw:
    """The raw tensors after the JSON, taken in order."""

    def __init__(self, view: memoryview | None) -> None:
        self._view = view
        self._at = 0

    def take(self, size: object, name: str) -> memoryview:
        if type(size) is not int or size < 0:
            raise InvalidInput(f'binary_data_size of the input "{name}" is {str(size)[:40]}; expected bytes from 0')
        if self._view is None:
            raise InvalidInput(
                f'the input "{name}" has binary_data_size, but the header Inference-Header-Content-Length is missing'
            )
        if self._at + size > len(self._view):
            raise InvalidInput(
                f'the input "{name}" should have {size} raw bytes, but only {len(self._view) - self._at} are left'
            )
        self._at += size
        return self._view[self._at - size : self._at]

    def check_end(self) -> None:
        if self._view is not None and self._at != len(self._view):
            raise InvalidInput(f"{len(self._view) - self._at} bytes at the end of the body belong to no input")


def _input(tensor: object, raw: _Raw) -> tuple[str, Array]:
    if type(tensor) is not dict:
        raise InvalidInput(
            f"an input is a {type(tensor).__name__}; expected an object with name, shape, datatype, data"
        )
    name = tensor.get("name")
    if type(name) is not str:
        raise InvalidInput("an input has no name; expected a text")
    if not tensor.keys() <= _INPUT_KEYS:
        _refuse_unknown(f'the input "{name}"', tensor, _INPUT_FIELDS)
    datatype = checked_datatype(name, tensor.get("datatype"))
    shape, count = checked_shape(name, tensor.get("shape"))
    parameters = _parameters(tensor, f'the input "{name}"')
    if "binary_data_size" in parameters:
        if "data" in tensor:
            raise InvalidInput(f'the input "{name}" has both data and binary_data_size; give one of them')
        array = from_raw(name, datatype, count, raw.take(parameters["binary_data_size"], name))
    elif "data" in tensor:
        array = _from_json(name, datatype, shape, count, tensor["data"])
    else:
        raise InvalidInput(f'the input "{name}" has neither data nor binary_data_size')
    return name, array if len(shape) == 1 else array.reshape(shape)


def _from_json(name: str, datatype: str, shape: list[int], count: int, data: object) -> Array:
    values = _flat(name, shape, data)
    if len(values) != count:
        raise InvalidInput(f'the input "{name}" has {len(values)} values; its shape {shape} needs {count}')
    kinds = set(map(type, values))
    expected = ""
    if datatype == "BYTES":
        if kinds <= {str}:
            texts = np.empty(count, object)
            texts[:] = values
            return texts
        expected = "texts"
    elif datatype in ("FP16", "BF16"):
        raise InvalidInput(f'the input "{name}" is {datatype}, which has no JSON form; send it as binary data')
    elif datatype == "BOOL":
        if kinds <= {bool} or (kinds <= {bool, int} and all(v in (0, 1) for v in values)):
            return np.array(values, np.bool_)
        expected = "true and false (or 1 and 0)"
    elif datatype.startswith("FP"):
        if kinds <= {int, float, type(None)}:
            try:
                if datatype == "FP64":  # an integer that is too large raises, a number in JSON cannot be
                    return np.array(values, np.float64)
                with np.errstate(over="ignore"):
                    return np.array(values, DTYPES[datatype])
            except OverflowError:
                pass
        expected = "numbers"
    elif kinds <= {int}:
        try:
            return np.array(values, DTYPES[datatype])
        except OverflowError:
            expected = f"whole numbers that fit {datatype}"
    else:
        expected = "whole numbers"
    raise InvalidInput(f'the input "{name}" is {datatype} and holds other values; expected {expected}')


def _flat(name: str, shape: list[int], data: object) -> list[Any]:
    """Return flat or nested data as one list, row-major; nested lists must be as long as the shape says."""
    if type(data) is not list:
        raise InvalidInput(f'the data of the input "{name}" is a {type(data).__name__}; expected a list')
    values: list[Any] = data
    if not values or type(values[0]) is not list:
        return values
    wrong = InvalidInput(f'the data of the input "{name}" is nested otherwise than its shape {shape}')
    if len(values) != (shape or [0])[0]:
        raise wrong
    for size in shape[1:]:
        if not all(type(part) is list and len(part) == size for part in values):
            raise wrong
        values = [value for part in values for value in part]
    return values


def _outputs(document: Mapping[str, Any]) -> tuple[WantedOutput, ...] | None:
    wanted = document.get("outputs")
    if wanted is None or wanted == []:
        return None
    if type(wanted) is not list:
        raise InvalidInput('"outputs" is not a list; expected objects with a name')
    found = []
    for output in wanted:
        if type(output) is not dict or type(output.get("name")) is not str:
            raise InvalidInput("an output has no name; expected an object with a name")
        is_binary = _parameters(output, f'the output "{output["name"]}"').get("binary_data")
        if is_binary is not None and type(is_binary) is not bool:
            raise InvalidInput(f'binary_data of the output "{output["name"]}" is not true or false')
        found.append(WantedOutput(output["name"], is_binary))
    return tuple(found)


def _parameters(document: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return the parameters; unknown ones are the client's business and are let through."""
    parameters = document.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise InvalidInput(f"the parameters of {where} are not an object")
    return parameters


def _refuse_unknown(where: str, document: Mapping[str, Any], known: Sequence[str]) -> None:
    unknown = next(key for key in document if key not in known)
    raise InvalidInput(f'{where} has an unknown field "{unknown[:60]}"{did_you_mean(unknown, known)}')
