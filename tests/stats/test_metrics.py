from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from flyball.errors import InvalidInput, NotFound
from flyball.stats.metrics import (
    METRICS,
    calibration_curve,
    compute_all,
    confusion_matrix,
    default_metric,
    encode,
    metric,
    metrics_for,
    precision_recall_curve,
    prediction_for,
    roc_curve,
)


@pytest.fixture(params=[0, 1, 2])
def binary(request):
    """Truth and scores with many ties."""
    random = np.random.default_rng(request.param)
    truth = random.integers(0, 2, 500)
    return truth, np.round(np.clip(random.normal(0.4 + 0.2 * truth, 0.25), 0, 1), 2)


def test_binary_metrics_agree_with_scikit_learn(binary):
    truth, score = binary
    label = score >= 0.5
    expected = {
        "auc": sk.roc_auc_score(truth, score),
        "average_precision": sk.average_precision_score(truth, score),
        "log_loss": sk.log_loss(truth, score),
        "brier": sk.brier_score_loss(truth, score),
        "accuracy": sk.accuracy_score(truth, label),
        "precision": sk.precision_score(truth, label),
        "recall": sk.recall_score(truth, label),
        "f1": sk.f1_score(truth, label),
    }
    assert compute_all("binary", truth, score) == pytest.approx(expected, rel=1e-12)


def test_multiclass_metrics_agree_with_scikit_learn_for_labels_of_any_type():
    random = np.random.default_rng(0)
    matrix = random.dirichlet([1, 2, 3], 400)
    truth = np.array([random.choice(3, p=row) for row in matrix])
    expected = {
        "accuracy": sk.accuracy_score(truth, matrix.argmax(1)),
        "macro_f1": sk.f1_score(truth, matrix.argmax(1), average="macro"),
        "log_loss": sk.log_loss(truth, matrix),
    }
    assert compute_all("multiclass", truth, matrix) == pytest.approx(expected, rel=1e-12)
    names = ["ant", "bee", "cow"]
    texts = np.array(names)[truth]
    assert compute_all("multiclass", texts, matrix, classes=names) == pytest.approx(expected, rel=1e-12)
    labels = np.array(names, dtype=object)[matrix.argmax(1)]
    del expected["log_loss"]
    assert compute_all("multiclass", texts, labels) == pytest.approx(expected, rel=1e-12)


def test_macro_f1_counts_classes_that_only_one_side_has():
    truth, label = [0, 0, 1, 1, 5], [0, 1, 1, 7, 7]
    assert metric("macro_f1").compute(truth, label) == pytest.approx(sk.f1_score(truth, label, average="macro"))


def test_regression_metrics_agree_with_scikit_learn():
    random = np.random.default_rng(0)
    truth = random.normal(10, 2, 300)
    value = truth + random.normal(0.3, 1, 300)
    expected = {
        "rmse": sk.root_mean_squared_error(truth, value),
        "mae": sk.mean_absolute_error(truth, value),
        "r2": sk.r2_score(truth, value),
        "mape": sk.mean_absolute_percentage_error(truth, value),
        "bias": float((value - truth).mean()),
    }
    assert compute_all("regression", truth, value) == pytest.approx(expected, rel=1e-12)


def test_zero_divisions_are_zero_as_in_scikit_learn():
    truth, label = [0, 1, 1], [0, 0, 0]
    for name in ("precision", "recall", "f1"):
        assert metric(name).compute(truth, label) == 0.0


def _rows_for(one, random, rows=60):
    if one.task == "regression":
        truth = random.normal(5, 2, rows)
        return truth, truth + random.normal(0.2, 1, rows)
    if one.task == "multiclass":
        truth = random.integers(0, 3, rows)
        if one.needs == "proba":
            return truth, random.dirichlet([1, 1, 1], rows)
        return truth, np.where(random.random(rows) < 0.6, truth, random.integers(0, 3, rows))
    truth = random.integers(0, 2, rows)
    score = np.clip(np.round(random.normal(0.4 + 0.2 * truth, 0.2), 1), 0.01, 0.99)
    return truth, prediction_for(one, score)


