"""Messages of `inference.GRPCInferenceService` as bytes: inference requests in, all answers out.

Specification: kserve/open-inference-protocol, `specification/protocol/inference_grpc.md`; field numbers as in
`inference.proto` beside this file, which tests compare with it and with Triton's own.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

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
from flyball.wire.oip.protobuf import (
    FIXED32,
    FIXED64,
    LENGTH,
    VARINT,
    boolean,
    double,
    fields,
    integer,
    message,
    packed,
    signed,
    text,
    varints,
)
from flyball.wire.oip.tensors import InferRequest, WantedOutput

__all__ = ["Asked", "flags", "parse_infer", "parse_named", "render_infer", "render_parameters", "render_tensor"]

_MOST_HEADS = 4096
_CONTENTS: dict[str, tuple[int, int]] = {  # datatype → number of its field in InferTensorContents, bytes of a fixed one
    "BOOL": (1, 0),
    **dict.fromkeys(("INT8", "INT16", "INT32"), (2, 0)),
    "INT64": (3, 0),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), (4, 0)),
    "UINT64": (5, 0),
    "FP32": (6, 4),
    "FP64": (7, 8),
    "BYTES": (8, 0),
}
_CONTENTS_NAMES = ("bool", "int", "int64", "uint", "uint64", "fp32", "fp64", "bytes")
_BROKEN = "the message is not the one that this call expects: field {} has the wrong type"


class Asked(NamedTuple):
    """A ModelInferRequest; `is_raw` says whether the answer is wanted as raw contents, as the inputs came."""

    name: str
    version: str | None
    infer: InferRequest
    is_raw: bool


class _Head(NamedTuple):
    """An InferInputTensor without its contents."""

    name: str
    datatype: str
    shape: list[int]
    values: int  # how many its shape needs
    contents: bytes | None


# A client's tensors differ from call to call in their contents only, which stand elsewhere when they are raw.
_heads: dict[bytes, _Head] = {}


def parse_infer(data: bytes) -> Asked:
    """Read a ModelInferRequest.

    Raises:
        InvalidInput: it is no such message, or anything in it is not as the specification says; names the tensor.
    """
    name = version = identity = ""
    has_id = False
    given: dict[str, Any] = {}
    heads: list[_Head] = []
    outputs: list[WantedOutput] = []
    raw: list[bytes] = []
    for number, kind, value in fields(data):
        if kind != LENGTH:
            if number <= 7:
                raise InvalidInput(_BROKEN.format(number))
        elif number == 5:
            heads.append(_heads.get(value) or _head(value))
        elif number == 7:
            raw.append(value)
        elif number == 1:
            name = _text(value)
        elif number == 2:
            version = _text(value)
        elif number == 3:
            identity, has_id = _text(value), True
        elif number == 4:
            key, parameter = _parameter(value)
            given[key] = parameter
        elif number == 6:
            outputs.append(WantedOutput(_first_text(value, 1), None))
    if not heads:
        raise InvalidInput('the request has no "inputs"; expected at least one tensor')
    if raw and len(raw) != len(heads):
        raise InvalidInput(
            f"the request has {len(heads)} inputs and {len(raw)} raw_input_contents; give one for each input, in order"
        )
    inputs: dict[str, Array] = {}
    for index, head in enumerate(heads):
        if head.name in inputs:
            raise InvalidInput(f'the input "{head.name}" is given twice')
        if raw:
            if head.contents is not None:
                raise InvalidInput(
                    f'the input "{head.name}" has contents, and the request raw_input_contents; use one form for all'
                )
            array = from_raw(head.name, head.datatype, head.values, memoryview(raw[index]))
        else:
            array = _from_contents(head)
        inputs[head.name] = array if len(head.shape) == 1 else array.reshape(head.shape)
    infer = InferRequest(inputs, identity if has_id else None, given, tuple(outputs) or None)
    return Asked(name, version or None, infer, bool(raw))


def render_infer(head: Mapping[str, Any], outputs: Mapping[str, Array], asked: Asked) -> bytes:
    """Return a ModelInferResponse; raw contents where the request's were, or where an output is FP16.

    Args:
        head: model_name, model_version, parameters, and id where the request had one.
        outputs: what the model gave; those that the request wants are sent, in its order.

    Raises:
        InvalidInput: the request names an output that the model has not.
    """
    names = list(outputs) if asked.infer.outputs is None else [wanted.name for wanted in asked.infer.outputs]
    arrays: list[tuple[str, str, Array]] = []
    for name in names:
        if name not in outputs:
            raise InvalidInput(f'there is no output "{name}"{did_you_mean(name, outputs)} (known: {listed(outputs)})')
        array = outputs[name]
        datatype = datatype_of(name, array)
        arrays.append((name, datatype, array.astype("M8[us]").astype(np.int64) if array.dtype.kind == "M" else array))
    is_raw = asked.is_raw or any(datatype == "FP16" for _, datatype, _ in arrays)
    parts = [text(1, head["model_name"]), text(2, head["model_version"])]
    if "id" in head:
        parts.append(text(3, head["id"]))
    parts.append(render_parameters(4, head["parameters"]))
    for name, datatype, array in arrays:
        tensor = render_tensor(name, datatype, array.shape)
        parts.append(message(5, tensor if is_raw else tensor + message(5, _contents(datatype, array.ravel()))))
    if is_raw:
        parts += [message(6, to_raw(array)) for _, _, array in arrays]
    return b"".join(parts)


def render_tensor(name: str, datatype: str, shape: Sequence[int]) -> bytes:
    """Return name, datatype and shape, which all messages about tensors begin with."""
    sizes = packed(3, np.array(shape, np.int64)) if len(shape) != 1 or not 0 <= shape[0] < 128 else _short(shape[0])
    return text(1, name) + text(2, datatype) + sizes


def render_parameters(number: int, values: Mapping[str, bool | int | float | str]) -> bytes:
    """Return the entries of a `map<string, InferParameter>`."""
    return b"".join(message(number, text(1, key) + message(2, _choice(value))) for key, value in values.items())


def parse_named(data: bytes, name: int = 1, version: int = 2) -> tuple[str, str | None]:
    """Return the two texts of a message that only names a model; a version that is not given is None.

    Raises:
        InvalidInput: it is no such message.
    """
    return _first_text(data, name), _first_text(data, version) or None


def flags(data: bytes) -> dict[int, bool]:
    """Return the truth values of a message by their numbers. Raises InvalidInput."""
    return {number: bool(value) for number, kind, value in fields(data) if kind == VARINT}


def _head(data: bytes) -> _Head:
    name = datatype = ""
    shape: list[int] = []
    contents: bytes | None = None
    for number, kind, value in fields(data):
        if number == 3:
            shape += _numbers(kind, value)
        elif kind != LENGTH:
            if number <= 5:
                raise InvalidInput(_BROKEN.format(number))
        elif number == 1:
            name = _text(value)
        elif number == 2:
            datatype = _text(value)
        elif number == 5:
            contents = (contents or b"") + value  # a message that comes twice is merged, which is to be joined here
    if not name:
        raise InvalidInput("an input has no name; expected a text")
    checked_datatype(name, datatype)
    sizes, count = checked_shape(name, shape)
    found = _Head(name, datatype, sizes, count, contents)
    if contents is None and len(data) < 256:
        if len(_heads) >= _MOST_HEADS:
            _heads.clear()
        _heads[data] = found
    return found


def _from_contents(head: _Head) -> Array:
    """Return an input whose values stand in its own contents, typed."""
    name, datatype = head.name, head.datatype
    if datatype not in _CONTENTS:
        raise InvalidInput(f'the input "{name}" is {datatype}, which has no typed contents; send raw_input_contents')
    if head.contents is None and head.values:
        raise InvalidInput(f'the input "{name}" has neither contents nor raw_input_contents')
    wanted, size = _CONTENTS[datatype]
    parts: list[bytes] = []
    singles: list[int] = []
    for number, kind, value in fields(head.contents or b""):
        if number != wanted:
            known = _CONTENTS_NAMES[number - 1] if number <= len(_CONTENTS_NAMES) else str(number)
            raise InvalidInput(
                f'the input "{name}" is {datatype} and has {known}_contents; '
                f"expected {_CONTENTS_NAMES[wanted - 1]}_contents"
            )
        if kind == VARINT:
            singles.append(value)
        elif kind == LENGTH or (kind == FIXED64 and size == 8) or (kind == FIXED32 and size == 4):
            parts.append(value)
        else:
            raise InvalidInput(_BROKEN.format(number))
    if datatype == "BYTES":
        return _checked_count(head, _texts(name, parts))
    if size:
        data = b"".join(parts)
        if singles or len(data) % size:
            raise InvalidInput(_BROKEN.format(wanted))
        return _checked_count(head, np.frombuffer(data, DTYPES[datatype]))
    values = np.concatenate([np.array(singles, np.uint64), *(varints(part) for part in parts)])
    return _checked_count(head, _ranged(name, datatype, values))


def _ranged(name: str, datatype: str, values: np.ndarray[Any, Any]) -> Array:
    """Return integers of a datatype; int_contents and uint_contents hold 32 bits, whatever the datatype is."""
    if datatype == "BOOL":
        return np.asarray(values != 0)
    field = _CONTENTS[datatype][0]
    wide: Array = values
    if field == 2:
        wide = values.astype(np.uint32).view(np.int32)
    elif field == 3:
        wide = values.view(np.int64)
    elif field == 4:
        wide = values.astype(np.uint32)
    dtype = np.dtype(DTYPES[datatype])
    if dtype.itemsize < wide.dtype.itemsize and wide.size:
        limits = np.iinfo(dtype)
        if int(wide.min()) < limits.min or int(wide.max()) > limits.max:
            raise InvalidInput(
                f'the input "{name}" is {datatype} and holds other values; expected whole numbers that fit {datatype}'
            )
    return wide.astype(dtype, copy=False)


def _texts(name: str, parts: Sequence[bytes]) -> Array:
    found = np.empty(len(parts), object)
    for index, part in enumerate(parts):
        try:
            found[index] = part.decode()
        except UnicodeDecodeError:
            raise InvalidInput(f'the text {index} of the input "{name}" is not UTF-8') from None
    return found


def _checked_count(head: _Head, array: Array) -> Array:
    if len(array) != head.values:
        raise InvalidInput(
            f'the input "{head.name}" has {len(array)} values; its shape {head.shape} needs {head.values}'
        )
    return array


def _contents(datatype: str, values: Array) -> bytes:
    number, _ = _CONTENTS[datatype]
    if datatype == "BYTES":
        return b"".join(
            message(number, value if isinstance(value, bytes) else text_of(value).encode()) for value in values.tolist()
        )
    if datatype in ("INT8", "INT16", "INT32"):
        values = values.astype(np.int64)
    return packed(number, values)


def _parameter(data: bytes) -> tuple[str, bool | int | float | str]:
    """Read an entry of a map of InferParameter; a choice that is not known reads as true."""
    key = ""
    value: bool | int | float | str = True
    for number, _, part in fields(data):
        if number == 1 and isinstance(part, bytes):
            key = _text(part)
        elif number == 2 and isinstance(part, bytes):
            for choice, kind, found in fields(part):
                if kind == VARINT:
                    value = bool(found) if choice == 1 else signed(found) if choice == 2 else found
                elif kind == FIXED64:
                    value = struct.unpack("<d", found)[0]
                elif choice == 3:
                    value = _text(found)
    return key, value


def _choice(value: bool | int | float | str) -> bytes:
    if isinstance(value, str):
        return message(3, value.encode("utf-8", "replace"))
    if isinstance(value, bool):
        return boolean(1, True) if value else b"\x08\x00"
    return double(4, value) if isinstance(value, float) else integer(2, value) or b"\x10\x00"


def _numbers(kind: int, value: Any) -> list[int]:
    if kind == VARINT:
        return [signed(value)]
    if kind != LENGTH:
        raise InvalidInput(_BROKEN.format(3))
    if len(value) == 1 and value[0] < 128:
        return [value[0]]
    return [signed(number) for number in varints(value).tolist()]


def _short(size: int) -> bytes:
    return b"\x1a\x01" + bytes((size,))


def _first_text(data: bytes, wanted: int) -> str:
    for number, kind, value in fields(data):
        if number == wanted and kind == LENGTH:
            return _text(value)
    return ""


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidInput("a text of the message is not UTF-8") from None
