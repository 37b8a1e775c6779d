"""A bundle as an MLmodel folder, which MLflow's own clients load without Flyball: `mlflow.pyfunc.load_model(FOLDER)`.

Where MLflow has a flavour for the library, the folder is one of that flavour: scikit-learn (skops), XGBoost, LightGBM,
ONNX, PyTorch. Python source comes with a loader of its own, which needs NumPy only. What MLflow answers is what the
library's `predict` answers: of a classifier the label, of a LightGBM booster the probability.

Source: mlflow.org/docs, "MLflow Model format"; `mlflow.models.Model` and the flavours' `_load_pyfunc` of 3.17.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from flyball.errors import Conflict, InvalidInput
from flyball.models.bundle import Bundle
from flyball.models.fields import Field
from flyball.storage.blobs import BlobStore

__all__ = ["write"]

_TYPES = {"bool": "boolean", "int64": "long", "float64": "double", "string": "string", "datetime": "datetime"}
_LOADER = '''"""Loads a model that is kept as Python source; written by `flyball model export --as mlmodel`."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np


def _load_pyfunc(path):
    entry = json.loads((Path(path) / "entry.json").read_text(encoding="utf-8"))
    module = ModuleType("flyball_exported_{digest}")
    sys.modules[module.__name__] = module
    source = (Path(path) / "source.py").read_bytes()
    exec(compile(source, f"{module.__name__}.py", "exec", dont_inherit=True), vars(module))
    found = module
    for part in entry["name"].split("."):
        found = getattr(found, part)
    return _Model(found().predict if isinstance(found, type) else found)


class _Model:
    def __init__(self, call):
        self._call = call

    def predict(self, model_input, params=None):
        answers = self._call({str(name): np.asarray(model_input[name]) for name in model_input})
        if not hasattr(answers, "items"):
            return np.asarray(answers)
        named = {name: np.asarray(values) for name, values in answers.items()}
        return next(iter(named.values())) if len(named) == 1 else named
