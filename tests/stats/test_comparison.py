from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from flyball.errors import InvalidInput, NotFound
from flyball.stats.comparison import compare, compare_unpaired
from flyball.stats.metrics import Metric, metric

GAP = Metric("gap", "binary", True, "score", lambda truth, score: float(score[truth].mean() - score[~truth].mean()))


def paired_delong_brute_force(truth, ours, theirs):
    """Two-sided p of DeLong, DeLong & Clarke-Pearson from all pairs and the covariance of both models."""
    parts = []
    for score in (ours, theirs):
        positive, negative = score[truth == 1], score[truth == 0]
        wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
        parts.append((wins.mean(), wins.mean(1), wins.mean(0)))
    (a, a10, a01), (b, b10, b01) = parts
    s10, s01 = np.cov(a10, b10), np.cov(a01, b01)
    contrast = np.array([1, -1])
    variance = contrast @ (s10 / len(a10) + s01 / len(a01)) @ contrast
    return a - b, math.sqrt(variance)


def rows(seed, number=400, ours=1.0, theirs=1.0):
    """Truth and two scores that share what makes a row hard."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, number)
    hard = random.normal(0, 1, number)
    return truth, *(random.normal(hard + shift * truth, 0.7) for shift in (ours, theirs))


@pytest.mark.parametrize("seed", range(5))
def test_paired_auc_is_delongs_from_all_pairs(seed):
    truth, ours, theirs = rows(seed)
    ours, theirs = np.round(ours, 1), np.round(theirs, 1)
    difference, error = paired_delong_brute_force(truth, ours, theirs)
    found = compare("auc", truth, ours, theirs)
    assert found.difference.value == pytest.approx(difference)
    assert (found.difference.high - found.difference.low) / 2 == pytest.approx(1.96 * error, rel=0.01)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(difference) / error), abs=0.005)
    assert found.challenger.value == metric("auc").compute(truth, ours)
    assert found.rows == found.champion_rows == 400


def test_paired_mean_metrics_are_the_paired_t_test():
    random = np.random.default_rng(0)
    truth = random.normal(0, 1, 50)
    ours, theirs = truth + random.normal(0, 1, 50), truth + random.normal(0, 1.3, 50)
    found = compare("mae", truth, ours, theirs)
    expected = stats.ttest_rel(np.abs(ours - truth), np.abs(theirs - truth))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_unpaired_proportions_have_newcombes_interval():
    ours, theirs = np.arange(80) < 56, np.arange(80) < 48  # Newcombe (1998), table II, example (a): 56/70 - 48/80
    found = compare_unpaired("accuracy", (np.ones(70, int), ours[:70]), (np.ones(80, int), theirs))
    assert found.difference.value == pytest.approx(0.2)
    assert (found.difference.low, found.difference.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert found.verdict == "better"
    at_edge = 1 - found.p_value
    edge = compare_unpaired("accuracy", (np.ones(70, int), ours[:70]), (np.ones(80, int), theirs), level=at_edge)
    assert edge.difference.low == pytest.approx(0, abs=1e-6)


def test_few_discordant_rows_are_judged_as_mcnemars_exact_test_does():
    truth = np.ones(200, int)
    champion = np.ones(200, bool)
    for wrong in range(1, 12):
        challenger = np.arange(200) >= wrong
        found = compare("accuracy", truth, challenger, champion)
        assert (found.verdict == "worse") == (stats.binomtest(wrong, wrong).pvalue < 0.05), wrong


@pytest.mark.parametrize("unpaired", [False, True])
def test_equal_models_are_seldom_told_apart(unpaired):
    verdicts = []
    for seed in range(400):
        truth, ours, theirs = rows(seed, 120)
        if unpaired:
            other, _, theirs = rows(seed + 10_000, 120)
            verdicts.append(compare_unpaired("auc", (truth, ours), (other, theirs)).verdict)
        else:
            verdicts.append(compare("auc", truth, ours, theirs).verdict)
    # 2.5 % each way expected: of 400, ten each; four standard errors more are 22
    assert verdicts.count("better") <= 22
    assert verdicts.count("worse") <= 22


@pytest.mark.parametrize("name", ["brier", "f1", "recall", "average_precision"])
def test_intervals_of_equal_models_hold_zero(name):
    misses = 0
    for seed in range(400):
        truth, *scores = rows(seed, 150)
        shares = [1 / (1 + np.exp(-score)) for score in scores]
        ours, theirs = (share >= 0.6 if metric(name).needs == "label" else share for share in shares)
        found = compare(name, truth, ours, theirs)
        misses += not found.difference.low <= 0 <= found.difference.high
    assert misses <= 38  # 20 expected, four standard errors of 4.4 above


def test_dependent_rows_deceive_without_blocks_and_not_with_them():
    """Which model is better changes from day to day; over days neither is."""
    plain = blocked = arms = 0
    days = np.repeat(np.arange(25), 20)
    for seed in range(200):
        random = np.random.default_rng(seed)
        truth = random.normal(0, 1, 500)
        ours, theirs = (truth + random.normal(0, 1, 500) * random.gamma(4, 0.25, 25)[days] for _ in range(2))
        plain += compare("mae", truth, ours, theirs).verdict != "no evidence"
        blocked += compare("mae", truth, ours, theirs, blocks=days).verdict != "no evidence"
        left = random.random(500) < 0.5
        pair = (truth[left], ours[left]), (truth[~left], theirs[~left])
        arms += compare_unpaired("mae", *pair, blocks=(days[left], days[~left])).verdict != "no evidence"
    assert plain > 60
    assert blocked <= 22
    assert arms <= 22


def test_shared_blocks_cancel_what_the_day_did_to_both_arms():
    random = np.random.default_rng(0)
    days = np.repeat(np.arange(30), 40)
    noise = random.normal(0, 1, 1200) * np.exp(random.normal(0, 1, 30))[days]
    left = random.random(1200) < 0.5
    truth, value = noise, np.zeros(1200)
    arms = (truth[left], value[left]), (truth[~left], value[~left])
    shared = compare_unpaired("mae", *arms, blocks=(days[left], days[~left])).difference
    apart = compare_unpaired("mae", *arms, blocks=(days[left], days[~left] + 100)).difference
    assert shared.high - shared.low < 0.5 * (apart.high - apart.low)


def test_verdict_needs_more_than_the_margin_and_lower_may_be_better():
    truth, ours, theirs = rows(0, 2000, ours=2.0, theirs=0.5)
    found = compare("auc", truth, ours, theirs)
    assert found.verdict == "better"
    assert found.p_value < 1e-6
    assert compare("auc", truth, theirs, ours).verdict == "worse"
    assert compare("auc", truth, ours, theirs, margin=found.difference.value).verdict == "no evidence"
    worse = compare("auc", truth, theirs, ours, margin=found.difference.value)
    assert worse.verdict == "no evidence"
    errors = compare("rmse", truth, truth + 0.1 * ours, truth + theirs)
    assert errors.difference.high < 0 < errors.improvement.low
    assert errors.improvement.value == -errors.difference.value
    assert errors.verdict == "better"
    assert "lies above 0" in errors.reason


def test_not_worse_needs_the_whole_interval_within_the_tolerance():
    truth, ours, theirs = rows(1, 3000)
    found = compare("auc", truth, ours, theirs)
    assert found.not_worse(-found.improvement.low + 1e-9)
    assert not found.not_worse(max(-found.improvement.low - 1e-9, 0))
    same = compare("auc", truth, ours, ours)
    assert (same.verdict, same.p_value, same.not_worse(0)) == ("no evidence", 1.0, True)
    with pytest.raises(InvalidInput, match="tolerance is -1"):
        found.not_worse(-1)


def test_perfect_models_on_few_rows_prove_nothing():
    truth = np.arange(12) % 2
    found = compare("auc", truth, truth + 0.1 * np.arange(12) / 12, truth.astype(float))
    assert found.verdict == "no evidence"
    assert found.difference.low < -0.2
    assert compare_unpaired("auc", (truth, truth), (truth, 1 - truth)).verdict == "better"


@pytest.mark.parametrize(
    ("truth", "reason"),
    [
        ([0, 1] * 4, "at least 10 rows; there are 8"),
        ([0] * 30, "auc needs both classes; all 30 rows are 0"),
        ([0] * 27 + [1] * 3, "at least 5 rows of each class; one has 3"),
    ],
)
def test_insufficient_rows_are_no_evidence_and_no_error(truth, reason):
    score = np.arange(len(truth)) / 30
    found = compare("auc", truth, score, score**2 % 0.3)
    apart = compare_unpaired("auc", (truth, score), (truth, score))
    for one in (found, apart):
        assert one.verdict == "no evidence"
        assert reason in one.reason
        assert one.difference is None and one.improvement is None and one.p_value is None
        assert not one.not_worse(1)
        assert "difference" not in one.as_dict()
        assert ("challenger" in one.as_dict()) == (0 < sum(truth) < len(truth))
    assert apart.reason.startswith("challenger: ")


def test_few_blocks_empty_arms_and_no_positives_are_no_evidence():
    truth, ours, theirs = rows(0, 40)
    assert "at least 5 blocks; the 40 rows are of 2" in compare("auc", truth, ours, theirs, blocks=truth).reason
    one_block = compare("auc", truth, ours, theirs, blocks=np.zeros(40))
    assert (one_block.verdict, one_block.challenger) == ("no evidence", None)
    assert compare_unpaired("auc", ([], []), (truth, ours)).reason == "the challenger has no rows"
    nobody = compare("precision", truth, np.zeros(40), ours > 0)
    assert nobody.verdict == "no evidence"
    assert "divides by zero" in nobody.reason


def test_own_metrics_are_compared_by_bootstrap():
    truth, ours, theirs = rows(0, 400, ours=2.0, theirs=0.5)
    found = compare(GAP, truth, ours, theirs)
    assert found.verdict == "better"
    assert found == compare(GAP, truth, ours, theirs)
    assert compare(GAP, truth, ours, ours).verdict == "no evidence"
    assert compare_unpaired(GAP, (truth, ours), (truth, theirs)).verdict == "better"
    days = np.arange(400) // 20
    assert compare(GAP, truth, ours, theirs, blocks=days).difference.method == "bootstrap of 1,000, 20 blocks"


def test_multiclass_labels_are_compared():
    random = np.random.default_rng(0)
    truth = random.choice(["ant", "bee", "cow"], 300)
    ours = np.where(random.random(300) < 0.9, truth, "bee")
    theirs = np.where(random.random(300) < 0.5, truth, "ant")
    unknown = np.where(random.random(300) < 0.9, truth, "dog")  # a class that only this model names
    for name in ("accuracy", "macro_f1"):
        one = metric(name, "multiclass")
        assert compare(one, truth, ours, theirs).verdict == "better"
        found = compare(one, truth, unknown, theirs)
        assert found.difference.value == pytest.approx(one.compute(truth, unknown) - one.compute(truth, theirs))


def test_a_comparison_reads_as_a_sentence_and_as_plain_data():
    truth, ours, theirs = rows(0, 2000, ours=2.0, theirs=0.5)
    found = compare("auc", truth, ours, theirs)
    assert str(found).startswith("auc 0.") and " against 0." in str(found) and ": better (" in str(found)
    assert set(found.as_dict()["challenger"]) == {"low", "value", "high", "level", "method"}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t, a, b: compare("auc", t, a, b[:-1]), InvalidInput, "truth has 40 rows and prediction 39"),
        (lambda t, a, b: compare("auc", t, a, b, margin=-0.1), InvalidInput, "margin is -0.1"),
        (lambda t, a, b: compare("auc", t, a, b, level=2), InvalidInput, "level is 2"),
        (lambda t, a, b: compare("bias", t, a, b), InvalidInput, "bias has no better direction"),
        (lambda t, a, b: compare("ouc", t, a, b), NotFound, 'did you mean "auc"'),
        (lambda t, a, b: compare("auc", t, a * np.nan, b), InvalidInput, "40 NaN"),
        (
            lambda t, a, b: compare_unpaired("auc", (t, a), (t, b), blocks=(t, t.astype(str))),
            InvalidInput,
            "expected one type",
        ),
    ],
)
def test_malformed_input_raises(call, error, message):
    with pytest.raises(error, match=message):
        call(*rows(0, 40))
