"""LIKE beside SQLite's own; regular expressions that mean harm."""

from __future__ import annotations

import sqlite3
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import InvalidInput
from flyball.tracking.likeness import check_expression, like, matching

WITH_CASE, WITHOUT_CASE = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
WITH_CASE.execute("PRAGMA case_sensitive_like = ON")

letters = st.text(st.sampled_from("aAbß%_\\.*\n日"), max_size=8)


@settings(max_examples=500)
@given(letters, letters)
def test_like_is_that_of_the_database_with_case(text: str, pattern: str) -> None:
    for database, is_case_ignored in ((WITH_CASE, False), (WITHOUT_CASE, True)):
        (expected,) = database.execute("SELECT ? LIKE ?", (text, pattern)).fetchone()
        assert like(pattern, is_case_ignored=is_case_ignored)(text) is bool(expected)


def test_case_is_ignored_beyond_ascii() -> None:
    assert like("zoË%", is_case_ignored=True)("ZOë!")


@pytest.mark.parametrize("pattern", ["%a" * 500 + "b%", "%a_" * 300 + "b", "_" * 5000 + "%"])
def test_many_wildcards_take_no_time(pattern: str) -> None:
    start = time.process_time()
    assert not like(pattern)("a" * 4000)
    assert time.process_time() - start < 1


def test_an_expression_that_backtracks_elsewhere_takes_no_time() -> None:
    start = time.process_time()
    assert not matching(r"(a+)+$")("a" * 5000 + "b")
    assert time.process_time() - start < 1


@pytest.mark.parametrize("pattern", ["[", "(", r"(a)\1", "(?=a)", "a" * 20_000])
def test_an_expression_that_cannot_be_read_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput, match="Invalid regular expression"):
        check_expression(pattern)
