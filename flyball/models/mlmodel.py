"""Folders that MLflow's clients log as models (`MLmodel` and what it names), made into bundles without running code.

`MLmodel` is read as plain YAML. Of its flavours the safe native form is taken: skops under our own allow-list, UBJSON
or JSON of XGBoost, the text of LightGBM, ONNX, programs of torch.export. A pickle is refused, with how to log the model
instead; so are custom Python functions. The example that the client logged proves the conversion; without one a made-up
row has to do.

Source: mlflow.org/docs, "MLflow Model format"; `mlflow.models.Model`, `mlflow.types.schema` of 2.22 and 3.17.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import yaml

from flyball import plugins
from flyball.errors import FlyballError, Forbidden, Incompatible, InvalidInput, MissingExtra, StepFailed, listed
from flyball.models import bundle, unsafe
from flyball.models._manifest import check_path
from flyball.models.bundle import Bundle
from flyball.models.fields import Field
from flyball.models.signature import Signature
from flyball.storage.blobs import BlobStore

__all__ = ["FILE", "Folder", "convert", "keep", "read"]

FILE = "MLmodel"
_LARGEST = 1 << 20  # of an MLmodel file, in bytes
_KEPT = ("MLmodel", "requirements.txt", "conda.yaml", "python_env.yaml")
_DTYPES = {
    "boolean": "bool",
    "integer": "int64",
    "long": "int64",
    "float": "float64",
    "double": "float64",
    "string": "string",
    "datetime": "datetime",
}
_FLAVORS = ("onnx", "xgboost", "lightgbm", "sklearn", "pytorch")  # in the order in which they are looked for
_XGBOOST = ("XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor")
_LOG = {
    "sklearn": 'mlflow.sklearn.log_model(..., serialization_format="skops")',
    "xgboost": 'mlflow.xgboost.log_model(..., model_format="ubj")',
    "lightgbm": "mlflow.lightgbm.log_model(model.booster_, ...)",
    "onnx": "mlflow.onnx.log_model(..., save_as_external_data=False)",
    "pytorch": 'mlflow.pytorch.log_model(..., input_example=…, serialization_format="pt2")',
}


@dataclass(frozen=True)
class Folder:
    """What an MLmodel file says: its flavours by name, inputs, the example's form, who wrote it."""

    flavors: Mapping[str, Mapping[str, Any]]
    inputs: Sequence[Mapping[str, Any]] = ()
    example: Mapping[str, Any] = field(default_factory=dict)
    client: str = ""

    @property
    def flavor(self) -> str | None:
        """The flavour that a bundle can be made of; None: there is none."""
        return next((name for name in _FLAVORS if name in self.flavors), None)


def read(data: bytes) -> Folder:
    """Read an MLmodel file; nothing that it names is imported or opened.

    Raises:
        InvalidInput: it is none.
    """
    if len(data) > _LARGEST:
        raise InvalidInput(f"the MLmodel file has {len(data)} bytes; it may have {_LARGEST}")
    try:
        document = yaml.safe_load(data)
        flavors = document["flavors"]
        signature = document.get("signature") or {}
        inputs = json.loads(signature.get("inputs") or "[]")
        example = document.get("saved_input_example_info") or {}
        if not isinstance(flavors, dict) or not isinstance(inputs, list) or not isinstance(example, dict):
            raise TypeError
        if not all(isinstance(told, dict) for told in [*flavors.values(), *inputs]):
            raise TypeError
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InvalidInput("the MLmodel file cannot be read; log the model again with MLflow's client") from None
    return Folder(flavors, inputs, example, str(document.get("mlflow_version", "")))