'''


def write(folder: Path, blobs: BlobStore, bundle: Bundle) -> list[str]:
    """Write the folder and return its files, sorted.

    Raises:
        Conflict: the folder is there and not empty.
        InvalidInput: of a flavour that MLflow cannot be given.
        NotFound, Corrupt: a file of the bundle is missing or damaged.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is there already; name another folder, or remove it")
    files = {
        path.removeprefix("model/"): blobs.get(entry["digest"])
        for path, entry in bundle.manifest["files"].items()
        if path.startswith("model/")
    }
    flavor = bundle.manifest["flavor"]
    if flavor not in _WRITTEN:
        raise InvalidInput(f"a model of the flavour {flavor} has no form that MLflow loads; export it as a bundle")
    flavors, written = _WRITTEN[flavor](files, bundle)
    requirements = blobs.get(bundle.manifest["files"]["environment/requirements.txt"]["digest"])
    python = str(bundle.manifest["environment"]["python"])
    flavors["python_function"] |= {
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
        "python_version": python,
    }
    inputs = bundle.signature.inputs
    told = {
        "flavors": flavors,
        "signature": {"inputs": json.dumps([_input(one, len(inputs)) for one in inputs]), "outputs": None},
        "metadata": {"flyball": {"bundle": bundle.digest}},
    }
    if _is_beyond_signatures(bundle, files):
        del told["signature"]
    pip = {"pip": ["-r requirements.txt"]}
    texts = {
        "MLmodel": yaml.safe_dump(told, allow_unicode=True),
        "conda.yaml": yaml.safe_dump({"name": "mlflow-env", "dependencies": [f"python={python}", "pip", pip]}),
        "python_env.yaml": yaml.safe_dump({"python": python, "dependencies": ["-r requirements.txt"]}),
    }
    written |= {name: text.encode() for name, text in texts.items()} | {"requirements.txt": requirements}
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name, data in written.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(data)
        if folder.is_dir():
            folder.rmdir()
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(written)


def _is_beyond_signatures(bundle: Bundle, files: Mapping[str, bytes]) -> bool:
    """Whether MLflow's signature, which it enforces, would keep out what the model takes.

    It has no categories, which trees take from pandas as such, and gives a network of several tensors none of them by
    name: that one is for `mlflow.pytorch.load_model`.
    """
    inputs = bundle.signature.inputs
    if bundle.manifest["flavor"] == "pytorch":
        return len(inputs) > 1 and any(one.shape is not None for one in inputs)
    return bundle.manifest["flavor"] in ("xgboost", "lightgbm") and bool(json.loads(files["feed.json"])["categories"])


def _input(field: Field, count: int) -> dict[str, Any]:
    if field.shape is None:
        return {"type": _TYPES[field.dtype], "name": field.name, "required": not field.nullable}
    name = {} if count == 1 else {"name": field.name}
    return {"type": "tensor", "tensor-spec": {"dtype": field.dtype, "shape": list(field.shape)}, **name}


_Written = tuple[dict[str, dict[str, Any]], dict[str, bytes]]


def _version(bundle: Bundle, *names: str) -> str:
    known: Mapping[str, str] = bundle.manifest["environment"]["packages"]
    return next((known[name] for name in names if name in known), "")


def _sklearn(files: Mapping[str, bytes], bundle: Bundle) -> _Written:
    from flyball.models.flavors._sklearn_safe import trusted_types

    path = "model.skops"
    own = {
        "pickled_model": path,
        "serialization_format": "skops",
        "skops_trusted_types": trusted_types(files[path]),
        "sklearn_version": _version(bundle, "scikit-learn"),
    }
    function = {"loader_module": "mlflow.sklearn", "model_path": path, "predict_fn": "predict"}
    return {"sklearn": own, "python_function": function}, {path: files[path]}


def _xgboost(files: Mapping[str, bytes], bundle: Bundle) -> _Written:
    path, feed = "model.ubj", json.loads(files["feed.json"])
    made = "XGBClassifier" if feed["kind"] in ("binary", "classes", "several") else "XGBRegressor"
    own = {
        "data": path,
        "model_class": f"xgboost.sklearn.{made}" if feed["kind"] != "labels" else "xgboost.core.Booster",
        "model_format": "ubj",
        "xgb_version": _version(bundle, "xgboost", "xgboost-cpu"),
    }
    function = {"loader_module": "mlflow.xgboost", "data": path}
    return {"xgboost": own, "python_function": function}, {path: files["model.ubj"]}


def _lightgbm(files: Mapping[str, bytes], bundle: Bundle) -> _Written:
    path = "model.lgb"
    own = {"data": path, "model_class": "lightgbm.basic.Booster", "lgb_version": _version(bundle, "lightgbm")}
    (text,) = (data for name, data in files.items() if name.endswith(".txt"))
    return {"lightgbm": own, "python_function": {"loader_module": "mlflow.lightgbm", "data": path}}, {path: text}


def _onnx(files: Mapping[str, bytes], bundle: Bundle) -> _Written:  # noqa: ARG001
    path = "model.onnx"
    own = {"data": path, "providers": ["CPUExecutionProvider"], "onnx_version": ""}
    return {"onnx": own, "python_function": {"loader_module": "mlflow.onnx", "data": path}}, {path: files[path]}


def _pytorch(files: Mapping[str, bytes], bundle: Bundle) -> _Written:
    own = {"model_data": "data", "pytorch_version": _version(bundle, "torch")}
    function = {"loader_module": "mlflow.pytorch", "data": "data", "config": {"device": None}}
    return {"pytorch": own, "python_function": function}, {"data/model.pt2": files["model.pt2"]}


def _python(files: Mapping[str, bytes], bundle: Bundle) -> _Written:
    module = f"flyball_loader_{bundle.digest[:12]}"
    function = {"loader_module": module, "data": "data", "code": "code"}
    written = {f"data/{name}": files[name] for name in ("source.py", "entry.json")}
    loader = _LOADER.replace("{digest}", bundle.digest[:16]).encode()
    return {"python_function": function}, {**written, f"code/{module}.py": loader}


_WRITTEN = {
    "sklearn": _sklearn,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "onnx": _onnx,
    "pytorch": _pytorch,
    "python": _python,
}