@pytest.mark.parametrize(
    "one", [one for task in METRICS for one in metrics_for(task)], ids=lambda m: f"{m.task}-{m.name}"
)
def test_influence_is_the_derivative_of_the_value_by_a_rows_weight(one):
    """Repeating all rows 200 times and one of them once more moves the value by that row's contribution."""
    truth, prediction = one.checked(*_rows_for(one, np.random.default_rng(3)))
    assert one.influence is not None
    contribution = one.influence(truth, prediction)
    assert abs(contribution.sum()) < 1e-9
    rows, times = len(truth), 200
    value = one.formula(truth, prediction)
    many = np.tile(np.arange(rows), times)
    for row in range(0, rows, 7):
        index = np.append(many, row)
        moved = (one.formula(truth[index], prediction[index]) - value) * times
        # the contributions hold the sample's factor sqrt(n / (n - 1)), per class for auc
        assert moved == pytest.approx(contribution[row], rel=0.05, abs=2e-4 * max(1, abs(value)))


def test_registry_names_defaults_and_suggests():
    assert [default_metric(task).name for task in ("binary", "multiclass", "regression")] == ["auc", "accuracy", "rmse"]
    assert metric("accuracy").task == "binary"
    assert metric("accuracy", "multiclass").task == "multiclass"
    with pytest.raises(NotFound, match='did you mean "brier"'):
        metric("briar")
    with pytest.raises(NotFound, match='no metric for the task regression is called "auc"'):
        metric("auc", "regression")
    with pytest.raises(NotFound, match='did you mean "binary"'):
        metrics_for("binarry")


@pytest.mark.parametrize(
    ("name", "truth", "prediction", "message"),
    [
        ("auc", [0] * 120, [0.5] * 120, "auc needs both classes; all 120 rows are 0"),
        ("auc", [1], [0.5], "the only row is 1"),
        ("auc", [0, 1, 1], [0.1, 0.2], "truth has 3 rows and prediction 2"),
        ("auc", [], [], "auc of no rows"),
        ("auc", [0, 1, 1], [0.1, math.nan, math.inf], "1 NaN and 1 infinite of 3 values"),
        ("auc", [0, 1, 2], [0.1, 0.2, 0.3], "truth must be 0 or 1; 1 of 3 rows are not, such as 2"),
        ("auc", ["no", "yes"], [0.1, 0.2], "truth holds text such as no; expected 0 or 1"),
        ("auc", [0, 1], [[0.1, 0.9], [0.2, 0.8]], r"the score of class 1 is prediction\[:, 1\]"),
        ("auc", [[0], [1]], [0.1, 0.2], r"truth has shape \(2, 1\)"),
        ("auc", [0, None], [0.1, 0.2], "truth holds 1 NaN"),
        ("auc", [0, 1], ["low", "high"], "prediction holds str.* expected numbers"),
        ("average_precision", [0, 0], [0.1, 0.2], "needs a positive row; all 2 rows are 0"),
        ("brier", [0, 1], [0.1, 1.2], "probabilities from 0 to 1; 1 of 2 are outside, such as 1.2"),
        ("accuracy", [0, 1], [0.1, 0.2], "prediction must be 0 or 1.*score >= threshold"),
        ("macro_f1", ["a", "b"], [0, 1], "expected labels of one type"),
        ("macro_f1", ["a", None], ["a", "b"], "labels hold object"),
        ("mape", [0, 1, 2], [1, 1, 1], "no value where the truth is 0, and 1 of 3 rows are; take mae"),
        ("r2", [2, 2], [1, 2], "needs a truth that varies; all 2 rows are 2"),
        ("rmse", [1, 2], [1, math.nan], "prediction holds 1 NaN"),
    ],
)
def test_malformed_rows_are_refused_with_what_is_wrong(name, truth, prediction, message):
    with pytest.raises(InvalidInput, match=message):
        metric(name).compute(truth, prediction)


