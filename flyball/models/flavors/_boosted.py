"""What the flavours of boosted trees share: a matrix from checked columns, names of the outputs, safe trees.

Models of XGBoost and LightGBM take numbers; a category is the number of its text in a list. That list is kept in
`feed.json`, so that serving needs no data frames. A text that is not in it counts as missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from flyball.errors import Corrupt, InvalidInput, listed
from flyball.models import _frames
from flyball.models.flavors._sklearn_outputs import named, tidy
from flyball.models.signature import Column, Signature, infer_signature

__all__ = ["Boosted", "Feed", "check_walks", "described", "feed_for", "finished", "matrix_of", "plain_rows"]

KINDS = ("numbers", "binary", "classes", "labels", "several")


@dataclass(frozen=True)
class Feed:
    """How a model is fed and its raw answer read.

    Attributes:
        order: the inputs in the order of the model's features.
        categories: input → its texts; the place of a text is what the model knows it by.
        kind: what the raw answer is: "numbers" as they are; of a classifier the probability of the second class
            ("binary"), of all classes ("classes"), the number of the class ("labels"), or a probability for each of
            several yes-or-no targets ("several").
        classes: the labels, in order; None: they are 0, 1, 2…
        missing: a number that means "missing" besides NaN.
    """

    order: Sequence[str]
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kind: str = "numbers"
    classes: Sequence[Any] | None = None
    missing: float | None = None

    def to_bytes(self) -> bytes:
        """Return JSON."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes, signature: Signature) -> Feed:
        """Read what `to_bytes` wrote. Raises Corrupt: it is something else, or not of this signature."""
        try:
            found = cls(**json.loads(data))
            fits = sorted(found.order) == sorted(one.name for one in signature.inputs)
            if not fits or found.kind not in KINDS or not set(found.categories) <= set(found.order):
                raise ValueError
        except (ValueError, TypeError, AttributeError):
            raise Corrupt("the model's feed.json is damaged; register the model again") from None
        return found


@dataclass(frozen=True)
class Boosted:
    """A model in memory: called with checked columns, it answers them.

    Attributes:
        predict: checked columns → outputs.
        contribute: checked columns → by the library's own TreeSHAP, (rows, features + 1), of several classes (rows,
            classes, features + 1); the last feature is the base. The sum over features is the raw score.
    """

    feed: Feed
    predict: Callable[[Mapping[str, Column]], dict[str, Column]]
    contribute: Callable[[Mapping[str, Column]], Column]

    def __call__(self, columns: Mapping[str, Column]) -> dict[str, Column]:
        return self.predict(columns)


def feed_for(
    signature: Signature, features: Sequence[str] | None, width: int, known: Mapping[int, Sequence[str]], feed: Feed
) -> Feed:
    """Return `feed` with the order and the categories that fit a signature.

    Args:
        features: what the model calls its features; None: it knows places only.
        width: how many it has.
        known: place → texts, as the model or its training frame had them.

    Raises:
        InvalidInput: the inputs are not the model's features, or one is a time, or a text without categories.
    """
    inputs = [one.name for one in signature.inputs]
    if len(inputs) != width:
        raise InvalidInput(f"the model was trained on {width} columns, but its signature has {len(inputs)} inputs")
    order = inputs
    if features is not None and sorted(features) == sorted(inputs):
        order = list(features)
    elif features is not None and [name.replace(" ", "_") for name in inputs] != list(features):
        raise InvalidInput(
            f"the model was trained on {listed(features, 12)}, but the example has {listed(inputs, 12)}; give the "
            "example in the form of the training data"
        )
    fields = {one.name: one for one in signature.inputs}
    categories: dict[str, Sequence[str]] = {}
    for place, name in enumerate(order):
        one = fields[name]
        if one.shape is not None or one.dtype == "datetime":
            raise InvalidInput(f'the input "{name}" is a {one.dtype}; the model takes numbers and categories only')
        if one.dtype == "string":
            if place not in known:
                raise InvalidInput(
                    f'the input "{name}" is a text, and the model knows no categories of it; train on a pandas frame '
                    "where it is of the type category, and give the example as such a frame"
                )
            categories[name] = [str(text) for text in known[place]]
    return replace(feed, order=order, categories=categories)


def matrix_of(feed: Feed) -> Callable[[Mapping[str, Column]], Column]:
    """Return what makes the model's float64 matrix of shape (rows, features) from checked columns."""
    codes = {name: {text: float(at) for at, text in enumerate(texts)} for name, texts in feed.categories.items()}
    order, missing = list(feed.order), feed.missing

    def matrix(columns: Mapping[str, Column]) -> Column:
        table = np.empty((len(columns[order[0]]), len(order)))
        for at, name in enumerate(order):
            known = codes.get(name)
            if known is None:
                table[:, at] = columns[name]
            else:
                table[:, at] = [known.get(text, np.nan) for text in columns[name].tolist()]
        if missing is not None:
            table[table == missing] = np.nan
        return table

    return matrix


def finished(feed: Feed, raw: Any) -> dict[str, Column]:
    """Return outputs by name from what the library answers."""
    found = np.asarray(raw, np.float64)
    if feed.kind == "numbers":
        return {"prediction": found}
    if feed.kind == "several":
        return {"prediction": (found > 0.5).astype(np.int64), "probabilities": found}
    if feed.kind == "labels":
        return {"prediction": _labels(feed, found.astype(np.int64))}
    if feed.kind == "binary":
        return {"prediction": _labels(feed, (found > 0.5).astype(np.int64)), "probability": found}
    return {"prediction": _labels(feed, found.argmax(axis=1)), **named(found)}


def plain_rows(example: Any, features: Sequence[str] | None) -> Any:
    """Return the example as a library takes it: dicts and lists as a matrix of numbers, all else as it is."""
    if _frames.library_of(example) != "python":
        return example
    columns = _frames.values_of(example)
    order = list(features) if features and set(features) == set(columns) else list(columns)
    try:
        table = np.array([columns[name] for name in order], np.float64)  # None becomes NaN
    except (TypeError, ValueError):
        raise InvalidInput(
            "the example holds texts; give it as the pandas frame that the model was trained on"
        ) from None
    return table.T


def described(example: Any, answers: Mapping[str, Column] | None, classes: Sequence[Any] | None) -> Signature:
    """Return the signature; fractions and categories may be missing, since trees know where such a value goes."""
    if example is None:
        raise InvalidInput("the model's inputs have no types of their own; give example=X[:5] or a signature")
    plain = infer_signature(example)
    open_ = [one.name for one in plain.inputs if one.dtype in ("float64", "string")]
    found = infer_signature(example, answers, nullable=open_)
    if classes is None:
        return found
    texts = tuple(str(each) for each in classes)
    outputs = (one if one.name == "probability" else replace(one, categories=texts) for one in found.outputs)
    return Signature(found.inputs, tuple(outputs))


def check_walks(left: Column, right: Column) -> None:
    """Prove that a walk from node 0 stays within the arrays and ends; a negative child is a leaf or none.

    Raises:
        Corrupt: it does not; following such a tree would read foreign memory or never end.
    """
    level, seen, count = np.zeros(1, np.int64), 1, len(left)
    while len(level):
        children = np.concatenate([left[level], right[level]])
        level = children[children >= 0]
        seen += len(level)
        if len(right) != count or seen > count or bool((level >= count).any()):
            raise Corrupt("a tree of the model points outside its own arrays; no library of trees made this file")


def _labels(feed: Feed, places: Column) -> Column:
    return places if feed.classes is None else tidy(np.asarray(feed.classes))[places]
