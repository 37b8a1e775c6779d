"""XGBoost models, boosters and the estimators of its scikit-learn interface, kept as UBJSON and never as a pickle.

An answer is named as scikit-learn's is: a classifier has labels ("prediction") and probabilities, also as a bare
booster, by its objective. Rows reach the booster as a matrix, on one thread.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from flyball.errors import Corrupt, InvalidInput, MissingExtra
from flyball.models import _frames
from flyball.models.flavors._boosted import (
    Boosted,
    Feed,
    check_walks,
    described,
    feed_for,
    finished,
    matrix_of,
    plain_rows,
)
from flyball.models.flavors._sklearn_outputs import named, tidy
from flyball.models.flavors._ubjson import decode
from flyball.models.signature import Column, Signature

__all__ = ["answer", "categories", "dump", "estimator", "load", "opened", "packages", "recognises", "signature"]

_FILE = "model.ubj"
_KINDS = {"binary:logistic": "binary", "multi:softprob": "classes", "multi:softmax": "labels"}


def recognises(model: object) -> bool:
    """A `Booster`, or an estimator whose class, or a base of it, is XGBoost's."""
    return hasattr(model, "predict") and any(c.__module__.partition(".")[0] == "xgboost" for c in type(model).__mro__)


def answer(model: Any, example: Any) -> dict[str, Column]:
    """Call `predict` and `predict_proba` as the user would, of a booster `predict` on a `DMatrix`."""
    booster, feed = _opened(model)
    rows = plain_rows(example, booster.feature_names)
    if model is booster:
        matrix = _library().DMatrix(rows, enable_categorical=True, nthread=1)
        if matrix.feature_names is None or booster.feature_names is None:
            matrix.feature_names = booster.feature_names
        return finished(feed, booster.predict(matrix))
    if feed.kind == "numbers":
        return {"prediction": np.asarray(model.predict(rows), np.float64)}
    found = {"prediction": tidy(model.predict(rows))}
    if feed.kind == "labels":
        return found
    likely = np.asarray(model.predict_proba(rows), np.float64)
    return found | ({"probabilities": likely} if feed.kind == "several" else named(likely))


def signature(model: Any, example: Any, answers: Mapping[str, Column] | None) -> Signature:
    """From the example; fractions and categories may be missing. Raises InvalidInput without an example."""
    return described(example, answers, _classes(*_opened(model)))


def dump(model: Any, signature: Signature, example: Any) -> dict[str, bytes]:
    """`model.ubj`, up to the best iteration where training stopped early, and `feed.json`."""
    booster, feed = _opened(model)
    document = _document(booster)
    texts = _from_example(booster, example) | _categories(document)
    feed = feed_for(signature, booster.feature_names, booster.num_features(), texts, feed)
    best = getattr(model, "best_iteration", None) if model is not booster else None
    kept = booster[: best + 1] if best is not None and _kind(document) != "gblinear" else booster
    return {_FILE: bytes(kept.save_raw("ubj")), "feed.json": feed.to_bytes()}


def load(
    files: Mapping[str, bytes], manifest: Mapping[str, Any]
) -> Callable[[Mapping[str, Column]], dict[str, Column]]:
    """Return a function that runs the booster. Raises Corrupt: the file is none of XGBoost's, or a tree is forged."""
    feed = Feed.from_bytes(files["feed.json"], Signature.from_dict(manifest["signature"]))
    booster = opened(files[_FILE])
    if booster.num_features() != len(feed.order):
        raise Corrupt("the model's files contradict each other; register the model again")
    matrix = matrix_of(feed)
    names, kinds, turn = booster.feature_names, booster.feature_types, threading.Lock()

    def rows_of(columns: Mapping[str, Column]) -> Any:
        table = matrix(columns)
        return _library().DMatrix(table, feature_names=names, feature_types=kinds, nthread=1, enable_categorical=True)

    if _kind(_document(booster)) == "gblinear":

        def linear(columns: Mapping[str, Column]) -> dict[str, Column]:
            rows = rows_of(columns)
            with turn:  # only trees may be asked from several threads
                return finished(feed, booster.predict(rows))

        return linear

    def contribute(columns: Mapping[str, Column]) -> Column:
        return np.asarray(booster.predict(rows_of(columns), pred_contribs=True), np.float64)

    def predict(columns: Mapping[str, Column]) -> dict[str, Column]:
        return finished(feed, booster.inplace_predict(matrix(columns), validate_features=False))

    return Boosted(feed, predict, contribute)


