"""Tensors of the Open Inference Protocol to arrays and back."""

from __future__ import annotations

import json
import struct

import numpy as np
import orjson
import pytest

from flyball.errors import InvalidInput
from flyball.wire.oip.bodies import decompressed
from flyball.wire.oip.refusals import TooLarge, UnknownCoding
from flyball.wire.oip.tensors import parse_request, render_response


def request(*inputs: dict[str, object], **fields: object) -> bytes:
    return orjson.dumps({"inputs": list(inputs), **fields})


def tensor(datatype: str, shape: list[object], data: object) -> dict[str, object]:
    return {"name": "x", "datatype": datatype, "shape": shape, "data": data}


def parsed(datatype: str, shape: list[object], data: object) -> np.ndarray:
    return parse_request(request(tensor(datatype, shape, data))).inputs["x"]


def raw(datatype: str, shape: list[int], data: bytes, size: int | None = None) -> np.ndarray:
    head = request(
        {
            "name": "x",
            "datatype": datatype,
            "shape": shape,
            "parameters": {"binary_data_size": len(data) if size is None else size},
        }
    )
    return parse_request(head + data, len(head)).inputs["x"]


def rendered(array: np.ndarray, **parameters: object) -> dict[str, object]:
    body = request(tensor("FP64", [1], [1]), parameters=parameters)
    return json.loads(render_response({}, {"y": array}, parse_request(body))[0])["outputs"][0]


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        (f"{word}{bits}", f"{kind}{bits // 8}")
        for word, kind in (("INT", "i"), ("UINT", "u"))
        for bits in (8, 16, 32, 64)
    ]
    + [("FP32", "f4"), ("FP64", "f8"), ("FP16", "f2")],
)
def test_every_number_survives_raw_bytes_and_json(datatype: str, dtype: str) -> None:
    limits = np.finfo(dtype) if dtype[0] == "f" else np.iinfo(dtype)
    array = np.array([limits.min, 0, 1, limits.max], dtype)
    assert np.array_equal(raw(datatype, [4], array.tobytes()), array)
    if datatype != "FP16":
        data = rendered(array)["data"]
        assert np.array_equal(parsed(datatype, [4], data), array)


def test_float32_is_written_as_the_shortest_float32() -> None:
    array = np.array([0.1], np.float32)
    assert b"[0.1]" in render_response({}, {"y": array}, parse_request(request(tensor("FP64", [1], [1]))))[0]


def test_what_is_not_finite_is_null_in_json_and_exact_in_binary() -> None:
    array = np.array([np.nan, np.inf, -np.inf, 1.5])
    assert rendered(array)["data"] == [None, None, None, 1.5]
    body, length = render_response(
        {}, {"y": array}, parse_request(request(tensor("FP64", [1], [1]), parameters={"binary_data_output": True}))
    )
    assert body[length:] == array.tobytes()


def test_null_is_nan_in_floats_and_refused_elsewhere() -> None:
    assert np.isnan(parsed("FP32", [2], [None, 1])[0])
    for datatype in ("INT64", "BOOL", "BYTES"):
        with pytest.raises(InvalidInput, match='"x" is'):
            parsed(datatype, [1], [None])


def test_booleans_are_words_or_ones_and_zeros() -> None:
    assert parsed("BOOL", [3], [True, 0, 1]).tolist() == [True, False, True]
    assert raw("BOOL", [2], b"\x00\x01").tolist() == [False, True]
    for wrong in ([2], ["true"], [1.0]):
        with pytest.raises(InvalidInput, match="true and false"):
            parsed("BOOL", [1], wrong)
    with pytest.raises(InvalidInput, match="other than 0 and 1"):
        raw("BOOL", [1], b"\x02")


def test_texts_survive_both_forms() -> None:
    texts = ["", "ü", "a" * 300]
    packed = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts)
    assert parsed("BYTES", [3], texts).tolist() == texts
    assert raw("BYTES", [3], packed).tolist() == texts
    array = np.array(texts, object)
    assert rendered(array)["data"] == texts
    for broken in (
        packed[:-1],
        packed + b"\x00",
        b"\xff\xff\xff\xff" + packed[4:],
        struct.pack("<I", 1) + b"\xff" + packed,
    ):
        with pytest.raises(InvalidInput):
            raw("BYTES", [3], broken)


