"""A tiny ONNX graph written by hand in protobuf's wire format (onnx.proto3), so that tests need no converter."""

from __future__ import annotations

import struct

FLOAT, STRING = 1, 8


def linear(weights: list[float], bias: float) -> bytes:
    """Return the graph y = x · weights + bias, with x of shape (rows, len(weights)) and y of (rows, 1), in float32."""
    matmul = _node("MatMul", ["x", "w"], "xw")
    add = _node("Add", ["xw", "b"], "y")
    tensors = [_tensor("w", [len(weights), 1], weights), _tensor("b", [1], [bias])]
    graph = b"".join(_bytes(1, n) for n in (matmul, add)) + _bytes(2, b"linear")
    graph += b"".join(_bytes(5, t) for t in tensors)
    graph += _bytes(11, _value("x", len(weights))) + _bytes(12, _value("y", 1))
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, b"") + _number(2, 17))


def _node(operator: str, inputs: list[str], output: str) -> bytes:
    named = b"".join(_bytes(1, name.encode()) for name in inputs)
    return named + _bytes(2, output.encode()) + _bytes(4, operator.encode())


def _tensor(name: str, sizes: list[int], values: list[float]) -> bytes:
    shape = b"".join(_number(1, size) for size in sizes)
    raw = struct.pack(f"<{len(values)}f", *values)
    return shape + _number(2, FLOAT) + _bytes(8, name.encode()) + _bytes(9, raw)


def _value(name: str, width: int) -> bytes:
    shape = _bytes(1, _bytes(2, b"rows")) + _bytes(1, _number(1, width))
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, FLOAT) + _bytes(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])
