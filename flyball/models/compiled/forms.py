"""A compiled model: columns → matrix → scores → named outputs, with the proof that it answers as the model does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flyball.errors import Corrupt, FlyballError, InvalidInput
from flyball.models._columns import Column
from flyball.models.compiled import kernel, stored
from flyball.models.compiled.matrix import Matrix
from flyball.models.compiled.scores import Scores, read_scores

__all__ = ["FINISHES", "FORMAT", "Form", "agree"]

FORMAT = 1
_PROOF_ROWS = 64
_ULPS = 4

Predict = Callable[[Mapping[str, Column]], dict[str, Column]]


class Form:
    """A compiled model; called with checked columns, it answers as `LoadedModel.predict` says.

    Arguments:
        finish: how scores become outputs, one of `FINISHES`.
        classes: the labels, of a classifier.
        proof: a matrix and what the model answered to it; `check` asks the form the same.
    """

    def __init__(
        self,
        matrix: Matrix,
        scores: Scores,
        finish: str,
        classes: Column | None = None,
        proof: tuple[Column, Mapping[str, Column]] | None = None,
    ) -> None:
        self.matrix = matrix
        self.scores = scores
        self.finish = finish
        self.classes = classes
        self.proof = proof
        self._finish = FINISHES[finish]

    @property
    def path(self) -> str:
        """What answers: trees or linear."""
        return self.scores.path

    @property
    def ulps(self) -> int:
        """How many units in the last place an answer may differ: none of trees, 4 of a sum that BLAS orders."""
        return _ULPS if self.path == "linear" else 0

    def __call__(self, columns: Mapping[str, Column]) -> dict[str, Column]:
        return self._finish(self.scores(self.matrix(columns)), self.classes)

    def of_matrix(self, table: Column) -> dict[str, Column]:
        """Answer the rows of a matrix, which may be changed."""
        return self._finish(self.scores(table), self.classes)

    def proved(self, table: Column, answer: Mapping[str, Column]) -> Form:
        """Return the form with the first rows of a matrix and the model's own answer to them."""
        rows = slice(0, _PROOF_ROWS)
        kept = {name: values[rows] for name, values in answer.items()}
        return Form(self.matrix, self.scores, self.finish, self.classes, (table[rows].copy(), kept))

    def check(self) -> None:
        """Raise Corrupt unless the form answers its proof here as the model did where it was made."""
        if self.proof is None:
            raise Corrupt("the compiled form has no proof")
        table, expected = self.proof
        if not same(self.of_matrix(table.copy()), expected, self.ulps):
            raise Corrupt("the compiled form answers otherwise on this machine than where it was made")

    def to_bytes(self) -> bytes:
        """Return the bytes that `of` reads."""
        table, answer = self.proof if self.proof is not None else (np.empty((0, 0)), {})
        document = {
            "format": FORMAT,
            "matrix": self.matrix.document(),
            "scores": self.scores.document(),
            "finish": self.finish,
            "classes": _plain(self.classes),
            "proof": {"matrix": table, "answer": {name: _plain(values) for name, values in answer.items()}},
        }
        return stored.dumps(document)

    @classmethod
    def of(cls, data: bytes) -> Form:
        """Read a form and check it.

        Raises:
            Corrupt: it cannot be read, points outside its arrays, or answers otherwise here.
            Unavailable: trees, and there is no C compiler.
        """
        document = stored.loads(data)
        try:
            if document["format"] != FORMAT:
                raise Corrupt(f"the compiled form has format {document['format']!r}; this release reads {FORMAT}")
            proof = document["proof"]
            answer = {name: _column(values) for name, values in proof["answer"].items()}
            form = cls(
                Matrix.of(document["matrix"]),
                read_scores(document["scores"]),
                document["finish"],
                None if document["classes"] is None else _column(document["classes"]),
                (proof["matrix"], answer),
            )
            form.check()
        except FlyballError:
            raise
        except Exception as error:
            raise Corrupt(f"the compiled form is not as this release writes it: {error!r:.200}") from error
        return form


def same(found: Mapping[str, Column], expected: Mapping[str, Column], ulps: int = 0) -> bool:
    """Whether answers agree: names, types and bits; numbers of a linear model within `ulps` units in the last place.

    A sum of products depends on how BLAS orders it, which differs with the number of rows, in scikit-learn too.
    """
    if found.keys() != expected.keys():
        return False
    for name, want in expected.items():
        have = found[name]
        if have.dtype != want.dtype or have.shape != want.shape:
            return False
        if want.dtype.kind == "f" and ulps:
            with np.errstate(invalid="ignore"):
                near = np.abs(have - want) <= ulps * np.spacing(np.maximum(np.abs(have), np.abs(want)))
            if not (near | (np.isnan(have) & np.isnan(want))).all():
                return False
        elif not np.array_equal(have, want, equal_nan=want.dtype.kind == "f"):
            return False
    return True


