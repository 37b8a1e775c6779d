"""Normalised mutual information against its definition, by counting."""

from __future__ import annotations

import math
import random

import pytest

from flyball.llm.correlation import correlation


def test_it_is_what_the_definition_says() -> None:
    chance = random.Random(7)
    things = [(chance.random() < 0.4, chance.random() < 0.3) for _ in range(500)]
    first, second = sum(a for a, _ in things), sum(b for _, b in things)
    both = sum(a and b for a, b in things)
    p = both / 500
    expected = math.log(p / (first / 500 * (second / 500))) / -math.log(p)
    assert correlation(first, second, both, 500).npmi == pytest.approx(expected)


def test_always_never_and_nothing() -> None:
    assert correlation(5, 5, 5, 5).npmi == 1.0
    assert correlation(5, 5, 0, 10).npmi == -1.0
    assert math.isnan(correlation(0, 5, 0, 10).npmi)
    assert math.isnan(correlation(0, 0, 0, 0).npmi_smoothed)
    assert -1 < correlation(5, 5, 0, 10).npmi_smoothed < 0
