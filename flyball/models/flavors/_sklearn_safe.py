"""Bytes of scikit-learn models without pickle: skops, under our own allow-list, with trees checked before first use.

skops rebuilds only objects of types on a list. The list is ours and fixed, never taken from the file. Two types on it,
the node arrays of trees, are not trusted by skops itself, because scikit-learn follows the indices in them without
bounds checks, so that a crafted file could read foreign memory (scikit-learn pull request 34558). They are admitted
because `_check_trees` proves every index before the model is used.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from flyball.errors import Corrupt, InvalidInput, MissingExtra, listed

__all__ = ["dumps", "loads", "trusted_types"]

_HIST_TREE = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
_TREE = "sklearn.tree._tree.Tree"

# What is added to skops' own list of NumPy, SciPy and scikit-learn types: plain data holders without behaviour of
# their own at load. `partial` can only hold callables that are on the list too.
_ALLOWED = frozenset(
    {
        _HIST_TREE,
        _TREE,
        "functools.partial",
        "numpy.dtype",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.compose._column_transformer._RemainderColsList",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.utils._bunch.Bunch",
        "sklearn.utils.validation.check_array",
    }
)


def dumps(model: Any) -> bytes:
    """Return the model as skops bytes.

    Raises:
        InvalidInput: it holds an object that is not on the allow-list (each is named), or that skops cannot write.
        MissingExtra: skops is not installed.
    """
    skops = _skops()
    try:
        data: bytes = skops.dumps(model)
    except Exception as error:
        raise InvalidInput(f"the model cannot be kept without pickle: {str(error)[:200]}; {_ADVICE}") from error
    _check_types(skops, data)
    return data


def loads(data: bytes) -> Any:
    """Rebuild a model from bytes whose digest was verified.

    Raises:
        InvalidInput: it holds a type that is not on the allow-list; nothing of it was constructed.
        Corrupt: no skops file, a pickle in place of an array, or a tree whose indices leave its arrays.
        MissingExtra: skops is not installed.
    """
    skops = _skops()
    try:
        _check_types(skops, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another scikit-learn version: the bundle's own warnings say it
            model = skops.loads(data, trusted=sorted(_ALLOWED))
    except (InvalidInput, MissingExtra):
        raise
    except Exception as error:
        raise Corrupt(
            f"the model's file cannot be read as skops: {type(error).__name__}: {str(error)[:200]}"
        ) from error
    _check_trees(model)
    return model


_ADVICE = (
    "use estimators of scikit-learn and NumPy functions only, convert it to ONNX, "
    'or wrap it in a function of your own module with flavor="python"'
)


def trusted_types(data: bytes) -> list[str]:
    """Return the types in `dumps`'s bytes that skops does not know by itself and that Flyball allows, by name."""
    skops = _skops()
    _check_types(skops, data)
    return sorted(skops.get_untrusted_types(data=data))


def _skops() -> Any:
    try:
        import skops.io
    except ImportError:
        raise MissingExtra("skops", "ml", "a scikit-learn model") from None
    return skops.io


def _check_types(skops: Any, data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(name != "schema.json" and not name.endswith((".npy", ".npz", ".bin")) for name in archive.namelist()):
            raise InvalidInput("the model's file holds something else than arrays; save the model again")
    refused = sorted(set(skops.get_untrusted_types(data=data)) - _ALLOWED)
    if refused:
        raise InvalidInput(f"the model holds {listed(refused)}, which may run any code and is not allowed; {_ADVICE}")


def _check_trees(model: Any) -> None:
    """Prove that every index in every tree stays in bounds and that walking it ends."""
    for tree, features in _trees(model):
        if type(tree).__name__ == "TreePredictor":
            _check_hist_tree(tree, features)
        else:
            _check_tree(tree, features)


def _check_hist_tree(tree: Any, features: int) -> None:
    nodes = tree.nodes
    split = nodes["is_leaf"] == 0
    inner = nodes[split]
    bitsets = min(len(tree.raw_left_cat_bitsets), len(tree.binned_left_cat_bitsets))
    categorical = inner[inner["is_categorical"] != 0]
    _require(len(nodes) > 0 and nodes.ndim == 1)
    _require(bool(np.isfinite(nodes["value"]).all()))
    _require_walk(np.flatnonzero(split), inner["left"], inner["right"], len(nodes))
    _require(bool(((inner["feature_idx"] >= 0) & (inner["feature_idx"] < features)).all()))
    _require(bool((categorical["bitset_idx"] < bitsets).all()))


def _check_tree(tree: Any, features: int) -> None:
    count = tree.node_count
    _require(0 < count <= tree.capacity and tree.n_features == features)
    left, right = tree.children_left[:count], tree.children_right[:count]
    split = left != -1
    _require_walk(np.flatnonzero(split), left[split], right[split], count)
    feature = tree.feature[:count][split]
    _require(bool(((feature >= 0) & (feature < features)).all()))


def _require_walk(at: Any, left: Any, right: Any, count: int) -> None:
    # Both libraries write children behind their parent; so an index that only grows cannot run in a circle.
    for child in (left.astype(np.int64), right.astype(np.int64)):
        _require(bool(((child > at) & (child < count)).all()))


def _require(holds: bool) -> None:
    if not holds:
        raise Corrupt("a tree of the model points outside its own arrays; the model was not made by scikit-learn")


def _trees(model: Any) -> Iterator[tuple[Any, int]]:
    """Yield every tree in the object graph with the number of features that its owner feeds it."""
    seen: set[int] = set()
    todo: list[tuple[Any, int]] = [(model, 0)]
    while todo:
        value, features = todo.pop()
        if id(value) in seen or isinstance(value, (str, bytes, int, float, type(None))):
            continue
        seen.add(id(value))
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if kind in (_HIST_TREE, _TREE):
            yield value, features
        elif isinstance(value, dict):
            todo += [(v, features) for v in value.values()]
        elif isinstance(value, (list, tuple, set)):
            todo += [(v, features) for v in value]
        elif isinstance(value, np.ndarray):
            if value.dtype == object:
                todo += [(v, features) for v in value.flat]
        elif kind.startswith("sklearn.") and hasattr(value, "__dict__"):
            own = vars(value).get("n_features_in_", features)
            todo += [(v, int(own)) for v in vars(value).values()]
