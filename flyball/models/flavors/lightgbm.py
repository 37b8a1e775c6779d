"""LightGBM models, boosters and the estimators of its scikit-learn interface, kept as its text format.

An answer is named as scikit-learn's is: a classifier has labels ("prediction") and probabilities, also as a bare
booster, by its objective. Rows reach the booster as a matrix, on one thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flyball.errors import Corrupt, InvalidInput, MissingExtra, listed
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
from flyball.models.signature import Column, Signature

__all__ = ["answer", "categories", "dump", "load", "opened", "packages", "recognises", "signature"]

_FILE = "model.txt"
_KINDS = {"binary": "binary", "multiclass": "classes", "multiclassova": "classes"}
_CATEGORIES = "\npandas_categorical:"


def recognises(model: object) -> bool:
    """A `Booster`, or an estimator whose class, or a base of it, is LightGBM's."""
    return hasattr(model, "predict") and any(c.__module__.partition(".")[0] == "lightgbm" for c in type(model).__mro__)


def answer(model: Any, example: Any) -> dict[str, Column]:
    """Call `predict` and `predict_proba` as the user would."""
    booster, feed = _opened(model)
    _check_frame(example)
    rows = plain_rows(example, booster.feature_name())
    if model is booster:
        return finished(feed, booster.predict(rows))
    if feed.kind == "numbers":
        return {"prediction": np.asarray(model.predict(rows), np.float64)}
    return {
        "prediction": tidy(model.predict(rows)),
        **named(np.asarray(model.predict_proba(rows), np.float64)),
    }


def signature(model: Any, example: Any, answers: Mapping[str, Column] | None) -> Signature:
    """From the example; fractions and categories may be missing. Raises InvalidInput without an example."""
    booster, feed = _opened(model)
    classes: Sequence[Any] | None = feed.classes
    if classes is None and feed.kind != "numbers":
        classes = range(max(2, booster.num_model_per_iteration()))
    return described(example, answers, classes)


def dump(model: Any, signature: Signature, example: Any) -> dict[str, bytes]:
    """`model.txt`, up to the best iteration where training stopped early, and `feed.json`."""
    booster, feed = _opened(model)
    if example is not None:
        _check_frame(example)
    text = booster.model_to_string()
    names = booster.feature_name()
    by_place = all(name == f"Column_{at}" for at, name in enumerate(names))
    texts = _categories(text, names, signature)
    feed = feed_for(signature, None if by_place else names, booster.num_feature(), texts, feed)
    return {_FILE: text.encode(), "feed.json": feed.to_bytes()}


def load(
    files: Mapping[str, bytes], manifest: Mapping[str, Any]
) -> Callable[[Mapping[str, Column]], dict[str, Column]]:
    """Return a function that runs the booster. Raises Corrupt: the file is none of LightGBM's, or a tree is forged."""
    feed = Feed.from_bytes(files["feed.json"], Signature.from_dict(manifest["signature"]))
    booster = opened(files[_FILE])
    if booster.num_feature() != len(feed.order):
        raise Corrupt("the model's files contradict each other; register the model again")
    matrix = matrix_of(feed)

    def contribute(columns: Mapping[str, Column]) -> Column:
        found = np.asarray(booster.predict(matrix(columns), num_threads=1, pred_contrib=True), np.float64)
        width = len(feed.order) + 1
        return found if found.shape[1] == width else found.reshape(len(found), -1, width)

    return Boosted(feed, lambda columns: finished(feed, booster.predict(matrix(columns), num_threads=1)), contribute)


def opened(data: bytes) -> Any:
    """Return the booster in a model text, each of its trees proved to stay in bounds. Raises Corrupt."""
    library = _library()
    try:
        text = data.decode()
        _check(text)
        return library.Booster(model_str=text)
    except (library.basic.LightGBMError, KeyError, TypeError, ValueError) as error:
        why = (str(error).splitlines() or [""])[0][:200]
        raise Corrupt(f"the model's file cannot be read by LightGBM {library.__version__}: {why}") from None


def categories(model: Any, names: Sequence[str], texts: Sequence[str]) -> dict[str, list[str]]:
    """Return input → categories, of those inputs that are texts and of which the model keeps some."""
    booster, _ = _opened(model)
    lists = _lists(booster.model_to_string())
    return dict(zip([name for name in names if name in texts], lists, strict=False)) if len(lists) == len(texts) else {}


