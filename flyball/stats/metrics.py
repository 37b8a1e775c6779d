"""Metrics by name: what a number says of a model, computed one way everywhere.

Gates, monitors, canaries and pages all ask here, so `auc` is the same number in each of them. A metric is two functions
of the same rows: `formula`, its value, and `influence`, how much each row contributes to its error, from which
`intervals` and `comparison` make intervals without resampling. Where sums over rows make the metric (all but auc,
average_precision and macro_f1) both come from one definition: a ratio of sums Σa / Σb, bent by a curve g.

| task | metrics |
|---|---|
| binary | auc, average_precision, log_loss, brier of the score; accuracy, precision, recall, f1 of the label |
| multiclass | accuracy, macro_f1 of the label; log_loss of the matrix of probabilities |
| regression | rmse, mae, r2, mape, bias of the value |

A metric of one's own is a `Metric` with a formula and no influence; it gets bootstrap intervals. Values agree with
scikit-learn's functions of the same names (zero where precision, recall or f1 divide by zero), with two exceptions on
purpose: mape refuses rows whose truth is 0 and r2 a truth that never varies, where scikit-learn makes numbers up.

Sources: ROC area as a U statistic with midranks, Hanley & McNeil (1982); its structural components, DeLong, DeLong &
Clarke-Pearson (1988), by one sort, after Sun & Xu (2014); influence of smooth functions of means, van der Vaart,
*Asymptotic Statistics* (1998), chapter 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput, NotFound, did_you_mean, listed

__all__ = [
    "CalibrationCurve",
    "ConfusionMatrix",
    "Curve",
    "Metric",
    "calibration_curve",
    "compute_all",
    "confusion_matrix",
    "default_metric",
    "encode",
    "metric",
    "metrics_for",
    "precision_recall_curve",
    "prediction_for",
    "roc_curve",
]

Task = Literal["binary", "multiclass", "regression"]
Floats = npt.NDArray[np.float64]
Values = npt.NDArray[Any]

MOST_POINTS = 200  # a page 800 pixels wide shows no more
MOST_CLASSES = 14  # of a confusion matrix: 14 × 14 cells can still be read
PROBABILITY_FLOOR = float(np.finfo(np.float64).eps)  # scikit-learn's, so that log_loss is the same number


@dataclass(frozen=True)
class Metric:
    """A metric: its task, which way is better, and its functions of checked rows.

    `formula` and `influence` get what `checked` returns. `influence` gives each row's contribution h, shape (rows,), to
    the error of the value: Σh = 0, and Σh² is the variance of the value over independent rows (of the sample, n − 1).
    """

    name: str
    task: Task
    higher_is_better: bool
    needs: Literal["score", "label", "proba", "value"]
    formula: Callable[[Values, Values], float]
    influence: Callable[[Values, Values], Floats] | None = None
    trials: Callable[[Values, Values], int] = lambda truth, _: len(truth)
    """How many rows bear the value: the predicted positives for precision, the smaller class for auc."""
    missing: Callable[[Values, Values], str] = lambda _truth, _prediction: ""
    """Why well-formed rows have no value, `""` when they have one."""
    low: float = -math.inf
    high: float = math.inf
    is_probability: bool = False
    """The score must lie in [0, 1]."""
    is_proportion: bool = False
    """The value is a share of `trials` rows."""
    by_class: bool = False
    """The two classes are two samples, so that the rows of the smaller one limit what can be known."""
    method: str = "influence"
    """What `influence` is called where intervals say how they were made."""
    has_direction: bool = True
    """False where neither more nor less is better (bias), so that nothing can be compared."""

    def compute(self, truth: npt.ArrayLike, prediction: npt.ArrayLike) -> float:
        """Return the value.

        Args:
            truth: shape (rows,): 0/1 or booleans (binary), labels or class numbers (multiclass), numbers (regression).
            prediction: shape (rows,), or (rows, classes) where `needs` is "proba".

        Raises:
            InvalidInput: malformed rows (`checked`), or rows that have no value of this metric (`missing`).
        """
        truth, prediction = self.checked(truth, prediction)
        reason = self.missing(truth, prediction)
        if reason:
            raise InvalidInput(reason)
        return self.formula(truth, prediction)

    def checked(self, truth: npt.ArrayLike, prediction: npt.ArrayLike) -> tuple[Values, Values]:
        """Return truth and prediction as the formula wants them.

        Truth becomes booleans (binary), class numbers (multiclass) or float64; labels become booleans or class numbers.

        Raises:
            InvalidInput: different lengths, no rows, a wrong shape, NaN or infinite values, a truth that is not of the
                task, labels or probabilities that are none.
        """
        truth, prediction = np.asarray(truth), np.asarray(prediction)
        _check_shapes(self, truth, prediction)
        if self.needs == "label" and self.task == "multiclass":
            codes = _codes(truth, prediction)
            return codes[: len(truth)], codes[len(truth) :]
        prediction = _numbers(prediction, "prediction")
        if self.task == "regression":
            return _numbers(truth, "truth"), prediction
        if self.task == "multiclass":
            return _check_probabilities(truth, prediction), prediction
        answer = _zero_or_one(truth, "truth", "for more than two classes take the metrics of the task multiclass")
        if self.needs == "label":
            hint = "turn scores into labels with score >= threshold"
            return answer, _zero_or_one(prediction, "prediction", hint)
        if self.is_probability:
            _check_unit_range(self.name, prediction)
        return answer, prediction


@dataclass(frozen=True)
class Curve:
    """Points of a curve, at most 200, and the score from which on a row counts as positive at each."""

    x: Floats
    y: Floats
    threshold: Floats


@dataclass(frozen=True)
class CalibrationCurve:
    """For each bin that has rows: the mean score, the share of positives and the number of rows."""

    predicted: Floats
    observed: Floats
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts, row = truth, column = prediction, in the order of `labels`."""

    labels: tuple[Any, ...]
    counts: npt.NDArray[np.int64]


