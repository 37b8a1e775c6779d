"""Profiles: a split, anyhow, gives the same counts."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import Corrupt, InvalidInput
from flyball.stats.profiles import Profile, bins_of, merge, profile


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(allow_infinity=True, allow_nan=True, width=32)), min_size=1, max_size=80),
    st.lists(st.integers(0, 80), max_size=5),
)
def test_a_numeric_column_split_anyhow_gives_the_same_counts(values, cuts):
    bins = bins_of(values)
    ends = sorted({0, len(values), *(min(c, len(values)) for c in cuts)})
    parts = [profile(values[a:b], bins) for a, b in itertools.pairwise(ends)]
    whole, merged = profile(values, bins), merge(parts)
    assert whole.counts.tolist() == merged.counts.tolist()
    assert whole.rows == len(values)
    assert (whole.finite, whole.least, whole.greatest) == (merged.finite, merged.least, merged.greatest)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=2)), min_size=1, max_size=80), st.integers(0, 80))
def test_a_column_of_names_split_anyhow_gives_the_same_counts(values, cut):
    bins = bins_of(np.array(values, dtype=object))
    parts = [profile(np.array(part, dtype=object), bins) for part in (values[:cut], values[cut:])]
    assert merge(parts).counts.tolist() == profile(np.array(values, dtype=object), bins).counts.tolist()


def test_few_distinct_values_get_a_bin_each_and_values_outside_fall_in_the_outer_bins():
    bins = bins_of([5, 6, 7, 7, 23])
    assert profile([4, 5, 6, 7, 7, 23, 24, None, math.nan], bins).counts.tolist() == [1, 1, 1, 2, 1, 1, 2]


def test_a_new_name_is_counted_as_other_and_a_null_as_null():
    bins = bins_of(["UA", "UA", "AA", None])
    assert bins.names == ("UA", "AA")
    assert profile(["AA", "ZZ", None, "UA"], bins).counts.tolist() == [1, 1, 1, 1]


def test_a_reference_of_nulls_takes_numbers_and_names_as_other():
    bins = bins_of([None, None])
    assert profile([1.0, None], bins).counts.tolist() == [1, 1]
    assert profile(["a", None, "b"], bins).counts.tolist() == [2, 1]


def test_moments_agree_with_numpy_after_merging():
    values = np.random.default_rng(0).normal(5, 2, 1000)
    bins = bins_of(values)
    merged = merge([profile(values[:300], bins), profile(values[300:], bins)])
    assert merged.mean == pytest.approx(values.mean())
    assert merged.deviation == pytest.approx(values.std())


@pytest.mark.parametrize("values", [[1.5, 2.5, None], ["a", "b", None], [True, False, True], [None, None]])
def test_a_profile_survives_json(values):
    before = profile(values, bins_of(values))
    after = Profile.from_json(json.loads(json.dumps(before.to_json())))
    assert after.bins == before.bins
    assert after.counts.tolist() == before.counts.tolist()
    assert (after.mean, after.deviation) == (before.mean, before.deviation)


@pytest.mark.parametrize(
    "stored", [{}, {"counts": [1, 2]}, {"counts": [1, -2, 0], "names": ["a"]}, {"counts": "x", "names": ["a"]}]
)
def test_a_damaged_profile_is_refused(stored):
    with pytest.raises(Corrupt):
        Profile.from_json({**stored, "edges": [0.0, 1.0]} if stored == {"counts": [1, 2]} else stored)


def test_bad_columns_are_refused_with_what_was_expected():
    with pytest.raises(InvalidInput, match="no rows"):
        bins_of([])
    with pytest.raises(InvalidInput, match="holds text"):
        profile(["a"], bins_of([1.0, 2.0]))
    with pytest.raises(InvalidInput, match="one dimension"):
        bins_of(np.zeros((2, 2)))
    with pytest.raises(InvalidInput, match="different bins"):
        merge([profile([1.0], bins_of([1.0])), profile([2.0], bins_of([2.0]))])
    with pytest.raises(InvalidInput, match="no profile"):
        merge([])
