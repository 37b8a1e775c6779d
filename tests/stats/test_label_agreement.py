"""Agreement against scikit-learn, published worked examples, the jackknife and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from flyball.errors import InvalidInput
from flyball.stats.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha

# Krippendorff (2011), section C: four observers, twelve units, labels missing (0 stands for none).
RELIABILITY = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
)
# Fleiss (1971), in the form of the example that is used most: ten subjects, fourteen raters, five categories.
RATED = np.array(
    [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]
)  # fmt: skip


def counted(matrix: np.ndarray, labels: int) -> np.ndarray:
    return np.stack([(matrix == label + 1).sum(axis=0) for label in range(labels)], axis=1)


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_cohens_kappa_is_that_of_scikit_learn(weights: str) -> None:
    random = np.random.default_rng(1)
    for labels in (2, 3, 6):
        first = random.integers(0, labels, 200)
        second = np.where(random.random(200) < 0.6, first, random.integers(0, labels, 200))
        found = cohen_kappa(first, second, labels, weights)  # type: ignore[arg-type]
        expected = cohen_kappa_score(
            first, second, labels=range(labels), weights=None if weights == "none" else weights
        )
        assert found.value == pytest.approx(expected, abs=1e-12)
        assert found.low < found.value < found.high


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_cohens_error_is_that_of_the_delta_method_done_by_numbers(weights: str) -> None:
    random = np.random.default_rng(2)
    first = random.integers(0, 4, 300)
    second = np.where(random.random(300) < 0.5, first, random.integers(0, 4, 300))
    found = cohen_kappa(first, second, 4, weights, level=0.6826894921370859)  # type: ignore[arg-type]
    cells = np.zeros((4, 4))
    np.add.at(cells, (first, second), 1)
    shares = cells / 300
    distance = np.abs(np.subtract.outer(range(4), range(4))) / 3
    agreement = {"none": np.eye(4), "linear": 1 - distance, "quadratic": 1 - distance**2}[weights]

    def kappa(p: np.ndarray) -> float:
        p = p / p.sum()
        expected = (np.outer(p.sum(1), p.sum(0)) * agreement).sum()
        return float(((p * agreement).sum() - expected) / (1 - expected))

    step = 1e-6
    slope = np.zeros(16)
    for cell in range(16):
        moved = np.zeros(16)
        moved[cell] = step
        slope[cell] = (kappa(shares + moved.reshape(4, 4)) - kappa(shares - moved.reshape(4, 4))) / (2 * step)
    p = shares.ravel()
    error = math.sqrt((p * slope**2).sum() - (p * slope).sum() ** 2) / math.sqrt(300)
    assert (found.high - found.low) / 2 == pytest.approx(error, rel=1e-4)


def test_fleiss_kappa_is_that_of_the_worked_example() -> None:
    assert fleiss_kappa(RATED).value == pytest.approx(0.210, abs=5e-4)


def test_fleiss_kappa_of_two_labellers_is_scotts_pi() -> None:
    random = np.random.default_rng(3)
    first, second = random.integers(0, 3, 100), random.integers(0, 3, 100)
    both = np.stack([(first == k).astype(int) + (second == k) for k in range(3)], axis=1)
    shares = both.sum(0) / both.sum()
    expected = (shares**2).sum()
    assert fleiss_kappa(both).value == pytest.approx(((first == second).mean() - expected) / (1 - expected))


def test_fleiss_error_is_near_that_of_the_jackknife() -> None:
    random = np.random.default_rng(4)
    truth = random.integers(0, 3, 200)
    votes = np.where(random.random((200, 5)) < 0.7, truth[:, None], random.integers(0, 3, (200, 5)))
    counts = np.stack([(votes == k).sum(1) for k in range(3)], axis=1)
    found = fleiss_kappa(counts, level=0.6826894921370859)
    without = np.array([fleiss_kappa(np.delete(counts, i, 0)).value for i in range(200)])
    jackknife = math.sqrt(199 / 200 * ((without - without.mean()) ** 2).sum())
    assert (found.high - found.low) / 2 == pytest.approx(jackknife, rel=0.02)


@pytest.mark.parametrize(("scale", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_krippendorffs_example(scale: str, expected: float) -> None:
    found = krippendorff_alpha(counted(RELIABILITY, 5), scale)  # type: ignore[arg-type]
    assert found.value == pytest.approx(expected, abs=5e-4)
    assert found.low < found.value <= found.high


def test_alpha_of_two_observers_and_two_labels_is_that_of_the_example() -> None:
    first = np.array([0, 1, 0, 0, 0, 0, 0, 0, 1, 0])
    second = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0])
    counts = np.stack([(first == k).astype(int) + (second == k) for k in (0, 1)], axis=1)
    assert krippendorff_alpha(counts).value == pytest.approx(0.095, abs=5e-4)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(5)

    def votes(items: int) -> np.ndarray:
        truth = random.integers(0, 3, items)
        return np.where(random.random((items, 3)) < 0.75, truth[:, None], random.integers(0, 3, (items, 3)))

    def counts(v: np.ndarray) -> np.ndarray:
        return np.stack([(v == k).sum(1) for k in range(3)], axis=1)

    many = votes(200_000)
    truths = (
        cohen_kappa(many[:, 0], many[:, 1], 3).value, fleiss_kappa(counts(many)).value,
        krippendorff_alpha(counts(many)).value,
    )  # fmt: skip
    held = np.zeros(3)
    for _ in range(120):
        v = votes(120)
        found = (cohen_kappa(v[:, 0], v[:, 1], 3), fleiss_kappa(counts(v)), krippendorff_alpha(counts(v)))
        held += [i.low <= t <= i.high for i, t in zip(found, truths, strict=True)]
    assert (held / 120 > 0.88).all()


def test_perfect_and_impossible_agreement() -> None:
    assert cohen_kappa([0, 1, 2], [0, 1, 2], 3).value == 1
    assert krippendorff_alpha([[2, 0], [0, 2]]).value == 1
    assert math.isnan(cohen_kappa([1, 1], [1, 1], 2).value)
    assert math.isnan(fleiss_kappa([[3, 0], [3, 0]]).value)
    assert math.isnan(krippendorff_alpha([[2, 0], [2, 0]]).value)
    assert fleiss_kappa([[2, 1]]).high == 1


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda: cohen_kappa([], [], 2), "no item"),
        (lambda: cohen_kappa([0], [0, 1], 2), "1 and 2 labels"),
        (lambda: cohen_kappa([0, 5], [0, 1], 2), "0 to 1"),
        (lambda: cohen_kappa([0, 1], [0, 1], 2, "cubic"), "not a weight"),  # type: ignore[arg-type]
        (lambda: fleiss_kappa([[2, 0], [1, 0]]), "1 to 2 labellers"),
        (lambda: fleiss_kappa(np.zeros((0, 2))), "no item"),
        (lambda: fleiss_kappa([[-1, 3]]), "negative"),
        (lambda: krippendorff_alpha([[1, 0], [0, 1]]), "labels of two labellers"),
        (lambda: krippendorff_alpha([[2, 1]], "ratio"), "not a scale"),  # type: ignore[arg-type]
        (lambda: krippendorff_alpha([[2, 1]], "interval", values=[1.0]), "1 values for 2 labels"),
        (lambda: fleiss_kappa(RATED, level=2), "level"),
    ],
)
def test_what_cannot_be_compared_is_refused(act: object, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        act()  # type: ignore[operator]
