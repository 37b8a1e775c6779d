"""scikit-learn estimators and pipelines, written by skops and never by pickle.

How rows reach the model is recorded at save in `feed.json`: a model trained on a polars or pandas frame gets a frame of
the same library (so that missing texts and categoricals look as they did in training), one trained on NumPy a matrix.
Trees and linear models are also compiled when they are saved (`_sklearn_fast.compiled`), where that is proved to be the
same; `compiled.npz` then answers requests, and scikit-learn is not even imported. `compiled.json` says which way it is,
and why where it is the plain one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from flyball.errors import FlyballError, InvalidInput, MissingExtra
from flyball.models import _columns, _frames
from flyball.models.compiled.forms import Form
from flyball.models.fields import Field
from flyball.models.flavors import _sklearn_fast, _sklearn_safe
from flyball.models.flavors._sklearn_outputs import classes_of, named, tidy
from flyball.models.signature import Column, Signature, infer_signature
from flyball.models.table import Table

__all__ = ["answer", "dump", "limit_threads", "load", "packages", "plain", "recognises", "signature"]

# Of these `predict` is the class of the highest `predict_proba`, so one pass gives both.
_LABEL_IS_ARGMAX = frozenset(
    {
        "BernoulliNB",
        "DecisionTreeClassifier",
        "ExtraTreeClassifier",
        "ExtraTreesClassifier",
        "GaussianNB",
        "HistGradientBoostingClassifier",
        "LogisticRegression",
        "MultinomialNB",
        "RandomForestClassifier",
    }
)


_log = logging.getLogger(__name__)


def recognises(model: object) -> bool:
    """An object with `predict` whose class, or a base of it, is scikit-learn's and none of a library with a flavour."""
    of = {c.__module__.partition(".")[0] for c in type(model).__mro__}
    return hasattr(model, "predict") and "sklearn" in of and not of & {"xgboost", "lightgbm"}


def answer(model: Any, example: Any) -> dict[str, Column]:
    """Call `predict` and `predict_proba` as the user would; of what finds anomalies also `score_samples`, negated."""
    _check_fitted(model)
    found = {"prediction": tidy(model.predict(example))}
    if classes_of(model) is not None and hasattr(model, "predict_proba"):
        found |= named(np.asarray(model.predict_proba(example), np.float64))
    return found | _anomaly(model, example)


def signature(model: Any, example: Any, answers: Mapping[str, Column] | None) -> Signature:
    """From the example; the classes stand as categories of the outputs. Raises InvalidInput without an example.

    A value may be missing where the example lacks one, where an encoder met a missing one in training, and in columns
    of fractions if the model takes NaN. Five example rows seldom show what five million held.
    """
    if example is None:
        raise InvalidInput("the model's inputs have no types of their own; give example=X[:5] or a signature")
    _check_fitted(model)
    inferred = infer_signature(example, answers)
    names = {field.name for field in inferred.inputs}
    learned = {name for name in _missing_in_training(model) if name in names}
    inferred = infer_signature(example, answers, nullable=learned | _fractions_taken_missing(model, inferred, example))
    classes = classes_of(model)
    if classes is None:
        return inferred
    texts = tuple(str(c) for c in classes)
    return Signature(
        inferred.inputs,
        tuple(f if f.name == "probability" else replace(f, categories=texts) for f in inferred.outputs),
    )


def dump(model: Any, signature: Signature, example: Any) -> dict[str, bytes]:
    """`model.skops`; `feed.json`: how to make what the model takes of checked columns; `compiled.json` and `.npz`."""
    _check_fitted(model)
    feed = _feed_of(model, signature, example)
    rows = _rows_maker(feed, signature)
    sample = None if example is None else _sample(signature, example)
    form, why = _sklearn_fast.compiled(
        model, signature.inputs, rows, _predictor, _predictor(model, rows), sample, feed.get("dtype", "float64")
    )
    chosen = {"path": form.path if form is not None else "plain", "why": why}
    files = {
        "model.skops": _sklearn_safe.dumps(model),
        "feed.json": json.dumps(feed, sort_keys=True).encode(),
        "compiled.json": json.dumps(chosen, sort_keys=True).encode(),
    }
    return files if form is None else files | {"compiled.npz": form.to_bytes()}


