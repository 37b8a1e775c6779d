"""ONNX models: the bytes of the graph, run by ONNX Runtime on one thread.

Inputs and outputs are the graph's own tensors. A graph's shape has −1 where a size is free; the first is the rows.
Scikit-learn models must be converted with `zipmap=False`, so that probabilities are a tensor and not a list of maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flyball.errors import Incompatible, InvalidInput, MissingExtra, listed
from flyball.models import _frames
from flyball.models.fields import Field
from flyball.models.signature import Column, Signature

__all__ = ["answer", "dump", "load", "packages", "recognises", "signature"]

_DTYPES = {
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(string)": "string",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
}


def recognises(model: object) -> bool:
    """Bytes of a graph, or a `ModelProto` of the package onnx."""
    return isinstance(model, bytes) or type(model).__module__.startswith("onnx.")


def answer(model: Any, example: Any) -> dict[str, Column]:
    """Run the graph on the example: name → array, or one array for a graph with one input."""
    session = _session(_bytes(model))
    columns = _graph(session).columns_from(_named(session, example), subject="the graph")
    return _run(session, columns)


def signature(model: Any, example: Any, answers: Mapping[str, Column] | None) -> Signature:  # noqa: ARG001
    """The graph's own inputs and outputs."""
    return _graph(_session(_bytes(model)))


def dump(model: Any, signature: Signature, example: Any) -> dict[str, bytes]:  # noqa: ARG001
    """One file, the graph. Raises InvalidInput when ONNX Runtime cannot run it or the signature is not the graph's."""
    data = _bytes(model)
    own = [field.name for field in _graph(_session(data)).inputs]
    stated = [field.name for field in signature.inputs]
    if sorted(own) != sorted(stated):
        raise InvalidInput(f"the signature has the inputs {listed(stated)}, but the graph has {listed(own)}")
    return {"model.onnx": data}


def load(
    files: Mapping[str, bytes],
    manifest: Mapping[str, Any],  # noqa: ARG001
) -> Callable[[Mapping[str, Column]], dict[str, Column]]:
    """Return a function that runs the graph."""
    session = _session(files["model.onnx"])
    return lambda columns: _run(session, columns)


def packages() -> tuple[str, ...]:
    """ONNX Runtime and NumPy."""
    return ("onnxruntime", "numpy")


def _bytes(model: Any) -> bytes:
    return model if isinstance(model, bytes) else bytes(model.SerializeToString())


def _session(data: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnxruntime", "onnx", "an ONNX model") from None
    options = onnxruntime.SessionOptions()
    # Requests are joined into batches and served side by side; threads of its own would only compete with them.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Incompatible(
            f"ONNX Runtime {onnxruntime.__version__} cannot run this graph: {str(error)[:300]}"
        ) from None


def _graph(session: Any) -> Signature:
    return Signature(tuple(map(_field, session.get_inputs())), tuple(map(_field, session.get_outputs())))


def _field(node: Any) -> Field:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        advice = "; convert the model with zipmap=False" if node.type.startswith("seq(map") else ""
        raise InvalidInput(f'"{node.name}" of the graph is a {node.type}; expected a tensor{advice}')
    return Field(node.name, dtype, shape=tuple(size if isinstance(size, int) else -1 for size in node.shape))


def _named(session: Any, example: Any) -> Mapping[str, Any]:
    if isinstance(example, np.ndarray):
        return {session.get_inputs()[0].name: example}
    return _frames.values_of(example)


def _run(session: Any, columns: Mapping[str, Column]) -> dict[str, Column]:
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(columns)), strict=True))
