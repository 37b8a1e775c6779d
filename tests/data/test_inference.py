"""Proposed contracts: what is learnt from types, texts and other columns, and that it holds on rows not seen."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.data_contracts import cells
from flyball.data.checking import check
from flyball.data.contracts import read_contract
from flyball.data.dependencies import dependencies, joint_key, ordered_pairs
from flyball.data.inference import infer_contract
from flyball.data.shapes import shape_of
from flyball.data.sources import open_source

HAND = Path(__file__).parent / "contracts"


def proposed(frame: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in infer_contract(frame, "t")["schema"][0]["properties"]}


def dirty(shared_data: Path, name: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    folder = shared_data / "dirty" / name
    clean, bad = (open_source(folder / f"{twin}.csv", as_text=True).collect() for twin in ("clean", "dirty"))
    return clean, bad


@pytest.mark.parametrize(
    ("name", "how", "precision", "recall"),
    [
        ("hospital", "by hand", 0.99, 0.99),
        ("hospital", "all", 0.98, 0.99),
        ("hospital", "every second", 0.97, 0.99),
        ("hospital", "first half", 0.80, 0.97),
        ("beers", "by hand", 1.0, 1.0),
        ("beers", "all", 0.99, 1.0),
        ("beers", "every second", 0.99, 1.0),
        ("beers", "first half", 0.99, 1.0),
    ],
)
def test_known_errors_are_found_by_cell(
    shared_data: Path, name: str, how: str, precision: float, recall: float, record_property: Any
) -> None:
    clean, bad = dirty(shared_data, name)
    samples = {"all": clean, "every second": clean[::2], "first half": clean[: clean.height // 2]}
    document: Any = HAND / f"{name}.odcs.yaml" if how == "by hand" else infer_contract(samples[how], name)
    rules = read_contract(document)
    assert check(clean, rules).passed, str(check(clean, rules))
    found = cells(rules, bad, clean)
    record_property("precision, recall", found)
    assert found[0] >= precision and found[1] >= recall, found


@pytest.mark.parametrize("name", ["weather", "airports", "planes", "flights_schedule_sample"])
def test_an_outlier_that_was_not_seen_does_not_refuse_the_rest(shared_data: Path, name: str) -> None:
    table = pl.read_parquet(shared_data / "nycflights13" / f"{name}.parquet")
    halves = [(table[::2], table[1::2]), (table[1::2], table[::2]),
              (table[: table.height // 2], table[table.height // 2 :])]  # fmt: skip
    for one, other in halves:
        rules = read_contract(infer_contract(one, name))
        assert not check(one, rules).warnings and check(other, rules).passed, str(check(other, rules))


def test_a_feed_in_another_unit_is_refused(shared_data: Path) -> None:
    weather = pl.read_parquet(shared_data / "nycflights13" / "weather.parquet")
    rules = read_contract(infer_contract(weather, "weather"))
    kelvin = check(weather.with_columns((pl.col("temp") + 459.67) * 5 / 9 * 10), rules)
    assert [r.id for r in kelvin.failures] == ["temp.range"]


def test_text_is_read_as_what_it_is() -> None:
    rng = random.Random(0)
    n = 400
    day = date(2020, 1, 1)
    table = pl.DataFrame(
        {
            "zip": [f"{rng.randrange(501, 99_950):05}" for _ in range(n)],
            "account": [str(rng.randrange(10_000, 99_999)) for _ in range(n)],
            "count": [str(rng.randrange(3_000)) for _ in range(n)],
            "price": [f"{rng.uniform(1, 90):.2f}" for _ in range(n)],
            "day": [str(day + timedelta(days=rng.randrange(900))) for _ in range(n)],
            "at": [f"{datetime(2020, 1, 1) + timedelta(minutes=rng.randrange(10**6))}" for _ in range(n)],
            "mail": [f"u{rng.randrange(10**6)}@example.org" for _ in range(n)],
            "phone": [
                f"({rng.randrange(200, 999)}) {rng.randrange(200, 999)}-{rng.randrange(10**4):04}" for _ in range(n)
            ],
            "weight": [f"{rng.randrange(1, 90)} kg" for _ in range(n)],
            "grade": [rng.choice("ABC") for _ in range(n)],
            "words": [
                " ".join(rng.choices(["lorem", "ipsum", "dolor!", "(sic)", "Ärger", "x-y"], k=9)) for _ in range(n)
            ],
            "nothing": [None] * n,
        },
        schema_overrides={"nothing": pl.String},
    )
    found = proposed(table)
    logical = {name: item.get("logicalType") for name, item in found.items()}
    assert logical == {
        "zip": "string", "account": "string", "count": "integer", "price": "number", "day": "date", "at": "timestamp",
        "mail": "string", "phone": "string", "weight": "string", "grade": "string", "words": "string",
        "nothing": "string",
    }  # fmt: skip
    shown = {name: str(item) for name, item in found.items()}
    assert "^[0-9]{5}$" in shown["zip"] and "'format': 'email'" in shown["mail"]
    assert r"\([0-9]{3}\) [0-9]{3}\-[0-9]{4}" in shown["phone"].replace("\\\\", "\\")
    assert "[0-9]+ kg" in shown["weight"] and "['A', 'B', 'C']" in shown["grade"]
    assert check(table, read_contract(infer_contract(table, "t"))).passed


def test_shapes_of_texts_hold_the_line_between_format_and_value() -> None:
    def pattern(texts: list[str]) -> str | None:
        shape = shape_of(dict.fromkeys(texts, 5))
        return shape.pattern if shape else None

    assert pattern([f"AB-{i:04}" for i in range(30)]) == r"^\p{Lu}{2}\-[0-9]{4}$"
    few = shape_of({**{f"{i} patients": 5 for i in range(40)}, "unknown": 50})
    assert few is not None and few.pattern == "^(?:[0-9]+ patients|unknown)$"
    assert pattern([f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(100)]) is None  # any word is one
    assert pattern(["x"] * 3) is None and pattern([]) is None
    assert pattern(["a" * 200 + str(i) for i in range(40)]) is None
    cities = [f"{a} {b}" for a in ("New", "Old", "St.", "East") for b in ("York", "Ulm", "Bonn", "Bath", "O'Hara")] * 1
    assert pattern(cities) is None or pl.Series(cities).str.contains(str(pattern(cities))).all()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text(alphabet="aZé9ß -_.(|^$\\Ⅷ٣ \n", min_size=1, max_size=7), min_size=20, max_size=60, unique=True)
)
def test_a_shape_matches_every_text_it_was_learnt_from(texts: list[str]) -> None:
    document = infer_contract(pl.DataFrame({"text": texts * 40}), "t")
    assert not check(pl.DataFrame({"text": texts * 40}), read_contract(document)).warnings


def test_dependencies_are_found_and_chance_is_not_taken_for_one() -> None:
    rng = np.random.default_rng(0)
    n = 3_000
    shop = rng.integers(0, 60, n)
    frame = pl.DataFrame(
        {
            "shop_id": shop,
            "city": [f"city {s % 23}" for s in shop],
            "region": [f"region {s % 23 % 5}" for s in shop],
            "coin": rng.choice(["heads", "tails"], n),
            "constant": "x",
            "number": np.arange(n),
            "price": rng.normal(size=n),
        }
    )
    found = dependencies(frame.lazy(), n)
    assert {(by, column) for by, column in found} == {
        (("shop_id",), "city"), (("shop_id",), "region"), (("city",), "region"),
    }  # fmt: skip
    code = frame.with_columns(code=pl.format("{}/{}", "region", "coin"))
    assert (("coin", "region"), "code") in dependencies(code.lazy(), n) or (("region", "coin"), "code") in dependencies(
        code.lazy(), n
    )
    broken = frame.with_columns(
        pl.when(pl.col("number") == 7).then(pl.lit("elsewhere")).otherwise("city").alias("city")
    )
    assert (("shop_id",), "city") not in dependencies(broken.lazy(), n)


def test_spans_are_ordered_and_two_columns_may_be_the_key(shared_data: Path) -> None:
    weather = pl.scan_parquet(shared_data / "nycflights13" / "weather.parquet")
    assert joint_key(weather, 26_115) == ("origin", "time_hour")
    start = datetime(2024, 1, 1)
    table = pl.DataFrame(
        {
            "min_price": range(300),
            "max_price": [i + i % 7 for i in range(300)],
            "placed": [start + timedelta(hours=i) for i in range(300)],
            "shipped": [start + timedelta(hours=i + 5) for i in range(300)],
            "born": [datetime(1990, 1, 1)] * 300,
        }
    )
    assert ordered_pairs(table.lazy(), 300) == [("placed", "shipped"), ("min_price", "max_price")]
    rules = read_contract(infer_contract(table, "t"))
    late = check(table.with_columns(shipped=pl.col("placed").shift(1).fill_null(start)), rules)
    assert any("shipped" in r.message for r in late.warnings)


def test_a_list_that_is_still_growing_is_not_closed() -> None:
    growing = pl.DataFrame({"town": [f"town {i // 100}" for i in range(2_000)]})
    assert "{'validValues'" not in str(proposed(growing)["town"])
    mixed = growing.sample(fraction=1, shuffle=True, seed=1)
    assert "{'validValues'" in str(proposed(mixed)["town"])
