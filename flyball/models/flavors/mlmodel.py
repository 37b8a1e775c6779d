"""MLmodel folders kept as an MLflow client logged them, whose model is Python objects: pickles, and skops of any type.

Loading one runs whatever is in it, so `models.bundle` loads none that no trusted key signed, whatever a scan finds.
`models.mlmodel.keep` makes such bundles, without loading anything. Rows reach the model as a pandas frame, or as the
one tensor that it takes; what needs only its library is loaded by its library, without MLflow.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import yaml

from flyball.errors import Incompatible, InvalidInput, MissingExtra
from flyball.models.flavors._sklearn_outputs import named, tidy
from flyball.models.signature import Column, Signature

__all__ = ["answer", "dump", "load", "packages", "recognises", "signature"]

_FLAVORS = ("sklearn", "lightgbm", "pytorch")


def recognises(model: object) -> bool:  # noqa: ARG001
    """Nothing: such a bundle is made of a folder, not of a model."""
    return False


def answer(model: Any, example: Any) -> dict[str, Column]:  # noqa: ARG001
    """Raise InvalidInput, as `dump`."""
    raise InvalidInput("a model is not kept as an MLmodel folder; register it in its own flavour")


def signature(model: Any, example: Any, answers: Mapping[str, Column] | None) -> Signature:  # noqa: ARG001
    """Raise InvalidInput, as `dump`."""
    raise InvalidInput("a model is not kept as an MLmodel folder; register it in its own flavour")


def dump(model: Any, signature: Signature, example: Any) -> dict[str, bytes]:  # noqa: ARG001
    """Raise InvalidInput: what is in memory has a flavour of its own."""
    raise InvalidInput("a model is not kept as an MLmodel folder; register it in its own flavour")


def load(
    files: Mapping[str, bytes], manifest: Mapping[str, Any]
) -> Callable[[Mapping[str, Column]], dict[str, Column]]:
    """Load what the folder names and return its function. Raises Incompatible: it cannot be loaded here."""
    told = yaml.safe_load(files["MLmodel"])["flavors"]
    name = next((one for one in _FLAVORS if one in told), None)
    if name is None:
        raise Incompatible("the folder names no flavour that Flyball can load; log it by its library")
    try:
        model = _network(told[name], files) if name == "pytorch" else _estimator(told[name], files)
    except (ImportError, AttributeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise Incompatible(f"the model cannot be loaded here: {type(error).__name__}: {str(error)[:300]}") from error
    described = Signature.from_dict(manifest["signature"])
    rows = _rows_maker(described)
    if name == "pytorch":
        return lambda columns: {"prediction": _asked(model, rows(columns))}

    def predict(columns: Mapping[str, Column]) -> dict[str, Column]:
        given = rows(columns)
        found = {"prediction": tidy(np.asarray(model.predict(given)))}
        if hasattr(model, "predict_proba"):
            found |= named(np.asarray(model.predict_proba(given), np.float64))
        return found

    return predict


def packages() -> tuple[str, ...]:
    """What such folders mostly need; which of them this one does is known when it is loaded."""
    return ("scikit-learn", "lightgbm", "torch", "cloudpickle", "pandas", "numpy")


def _estimator(told: Mapping[str, Any], files: Mapping[str, bytes]) -> Any:
    data = files[str(told.get("pickled_model") or told.get("data"))]
    if told.get("serialization_format") != "skops":
        return pickle.loads(data)
    try:
        import skops.io
    except ImportError:
        raise MissingExtra("skops", "ml", "a model that MLflow logged") from None
    return skops.io.loads(data, trusted=list(told.get("skops_trusted_types") or ()))


def _network(told: Mapping[str, Any], files: Mapping[str, bytes]) -> Any:
    from flyball.models.flavors._pt2 import torch

    data = files[f"{told['model_data']}/model.pth"]
    return torch().load(io.BytesIO(data), map_location="cpu", weights_only=False).eval()


def _asked(model: Any, rows: Any) -> Column:
    from flyball.models.flavors._pt2 import torch

    array = rows if isinstance(rows, np.ndarray) else rows.to_numpy(np.float32)
    with torch().inference_mode():
        found: Column = model(torch().from_numpy(np.array(array))).numpy()
    return found


def _rows_maker(described: Signature) -> Callable[[Mapping[str, Column]], Any]:
    names = [one.name for one in described.inputs]
    if len(names) == 1 and described.inputs[0].shape is not None:
        return lambda columns: columns[names[0]]
    try:
        import pandas
    except ImportError:
        raise MissingExtra("pandas", "pandas", "a model that MLflow logged") from None
    return lambda columns: pandas.DataFrame({name: columns[name] for name in names})