def test_bf16_is_the_upper_half_of_a_float32() -> None:
    whole = np.array([1.5, -2.0], np.float32)
    assert raw("BF16", [2], whole.view(np.uint16)[1::2].tobytes()).tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("INT8", 128), ("UINT8", -1), ("INT64", 2**63), ("UINT64", 2**64), ("INT32", 1.0)],
)
def test_a_number_that_does_not_fit_is_refused(datatype: str, value: object) -> None:
    with pytest.raises(InvalidInput):
        parse_request(json.dumps({"inputs": [tensor(datatype, [1], [value])]}).encode())


@pytest.mark.parametrize("shape", [[-1], [True], [1.0], ["1"], "1", None, [[1]], [10**12, 10**6], [2], [1] * 40])
def test_a_shape_is_counted_before_anything_is_made_of_it(shape: object) -> None:
    with pytest.raises(InvalidInput, match="shape"):
        parse_request(request(tensor("FP64", shape, [1.0])))  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [[[1, 2, 3], [4]], [[1, 2], 3, 4], [[[1], [2]], [[3], [4]]], [[1, 2]], 7, {"a": 1}])
def test_data_nested_otherwise_than_the_shape_is_refused(data: object) -> None:
    with pytest.raises(InvalidInput):
        parsed("INT64", [2, 2], data)


def test_binary_sizes_must_add_up() -> None:
    eight = np.ones(1).tobytes()
    for size in (4, 9, -1, True, "8", None):
        head = request({"name": "x", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": size}})
        with pytest.raises(InvalidInput):
            parse_request(head + eight, len(head))
    with pytest.raises(InvalidInput, match="belong to no input"):
        head = request({"name": "x", "datatype": "FP64", "shape": [0], "parameters": {"binary_data_size": 0}})
        parse_request(head + eight, len(head))
    with pytest.raises(InvalidInput, match="header"):
        parse_request(request({"name": "x", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}}))
    with pytest.raises(InvalidInput, match="Inference-Header-Content-Length is 99"):
        parse_request(b"{}", 99)


def test_json_and_binary_mix_tensor_by_tensor_in_both_directions() -> None:
    first = {"name": "a", "datatype": "FP64", "shape": [1], "data": [2.5]}
    second = {"name": "b", "datatype": "INT32", "shape": [2], "parameters": {"binary_data_size": 8}}
    wishes = [{"name": "z", "parameters": {"binary_data": False}}, {"name": "y"}]
    head = request(first, second, outputs=wishes, parameters={"binary_data_output": True})
    found = parse_request(head + np.array([7, 8], "<i4").tobytes(), len(head))
    assert found.inputs["a"].tolist() == [2.5]
    assert found.inputs["b"].tolist() == [7, 8]
    body, length = render_response({}, {"y": np.array([1.0]), "z": np.array([2], np.int8)}, found)
    answer = json.loads(body[:length])["outputs"]
    assert [o["name"] for o in answer] == ["z", "y"]
    assert answer[0]["data"] == [2]
    assert answer[1]["parameters"] == {"binary_data_size": 8}
    assert body[length:] == np.array([1.0]).tobytes()


def test_an_empty_tensor_keeps_its_size_of_zero() -> None:
    answer = rendered(np.empty((0, 3)), binary_data_output=False)
    assert (answer["shape"], answer["data"]) == ([0, 3], [])
    body = request(tensor("FP64", [1], [1]), parameters={"binary_data_output": True})
    made, length = render_response({}, {"y": np.empty(0)}, parse_request(body))
    assert json.loads(made[:length])["outputs"][0]["parameters"] == {"binary_data_size": 0}


def test_a_misspelt_field_is_refused() -> None:
    with pytest.raises(InvalidInput, match='did you mean "outputs"'):
        parse_request(request(tensor("FP64", [1], [1]), output=[]))


def test_bodies_are_decompressed_up_to_the_limit_and_not_beyond() -> None:
    import gzip
    import zlib

    body = b"0123456789" * 100
    plain = zlib.compressobj(wbits=-15)
    assert decompressed(gzip.compress(body[:500]) + gzip.compress(body[500:]), b"gzip", 1000) == body
    assert decompressed(zlib.compress(body), b"Deflate", 1000) == body
    assert decompressed(plain.compress(body) + plain.flush(), b"deflate", 1000) == body
    with pytest.raises(TooLarge):
        decompressed(gzip.compress(body), b"gzip", 999)
    with pytest.raises(InvalidInput, match="ends too early"):
        decompressed(gzip.compress(body)[:-9], b"gzip", 1000)
    with pytest.raises(InvalidInput, match="not gzip"):
        decompressed(body, b"gzip", 1000)
    with pytest.raises(UnknownCoding):
        decompressed(body, b"zstd", 1000)