@pytest.mark.parametrize(
    ("truth", "matrix", "message"),
    [
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "truth holds 2, but the matrix has the columns 0 to 1"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.6]], "must add up to 1; 1 of 2 do not, such as 1.1"),
        (["a", "b"], [[0.5, 0.5], [0.5, 0.5]], "encode"),
        ([0, 1], [0.5, 0.5], "expects a matrix of probabilities"),
    ],
)
def test_malformed_probabilities_are_refused(truth, matrix, message):
    with pytest.raises(InvalidInput, match=message):
        metric("log_loss", "multiclass").compute(truth, matrix)


def test_metrics_that_do_not_exist_are_left_out_unless_asked_for():
    assert "auc" not in compute_all("binary", [1, 1], [0.6, 0.7])
    assert "mape" not in compute_all("regression", [0, 1], [0.6, 0.7])
    with pytest.raises(InvalidInput, match="both classes"):
        compute_all("binary", [1, 1], [0.6, 0.7], ["auc"])
    with pytest.raises(InvalidInput, match="1 of 2 labels are no class of the model, such as 'dog'"):
        encode(["ant", "dog"], ["ant", "bee"])


def test_roc_curve_is_scikit_learns_thinned_to_200_points():
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 20_000)
    score = random.normal(truth)
    curve = roc_curve(truth, score)
    x, y, threshold = sk.roc_curve(truth, score, drop_intermediate=False)
    assert len(curve.x) <= 200
    found = {point: (a, b) for point, a, b in zip(threshold, x, y, strict=True)}
    for a, b, point in zip(curve.x, curve.y, curve.threshold, strict=True):
        assert found[point] == pytest.approx((a, b))
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
    assert sk.auc(curve.x, curve.y) == pytest.approx(sk.roc_auc_score(truth, score), abs=1e-3)


def test_precision_recall_curve_is_scikit_learns_thinned_to_200_points():
    random = np.random.default_rng(0)
    truth = random.random(20_000) < 0.1
    score = random.normal(truth)
    curve = precision_recall_curve(truth, score)
    precision, recall, threshold = sk.precision_recall_curve(truth, score)
    found = {point: (r, p) for point, r, p in zip(threshold, recall, precision, strict=False)}
    assert 100 < len(curve.x) <= 200
    for a, b, point in zip(curve.x, curve.y, curve.threshold, strict=True):
        assert found[point] == pytest.approx((a, b))
    with pytest.raises(InvalidInput, match="positive row"):
        precision_recall_curve([0, 0], [0.1, 0.2])


def test_calibration_curve_agrees_with_scikit_learn(binary):
    from sklearn.calibration import calibration_curve as expected_curve

    truth, score = binary
    curve = calibration_curve(truth, score, bins=7)
    observed, predicted = expected_curve(truth, score, n_bins=7)
    np.testing.assert_allclose(curve.observed, observed)
    np.testing.assert_allclose(curve.predicted, predicted)
    assert curve.rows.sum() == len(truth)
    with pytest.raises(InvalidInput, match="from 1 to 200"):
        calibration_curve(truth, score, bins=201)


def test_confusion_matrix_agrees_with_scikit_learn_and_joins_rare_labels():
    random = np.random.default_rng(0)
    truth, label = random.choice(list("abc"), 300), random.choice(list("abcd"), 300)
    matrix = confusion_matrix(truth, label)
    assert matrix.labels == ("a", "b", "c", "d")
    np.testing.assert_array_equal(matrix.counts, sk.confusion_matrix(truth, label))
    many = np.minimum(random.geometric(0.1, 5000), 60)
    joined = confusion_matrix(many, np.roll(many, 1))
    assert len(joined.labels) == 14
    assert joined.labels[-1] == "(others)"
    assert joined.counts.sum() == 5000
    full = sk.confusion_matrix(many, np.roll(many, 1))
    np.testing.assert_array_equal(joined.counts[:13, :13], full[:13, :13])
