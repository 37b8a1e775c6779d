"""The raw scores of scikit-learn's trees and linear models as arrays: what `compiled.scores` runs.

Read from fitted attributes, private ones among them; what comes of it counts only after `_sklearn_fast.compiled` has
proved that it answers as the estimator does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flyball.models._columns import Column
from flyball.models.compiled.kernel import NODE
from flyball.models.compiled.scores import Linear, Scores, Trees

__all__ = ["NotCompiledError", "scores_of"]

_SCORES_ARE_LABELS = ("RidgeClassifier", "RidgeClassifierCV", "LinearSVC", "Perceptron", "PassiveAggressiveClassifier")
_REGRESSORS = frozenset(
    {
        "ARDRegression", "BayesianRidge", "ElasticNet", "ElasticNetCV", "HuberRegressor", "Lars", "Lasso", "LassoCV",
        "LassoLars", "LinearRegression", "LinearSVR", "QuantileRegressor", "Ridge", "RidgeCV", "SGDRegressor",
        "TheilSenRegressor", "OrthogonalMatchingPursuit",
    }
)  # fmt: skip


class NotCompiledError(Exception):
    """This estimator has no compiled form; the text says why."""


def scores_of(final: Any) -> tuple[Scores, str]:
    """Return an estimator's scores and how they become outputs, one of `compiled.forms.FINISHES`.

    Raises:
        NotCompiledError: it is none of those that are read here.
        Unavailable: trees, and there is no C compiler.
    """
    name = type(final).__name__
    if not type(final).__module__.startswith("sklearn."):
        raise NotCompiledError(f"a {name} is not scikit-learn's own")
    if name.startswith("HistGradientBoosting"):
        return _hist(final)
    if name.startswith("GradientBoosting"):
        return _gradient(final)
    if name in ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor"):
        return _forest(final, final.estimators_)
    if name in ("DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor"):
        return _forest(final, [final])
    if name in ("LogisticRegression", "LogisticRegressionCV", "SGDClassifier", *_SCORES_ARE_LABELS):
        return _classifier(final, name)
    if name in _REGRESSORS and np.ndim(final.intercept_) == 0 and np.ndim(final.coef_) == 1:
        return Linear(np.asarray(final.coef_, np.float64), np.asarray(final.intercept_, np.float64)), "value"
    if name in _REGRESSORS and np.shape(final.intercept_) == (1,) and np.ndim(final.coef_) == 1:
        return Linear(np.asarray(final.coef_, np.float64), np.asarray(final.intercept_, np.float64)), "value"
    if name in ("PoissonRegressor", "GammaRegressor", "TweedieRegressor") and _is_log(final._base_loss):
        return Linear(np.asarray(final.coef_, np.float64), np.asarray(final.intercept_, np.float64)), "exponential"
    raise NotCompiledError(f"a {name} is neither trees nor linear")


def _is_log(loss: Any) -> bool:
    return type(loss.link).__name__ == "LogLink"


def _classifier(final: Any, name: str) -> tuple[Scores, str]:
    scores = Linear(np.asarray(final.coef_, np.float64), np.asarray(final.intercept_, np.float64))
    if name in _SCORES_ARE_LABELS or not hasattr(final, "predict_proba"):
        return scores, "label"
    if name == "SGDClassifier" and (final.loss != "log_loss" or len(final.classes_) > 2):
        raise NotCompiledError(f"the probabilities of a {name} with the loss {final.loss} are not compiled")
    return scores, "positive" if len(final.classes_) == 2 else "several"


def _boosted_finish(final: Any, two: str, several: str) -> str:
    loss = type(final._loss).__name__
    if hasattr(final, "classes_"):
        if loss == "HalfBinomialLoss":
            return two
        if loss == "HalfMultinomialLoss":
            return several
        raise NotCompiledError(f"the loss {loss} is not compiled")
    link = type(final._loss.link).__name__
    if link == "IdentityLink":
        return "value"
    if link == "LogLink":
        return "exponential"
    raise NotCompiledError(f"the link {link} is not compiled")


def _hist(final: Any) -> tuple[Scores, str]:
    finish = _boosted_finish(final, "half", "several_by_column")
    outputs = len(final._predictors[0])
    trees, sets, first = [], [np.zeros((0, 8), np.uint32)], 0
    for tree in (tree for stage in final._predictors for tree in stage):
        given = tree.nodes
        nodes = np.zeros(len(given), NODE)
        leaf = given["is_leaf"] != 0
        categorical = (given["is_categorical"] != 0) & ~leaf
        nodes["threshold"] = np.where(leaf, given["value"], given["num_threshold"])
        nodes["threshold"][categorical] = given["bitset_idx"][categorical] + first
        nodes["feature"] = np.where(leaf, 0, given["feature_idx"])
        nodes["flags"] = np.where(leaf, 0, (given["missing_go_to_left"] != 0) + 2 * categorical)
        trees.append(_children(nodes, leaf, given["left"], given["right"]))
        sets.append(np.asarray(tree.raw_left_cat_bitsets, np.uint32).reshape(-1, 8))
        first += len(sets[-1])
    features = int(final._bin_mapper.n_bins_non_missing_.shape[0])
    joined = np.concatenate(sets)
    known = None
    if len(joined):
        words, place = final._bin_mapper.make_known_categories_bitsets()
        known = np.zeros((features, 8), np.uint32)
        is_categorical = np.asarray(final.is_categorical_, bool)
        known[is_categorical] = np.asarray(words).reshape(-1, 8)[np.asarray(place)[is_categorical]]
    return Trees(
        features,
        *_forest_of(trees),
        np.tile(np.arange(outputs), len(final._predictors)),
        np.asarray(final._baseline_prediction, np.float64).ravel() + 0.0,
        np.zeros((0, 1)),
        sets=joined if len(joined) else None,
        known=known,
    ), finish


def _gradient(final: Any) -> tuple[Scores, str]:
    finish = _boosted_finish(final, "sign", "several")
    if final.init_ != "zero" and type(final.init_).__module__.partition(".")[2] != "dummy":
        raise NotCompiledError("the model begins with the answers of another estimator")
    features = final.n_features_in_
    base = final._raw_predict_init(np.zeros((1, features), np.float32))[0]
    trees = [_tree(tree.tree_, True)[0] for stage in final.estimators_ for tree in stage]
    outputs = np.tile(np.arange(len(base)), len(final.estimators_))
    leaves = np.zeros((0, 1))
    scale = float(final.learning_rate)
    return Trees(
        features, *_forest_of(trees), outputs, base, leaves, scale=scale, is_single=True, takes_missing=False
    ), finish


def _forest(final: Any, estimators: Sequence[Any]) -> tuple[Scores, str]:
    if final.n_outputs_ > 1:
        raise NotCompiledError("the model has several targets")
    is_classifier = hasattr(final, "classes_")
    outputs = len(final.classes_) if is_classifier else 1
    found = [_tree(estimator.tree_, False) for estimator in estimators]
    leaves = np.concatenate([values for _, values in found])
    first = np.cumsum([0, *(len(values) for _, values in found[:-1])])
    trees = []
    for (nodes, _), start in zip(found, first, strict=True):
        leaf = nodes["left"] == nodes["right"]
        if outputs > 1:
            nodes["flags"][leaf] += 8 * int(start)
        else:
            nodes["threshold"][leaf] = leaves[start + (nodes["flags"][leaf] >> 3), 0]
        trees.append(nodes)
    return Trees(
        int(final.n_features_in_),
        *_forest_of(trees),
        np.zeros(len(trees), np.int64),
        np.zeros(outputs),
        leaves if outputs > 1 else np.zeros((0, 1)),
        divisor=float(len(estimators)),
        is_single=True,
        takes_missing=bool(estimators[0].__sklearn_tags__().input_tags.allow_nan),
    ), "shares" if is_classifier else "value"


def _tree(tree: Any, has_one_value: bool) -> tuple[Column, Column]:
    """Return the nodes of one tree of `sklearn.tree`, its leaves numbered in `flags`, and their values."""
    nodes = np.zeros(tree.node_count, NODE)
    leaf = tree.children_left == -1
    nodes["threshold"] = np.where(leaf, 0.0, tree.threshold)
    nodes["feature"] = np.where(leaf, 0, tree.feature)
    nodes["flags"] = np.where(leaf, 0, tree.missing_go_to_left != 0)
    values = tree.value[leaf][:, 0, :]
    if has_one_value:
        nodes["threshold"][leaf] = values[:, 0]
    else:
        nodes["flags"][leaf] = 8 * np.arange(len(values))
    return _children(nodes, leaf, tree.children_left, tree.children_right), values


def _children(nodes: Column, leaf: Column, left: Column, right: Column) -> Column:
    at = np.arange(len(nodes))
    nodes["left"], nodes["right"] = np.where(leaf, at, left), np.where(leaf, at, right)
    return nodes


def _forest_of(trees: Sequence[Column]) -> tuple[Column, Column]:
    """Return all nodes in one array, children renumbered, and each tree's first node."""
    roots = np.cumsum([0, *(len(tree) for tree in trees[:-1])])
    for tree, root in zip(trees, roots, strict=True):
        tree["left"] += root
        tree["right"] += root
    return np.concatenate(trees), roots
