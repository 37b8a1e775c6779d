"""Programs of `torch.export` (`.pt2`), read by a reader of our own that only follows lists.

PyTorch's own reader evaluates expressions that stand in the archive as Python, looks functions up by any name, and
unpickles example inputs and odd tensors. Here a program is its list of operations, each of which must stand in
`_aten.ALLOWED` and in PyTorch's own table, and tensors that are raw bytes. Nothing in it is evaluated, imported or
unpickled.

Source: `torch/_export/serde/schema.py` of PyTorch 2.13, schema 8; `torch/export/pt2_archive/constants.py`.
"""

from __future__ import annotations

import io
import json
import math
import operator
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from flyball.errors import Corrupt, FlyballError, Forbidden, Incompatible, InvalidInput, MissingExtra, listed
from flyball.models.flavors._aten import ALLOWED, WITHIN

__all__ = ["Program", "packed", "read", "torch"]

_SCHEMA = 8  # the major version of the archive's own numbering
_LARGEST = 4 << 30  # unpacked, in bytes
_STAMP = (1980, 1, 1, 0, 0, 0)  # of every entry, so that the same network gives the same bytes
_TYPES = dict(
    enumerate(("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex32"), 1)
) | {10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16"}
_MEMORY = {1: "contiguous_format", 2: "channels_last", 3: "channels_last_3d", 4: "preserve_format"}

_NUMBERS: Mapping[str, Callable[..., Any]] = {
    **{f"_operator.{one.__name__}": one for one in (operator.add, operator.sub, operator.mul, operator.neg)},
    **{f"_operator.{one.__name__}": one for one in (operator.floordiv, operator.truediv, operator.mod)},
    **{f"_operator.{one.__name__}": one for one in (operator.eq, operator.ne, operator.lt, operator.le)},
    **{f"_operator.{one.__name__}": one for one in (operator.gt, operator.ge, operator.and_, operator.or_)},
    "_operator.getitem": operator.getitem,
    "math.ceil": math.ceil,
    "math.floor": math.floor,
    "math.trunc": math.trunc,
    "torch.sym_float": float,
    "torch.sym_int": int,
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_not": operator.not_,
}


@dataclass(frozen=True)
class Program:
    """What a network computes: named tensors that it keeps, operations in their order, what goes in and comes out.

    Attributes:
        inputs: the names of what it is given, in the order of its arguments.
        outputs: how its answers are found among the values, in order.
        kept: name → tensor of what it learnt.
    """

    inputs: tuple[str, ...]
    outputs: tuple[Callable[[Mapping[str, Any]], Any], ...]
    kept: Mapping[str, Any]
    steps: tuple[Callable[[dict[str, Any]], None], ...]

    def run(self, given: Sequence[Any]) -> list[Any]:
        """Return its answers. Several threads may call it; PyTorch uses one thread for each, and no gradients."""
        library = torch()
        before = library.get_num_threads()
        library.set_num_threads(1)  # requests are joined and served side by side; more threads only compete
        try:
            with library.inference_mode():
                values = {**self.kept, **dict(zip(self.inputs, given, strict=True))}
                for step in self.steps:
                    step(values)
                return [found(values) for found in self.outputs]
        finally:
            if before != 1:
                library.set_num_threads(before)


def torch() -> Any:
    """Return the library. Raises MissingExtra."""
    try:
        import torch as library
    except ImportError:
        raise MissingExtra("torch", "pytorch", "a PyTorch model") from None
    return library


def read(data: bytes) -> Program:
    """Read an archive.

    Raises:
        Forbidden: it holds a pickle that would be needed, or an operation that is not allowed.
        Incompatible: of a schema that this release does not know.
        Corrupt: it is no such archive, or its parts do not fit together.
    """
    library = torch()
    try:
        files = _files(data)
        document = json.loads(files["models/model.json"])
        major = int(document["schema_version"]["major"])
        if major != _SCHEMA:
            raise Incompatible(f"the program has the schema {major} of torch.export; this release reads {_SCHEMA}")
        if files.get("byteorder", b"little") != b"little":
            raise Incompatible("the program was written on a machine of the other byte order; export it again")
        module = document["graph_module"]
        kept = _kept(library, files, module["signature"]["input_specs"])
        inputs = tuple(one["user_input"]["arg"]["as_tensor"]["name"] for one in _specs(module, "input", "user_input"))
        outputs = tuple(_value(library, one["user_output"]["arg"]) for one in _specs(module, "output", "user_output"))
        if len(outputs) != len(module["signature"]["output_specs"]):
            raise InvalidInput("the network changes what it keeps while it answers; export it after model.eval()")
        steps = tuple(_step(library, node, kept) for node in module["graph"]["nodes"])
    except FlyballError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, zipfile.BadZipFile) as error:
        why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
        raise Corrupt(f"the model's file is no program of torch.export: {why}") from None
    except (RuntimeError, NotImplementedError) as error:  # of PyTorch, on sizes that its bytes do not have
        raise Corrupt(
            f"the model's tensors do not fit together: {(str(error).splitlines() or [''])[0][:120]}"
        ) from None
    return Program(inputs, outputs, kept, steps)