def agree(fast: Predict, slow: Predict, trial: Mapping[str, Column], ulps: int = 0) -> str | None:
    """Return None where both ways answer a trial alike, one by one and together, else the first thing that differs.

    Rows that `slow` refuses must be refused by `fast` too.
    """
    count, answered = len(next(iter(trial.values()))), 0
    for start, stop in [(0, count), (0, min(count, 16)), *((i, i + 1) for i in range(min(count, 40)))]:
        columns = {name: array[start:stop] for name, array in trial.items()}
        expected, found = _answer(slow, columns), _answer(fast, columns)
        if expected is None or found is None:
            if (expected is None) != (found is None):
                return f"one way refuses rows {start} to {stop - 1} of the trial and the other does not"
            continue
        if not same(found, expected, ulps):
            return f"the answers to rows {start} to {stop - 1} of the trial differ"
        answered += 1
    return None if answered else "the model refuses every row of the trial"


def _answer(predict: Predict, columns: Mapping[str, Column]) -> dict[str, Column] | None:
    try:
        return predict(columns)
    except InvalidInput:
        return None


# from scores to outputs

_Finish = Callable[[Column, Column | None], dict[str, Column]]


def _expit(values: Column) -> Column:
    """1 / (1 + exp(−x)) by the C library's exp, which NumPy's own differs from in the last bit."""
    try:
        return kernel.expit(np.ascontiguousarray(values))
    except FlyballError:
        return np.array([_expit_of(value) for value in values.tolist()])


def _expit_of(value: float) -> float:
    try:
        return 1.0 / (1.0 + math.exp(-value))
    except OverflowError:
        return 0.0


def _softmax(scores: Column) -> Column:
    found: Column = scores - scores.max(axis=1).reshape(-1, 1)
    np.exp(found, out=found)
    found /= found.sum(axis=1).reshape(-1, 1)
    return found


def _labels(classes: Column | None, places: Column) -> Column:
    assert classes is not None
    found: Column = classes.take(places)
    return found


def _value(scores: Column, _: Column | None) -> dict[str, Column]:
    return {"prediction": scores[:, 0].copy()}


def _exponential(scores: Column, _: Column | None) -> dict[str, Column]:
    return {"prediction": np.exp(scores[:, 0].copy())}


def _half(scores: Column, classes: Column | None) -> dict[str, Column]:
    """Two classes by one score, the label being the likelier one: HistGradientBoosting."""
    likely = _expit(scores[:, 0])
    return {"prediction": _labels(classes, likely > 1 - likely), "probability": likely}


def _sign(scores: Column, classes: Column | None) -> dict[str, Column]:
    """The label by the score's sign, zero being the second: GradientBoosting."""
    likely = _expit(scores[:, 0])
    return {"prediction": _labels(classes, scores[:, 0] >= 0), "probability": likely}


def _positive(scores: Column, classes: Column | None) -> dict[str, Column]:
    """The label by the score's sign, zero being the first: linear models."""
    likely = _expit(scores[:, 0])
    return {"prediction": _labels(classes, scores[:, 0] > 0), "probability": likely}


def _label(scores: Column, classes: Column | None) -> dict[str, Column]:
    """Only a label: linear models without probabilities."""
    places = scores[:, 0] > 0 if scores.shape[1] == 1 else scores.argmax(axis=1)
    return {"prediction": _labels(classes, places)}


def _several(scores: Column, classes: Column | None) -> dict[str, Column]:
    return {"prediction": _labels(classes, scores.argmax(axis=1)), "probabilities": _softmax(scores)}


def _several_by_column(scores: Column, classes: Column | None) -> dict[str, Column]:
    """As `several`, summed over a matrix that lies column by column: HistGradientBoosting."""
    likely = _softmax(np.asfortranarray(scores))
    return {"prediction": _labels(classes, likely.argmax(axis=1)), "probabilities": likely}


def _shares(scores: Column, classes: Column | None) -> dict[str, Column]:
    """Scores that are probabilities: forests and single trees."""
    found = {"prediction": _labels(classes, scores.argmax(axis=1))}
    if scores.shape[1] == 2:
        return {**found, "probability": scores[:, 1].copy()}
    return {**found, "probabilities": scores}


FINISHES: Mapping[str, _Finish] = {
    "value": _value,
    "exponential": _exponential,
    "half": _half,
    "sign": _sign,
    "positive": _positive,
    "label": _label,
    "several": _several,
    "several_by_column": _several_by_column,
    "shares": _shares,
}


def _plain(values: Column | None) -> Any:
    """Texts as a list under a name of their own, since they cannot be an array without a pickle."""
    if values is None or values.dtype != object:
        return values
    return {"texts": values.tolist()}


def _column(values: Any) -> Column:
    if isinstance(values, Mapping):
        texts: Sequence[Any] = values["texts"]
        found = np.empty(len(texts), object)
        found[:] = texts
        return found
    assert isinstance(values, np.ndarray)
    return values