def convert(blobs: BlobStore, files: Mapping[str, bytes], metadata: Mapping[str, Any] | None = None) -> Bundle:
    """Make a bundle of an MLmodel folder, proved on its example.

    Args:
        blobs: where the bundle is kept.
        files: the folder, path → bytes.
        metadata: what the bundle's metadata says besides; plain JSON values.

    Raises:
        InvalidInput: it is no such folder, or nothing in it can be served; the message says how to log the model.
        Forbidden: the model is a pickle, or holds one.
        Corrupt, StepFailed, Incompatible, MissingExtra: as `bundle.save` and the flavour.
    """
    if FILE not in files:
        raise InvalidInput(f"there is no {FILE} among the files ({listed(sorted(files), 5)}); log it as a model")
    told = read(files[FILE])
    name = told.flavor
    if name is None:
        raise InvalidInput(
            f"the model has the flavours {listed(sorted(told.flavors))} only, which is Python code that would have to "
            "be run; log it by its library, as mlflow.sklearn.log_model and its like do"
        )
    model = _MODELS[name](told, files)
    example, is_made_up = _example(told, files)
    if name in ("xgboost", "lightgbm"):
        example = _with_categories(name, model, example)
    kept = {f"configuration/mlflow/{path}": files[path] for path in _KEPT if path in files}
    facts = {"client": told.client, "flavor": name, "example": "made up" if is_made_up else "logged"}
    options: dict[str, Any] = {"metadata": {**(metadata or {}), "mlflow": facts}, "files": kept}
    try:
        if name == "onnx":
            rows = _tensors(model, example)
            return bundle.save(blobs, model, example=rows, flavor=name, **options)
        signature = _signature(name, model, example, told)
        return bundle.save(blobs, model, example=example, signature=signature, flavor=name, **options)
    except (InvalidInput, StepFailed) as error:
        if not is_made_up:
            raise
        raise InvalidInput(f"{error}; log the model with input_example=…, so that it can be tried") from None


def keep(blobs: BlobStore, files: Mapping[str, bytes], metadata: Mapping[str, Any] | None = None) -> Bundle:
    """Make a bundle of an MLmodel folder as it is, pickles and all, for somebody to sign; nothing of it is loaded.

    Raises:
        InvalidInput: it is no such folder, or was logged without a signature.
    """
    told = read(files[FILE]) if FILE in files else Folder({})
    if not told.inputs or not set(told.flavors) & {"sklearn", "lightgbm", "pytorch"}:
        raise InvalidInput(
            "the model cannot be kept as it is: it was logged without a signature, or by no library that Flyball "
            "loads (scikit-learn, LightGBM, PyTorch); log it with input_example=…"
        )
    dtype = _tensor_dtype(told)
    if dtype is None:
        inputs = tuple(_fields(told).values())
    else:
        inputs = (Field("input", dtype, shape=tuple(int(size) for size in told.inputs[0]["tensor-spec"]["shape"])),)
    kept = {check_path(path): data for path, data in files.items()}
    facts = {"client": told.client, "flavor": "as it was logged"}
    return bundle.keep(blobs, "mlmodel", Signature(inputs), kept, {**(metadata or {}), "mlflow": facts})


def _native(told: Folder, files: Mapping[str, bytes], flavor: str, *keys: str) -> tuple[str, bytes]:
    """Return the path and the bytes of a flavour's file, looked through. Raises InvalidInput, Forbidden."""
    said = told.flavors[flavor]
    path = next((said[key] for key in keys if isinstance(said.get(key), str)), None)
    if path is None or check_path(path) not in files:
        raise InvalidInput(f"the MLmodel file names {path!r} for {flavor}, which is not there; log the model again")
    found = unsafe.refusal(unsafe.scan(files[path], path))
    if found is not None:
        raise Forbidden(f"the model may not be loaded: {found}; such a file runs whatever is in it. {_advice(flavor)}")
    return path, files[path]


def _advice(flavor: str) -> str:
    return (
        f"Log it safely: {_LOG[flavor]}; or, where you trust whoever logged it, vouch for it as it is: "
        "flyball model sign NAME@NUMBER"
    )


def _sklearn(told: Folder, files: Mapping[str, bytes]) -> Any:
    from flyball.models.flavors import _sklearn_safe

    path, data = _native(told, files, "sklearn", "pickled_model")
    if told.flavors["sklearn"].get("serialization_format") != "skops":
        raise Forbidden(f"{path} is not in the format skops. {_advice('sklearn')}")
    return _sklearn_safe.loads(data)


