"""Columns that look personal are found by what is in them, without false alarms on real tables or telling values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flyball.data.personal import findings, luhn_holds, mod97_holds

# Test numbers that payment networks publish, and examples of ISO 13616.
CARDS = ["4111111111111111", "5555555555554444", "378282246310005", "6011 1111 1111 1117"]
IBANS = ["GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "FR1420041010050500013M02606"]


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (["ann@example.org", "zoë.q+x@example.co.uk", "B@B.DE", "n/a"], "e-mail addresses"),
        (CARDS, "payment card numbers"),
        (IBANS, "IBANs"),
        (["+49 30 901820", "0049 (30) 901-820", "030/9018200", "+1-202-555-0143"], "telephone numbers"),
        ([4111111111111111, 5555555555554444, 4012888888881881], "payment card numbers"),
    ],
)
def test_a_column_is_known_by_its_values(values: list[object], what: str) -> None:
    found = findings(pl.LazyFrame({"a": values, "b": range(len(values))}))
    assert [(f.column, f.what) for f in found] == [("a", what)]
    assert not any(str(value) in found[0].message for value in values)


def test_names_of_people_are_known_by_the_name_of_their_column() -> None:
    frame = pl.LazyFrame({"firstName": ["Ann"], "customer_name": ["Bo"], "filename": ["x.csv"], "product": ["y"]})
    assert [f.column for f in findings(frame)] == ["firstName", "customer_name"]


def test_classified_columns_and_digits_that_fail_their_check_are_passed_over() -> None:
    frame = pl.LazyFrame({"mail": ["a@b.org"] * 9, "n": [str(4111111111111112 + 10 * i) for i in range(9)]})
    assert findings(frame, ["mail"]) == []
    assert not any(map(luhn_holds, ["4111111111111112"]))
    assert not mod97_holds("DE89370400440532013001")


def test_real_tables_about_no_contacts_raise_no_alarm(shared_data: Path) -> None:
    for path in ("nycflights13/flights.parquet", "nycflights13/airports.parquet", "adult/adult.parquet"):
        assert findings(pl.scan_parquet(shared_data / path)) == []
    for name in ("ratings", "tags", "links"):
        assert findings(pl.scan_csv(shared_data / "movielens_small" / f"{name}.csv")) == []


def test_the_phone_numbers_of_the_hospital_table_are_found(shared_data: Path) -> None:
    frame = pl.scan_csv(shared_data / "dirty" / "hospital" / "clean.csv", infer_schema=False)
    assert all(f.column != "ProviderNumber" for f in findings(frame))


def test_a_column_that_half_fits_is_found_and_one_that_fits_less_is_not() -> None:
    rng = np.random.default_rng(0)
    for share, wanted in ((0.52, ["e-mail addresses"]), (0.45, [])):
        is_mail = rng.permutation(np.arange(10_000) < share * 10_000)
        mails = [f"u{i}@example.org" if mail else f"order {i}" for i, mail in enumerate(is_mail)]
        found = findings(pl.LazyFrame({"contact": mails}))
        assert [f.what for f in found] == wanted
        assert [round(f.share, 2) for f in found] == [0.52][: len(wanted)]


def test_few_values_among_many_missing_ones_are_looked_at_all() -> None:
    holes: list[str | None] = [None] * 9_000
    holes[7:40:8] = ["a@b.org", "c@d.org", "", "e@f.org", "g@h.org"]
    found = findings(pl.LazyFrame({"contact": holes}))
    assert [(f.what, f.share) for f in found] == [("e-mail addresses", 1.0)]


def test_an_empty_table_and_one_of_nulls_say_nothing() -> None:
    assert findings(pl.LazyFrame(schema={"a": pl.String})) == []
    assert findings(pl.LazyFrame({"first_name": pl.Series([None, None], dtype=pl.String)})) == []
