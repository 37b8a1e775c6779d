"""Messages of the gRPC service, written and read by hand, against the classes that tritonclient was generated with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2, service_pb2

import flyball.wire.oip
from flyball.errors import InvalidInput
from flyball.wire.oip.messages import parse_infer, render_infer
from flyball.wire.oip.protobuf import fields, packed, varints

FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
DTYPES = {
    name: np.dtype(
        "?"
        if name == "BOOL"
        else f"{'u' if name[0] == 'U' else name[0].lower()}{int(re.sub(r'[^0-9]', '', name)) // 8}"
    )
    for name in FIELDS
}


def request(datatype: str, shape: list[int], values: Any = None, raw: bytes | None = None) -> Any:
    """One input named x, typed or raw."""
    message = service_pb2.ModelInferRequest(model_name="m", id="i")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=shape)
    if values is not None:
        field = "bytes_contents" if datatype == "BYTES" else FIELDS[datatype]
        getattr(tensor.contents, field).extend(values)
    if raw is not None:
        message.raw_input_contents.append(raw)
    return message


def parsed(message: Any) -> np.ndarray[Any, Any]:
    return parse_infer(message.SerializeToString()).infer.inputs["x"]


def edges(datatype: str) -> np.ndarray[Any, Any]:
    dtype = DTYPES[datatype]
    if dtype.kind == "b":
        return np.array([True, False, True])
    limits: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    extra = [np.nan, np.inf, 0.1] if dtype.kind == "f" else [0, 1, 127]
    return np.array([limits.min, *extra, limits.max], dtype)


@pytest.mark.parametrize("datatype", FIELDS)
def test_every_number_survives_typed_and_raw_contents_both_ways(datatype: str) -> None:
    array = edges(datatype)
    typed, raw = request(datatype, [len(array)], array.tolist()), request(datatype, [len(array)], raw=array.tobytes())
    for message in (typed, raw):
        np.testing.assert_array_equal(parsed(message), array)
        assert parsed(message).dtype == array.dtype
        asked = parse_infer(message.SerializeToString())
        head = {"model_name": "m", "model_version": "1", "id": "i", "parameters": {}}
        answer = service_pb2.ModelInferResponse.FromString(render_infer(head, {"y": array}, asked))
        (output,) = answer.outputs
        assert (output.name, output.datatype, list(output.shape)) == ("y", datatype, [len(array)])
        if message is raw:
            assert answer.raw_output_contents[0] == array.tobytes()
        else:
            found = getattr(output.contents, FIELDS[datatype])
            np.testing.assert_array_equal(np.array(list(found), array.dtype), array)


def test_texts_survive_both_ways() -> None:
    texts = ["", "ü", "a" * 300]
    message = request("BYTES", [3, 1], [text.encode() for text in texts])
    assert parsed(message).ravel().tolist() == texts
    raw = b"".join(len(t.encode()).to_bytes(4, "little") + t.encode() for t in texts)
    assert parsed(request("BYTES", [3], raw=raw)).tolist() == texts
    head = {"model_name": "m", "model_version": "1", "parameters": {}}
    asked = parse_infer(message.SerializeToString())
    answer = service_pb2.ModelInferResponse.FromString(render_infer(head, {"y": np.array(texts, object)}, asked))
    assert [value.decode() for value in answer.outputs[0].contents.bytes_contents] == texts


def test_half_floats_are_raw_only() -> None:
    halves = np.array([1.5, -2.0], np.float16)
    np.testing.assert_array_equal(parsed(request("FP16", [2], raw=halves.tobytes())), halves)
    brains = (np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16).astype("<u2")
    np.testing.assert_array_equal(parsed(request("BF16", [2], raw=brains.tobytes())), [1.5, -2.0])
    message = request("FP64", [1], [1.0])
    head = {"model_name": "m", "model_version": "1", "parameters": {}}
    asked = parse_infer(message.SerializeToString())
    outputs = {"y": halves, "z": np.array([1, 2])}
    answer = service_pb2.ModelInferResponse.FromString(render_infer(head, outputs, asked))
    assert list(answer.raw_output_contents) == [halves.tobytes(), np.array([1, 2]).tobytes()]
    assert not answer.outputs[1].HasField("contents")
    message = request("FP16", [1])
    message.inputs[0].contents.fp32_contents.append(1.0)
    with pytest.raises(InvalidInput, match="FP16, which has no typed contents"):
        parsed(message)


def mixed() -> Any:
    message = request("FP64", [1], [1.0])
    message.raw_input_contents.append(b"\0" * 8)
    return message


def too_few() -> Any:
    message = request("FP64", [1], raw=b"\0" * 8)
    message.inputs.add(name="y", datatype="FP64", shape=[1])
    return message


def twice() -> Any:
    message = request("FP64", [1], [1.0])
    message.inputs.append(message.inputs[0])
    return message


def foreign() -> Any:
    message = request("INT64", [1])
    message.inputs[0].contents.fp64_contents.append(1.0)
    return message


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (mixed(), "use one form for all"),
        (too_few(), "2 inputs and 1 raw_input_contents"),
        (twice(), "given twice"),
        (foreign(), "INT64 and has fp64_contents; expected int64_contents"),
        (request("FP64", [-1], [1.0]), "expected a list of sizes from 0"),
        (request("FP64", [10**12, 10**6], [1.0]), "has 1 values; its shape"),
        (request("FP64", [2**62, 4], raw=b""), "raw bytes; its shape"),
        (request("FP64", [0, 2**62, 4], raw=b""), "no tensor is so large"),
        (request("FP64", [2], [1.0]), "has 1 values; its shape"),
        (request("FP64", [1]), "neither contents nor raw_input_contents"),
        (request("FP64", [1], raw=b"1234567"), "has 7 raw bytes"),
        (request("INT8", [1], [128]), "fit INT8"),
        (request("INT16", [1], [-(2**15) - 1]), "fit INT16"),
        (request("UINT8", [1], [256]), "fit UINT8"),
        (request("STRING", [1], raw=b""), "datatype"),
        (request("BOOL", [1], raw=b"\2"), "byte other than 0 and 1"),
        (request("BYTES", [1], [b"\xff"]), "not UTF-8"),
        (request("BYTES", [1], raw=b"\xff\0\0\0a"), "longer than the bytes"),
        (request("FP64", [1] * 17, [1.0]), "shape"),
        (service_pb2.ModelInferRequest(model_name="m"), 'no "inputs"'),
    ],
)
def test_what_is_wrong_with_a_request_is_said(message: Any, expected: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(expected)):
        parse_infer(message.SerializeToString())


def test_parameters_outputs_and_version_are_read() -> None:
    message = request("FP64", [0], raw=b"")
    message.model_version = "7"
    message.parameters["key"].string_param = "k"
    message.parameters["n"].int64_param = -3
    message.parameters["u"].uint64_param = 2**63
    message.parameters["b"].bool_param = False
    message.parameters["d"].double_param = 0.5
    message.outputs.add(name="y")
    asked = parse_infer(message.SerializeToString())
    assert asked.infer.parameters == {"key": "k", "n": -3, "u": 2**63, "b": False, "d": 0.5}
    assert (asked.name, asked.version, asked.infer.id) == ("m", "7", "i")
    assert [wanted.name for wanted in asked.infer.outputs or ()] == ["y"]
    assert parse_infer(request("FP64", [0], raw=b"").SerializeToString()).version is None
    parameters = {"b": False, "n": -3, "s": "", "d": 0.0}
    head = {"model_name": "m", "model_version": "1", "parameters": parameters}
    answer = service_pb2.ModelInferResponse.FromString(render_infer(head, {"y": np.zeros(0)}, asked))
    found = {key: getattr(value, str(value.WhichOneof("parameter_choice"))) for key, value in answer.parameters.items()}
    assert found == parameters


@given(st.lists(st.integers(0, 2**64 - 1)))
@settings(max_examples=60, deadline=None)
def test_packed_varints_are_those_of_protobuf(values: list[int]) -> None:
    array = np.array(values, np.uint64)
    ours, theirs = packed(5, array), service_pb2.InferTensorContents(uint64_contents=values).SerializeToString()
    assert ours == theirs
    assert [found for _, _, part in fields(ours) for found in varints(part).tolist()] == values


@given(st.binary(max_size=120))
@settings(max_examples=300, deadline=None)
def test_bytes_that_are_no_message_are_refused_and_never_crash(data: bytes) -> None:
    try:
        parse_infer(data)
    except InvalidInput:
        return
    service_pb2.ModelInferRequest.FromString(data)  # what we take is a message for protobuf too


@given(st.integers(0, 400), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_a_damaged_message_is_refused_or_read_and_never_crashes(place: int, byte: int) -> None:
    message = request("INT64", [3], [1, 300, -1])
    message.parameters["key"].string_param = "k"
    data = bytearray(message.SerializeToString())
    data[place % len(data)] = byte
    try:
        parse_infer(bytes(data))
    except InvalidInput as error:
        assert str(error)


def test_the_proto_file_agrees_with_tritons_own_numbers() -> None:
    text = (Path(flyball.wire.oip.__file__).parent / "inference.proto").read_text()
    text = re.sub(r"//.*|\{\}|service [\s\S]*?\n\}|oneof \w+ \{([^}]*)\}", r"\1", text)
    known = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}
    enums = model_config_pb2.DESCRIPTOR.enum_types_by_name
    owners: list[Any] = []
    checked = 0
    for token in re.finditer(r"(message|enum) (\w+) \{|(\w+) = (\d+);|\}", text):
        kind, owner, name, number = token.groups()
        if kind:
            nested = owners[-1].nested_types_by_name if owners else known
            owners.append(enums[owner] if kind == "enum" else nested[owner])
        elif name:
            numbers = owners[-1].values_by_name if hasattr(owners[-1], "values_by_name") else owners[-1].fields_by_name
            assert numbers[name].number == int(number), (owners[-1].full_name, name)
            checked += 1
        else:
            owners.pop()
    assert checked > 60