def _xgboost(told: Folder, files: Mapping[str, bytes]) -> Any:
    from flyball.models.flavors import xgboost as flavor

    path, data = _native(told, files, "xgboost", "data")
    wanted = str(told.flavors["xgboost"].get("model_class", "")).rpartition(".")[2]
    booster = flavor.opened(data)  # before anything else reads it
    if wanted == "Booster":
        return booster
    if wanted not in _XGBOOST:
        raise InvalidInput(f"{path} is of the class {wanted[:60]!r}; expected Booster or {listed(_XGBOOST)}")
    return flavor.estimator(wanted, data)


def _lightgbm(told: Folder, files: Mapping[str, bytes]) -> Any:
    from flyball.models.flavors import lightgbm as flavor

    wanted = str(told.flavors["lightgbm"].get("model_class", ""))
    path, data = _native(told, files, "lightgbm", "data")
    if not wanted.endswith(".Booster"):
        raise Forbidden(f"{path} holds a {wanted.rpartition('.')[2][:60]} as Python objects. {_advice('lightgbm')}")
    return flavor.opened(data)


def _onnx(told: Folder, files: Mapping[str, bytes]) -> Any:
    return _native(told, files, "onnx", "data")[1]


def _pytorch(told: Folder, files: Mapping[str, bytes]) -> Any:
    folder = told.flavors["pytorch"].get("model_data")
    if f"{folder}/model.pt2" in files:
        return files[f"{folder}/model.pt2"]  # of which the flavour's own reader takes only what runs nothing
    if f"{folder}/model.pth" in files:
        raise Forbidden(f"{folder}/model.pth is a pickle, which runs whatever is in it. {_advice('pytorch')}")
    raise InvalidInput(f"the MLmodel file names {folder!r} for pytorch, which is not there; log the model again")


_MODELS = {"sklearn": _sklearn, "xgboost": _xgboost, "lightgbm": _lightgbm, "onnx": _onnx, "pytorch": _pytorch}


# -- rows


def _example(told: Folder, files: Mapping[str, bytes]) -> tuple[Any, bool]:
    """Return the logged example as a frame or an array, and whether it is made up since none was logged."""
    path, form = told.example.get("artifact_path"), told.example.get("type")
    if isinstance(path, str) and check_path(path) in files and form in ("dataframe", "ndarray"):
        try:
            document = json.loads(files[path])
            if form == "ndarray":
                rows = document["inputs"] if isinstance(document, dict) else document
                return np.asarray(rows, _tensor_dtype(told) or None), False
            columns = document.get("columns") or [str(at) for at in range(len(document["data"][0]))]
            values = list(zip(*document["data"], strict=True))
            given = {str(name): list(column) for name, column in zip(columns, values, strict=True)}
        except (ValueError, TypeError, KeyError, IndexError, RecursionError):
            raise InvalidInput(f"the example in {path} cannot be read; log the model again") from None
        return _frame(given, _fields(told)), False
    if not told.inputs:
        raise InvalidInput(
            "the model was logged without a signature and without an example, so what it takes is not known; log it "
            "with input_example=…"
        )
    dtype = _tensor_dtype(told)
    if dtype is not None:
        shape = [1 if size == -1 else int(size) for size in told.inputs[0]["tensor-spec"]["shape"]]
        return np.zeros(shape, dtype), True
    fields = _fields(told)
    made = {"bool": False, "int64": 0, "float64": 0.0, "string": "", "datetime": "1970-01-01T00:00:00"}
    return _frame({one.name: [made[one.dtype]] for one in fields.values()}, fields), True