# ---- by name -----------------------------------------------------------------------------------------------------


def metric(name: str, task: str | None = None) -> Metric:
    """Return the metric of this name; where tasks share a name (accuracy, log_loss) and none is given, the binary one.

    Raises:
        NotFound: no metric has this name in the task, or no task has this name.
    """
    tasks = [_task(task)] if task is not None else list(METRICS)
    for one in tasks:
        if name in METRICS[one]:
            return METRICS[one][name]
    known = sorted({known for one in tasks for known in METRICS[one]})
    of_task = f" for the task {task}" if task is not None else ""
    raise NotFound(f'no metric{of_task} is called "{name}"{did_you_mean(name, known)} (known: {listed(known, 16)})')


def metrics_for(task: str) -> tuple[Metric, ...]:
    """Return all metrics of a task, the default first."""
    return tuple(METRICS[_task(task)].values())


def default_metric(task: str) -> Metric:
    """Return the metric that stands for a task when nobody chose: auc, accuracy, rmse."""
    return metrics_for(task)[0]


def compute_all(
    task: str,
    truth: npt.ArrayLike,
    prediction: npt.ArrayLike,
    names: Iterable[str] | None = None,
    *,
    threshold: float = 0.5,
    classes: Sequence[Any] | None = None,
) -> dict[str, float]:
    """Return metrics of one task by name, from one prediction.

    Args:
        truth: shape (rows,).
        prediction: score of class 1 (binary), matrix of probabilities or labels (multiclass), value (regression).
        names: which; None means all that exist on these rows (no auc of one class, no mape where a truth is 0).
        threshold: the score from which on the label is 1.
        classes: what the columns of the matrix stand for, where truth holds labels and not the columns' numbers.

    Raises:
        NotFound: an unknown task or metric.
        InvalidInput: as `Metric.compute`; metrics asked for by name must exist.
    """
    found: dict[str, float] = {}
    prediction = np.asarray(prediction)
    if classes is not None:
        truth = encode(truth, classes)
        prediction = prediction if prediction.ndim == 2 else encode(prediction, classes)
    wanted = metrics_for(task) if names is None else tuple(metric(name, task) for name in names)
    for one in wanted:
        if names is None and one.needs == "proba" and prediction.ndim == 1:
            continue
        rows = one.checked(truth, prediction_for(one, prediction, threshold))
        reason = one.missing(*rows)
        if not reason:
            found[one.name] = one.formula(*rows)
        elif names is not None:
            raise InvalidInput(reason)
    return found