def packages() -> tuple[str, ...]:
    """LightGBM and what it computes with."""
    return ("lightgbm", "numpy", "scipy")


def _library() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise MissingExtra("lightgbm", "lightgbm", "a LightGBM model") from None
    return lightgbm


def _opened(model: Any) -> tuple[Any, Feed]:
    """Return the booster of a model, and how its answers are read."""
    if isinstance(model, _library().Booster):
        return model, Feed((), kind=_read(model))
    if not getattr(model, "fitted_", False):
        raise InvalidInput(f"the {type(model).__name__} is not fitted; call fit before it is registered")
    booster = model.booster_
    if not hasattr(model, "predict_proba"):
        return booster, Feed(())
    kind = _read(booster)
    if kind == "numbers":
        raise InvalidInput(
            f"the {type(model).__name__} has an objective whose answers are no probabilities; register its booster_, "
            "or train with binary or multiclass"
        )
    return booster, Feed((), kind=kind, classes=tidy(np.asarray(model.classes_)).tolist())


def _read(booster: Any) -> str:
    head = booster.model_to_string(num_iteration=1).partition("\nTree=")[0]
    told = next((line for line in head.splitlines() if line.startswith("objective=")), "objective=")
    return _KINDS.get(told.removeprefix("objective=").partition(" ")[0], "numbers")


def _check_frame(example: Any) -> None:
    """Refuse what ends the whole process: LightGBM 4.7 aborts on categories of polars (in its reader of Arrow)."""
    if _frames.library_of(example) != "polars":
        return
    odd = [name for name, dtype in example.schema.items() if not (dtype.is_numeric() or str(dtype) == "Boolean")]
    if odd:
        raise InvalidInput(
            f"LightGBM takes no texts or categories from polars ({listed(odd, 5)}); train on a pandas frame where they "
            "are of the type category, and give the example as such a frame"
        )


def _categories(text: str, names: Sequence[str], signature: Signature) -> dict[int, list[str]]:
    """Return place → texts; LightGBM keeps the lists of the frame's columns of categories in order, without names."""
    lists = _lists(text)
    own = {one.name.replace(" ", "_"): one for one in signature.inputs}
    fields = [own.get(name) or one for name, one in zip(names, signature.inputs, strict=False)]
    places = [at for at, one in enumerate(fields) if one.dtype == "string"]
    return dict(zip(places, lists, strict=True)) if len(lists) == len(places) else {}


def _lists(text: str) -> list[list[str]]:
    found = json.loads(text.rpartition(_CATEGORIES)[2].strip() or "null") if _CATEGORIES in text else None
    return [[str(value) for value in values] for values in found or ()]


def _check(text: str) -> None:
    """Prove what prediction follows without looking: every child, feature and set of categories of every tree."""
    head, *trees = text.partition("\nend of trees")[0].split("\nTree=")
    features = int(_lines(head)["max_feature_idx"]) + 1
    if not trees:
        raise ValueError("it has no trees")
    for tree in trees:
        told = _lines(tree)
        leaves, has_sets = int(told["num_leaves"]), int(told["num_cat"]) > 0
        inner = leaves - 1
        _require(len(told["leaf_value"].split()) == leaves and leaves >= 1)
        if not inner:
            continue
        left, right, split, decision = (
            np.array(told[name].split(), np.int64)
            for name in ("left_child", "right_child", "split_feature", "decision_type")
        )
        limit = np.array(told["threshold"].split(), np.float64)
        _require(len(left) == len(right) == len(split) == len(decision) == len(limit) == inner)
        check_walks(left, right)
        _require(bool((~left[left < 0] < leaves).all()) and bool((~right[right < 0] < leaves).all()))
        _require(bool(((split >= 0) & (split < features)).all()))
        sets = (decision & 1).astype(bool)
        _require(has_sets or not sets.any())
        if has_sets:
            ends = np.array(told["cat_boundaries"].split(), np.int64)
            words = len(told["cat_threshold"].split())
            _require(bool(((limit[sets] >= 0) & (limit[sets] < len(ends) - 1)).all()))
            _require(bool((np.diff(ends) >= 0).all()) and bool(((ends >= 0) & (ends <= words)).all()))
        if told.get("is_linear") == "1":
            used = np.array(told.get("leaf_features", "").split(), np.int64)
            _require(bool(((used >= 0) & (used < features)).all()))


def _lines(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _require(holds: bool) -> None:
    if not holds:
        raise Corrupt("the model's arrays do not fit together; it was not made by LightGBM")
