"""What experiments measure, from rows as the log gives them: by key, against sums made by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from flyball.errors import InvalidInput
from flyball.serving.agreement import agreement, compare_paired
from flyball.serving.experiments import covered, measured, outcomes, units
from flyball.serving.kinds import Rollout

START = datetime(2026, 5, 1, tzinfo=UTC)


def rows(*given: dict[str, Any]) -> pl.DataFrame:
    base = {"variant": "champion", "key": None, "label": None, "latency_us": 1500, "output.prediction": 0.5}
    made = [{"id": f"r{i}", "at": START + timedelta(seconds=i), **base, **row} for i, row in enumerate(given)]
    return pl.DataFrame(made, infer_schema_length=None)


def test_rows_of_one_key_make_one_unit_and_rows_without_a_key_are_units() -> None:
    found = rows(
        {"key": "a", "label": 1.0}, {"key": "a", "label": 0.0}, {"key": "b", "label": 1.0},
        {"label": 0.0}, {"key": "c"}, {"key": "ü", "variant": "canary", "label": 1.0},
    )  # fmt: skip
    assert units(found) == {"champion": 4, "canary": 1}
    arms = outcomes(covered(found, None), "reward")
    assert float(arms["champion"].units) == 3  # c has no label yet
    assert float(arms["champion"].mean) == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert float(arms["canary"].mean) == 1.0


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("reward", 1.0),
        ("correct", 0.0),
        ("absolute_error", 0.75),
        ("squared_error", 0.5625),
        ("latency_ms", 1.5),
        ("output.prediction", 0.25),
    ],
)
def test_each_metric_is_what_its_name_says(metric: str, expected: float) -> None:
    found = rows({"label": 1, "output.prediction": 0.25})
    assert found.select(measured(found, metric)).item() == pytest.approx(expected)


def test_correct_compares_texts_and_truth_values_and_leaves_out_what_is_unknown() -> None:
    texts = rows(
        {"label": "UA", "output.prediction": "UA"},
        {"label": "AA", "output.prediction": "UA"},
        {"output.prediction": "UA"},
    )
    assert texts.select(measured(texts, "correct").alias("x"))["x"].to_list() == [1.0, 0.0, None]
    truths = rows({"label": True, "output.prediction": 1}, {"label": False, "output.prediction": 1})
    assert truths.select(measured(truths, "correct").alias("x"))["x"].to_list() == [1.0, 0.0]


def test_the_error_of_a_probability_is_taken_where_there_is_one() -> None:
    found = rows({"label": 1, "output.prediction": 1, "output.probability": 0.7})
    assert found.select(measured(found, "squared_error")).item() == pytest.approx(0.09)


def test_a_covariate_is_the_first_of_its_key_and_the_mean_where_it_is_unknown() -> None:
    found = rows(
        {"key": "a", "input.spent": 3, "label": 1.0}, {"key": "a", "input.spent": 99, "label": 1.0},
        {"key": "b", "input.spent": 5, "label": 0.0}, {"key": "c", "input.spent": None, "label": 0.0},
    )  # fmt: skip
    values = covered(found, "spent")["covariate"].to_list()
    assert values[:3] == [3.0, 3.0, 5.0]
    assert values[3] == pytest.approx(11 / 3)


def test_a_covariate_that_is_not_there_or_is_text_is_refused() -> None:
    found = rows({"input.spent": 1, "input.town": "Ulm"})
    with pytest.raises(InvalidInput, match='did you mean "spent"'):
        covered(found, "spend")
    with pytest.raises(InvalidInput, match="text"):
        covered(found, "town")
    with pytest.raises(InvalidInput, match=r"output\.profit"):
        measured(found, "output.profit")


# a shadow


def copies(count: int, shift: float) -> pl.DataFrame:
    generator = np.random.default_rng(2)
    scores = generator.random(count)
    given: list[dict[str, Any]] = []
    for score in scores:
        truth = float(generator.random() < score)
        both = {"label": truth, "id": f"p{len(given) // 2}"}
        answer = "no" if score < 0.9 else "yes"
        given.append({**both, "variant": "champion", "output.probability": score, "output.prediction": "no"})
        moved = {"output.probability": min(score + shift, 1.0), "output.prediction": answer}
        given.append({**both, "variant": "shadow", **moved})
    return rows(*given)


def test_agreement_is_of_requests_that_both_answered() -> None:
    found = agreement(
        pl.concat(
            [copies(200, 0.1), rows({"output.probability": 0.5, "output.prediction": "no"})], how="diagonal_relaxed"
        )
    )
    assert found is not None
    assert found["requests"] == 200
    assert found["outputs"]["probability"]["difference"] == pytest.approx(0.095, abs=0.006)
    assert found["outputs"]["probability"]["psi"] > 0.05
    assert found["outputs"]["prediction"]["equal"] == pytest.approx(0.9, abs=0.05)
    assert found["outputs"]["prediction"]["difference"] is None
    assert found["latency_ms"]["shadow"] == {"p50": 1.5, "p99": 1.5}


def test_a_shadow_that_answers_alike_agrees_wholly() -> None:
    found = agreement(copies(50, 0.0))
    assert found is not None
    assert found["outputs"]["probability"] == {"equal": 1.0, "difference": 0.0, "psi": pytest.approx(0.0)}


def test_no_request_answered_by_both_is_no_agreement() -> None:
    assert agreement(rows({})) is None
    assert agreement(rows({"variant": "shadow"})) is None


def test_a_shadow_is_compared_on_the_same_rows() -> None:
    found = compare_paired("auc", copies(300, 0.0), 0.95)
    assert found is not None
    assert found["difference"]["value"] == 0.0
    assert found["verdict"] == "no evidence"
    assert compare_paired("auc", copies(10, 0.0).with_columns(label=pl.lit(None, pl.Float64)), 0.95) is None


# what may be declared


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strategy": "abb"}, 'did you mean "ab"'),
        ({"metric": "revenue"}, "a metric is one of reward"),
        ({"hold": "soon"}, "not a duration"),
        ({"strategy": "ab", "share": 100}, "needs some of the traffic"),
        ({"policy": "tompson"}, "a policy is one of"),
        ({"guardrails": [{"metric": "correct"}, {"metric": "correct"}]}, "two guardrails"),
        ({"guardrails": [{"metric": "money"}]}, "a metric is one of"),
    ],
)
def test_a_wrong_rollout_is_refused_with_what_was_expected(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Rollout.model_validate(given)


def test_the_goal_follows_the_metric_unless_it_is_said() -> None:
    assert Rollout().is_up_better()
    assert not Rollout(metric="latency_ms").is_up_better()
    assert Rollout(metric="latency_ms", goal="increase").is_up_better()
