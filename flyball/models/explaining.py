"""What each input did for one answer: contributions that add up from a base to the model's raw score.

Exact where the model's form allows it. Compiled trees and linear models (`compiled.shapley`) are compared with the rows
that the bundle keeps as its example; XGBoost and LightGBM explain themselves by path-dependent TreeSHAP, whose base
is the training data's. Every other model is only a function. It is sampled if that is asked for: Shapley values over
permutations and their reverses, from each row of the example to the row itself (Štrumbelj and Kononenko 2014; Mitchell
et al. 2022, "Sampling Permutations for Shapley Value Estimation"). A seed makes them the same every time, and they add
up too, but each is an estimate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyball.errors import InvalidInput
from flyball.models._columns import Column
from flyball.models.compiled.forms import Form
from flyball.models.compiled.shapley import players_of, shares
from flyball.models.flavors._boosted import Boosted
from flyball.models.signature import Signature

__all__ = ["MOST_ROWS", "Explanation", "explained"]

MOST_ROWS = 100  # in one request; each costs as much as thousands of predictions
_MOST_SAMPLED_ROWS = 10
_EVALUATIONS = 2000  # of the model for one sampled row, at the least
_MOST_SAMPLED_INPUTS = 500
_CHUNK = 4096  # rows in one call of a sampled model
_LONGEST_S = 20.0

_SCALES = {  # of a compiled form's finish: the output that is explained, and in what its score is
    "value": ("prediction", "value"),
    "exponential": ("prediction", "log"),
    "half": ("probability", "log-odds"),
    "sign": ("probability", "log-odds"),
    "positive": ("probability", "log-odds"),
    "label": ("prediction", "score"),
    "several": ("probabilities", "score"),
    "several_by_column": ("probabilities", "score"),
    "shares": ("probabilities", "probability"),
}

Predict = Callable[[Mapping[str, Column]], dict[str, Column]]


@dataclass(frozen=True)
class Explanation:
    """For each row: base + the sum of contributions = score.

    Attributes:
        method: linear, trees (both exact, against the example), trees_path_dependent (exact, against what training
            counted at the trees' nodes) or sampled.
        output: the output that is explained.
        scale: in what base, score and contributions are: `value` of the output, its `log`, the `log-odds` of the second
            class, a `probability`, or a class's `score` before all of them are made probabilities.
        base: the score on average over what the row is compared with; shape (rows,).
        score: the row's raw score; shape (rows,).
        contributions: input → what it did; shape (rows,) each.
        classes: of a model with more than two classes: the one that is explained, which is the row's likeliest.
    """

    method: str
    output: str
    scale: str
    base: Column
    score: Column
    contributions: Mapping[str, Column]
    classes: Column | None = None

    def records(self) -> list[dict[str, Any]]:
        """Return plain JSON values, one object a row."""
        shared = {"method": self.method, "output": self.output, "scale": self.scale}
        base, score = self.base.tolist(), self.score.tolist()
        lists = {name: values.tolist() for name, values in self.contributions.items()}
        classes = None if self.classes is None else self.classes.tolist()
        return [
            {
                **shared,
                **({} if classes is None else {"class": classes[row]}),
                "base": base[row],
                "score": score[row],
                "contributions": {name: values[row] for name, values in lists.items()},
            }
            for row in range(len(base))
        ]


def explained(
    own: Any,
    predict: Predict,
    signature: Signature,
    columns: Mapping[str, Column],
    example: Mapping[str, Column] | None,
    is_approximate: bool = False,
) -> Explanation:
    """Return what each input did for a model's answers.

    Args:
        own: what the model's flavour loaded; a form or a boosted model tells exactly.
        predict: the model as a function.
        columns: as the signature checked them.
        example: the rows that the model's bundle keeps, checked too.
        is_approximate: sample where there is no exact way.

    Raises:
        InvalidInput: there is no exact way and sampling was not asked for, no example to compare with, too many rows,
            or outputs that are no single number.
        StepFailed: the model failed.
    """
    rows = len(next(iter(columns.values())))
    if rows > MOST_ROWS:
        raise InvalidInput(f"{rows} rows are to be explained; at most {MOST_ROWS} are at once, ask for them in parts")
    if isinstance(own, Boosted):
        return _of_boosted(own, signature, columns)
    if not isinstance(own, Form) and not is_approximate:
        raise InvalidInput(
            "the model has no exact explanation: it is not linear, and of no trees that are read here; "
            '"approximate": true samples one'
        )
    if example is None:
        raise InvalidInput(
            "the model cannot be explained: its bundle keeps no example to compare with; give register an example"
        )
    if isinstance(own, Form):
        return _of_form(own, signature, columns, example)
    if rows > _MOST_SAMPLED_ROWS:
        raise InvalidInput(f"{rows} rows are to be sampled; at most {_MOST_SAMPLED_ROWS} are at once")
    return _sampled(predict, signature, columns, example)


def _of_form(
    form: Form, signature: Signature, columns: Mapping[str, Column], example: Mapping[str, Column]
) -> Explanation:
    names = [field.name for field in signature.inputs]
    player = players_of(form.matrix, names)
    table, background = form.matrix(columns), form.matrix(example)
    # The scores may round a matrix in place.
    found = shares(form.scores, table, background, player, len(names))
    score, base = form.scores(table.copy()), form.scores(background.copy()).mean(axis=0)
    output, scale = _SCALES[form.finish]
    classes, chosen = None, np.zeros(len(score), np.int64)
    if score.shape[1] == 2 and form.finish == "shares":
        output, chosen = "probability", chosen + 1
    elif score.shape[1] > 1:
        chosen = score.argmax(axis=1)
        classes = None if form.classes is None else form.classes.take(chosen)
    method = "linear" if form.path == "linear" else "trees"
    return _picked(method, output, scale, base, score, found, names, chosen, classes)


def _of_boosted(model: Boosted, signature: Signature, columns: Mapping[str, Column]) -> Explanation:
    feed = model.feed
    if feed.kind == "several":
        raise InvalidInput(
            "the model has several yes-or-no targets, which are not explained; register one model for each"
        )
    found = model.contribute(columns)
    if found.ndim == 2:
        found = found[:, None, :]
    if found.shape[1] > 1 and feed.kind == "numbers":
        raise InvalidInput("the model answers several numbers, which are not explained; register one model for each")
    score = found.sum(axis=2)
    names = [field.name for field in signature.inputs]
    order = [feed.order.index(name) for name in names]
    chosen, classes = np.zeros(len(score), np.int64), None
    output, scale = ("prediction", "score") if feed.kind == "numbers" else ("probability", "log-odds")
    if found.shape[1] > 1:
        chosen, output, scale = score.argmax(axis=1), "probabilities", "score"
        classes = chosen if feed.classes is None else np.asarray(feed.classes)[chosen]
    base = np.take_along_axis(found[:, :, -1], chosen[:, None], 1)[:, 0]
    shown = np.moveaxis(found[:, :, order], 1, 2)
    return _picked("trees_path_dependent", output, scale, base, score, shown, names, chosen, classes)


def _picked(
    method: str,
    output: str,
    scale: str,
    base: Column,
    score: Column,
    found: Column,
    names: list[str],
    chosen: Column,
    classes: Column | None,
) -> Explanation:
    """Return the explanation of the chosen one of several scores, a row each."""
    rows = np.arange(len(score))
    picked = found[rows, :, chosen]  # (rows, inputs)
    return Explanation(
        method,
        output,
        scale,
        base if method == "trees_path_dependent" else base[chosen],
        score[rows, chosen],
        {name: np.ascontiguousarray(picked[:, at]) for at, name in enumerate(names)},
        classes,
    )


# sampled


def _sampled(
    predict: Predict, signature: Signature, columns: Mapping[str, Column], example: Mapping[str, Column]
) -> Explanation:
    names = [field.name for field in signature.inputs]
    if len(names) > _MOST_SAMPLED_INPUTS or any(field.shape is not None for field in signature.inputs):
        raise InvalidInput(
            f"the model cannot be sampled: it takes a tensor, or more than {_MOST_SAMPLED_INPUTS} inputs"
        )
    answers = predict(columns)
    output, chosen = _amount(answers, signature)
    score = _amounts(answers, output, chosen)
    known = {name: np.asarray(example[name]) for name in names}
    deadline = time.monotonic() + _LONGEST_S
    found = []
    for row in range(len(score)):
        own = {name: np.asarray(columns[name])[row : row + 1] for name in names}
        which = None if chosen is None else int(chosen[row])
        found.append(_sampled_row(predict, names, own, known, lambda a, w=which: _amounts(a, output, w), deadline))  # type: ignore[misc]
    classes = None
    if chosen is not None:
        labels = next((f.categories for f in signature.outputs if f.name == output), None)
        classes = chosen if labels is None else np.array(labels, object)[chosen]
    done = np.array([contributions for _, contributions in found])
    return Explanation(
        "sampled",
        output,
        "value" if output == "prediction" else "probability",
        np.array([base for base, _ in found]),
        score,
        {name: np.ascontiguousarray(done[:, at]) for at, name in enumerate(names)},
        classes,
    )


def _sampled_row(
    predict: Predict,
    names: list[str],
    own: Mapping[str, Column],
    known: Mapping[str, Column],
    amounts: Callable[[Mapping[str, Column]], Column],
    deadline: float,
) -> tuple[float, Column]:
    """Return the base and what each input did, on average over permutations that start from each row of the example."""
    random = np.random.default_rng(0)
    width, others = len(names), len(known[names[0]])
    rounds = max(1, math.ceil(_EVALUATIONS / (2 * others * (width + 1))))
    base, done, walks = 0.0, np.zeros(width), 0
    steps = np.arange(width + 1)
    at_once = max(1, _CHUNK // (width + 1))
    order = np.argsort(random.random((rounds * others, width)), axis=1)
    places = np.concatenate([np.argsort(order, axis=1), width - 1 - np.argsort(order, axis=1)])  # and their reverses
    start = np.tile(np.arange(others), 2 * rounds)
    for first in range(0, len(places), at_once):
        if time.monotonic() > deadline:
            raise InvalidInput(f"the model is too slow to be sampled: it took more than {_LONGEST_S:.0f} s")
        place, other = places[first : first + at_once], start[first : first + at_once]
        rows = {}
        for at, name in enumerate(names):
            is_own = place[:, at, None] < steps  # (walks, steps): the input has changed by then
            rows[name] = np.where(is_own, own[name][0], known[name][other][:, None]).astype(known[name].dtype).ravel()
        values = amounts(predict(rows)).reshape(len(place), width + 1)
        gains = np.diff(values, axis=1)
        done += np.take_along_axis(gains, place, 1).sum(axis=0)
        base += float(values[:, 0].sum())
        walks += len(place)
    return base / walks, done / walks


def _amount(answers: Mapping[str, Column], signature: Signature) -> tuple[str, Column | None]:
    """Return which output is an amount, and of several classes the likeliest of each row."""
    if "probability" in answers:
        return "probability", None
    if "probabilities" in answers and np.ndim(answers["probabilities"]) == 2:
        return "probabilities", np.asarray(answers["probabilities"]).argmax(axis=1)
    found = [name for name, values in answers.items() if np.ndim(values) == 1 and values.dtype.kind in "fiu"]
    is_label = any(field.name == "prediction" and field.categories for field in signature.outputs)
    if len(found) != 1 or is_label:
        raise InvalidInput(
            "the model cannot be explained: none of its outputs is a single number a row, or several are"
        )
    return found[0], None


def _amounts(answers: Mapping[str, Column], output: str, chosen: Any) -> Column:
    values = np.asarray(answers[output], np.float64)
    if chosen is None:
        return values
    picked: Column = values[np.arange(len(values)), chosen]
    return picked