def load(
    files: Mapping[str, bytes], manifest: Mapping[str, Any]
) -> Callable[[Mapping[str, Column]], dict[str, Column]]:
    """Return the compiled form, if there is one that answers here as where it was made; else rebuild the model."""
    if "compiled.npz" in files:
        try:
            return Form.of(files["compiled.npz"])
        except FlyballError as error:
            _log.warning("the compiled form is left aside, the model itself answers: %s", error)
    model = _sklearn_safe.loads(files["model.skops"])
    described = Signature.from_dict(manifest["signature"])
    rows = _rows_maker(json.loads(files["feed.json"]), described)
    slow = _predictor(model, rows)
    example = manifest["example"]
    sample = None if example is None else described.columns_from(example)
    return _sklearn_fast.quicken(model, described.inputs, rows, _predictor, slow, sample) or slow


def plain(
    files: Mapping[str, bytes], manifest: Mapping[str, Any]
) -> Callable[[Mapping[str, Column]], dict[str, Column]]:
    """As `load`, but always by scikit-learn's own way; the reference for tests and benchmarks."""
    model = _sklearn_safe.loads(files["model.skops"])
    return _predictor(model, _rows_maker(json.loads(files["feed.json"]), Signature.from_dict(manifest["signature"])))


def packages() -> tuple[str, ...]:
    """scikit-learn, skops and what they compute with."""
    return ("scikit-learn", "skops", "numpy", "scipy")


def limit_threads() -> None:
    """Keep BLAS and OpenMP to one thread in this process from now on; a server calls it once, after loading.

    A request is a few rows: two threads make gradient boosting two to six times slower and its p99 wild.
    """
    try:
        import threadpoolctl
    except ImportError:
        raise MissingExtra("threadpoolctl", "ml", "a scikit-learn model") from None
    threadpoolctl.threadpool_limits(limits=1)


def _predictor(
    model: Any, rows: Callable[[Mapping[str, Column]], Any]
) -> Callable[[Mapping[str, Column]], dict[str, Column]]:
    classes = classes_of(model)
    final = model.steps[-1][1] if hasattr(model, "steps") else model
    argmax = type(final).__name__ in _LABEL_IS_ARGMAX

    def predict(columns: Mapping[str, Column]) -> dict[str, Column]:
        table = rows(columns)
        try:
            if classes is None or not hasattr(model, "predict_proba"):
                return {"prediction": tidy(model.predict(table)), **_anomaly(model, table)}
            likely = np.asarray(model.predict_proba(table), np.float64)
            label = classes[likely.argmax(axis=1)] if argmax else model.predict(table)
        except ValueError as error:
            # scikit-learn's word for a value it cannot take: NaN, an unknown category under handle_unknown="error".
            raise InvalidInput(f"the model cannot take these rows: {str(error).splitlines()[0][:300]}") from error
        return {"prediction": tidy(label), **named(likely)}

    return predict


def _anomaly(model: Any, rows: Any) -> dict[str, Column]:
    """Return how strange rows are to a model that finds anomalies, the higher the stranger; of another, nothing."""
    final = model.steps[-1][1] if hasattr(model, "steps") else model
    if all(c.__name__ != "OutlierMixin" for c in type(final).__mro__) or not hasattr(model, "score_samples"):
        return {}
    return {"anomaly": -np.asarray(model.score_samples(rows), np.float64)}


def _sample(signature: Signature, example: Any) -> Mapping[str, Column]:
    values = _frames.values_of(example, 20)
    if isinstance(example, np.ndarray):  # which has no names: its order is the signature's
        values = dict(zip((field.name for field in signature.inputs), values.values(), strict=True))
    return signature.columns_from(values, subject="the model's example")


def _missing_in_training(model: Any) -> set[str]:
    """The inputs whose encoder has a category for a missing value."""
    first = model.steps[0][1] if hasattr(model, "steps") else getattr(model, "_preprocessor", None)
    order = [str(name) for name in getattr(model, "feature_names_in_", ())]
    found = set()
    for _, transformer, chosen in getattr(first, "transformers_", ()):
        which = np.asarray(chosen)
        if not hasattr(transformer, "categories_") or which.ndim != 1 or (which.dtype.kind != "U" and not order):
            continue
        names = which.tolist() if which.dtype.kind == "U" else np.asarray(order)[which].tolist()
        for name, categories in zip(names, transformer.categories_, strict=True):
            if any(c is None or c != c for c in categories.tolist()):
                found.add(name)
    return found


def _fractions_taken_missing(model: Any, described: Signature, example: Any) -> set[str]:
    predict = _predictor(model, _rows_maker(_feed_of(model, described, example), described))
    row = described.columns_from(_frames.values_of(example, 1), subject="the model's example")

    def takes(names: list[str]) -> bool:
        try:
            predict({**row, **{name: np.full(1, np.nan) for name in names}})
        except InvalidInput:
            return False
        return True

    fractions = [field.name for field in described.inputs if field.dtype == "float64"]
    return set(fractions) if takes(fractions) else {name for name in fractions if takes([name])}