def prediction_for(metric: Metric, prediction: npt.ArrayLike, threshold: float = 0.5) -> Values:
    """Return the prediction as the metric needs it: scores become labels by the threshold, a matrix by argmax."""
    prediction = np.asarray(prediction)
    if metric.needs != "label":
        return prediction
    if metric.task == "multiclass":
        return prediction.argmax(axis=1) if prediction.ndim == 2 and prediction.size else prediction
    return _numbers(prediction, "prediction") >= threshold if prediction.ndim == 1 and prediction.size else prediction


def encode(labels: npt.ArrayLike, classes: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Return the position of each label in `classes`, shape (rows,).

    Raises:
        InvalidInput: a label is none of the classes.
    """
    position = {known: number for number, known in enumerate(classes)}
    values = np.asarray(labels).tolist()
    strange = [value for value in values if value not in position]
    if strange:
        raise InvalidInput(
            f"{len(strange):,} of {len(values):,} labels are no class of the model, such as {strange[0]!r}; "
            f"expected one of {listed(repr(known) for known in classes)}"
        )
    return np.array([position[value] for value in values], dtype=np.int64)


# ---- curves ------------------------------------------------------------------------------------------------------


def roc_curve(truth: npt.ArrayLike, score: npt.ArrayLike) -> Curve:
    """Return the ROC curve: x false positive rate, y true positive rate, from (0, 0) to (1, 1).

    Points are evenly spread along the curve; the threshold of the first is infinite.
    """
    ranks = _ranked("auc", truth, score)
    positive, negative = np.cumsum(ranks.positive[::-1]), np.cumsum(ranks.negative[::-1])
    x = np.concatenate([[0.0], negative / negative[-1]])
    y = np.concatenate([[0.0], positive / positive[-1]])
    kept = _spread(x + y)
    return Curve(x[kept], y[kept], np.concatenate([[math.inf], ranks.scores[::-1]])[kept])


def precision_recall_curve(truth: npt.ArrayLike, score: npt.ArrayLike) -> Curve:
    """Return the precision–recall curve: x recall, y precision, by falling threshold, evenly spread over recall."""
    ranks = _ranked("average_precision", truth, score)
    positive, negative = np.cumsum(ranks.positive[::-1]), np.cumsum(ranks.negative[::-1])
    recall = positive / positive[-1]
    kept = _spread(recall)
    return Curve(recall[kept], (positive / (positive + negative))[kept], ranks.scores[::-1][kept])


def calibration_curve(truth: npt.ArrayLike, score: npt.ArrayLike, bins: int = 10) -> CalibrationCurve:
    """Return how often rows of a score come true, in `bins` (1–200) equal parts of [0, 1]; empty bins are left out."""
    if not 1 <= bins <= MOST_POINTS:
        raise InvalidInput(f"bins is {bins}; expected a whole number from 1 to {MOST_POINTS}")
    answer, probability = metric("brier").checked(truth, score)
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probability)
    rows = np.bincount(place, minlength=bins)
    used = rows > 0
    predicted, observed = (np.bincount(place, weights=values, minlength=bins) for values in (probability, answer))
    return CalibrationCurve(predicted[used] / rows[used], observed[used] / rows[used], rows[used])


def confusion_matrix(truth: npt.ArrayLike, prediction: npt.ArrayLike, most: int = MOST_CLASSES) -> ConfusionMatrix:
    """Return the counts of truth against predicted label; beyond `most` labels the rarest are joined as "(others)"."""
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    _check_shapes(METRICS["multiclass"]["accuracy"], truth, prediction)
    codes = _codes(truth, prediction)
    labels = np.unique(np.concatenate([_plain(truth), _plain(prediction)])).tolist()
    if len(labels) > most:
        common = np.sort(np.argsort(-np.bincount(codes), kind="stable")[: most - 1])
        place = np.full(len(labels), most - 1)
        place[common] = np.arange(most - 1)
        codes, labels = place[codes], [*(labels[number] for number in common), "(others)"]
    size = len(labels)
    counts = np.bincount(codes[: len(truth)] * size + codes[len(truth) :], minlength=size * size)
    return ConfusionMatrix(tuple(labels), counts.reshape(size, size))


def _ranked(name: str, truth: npt.ArrayLike, score: npt.ArrayLike) -> _Ranks:
    one = METRICS["binary"][name]
    answer, prediction = one.checked(truth, score)
    reason = one.missing(answer, prediction)
    if reason:
        raise InvalidInput(reason)
    return _ranks(answer, prediction)


def _spread(path: Floats) -> npt.NDArray[np.int64]:
    """Return at most 200 indices of a rising path, evenly spread over its length, both ends among them."""
    if len(path) <= MOST_POINTS:
        return np.arange(len(path))
    inner = np.searchsorted(path, np.linspace(path[0], path[-1], MOST_POINTS - 1)[1:-1])
    return np.unique(np.concatenate([[0], inner, [len(path) - 1]]))


# ---- metrics of ranks --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ranks:
    """Rows grouped by equal score, ascending: score, positives and negatives of each group; the group of each row."""

    scores: Floats
    positive: npt.NDArray[np.int64]
    negative: npt.NDArray[np.int64]
    group: npt.NDArray[np.int64]


def _ranks(truth: Values, score: Values) -> _Ranks:
    """One sort, O(n log n): everything that ranks are needed for follows from counts of groups (Sun & Xu 2014)."""
    order = np.argsort(score)
    ascending = score[order]
    is_first = np.concatenate([[True], ascending[1:] != ascending[:-1]])
    starts = np.flatnonzero(is_first)
    sizes = np.diff(np.append(starts, len(score)))
    positive = np.add.reduceat(truth[order].astype(np.int64), starts)
    group = np.empty(len(score), dtype=np.int64)
    group[order] = np.cumsum(is_first) - 1
    return _Ranks(ascending[starts], positive, sizes - positive, group)


def _auc(truth: Values, score: Values) -> float:
    ranks = _ranks(truth, score)
    below = np.cumsum(ranks.negative) - ranks.negative / 2
    return float(ranks.positive @ below / (float(ranks.positive.sum()) * float(ranks.negative.sum())))


def _auc_influence(truth: Values, score: Values) -> Floats:
    """DeLong's structural components about their mean, scaled so that Σh² is DeLong's S10 / m + S01 / n."""
    ranks = _ranks(truth, score)
    positives, negatives = int(ranks.positive.sum()), int(ranks.negative.sum())
    beats = (np.cumsum(ranks.negative) - ranks.negative / 2) / negatives
    beaten_by = (positives - np.cumsum(ranks.positive) + ranks.positive / 2) / positives
    value = float(ranks.positive @ beats) / positives
    of_positive = (beats - value) / math.sqrt(positives * max(positives - 1, 1))
    of_negative = (beaten_by - value) / math.sqrt(negatives * max(negatives - 1, 1))
    return np.asarray(np.where(truth, of_positive[ranks.group], of_negative[ranks.group]))


def _average_precision(truth: Values, score: Values) -> float:
    ranks = _ranks(truth, score)
    hits, found = _from_above(ranks.positive), _from_above(ranks.positive + ranks.negative)
    return float(ranks.positive @ (hits / found) / ranks.positive.sum())


def _average_precision_influence(truth: Values, score: Values) -> Floats:
    """Derivative of Σ y T/N / Σ y by the weight of a row, where T and N count positives and rows from its score up."""
    ranks = _ranks(truth, score)
    positives = float(ranks.positive.sum())
    hits, found = _from_above(ranks.positive), _from_above(ranks.positive + ranks.negative)
    precision = hits / found
    value = float(ranks.positive @ precision) / positives
    as_hit = np.cumsum(ranks.positive / found)  # a row adds to T and N of all positives at its score or below
    as_row = np.cumsum(ranks.positive * precision / found)
    contribution = (np.where(truth, (precision + as_hit - value)[ranks.group], 0.0) - as_row[ranks.group]) / positives
    return np.asarray(contribution * _sample_factor(len(truth)))


def _from_above(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.asarray(np.cumsum(counts[::-1])[::-1])


# ---- metrics of sums ---------------------------------------------------------------------------------------------

Terms = Callable[[Values, Values], tuple[Values, Values]]


def _ratio(
    name: str,
    task: Task,
    needs: Literal["score", "label", "proba", "value"],
    terms: Terms,
    *,
    curve: Callable[[float], float] = lambda ratio: ratio,
    slope: Callable[[float], float] = lambda _: 1.0,
    higher_is_better: bool = False,
    **others: Any,
) -> Metric:
    """Return the metric g(Σa / Σb) of `terms` (a, b) and `curve` g, with its influence g' · (a − r b) / Σb."""

    def formula(truth: Values, prediction: Values) -> float:
        above, below = terms(truth, prediction)
        total = float(below.sum())
        return curve(float(above.sum()) / total) if total else 0.0

    def influence(truth: Values, prediction: Values) -> Floats:
        above, below = terms(truth, prediction)
        total = float(below.sum())
        if not total:
            return np.zeros(len(truth))
        ratio = float(above.sum()) / total
        return np.asarray((above - ratio * below) * (slope(ratio) / total * _sample_factor(len(truth))))

    def trials(truth: Values, prediction: Values) -> int:
        return int(np.count_nonzero(terms(truth, prediction)[1]))

    return Metric(name, task, higher_is_better, needs, formula, influence, trials, **others)


def _mean(of: Callable[[Values, Values], Values]) -> Terms:
    """Return the terms of a mean over all rows."""
    return lambda truth, prediction: (of(truth, prediction).astype(np.float64), np.ones(len(truth)))


def _sample_factor(rows: int) -> float:
    return math.sqrt(rows / (rows - 1)) if rows > 1 else 1.0


def _square_error(truth: Values, prediction: Values) -> Values:
    return np.asarray((prediction - truth) ** 2)


def _surprise(truth: Values, probability: Values) -> Values:
    """−ln of the probability given to what happened, clipped as scikit-learn does."""
    clipped = np.clip(probability, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return np.asarray(-np.log(np.where(truth, clipped, 1 - clipped)))


def _surprise_of_class(truth: Values, probability: Values) -> Values:
    given = np.take_along_axis(probability, truth[:, None], axis=1)[:, 0]
    return np.asarray(-np.log(np.clip(given, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)))


def _class_scores(truth: Values, label: Values) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Return, per class number: f1, its denominator (true + predicted rows, 0 for a class of neither), true rows."""
    size = int(max(truth.max(), label.max())) + 1
    support = np.bincount(truth, minlength=size)
    both = (support + np.bincount(label, minlength=size)).astype(np.float64)
    hits = np.bincount(truth[truth == label], minlength=size)
    return 2 * hits / np.maximum(both, 1), both, support


def _macro_f1(truth: Values, label: Values) -> float:
    score, both, _ = _class_scores(truth, label)
    return float(score.sum() / np.count_nonzero(both))


def _macro_f1_influence(truth: Values, label: Values) -> Floats:
    score, both, _ = _class_scores(truth, label)
    drag = score / np.maximum(both, 1)
    contribution = np.where(truth == label, 2 / both[truth], 0.0) - drag[truth] - drag[label]
    return np.asarray(contribution * (_sample_factor(len(truth)) / np.count_nonzero(both)))


def _rows_of_rarest(truth: Values, label: Values) -> int:
    support = _class_scores(truth, label)[2]
    return int(support[support > 0].min())


# ---- rows that have no value -------------------------------------------------------------------------------------


def _one_class(truth: Values, _: Values) -> str:
    positives = int(truth.sum())
    if 0 < positives < len(truth):
        return ""
    return f"auc needs both classes; {_all_rows(len(truth))} {int(positives > 0)}"


def _no_positive(truth: Values, _: Values) -> str:
    return "" if truth.any() else f"average_precision needs a positive row; {_all_rows(len(truth))} 0"


def _zero_truth(truth: Values, _: Values) -> str:
    zeros = int(np.count_nonzero(truth == 0))
    if not zeros:
        return ""
    return (
        f"mape has no value where the truth is 0, and {zeros:,} of {len(truth):,} rows are; "
        "take mae or rmse, or leave those rows out"
    )


def _constant_truth(truth: Values, _: Values) -> str:
    if truth.min() < truth.max():
        return ""
    return f"r2 needs a truth that varies; {_all_rows(len(truth))} {truth[0]:g}; take rmse or mae"


def _all_rows(rows: int) -> str:
    return "the only row is" if rows == 1 else f"all {rows:,} rows are"


# ---- what a row must look like -----------------------------------------------------------------------------------


def _check_shapes(metric: Metric, truth: Values, prediction: Values) -> None:
    if truth.ndim != 1:
        raise InvalidInput(f"truth has shape {truth.shape}; expected one value a row, shape (rows,)")
    expected = 2 if metric.needs == "proba" else 1
    if prediction.ndim != expected:
        hint = "a matrix of probabilities, shape (rows, classes)"
        if expected == 1:
            hint = "one value a row, shape (rows,)"
            if prediction.ndim == 2 and prediction.shape[1] == 2 and metric.task == "binary":
                hint += "; the score of class 1 is prediction[:, 1]"
        raise InvalidInput(f"prediction has shape {prediction.shape}; {metric.name} expects {hint}")
    if len(truth) != len(prediction):
        raise InvalidInput(
            f"truth has {len(truth):,} rows and prediction {len(prediction):,}; expected one prediction for each truth"
        )
    if not len(truth):
        raise InvalidInput(f"{metric.name} of no rows; expected at least one")


def _numbers(values: Values, what: str) -> Floats:
    """Return finite float64 of the same shape."""
    if values.dtype.kind not in "biufO":
        raise InvalidInput(f"{what} holds {values.dtype.name}, such as {values.flat[0]!s:.40}; expected numbers")
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{what} holds values that are no numbers; expected numbers") from error
    strange = np.count_nonzero(~np.isfinite(numbers))
    if strange:
        nans = int(np.count_nonzero(np.isnan(numbers)))
        raise InvalidInput(
            f"{what} holds {nans:,} NaN and {strange - nans:,} infinite of {numbers.size:,} values; "
            "expected finite numbers; leave those rows out or find out where they come from"
        )
    return numbers


def _zero_or_one(values: Values, what: str, hint: str) -> npt.NDArray[np.bool_]:
    if values.dtype == np.bool_:
        return values
    if values.dtype.kind in "USO" and any(isinstance(value, str | bytes) for value in values[:1].tolist()):
        raise InvalidInput(f"{what} holds text such as {values[0]!s:.40}; expected 0 or 1; {hint}")
    numbers = _numbers(values, what)
    wrong = (numbers != 0) & (numbers != 1)
    if wrong.any():
        raise InvalidInput(
            f"{what} must be 0 or 1; {int(wrong.sum()):,} of {len(numbers):,} rows are not, such as "
            f"{numbers[wrong][0]:g}; {hint}"
        )
    return np.asarray(numbers == 1)


def _check_unit_range(name: str, numbers: Floats) -> None:
    outside = (numbers < 0) | (numbers > 1)
    if outside.any():
        raise InvalidInput(
            f"{name} needs probabilities from 0 to 1; {int(outside.sum()):,} of {numbers.size:,} are outside, such as "
            f"{numbers[outside][0]:g}"
        )


def _check_probabilities(truth: Values, matrix: Floats) -> npt.NDArray[np.int64]:
    """Return truth as numbers of the matrix' columns."""
    _check_unit_range("log_loss", matrix)
    sums = matrix.sum(axis=1)
    wrong = np.abs(sums - 1) > 1e-3
    if wrong.any():
        raise InvalidInput(
            f"each row of probabilities must add up to 1; {int(wrong.sum()):,} of {len(sums):,} do not, such as "
            f"{sums[wrong][0]:g}"
        )
    if truth.dtype.kind not in "biuf":
        raise InvalidInput(
            f"truth holds {truth.dtype.name}; expected the numbers of the matrix' columns; "
            "encode(truth, classes) makes them of labels"
        )
    numbers = _numbers(truth, "truth")
    strange = (numbers != np.floor(numbers)) | (numbers < 0) | (numbers >= matrix.shape[1])
    if strange.any():
        raise InvalidInput(
            f"truth holds {numbers[strange][0]:g}, but the matrix has the columns 0 to {matrix.shape[1] - 1}"
        )
    return numbers.astype(np.int64)


def _codes(truth: Values, prediction: Values) -> npt.NDArray[np.int64]:
    """Return class numbers of truth and prediction, one after the other, over the classes of both."""
    truth, prediction = _plain(truth), _plain(prediction)
    texts = [values.dtype.kind in "US" for values in (truth, prediction)]
    if texts[0] != texts[1]:
        raise InvalidInput(
            f"truth holds {truth.dtype.name} such as {truth[0]!s:.40} and prediction {prediction.dtype.name} such as "
            f"{prediction[0]!s:.40}; expected labels of one type"
        )
    both = np.concatenate([truth, prediction])
    return np.asarray(np.unique(both, return_inverse=True)[1], dtype=np.int64)


def _plain(values: Values) -> Values:
    """Return labels as an array of text or whole numbers."""
    if values.dtype.kind == "O":
        values = np.array(values.tolist())
    if values.dtype.kind == "f":
        return _numbers(values, "labels")
    if values.dtype.kind not in "biuUS":
        raise InvalidInput(f"labels hold {values.dtype.name}; expected all text or all numbers, none missing")
    return values


# ---- the registry ------------------------------------------------------------------------------------------------


def _task(name: str) -> Task:
    for task in METRICS:
        if task == name:
            return task
    raise NotFound(f'no task is called "{name}"{did_you_mean(name, METRICS)} (known: {listed(METRICS)})')


_UNIT: dict[str, Any] = {"low": 0.0, "high": 1.0}
_SHARE: dict[str, Any] = {**_UNIT, "higher_is_better": True, "is_proportion": True}
_ERROR: dict[str, Any] = {"low": 0.0}

# fmt: off
_BINARY = [
    Metric(
        "auc", "binary", True, "score", _auc, _auc_influence,
        trials=lambda truth, _: min(int(truth.sum()), int((~truth).sum())),
        missing=_one_class, by_class=True, method="DeLong", **_UNIT,
    ),
    Metric(
        "average_precision", "binary", True, "score", _average_precision, _average_precision_influence,
        trials=lambda truth, _: int(truth.sum()), missing=_no_positive, by_class=True, **_UNIT,
    ),
    _ratio("log_loss", "binary", "score", _mean(_surprise), is_probability=True, **_ERROR),
    _ratio("brier", "binary", "score", _mean(_square_error), is_probability=True, **_UNIT),
    _ratio("accuracy", "binary", "label", _mean(np.equal), **_SHARE),
    _ratio("precision", "binary", "label", lambda truth, label: (truth & label, 1.0 * label), **_SHARE),
    _ratio("recall", "binary", "label", lambda truth, label: (truth & label, 1.0 * truth), **_SHARE),
    _ratio(
        "f1", "binary", "label", lambda truth, label: (2.0 * (truth & label), truth + 1.0 * label),
        higher_is_better=True, **_UNIT,
    ),
]
_MULTICLASS = [
    _ratio("accuracy", "multiclass", "label", _mean(np.equal), **_SHARE),
    Metric(
        "macro_f1", "multiclass", True, "label", _macro_f1, _macro_f1_influence,
        trials=_rows_of_rarest, **_UNIT,
    ),
    _ratio("log_loss", "multiclass", "proba", _mean(_surprise_of_class), **_ERROR),
]
_REGRESSION = [
    _ratio(
        "rmse", "regression", "value", _mean(_square_error),
        curve=math.sqrt, slope=lambda ratio: 0.5 / math.sqrt(ratio) if ratio else 0.0, **_ERROR,
    ),
    _ratio("mae", "regression", "value", _mean(lambda truth, value: np.abs(value - truth)), **_ERROR),
    _ratio(
        "r2", "regression", "value", lambda truth, value: (_square_error(truth, value), (truth - truth.mean()) ** 2),
        curve=lambda ratio: 1 - ratio, slope=lambda _: -1.0, higher_is_better=True, missing=_constant_truth, high=1.0,
    ),
    _ratio(
        "mape", "regression", "value", _mean(lambda truth, value: np.abs((value - truth) / truth)),
        missing=_zero_truth, **_ERROR,
    ),
    _ratio("bias", "regression", "value", _mean(lambda truth, value: value - truth), has_direction=False),
]
# fmt: on
METRICS: dict[Task, dict[str, Metric]] = {
    "binary": {one.name: one for one in _BINARY},
    "multiclass": {one.name: one for one in _MULTICLASS},
    "regression": {one.name: one for one in _REGRESSION},
}