def _tensor_dtype(told: Folder) -> str | None:
    """Return the type of the one tensor that the model takes; None: it takes columns, or does not say."""
    specs = [one.get("tensor-spec") for one in told.inputs]
    if not any(specs):
        return None
    if len(specs) != 1 or not isinstance(specs[0], dict):
        raise InvalidInput("the model takes several tensors; log it as ONNX, whose inputs have names of their own")
    dtype = str(specs[0].get("dtype"))
    if dtype not in ("float32", "float64", "int32", "int64", "bool"):
        raise InvalidInput(f"the model takes a tensor of {dtype[:40]!r}; expected numbers")
    return dtype


def _fields(told: Folder) -> dict[str, Field]:
    found = {}
    for at, one in enumerate(told.inputs):
        name, kind = str(one.get("name", at)), one.get("type")
        if not isinstance(kind, str) or kind not in _DTYPES:
            raise InvalidInput(f'the input "{name}" is a {str(kind)[:40]}; expected {listed(_DTYPES, 7)}')
        found[name] = Field(name, _DTYPES[kind], nullable=one.get("required") is False)
    return found


def _frame(columns: Mapping[str, list[Any]], fields: Mapping[str, Field]) -> Any:
    """Return a pandas frame, which is what MLflow's flavours give to a model, in the types of the signature."""
    try:
        import pandas
    except ImportError:
        raise MissingExtra("pandas", "pandas", "a model that MLflow logged") from None
    if fields and set(fields) != set(columns):
        raise InvalidInput(f"the example has {listed(columns, 8)}, but the signature {listed(fields, 8)}")
    frame = pandas.DataFrame(columns)
    for name, one in fields.items():
        has_gaps = bool(frame[name].isna().any())
        if one.dtype == "datetime":
            frame[name] = pandas.to_datetime(frame[name])
        elif one.dtype == "string":
            frame[name] = frame[name].astype("str")
        elif not has_gaps or one.dtype == "float64":
            frame[name] = frame[name].astype(one.dtype)
    return frame


def _with_categories(name: str, model: Any, example: Any) -> Any:
    """Return the frame with its texts as the categories that the model keeps."""
    texts = [] if isinstance(example, np.ndarray) else [n for n in example.columns if _is_text(example[n])]
    if not texts:
        return example
    import pandas

    known = plugins.find("flyball.models.flavors", name).categories(model, list(example.columns), texts)
    for column in texts:
        if column not in known:
            raise InvalidInput(f'the input "{column}" is a text, and the model keeps no categories of it')
        example[column] = pandas.Categorical(example[column], categories=known[column])
    return example


def _is_text(series: Any) -> bool:
    return str(series.dtype).startswith(("str", "object", "category"))


def _signature(flavor: str, model: Any, example: Any, told: Folder) -> Signature:
    """Return what the flavour says of the model, and which columns may be missing by the client's signature."""
    module = plugins.find("flyball.models.flavors", flavor)
    try:
        found: Signature = module.signature(model, example, bundle.answers(model, example, flavor))
    except FlyballError:
        raise
    except Exception as error:
        raise StepFailed(f"the model failed on its example: {type(error).__name__}: {str(error)[:300]}") from error
    optional = {name for name, one in _fields(told).items() if one.nullable} if _tensor_dtype(told) is None else set()
    inputs = tuple(replace(one, nullable=one.nullable or one.name in optional) for one in found.inputs)
    return Signature(inputs, found.outputs)


def _tensors(graph: bytes, example: Any) -> Any:
    """Return the example as the graph takes it: its one tensor, or one for each input by name."""
    module = plugins.find("flyball.models.flavors", "onnx")
    inputs = module.signature(graph, None, None).inputs
    if isinstance(example, np.ndarray):
        return example
    names = [one.name for one in inputs]
    if set(names) == set(example.columns):
        wide = {one.name: len(one.shape or ()) for one in inputs}
        return {n: np.asarray(example[n]).reshape(-1, 1) if wide[n] == 2 else np.asarray(example[n]) for n in names}
    if len(names) == 1:
        return np.asarray(example, np.dtype(inputs[0].dtype))
    raise Incompatible(f"the graph has the inputs {listed(names)}, but the example {listed(example.columns)}")