def _check_fitted(model: Any) -> None:
    import sklearn.exceptions
    import sklearn.utils.validation

    try:
        sklearn.utils.validation.check_is_fitted(model)
    except sklearn.exceptions.NotFittedError:
        raise InvalidInput(f"the {type(model).__name__} is not fitted; call fit before it is registered") from None
    classes = getattr(model, "classes_", None)
    if isinstance(classes, list):
        raise InvalidInput("the classifier has several targets; register one model for each")
    if classes is not None and len(classes) < 2:
        only = _columns.shown(classes.tolist()[0]) if len(classes) else "none"
        raise InvalidInput(f"the classifier knows one class only ({only}); train it on rows of both")


def _feed_of(model: Any, signature: Signature, example: Any) -> dict[str, Any]:
    named = getattr(model, "feature_names_in_", None)
    names = [field.name for field in signature.inputs]
    if named is not None and sorted(map(str, named)) != sorted(names):
        raise InvalidInput(
            f"the model was trained on {', '.join(map(str, named[:12]))}, but the example has {', '.join(names[:12])}; "
            "give the example in the form of the training data"
        )
    if named is None:
        wanted = getattr(model, "n_features_in_", len(names))
        if wanted != len(names):
            raise InvalidInput(f"the model was trained on {wanted} columns, but its signature has {len(names)} inputs")
        dtype = str(example.dtype) if isinstance(example, np.ndarray) and example.dtype.kind == "f" else "float64"
        return {"form": "matrix", "dtype": "object" if any(f.dtype == "string" for f in signature.inputs) else dtype}
    library = _frames.library_of(example) if example is not None else "polars"
    library = library if library == "pandas" else "polars"
    kinds = (
        {}
        if _frames.library_of(example) == "python"
        else {n: str(example[n].dtype) for n in names if example is not None}
    )
    return {"form": "frame", "library": library, "order": [str(n) for n in named], "dtypes": kinds}


def _rows_maker(feed: Mapping[str, Any], signature: Signature) -> Callable[[Mapping[str, Column]], Any]:
    fields = {field.name: field for field in signature.inputs}
    if feed["form"] == "matrix":
        return _matrix_maker(list(fields), np.dtype(feed["dtype"]))
    order = [fields[name] for name in feed["order"]]
    return (_pandas_maker if feed["library"] == "pandas" else _polars_maker)(order, feed["dtypes"])


def _matrix_maker(names: list[str], dtype: Any) -> Callable[[Mapping[str, Column]], Any]:
    order = tuple(names)

    def rows(columns: Mapping[str, Column]) -> Column:
        if type(columns) is Table and columns.names == order:
            return columns.array.astype(dtype)
        table = np.empty((len(columns[names[0]]), len(names)), dtype)
        for at, name in enumerate(names):
            table[:, at] = columns[name]
        return table

    return rows


def _polars_maker(fields: list[Field], dtypes: Mapping[str, str]) -> Callable[[Mapping[str, Column]], Any]:
    import polars

    # A value outside an Enum would be refused by the frame; as a Categorical the model decides.
    categorical = {n for n, kind in dtypes.items() if kind.startswith(("Categorical", "Enum"))}
    texts = {
        f.name: polars.Categorical if f.name in categorical else polars.String for f in fields if f.dtype == "string"
    }

    def rows(columns: Mapping[str, Column]) -> Any:
        series = [
            polars.Series(name, columns[name].tolist(), texts[name])
            if name in texts
            else polars.Series(name, columns[name])
            for name in (field.name for field in fields if field.name in columns)
        ]
        return polars.DataFrame(series)

    return rows


def _pandas_maker(fields: list[Field], dtypes: Mapping[str, str]) -> Callable[[Mapping[str, Column]], Any]:
    try:
        import pandas
    except ImportError:
        raise MissingExtra("pandas", "pandas", "a model trained on a pandas frame") from None
    texts = {f.name: dtypes.get(f.name, "str") for f in fields if f.dtype == "string"}

    def rows(columns: Mapping[str, Column]) -> Any:
        return pandas.DataFrame(
            {
                name: pandas.Series(columns[name], dtype=texts[name]) if name in texts else columns[name]
                for name in (field.name for field in fields if field.name in columns)
            },
            copy=False,
        )

    return rows
