"""Evaluation against scikit-learn, and the tasks that a target sets."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from flyball.errors import InvalidInput
from flyball.evaluation.evaluate import evaluate, task_of, truth_for


def test_metrics_agree_with_scikit_learn_and_the_worst_slice_is_found() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 2000)
    group = np.where(np.arange(2000) % 4 == 0, "bad", "good")
    noise = np.where(group == "bad", 5.0, 0.5)
    score = 1 / (1 + np.exp(-(truth - 0.5 + noise * rng.standard_normal(2000))))
    label = (score > 0.5).astype(int)
    found = evaluate(
        "binary", truth, {"probability": score, "prediction": label}, frame=pl.DataFrame({"g": group}), slices=["g"]
    )
    assert found.metric == "auc"
    assert found.value.value == pytest.approx(roc_auc_score(truth, score))
    assert found.metrics["accuracy"].value == pytest.approx(accuracy_score(truth, label))
    assert found.value.low < found.value.value < found.value.high
    assert (found.worst_slices[0].value, found.worst_slices[0].rows) == ("bad", 500)
    assert "auc" in str(found)


@pytest.mark.parametrize(
    ("target", "task"),
    [([0, 1, 1], "binary"), ([True, False], "binary"), (["no", "yes"], "binary"), (["a", "b", "c"], "multiclass"),
     ([1, 2, 3], "multiclass"), ([0.5, 1.5, 2.5], "regression"), (list(range(100)), "regression")],
)  # fmt: skip
def test_the_target_sets_the_task(target: list[object], task: str) -> None:
    assert task_of(np.array(target)) == task


def test_one_class_only_is_refused_with_the_class() -> None:
    with pytest.raises(InvalidInput, match="the target is 1 in all 3 rows"):
        task_of(np.array([1, 1, 1]))
    with pytest.raises(InvalidInput, match="empty"):
        task_of(np.array([]))


def test_of_two_texts_the_later_one_is_positive() -> None:
    assert truth_for("binary", np.array(["no", "yes", "no"])).tolist() == [0, 1, 0]


def test_an_unknown_slice_column_is_refused_with_the_column_meant() -> None:
    with pytest.raises(InvalidInput, match='did you mean "origin"'):
        evaluate(
            "binary",
            np.array([0, 1] * 50),
            {"probability": np.linspace(0, 1, 100), "prediction": np.array([0, 1] * 50)},
            frame=pl.DataFrame({"origin": ["x"] * 100}),
            slices=["orign"],
        )