def packed(data: bytes) -> bytes:
    """Return an archive as PyTorch wrote it without what is not needed: examples, and traces that tell of a machine.

    `torch.export.load` reads it as before; the same network gives the same bytes.
    """
    files = _files(data)
    document = json.loads(files["models/model.json"])
    for node in document["graph_module"]["graph"]["nodes"]:
        node["metadata"] = {}
    files["models/model.json"] = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    files["data/sample_inputs/model.pt"], files[".data/serialization_id"] = b"", b"0" * 40
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path in sorted(files):
            archive.writestr(zipfile.ZipInfo(f"model/{path}", _STAMP), files[path])
    return made.getvalue()


def _files(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > _LARGEST or len({e.filename for e in entries}) != len(entries):
            raise ValueError("its entries are too large, or stand twice")
        return {entry.filename.partition("/")[2]: archive.read(entry) for entry in entries}


def _specs(module: Mapping[str, Any], side: str, kind: str) -> list[Any]:
    return [one for one in module["signature"][f"{side}_specs"] if kind in one]


def _kept(library: Any, files: Mapping[str, bytes], specs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the parameters, buffers and constants by the names that the operations use."""
    tensors: dict[str, Any] = {}
    for folder, listing in (("weights", "model_weights_config"), ("constants", "model_constants_config")):
        said = json.loads(files.get(f"data/{folder}/{listing}.json", b'{"config": {}}'))
        for name, entry in said["config"].items():
            if entry.get("use_pickle"):
                raise Forbidden(f"the program keeps {name[:80]} as a pickle, which runs whatever is in it")
            tensors[name] = _tensor(library, files[f"data/{folder}/{entry['path_name']}"], entry["tensor_meta"])
    found = {}
    for spec in specs:
        kind, told = next(iter(spec.items()))
        if kind == "user_input":
            continue
        key = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}[kind]
        found[told["arg"]["name"]] = tensors[told[key]]
    return found


def _tensor(library: Any, data: bytes, told: Mapping[str, Any]) -> Any:
    kind = getattr(library, _TYPES[told["dtype"]])
    sizes, strides = ([int(one["as_int"]) for one in told[name]] for name in ("sizes", "strides"))
    if told["layout"] != 7:
        raise ValueError("it keeps tensors that are not dense")
    if not data or 0 in sizes:
        return library.empty(sizes, dtype=kind) if 0 in sizes else library.zeros(0, dtype=kind).view(sizes)
    flat = library.frombuffer(bytearray(data), dtype=kind)
    return flat.as_strided(sizes, strides, int(told["storage_offset"]["as_int"]))  # which checks that it stays within


def _step(library: Any, node: Mapping[str, Any], kept: Mapping[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Return a function that carries out one operation on the values by name."""
    call = _called(library, node, kept)
    arguments = [_value(library, one["arg"]) for one in node["inputs"] if one.get("kind", 1) != 2]
    named = {one["name"]: _value(library, one["arg"]) for one in node["inputs"] if one.get("kind", 1) == 2}
    made = [_name(one) for one in node["outputs"]]
    if len(made) == 1 and isinstance(made[0], str):
        target = made[0]

        def one(values: dict[str, Any]) -> None:
            values[target] = call(*[at(values) for at in arguments], **{k: at(values) for k, at in named.items()})

        return one
    targets: list[Any] = made[0] if len(made) == 1 and isinstance(made[0], list) else made

    def several(values: dict[str, Any]) -> None:
        answers = call(*[at(values) for at in arguments], **{k: at(values) for k, at in named.items()})
        if targets:
            values.update(zip(targets, answers, strict=True))

    return several


def _called(library: Any, node: Mapping[str, Any], kept: Mapping[str, Any]) -> Callable[..., Any]:
    target = node["target"]
    if target in _NUMBERS:
        return _NUMBERS[target]
    parts = target.split(".")
    within = parts[3] in WITHIN if len(parts) == 5 else False
    if len(parts) != 5 or parts[:3] != ["torch", "ops", "aten"] or not (parts[3] in ALLOWED or within):
        raise Forbidden(
            f"the network has the operation {target[:100]}, which is not among those that are allowed; "
            "export the model to ONNX, or write it with other operations"
        )
    if within and node["inputs"][0]["arg"]["as_tensor"]["name"] in kept:
        raise InvalidInput("the network changes what it keeps while it answers; export it after model.eval()")
    found = getattr(getattr(library.ops.aten, parts[3]), parts[4])
    if not isinstance(found, library._ops.OpOverload):
        raise Corrupt(f"PyTorch {library.__version__} has no operation {target[:100]}")
    return cast("Callable[..., Any]", found)


def _name(output: Mapping[str, Any]) -> str | list[str]:
    """Return the name under which a result is kept, or the names of a list of them."""
    kind, told = next(iter(output.items()))
    if kind == "as_tensors":
        return [str(one["name"]) for one in told]
    return "" if kind == "as_none" else str(told.get("name") or told["as_name"])


def _value(library: Any, argument: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function that finds an argument among the values by name, or gives the constant that it is."""
    kind, told = next(iter(argument.items()))
    if kind == "as_tensor":
        return operator.itemgetter(told["name"])
    if kind in ("as_sym_int", "as_sym_bool", "as_sym_float", "as_optional_tensor"):
        return _one(told)
    if kind in ("as_tensors", "as_sym_ints", "as_sym_bools", "as_sym_floats", "as_optional_tensors"):
        parts = [_one({"as_tensor": one} if kind == "as_tensors" else one) for one in told]
        return lambda values: [part(values) for part in parts]
    constant = _constant(library, kind, told)
    return lambda _values: constant


def _one(told: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Any]:
    kind, value = next(iter(told.items()))
    if kind == "as_tensor":
        return operator.itemgetter(value["name"])
    if kind == "as_name":
        return operator.itemgetter(value)
    plain = None if kind == "as_none" else value
    return lambda _values: plain


def _constant(library: Any, kind: str, told: Any) -> Any:
    if kind == "as_none":
        return None
    if kind == "as_scalar_type":
        return getattr(library, _TYPES[told])
    if kind == "as_memory_format":
        return getattr(library, _MEMORY[told])
    if kind == "as_layout" and told == 7:
        return library.strided
    if kind == "as_device":
        return library.device("cpu")
    if kind == "as_complex":
        return complex(told["real"], told["imag"])
    if kind in ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string", "as_strings"):
        return told
    known = "numbers, texts, tensors"
    raise Forbidden(f"the network passes {listed([kind[3:40]])} to an operation; expected {known}")