def opened(data: bytes) -> Any:
    """Return the booster in UBJSON or JSON, each of its trees proved to stay in bounds. Raises Corrupt."""
    library = _library()
    try:
        # Before XGBoost reads a byte: some of what it does not expect ends the whole process.
        _check(json.loads(data) if data[:2] in (b'{"', b"{\n", b"{ ") else decode(data))
        booster = library.Booster({"nthread": 1})
        booster.load_model(bytearray(data))
        booster.set_param({"nthread": 1})
    except (library.core.XGBoostError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        why = (str(error).splitlines() or [""])[0][:200]
        raise Corrupt(f"the model's file cannot be read by XGBoost {library.__version__}: {why}") from None
    return booster


def estimator(name: str, data: bytes) -> Any:
    """Return an estimator of XGBoost's own scikit-learn interface from bytes that `opened` has proved."""
    made = getattr(_library(), name)()
    made.load_model(bytearray(data))
    return made


def categories(model: Any, names: Sequence[str], texts: Sequence[str]) -> dict[str, list[str]]:
    """Return input → categories, of those inputs that are texts and of which the model keeps some."""
    booster, _ = _opened(model)
    own = booster.feature_names or names
    return {own[at]: kept for at, kept in _categories(_document(booster)).items() if own[at] in texts}


def packages() -> tuple[str, ...]:
    """XGBoost, under either name, and what it computes with."""
    return ("xgboost", "xgboost-cpu", "numpy", "scipy")


def _library() -> Any:
    try:
        import xgboost
    except ImportError:
        raise MissingExtra("xgboost", "xgboost", "an XGBoost model") from None
    return xgboost


def _opened(model: Any) -> tuple[Any, Feed]:
    """Return the booster of a model, and how its answers are read."""
    library = _library()
    if isinstance(model, library.Booster):
        return model, Feed((), kind=_read(model))
    try:
        booster = model.get_booster()
    except Exception as error:  # scikit-learn's NotFittedError, which is not imported for it
        if type(error).__name__ != "NotFittedError":
            raise
        raise InvalidInput(f"the {type(model).__name__} is not fitted; call fit before it is registered") from None
    classes, kind = None, "numbers"
    if hasattr(model, "predict_proba"):
        kind = _read(booster)
        if kind == "numbers":
            raise InvalidInput(
                f"the {type(model).__name__} has the objective {_objective(booster)}, whose answers are no "
                "probabilities; register its get_booster(), or train with binary:logistic or multi:softprob"
            )
        classes = tidy(np.asarray(model.classes_)).tolist() if kind != "several" else None
    missing = float(model.missing) if model.missing is not None and not math.isnan(model.missing) else None
    return booster, Feed((), kind=kind, classes=classes, missing=missing)


def _objective(booster: Any) -> str:
    return str(json.loads(booster.save_config())["learner"]["objective"]["name"])


def _read(booster: Any) -> str:
    kind = _KINDS.get(_objective(booster), "numbers")
    targets = int(json.loads(booster.save_config())["learner"]["learner_model_param"].get("num_target", "1"))
    return "several" if kind == "binary" and targets > 1 else kind


def _classes(booster: Any, feed: Feed) -> Sequence[Any] | None:
    if feed.kind in ("numbers", "several"):
        return None
    if feed.classes is not None:
        return feed.classes
    count = int(json.loads(booster.save_config())["learner"]["learner_model_param"]["num_class"])
    return range(max(count, 2))


def _document(booster: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bytes(booster.save_raw("json")))
    return found


def _kind(document: Mapping[str, Any]) -> str:
    return str(document["learner"]["gradient_booster"]["name"])


def _model(document: Mapping[str, Any]) -> Any:
    booster = document["learner"]["gradient_booster"]
    return booster["gbtree"]["model"] if booster["name"] == "dart" else booster["model"]


def _categories(document: Mapping[str, Any]) -> dict[int, list[str]]:
    """Return the categories that the model keeps since XGBoost 3.1, place → texts."""
    found = {}
    cats = _model(document).get("cats") or {}
    for place, kept in enumerate(cats.get("enc", ())):
        values = kept.get("values") or []
        if "offsets" not in kept:
            texts = [str(value) for value in values]
        else:
            packed, ends = bytes(value & 0xFF for value in values), kept["offsets"]
            texts = [packed[a:b].decode() for a, b in pairwise(ends)]
        if texts:
            found[place] = texts
    return found


def _from_example(booster: Any, example: Any) -> dict[int, list[str]]:
    """Return the categories that the example's columns were declared with; older models keep none themselves."""
    if _frames.library_of(example) != "pandas":
        return {}
    names = booster.feature_names or list(example.columns)
    own = {name: example[name] for name in names if name in example.columns}
    return {
        place: [str(text) for text in own[name].cat.categories]
        for place, name in enumerate(names)
        if name in own and str(own[name].dtype) == "category"
    }


def _check(document: Mapping[str, Any]) -> None:
    """Prove what prediction follows without looking: every child, feature and set of categories of every tree."""
    if document["version"][0] < 1:
        raise ValueError("it states no version")
    learner = document["learner"]
    features = int(learner["learner_model_param"]["num_feature"])
    model = _model(document)
    if _kind(document) == "gblinear":
        groups = max(1, int(learner["learner_model_param"]["num_class"]))
        groups = max(groups, int(learner["learner_model_param"].get("num_target", "1")))
        _require(len(model["weights"]) == (features + 1) * groups)
        return
    _require(len(model["trees"]) == len(model["tree_info"]))
    for tree in model["trees"]:
        left, right = np.asarray(tree["left_children"], np.int64), np.asarray(tree["right_children"], np.int64)
        inner = left >= 0
        count = len(left)
        check_walks(left, np.where(inner, right, -1))
        _require(bool((right[inner] >= 0).all()))
        split = np.asarray(tree["split_indices"], np.int64)
        _require(len(split) == len(tree["split_conditions"]) == len(tree["default_left"]) == count)
        _require(bool(((split[inner] >= 0) & (split[inner] < features)).all()))
        starts, sizes = (np.asarray(tree[name], np.int64) for name in ("categories_segments", "categories_sizes"))
        nodes = np.asarray(tree["categories_nodes"], np.int64)
        _require(len(starts) == len(sizes) == len(nodes) and bool(((starts >= 0) & (sizes >= 0)).all()))
        _require(bool((starts + sizes <= len(tree["categories"])).all()) and bool((nodes < count).all()))


def _require(holds: bool) -> None:
    if not holds:
        raise Corrupt("the model's arrays do not fit together; it was not made by XGBoost")
