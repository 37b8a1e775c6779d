"""Which variant answers."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import NotFound
from flyball.serving.router import choose, named, slot
from flyball.serving.snapshot import Variant

KEYS = [f"key {number}" for number in range(20_000)]


def table(canary: float, baseline: float = 0.0) -> list[Variant]:
    found = [Variant("champion", "m@1", "", 100 - canary - baseline), Variant("canary", "m@2", "", canary)]
    return found + ([Variant("baseline", "m@1", "", baseline)] if baseline else [])


def test_a_slot_is_the_same_in_every_process_and_release() -> None:
    assert [slot(key, "late") for key in ("", "N13914", "ü")] == [1012, 781, 2308]


def test_shares_are_what_the_table_says() -> None:
    counts = Counter(choose(key, "late", table(25, 10)).name for key in KEYS)
    for name, share in (("champion", 0.65), ("canary", 0.25), ("baseline", 0.10)):
        assert abs(counts[name] / len(KEYS) - share) < 4 * (share * (1 - share) / len(KEYS)) ** 0.5


def test_a_hundredth_of_a_percent_is_resolved() -> None:
    assert {choose(key, "late", table(0.01)).name == "canary" for key in KEYS if slot(key, "late") == 0} == {True}
    assert all(choose(key, "late", table(0.0)).name == "champion" for key in KEYS)
    assert all(choose(key, "late", table(100.0)).name == "canary" for key in KEYS)


@given(st.text(), st.integers(0, 5000), st.integers(0, 5000))
def test_a_growing_canary_takes_keys_only_from_the_champion(key: str, small: int, more: int) -> None:
    before = choose(key, "late", table(small / 200, small / 200 or 0.01)).name
    grown = (small + more) / 200
    after = choose(key, "late", table(grown, grown or 0.01)).name
    assert after == before or before == "champion"


def test_two_deployments_experiment_on_different_users() -> None:
    first, second = (
        {key for key in KEYS if choose(key, salt, table(10)).name == "canary"} for salt in ("late", "fraud")
    )
    assert len(first & second) / len(first) == pytest.approx(0.1, abs=0.03)


def test_a_tester_names_a_variant() -> None:
    assert named("canary", table(5)).version == "m@2"
    with pytest.raises(NotFound, match='did you mean "canary"'):
        named("canari", table(5))
