"""Rules about another dataset: figures of real data, composite keys, types that differ, and what is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from flyball.data.checking import FAILED_COLUMN, check, split
from flyball.data.contracts import read_contract
from flyball.data.references import KeySet, references
from flyball.data.terms import Contract
from flyball.errors import InvalidInput, NotFound


def contract(*properties: dict[str, Any], relationships: list[dict[str, Any]] | None = None) -> Contract:
    table = {"name": "flights", "physicalName": "raw_flights", "properties": list(properties),
             "relationships": relationships or []}  # fmt: skip
    return read_contract(
        {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "f", "name": "f", "version": "1.0.0", "schema": [table]}
    )


def column(name: str, logical: str | None = None, to: str | None = None, **said: Any) -> dict[str, Any]:
    return {"name": name, "logicalType": logical, **({"relationships": [{"to": to}]} if to else {}), **said}


def reference(dataset: str, **how: Any) -> list[dict[str, Any]]:
    return [
        {"type": "custom", "engine": "flyball", "implementation": {"check": "reference", "dataset": dataset, **how}}
    ]


def resolver(**tables: pl.DataFrame) -> Any:
    def resolve(name: str) -> pl.LazyFrame:
        if name.partition("@")[0] not in tables:
            raise NotFound(f"there is no dataset/{name}")
        return tables[name.partition("@")[0]].lazy()

    return resolve


def test_the_published_anti_joins_of_flights_come_out(shared_data: Path) -> None:
    folder = shared_data / "nycflights13"

    def resolve(name: str) -> pl.LazyFrame:
        name = name.partition("@")[0]
        return (
            pl.scan_csv(folder / f"{name}.csv") if name == "airlines" else pl.scan_parquet(folder / f"{name}.parquet")
        )

    rules = contract(
        column("tailnum", "string", "planes.tailnum", required=True),
        column("dest", "string", "airports.faa"),
        column("carrier", "string", quality=reference("airlines@latest", column="carrier")),
        column("origin", "string"),
        column("time_hour", "timestamp"),
        relationships=[
            {"from": ["flights.origin", "flights.time_hour"], "to": ["weather.origin", "weather.time_hour"]}
        ],
    )
    assert references(rules) == {
        "planes": ("tailnum",), "airports": ("faa",), "airlines@latest": ("carrier",),
        "weather": ("origin", "time_hour"),
    }  # fmt: skip
    flights = resolve("flights")
    report = check(flights, rules, resolve=resolve)
    found = {r.id: r for r in report.results}
    assert found["tailnum.reference"].failed == 52_606 - 2_512  # the published count has the nulls, which are …
    assert found["tailnum.required"].failed == 2_512  # … another rule's
    assert found["dest.reference"].failed == 7_602
    assert found["carrier.reference"].passed
    assert found["table.reference"].failed == 1_528
    assert len(found["table.reference"].sample) == 5
    bad = split(flights, rules, resolve=resolve)[1].collect()
    assert bad.height == report.rows_failed
    lost = bad.filter(pl.col(FAILED_COLUMN).list.contains("tailnum.reference"))["tailnum"]
    assert lost.n_unique() == 722 - 1 and lost.null_count() == 0


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (pl.Series([1, 2, 9], dtype=pl.Int8), pl.Series([1, 2, 3], dtype=pl.UInt64)),
        (pl.Series([1, 2, 2**40]), pl.Series([1, 2, -(2**40), 2**62])),
        (pl.Series([1.0, 2.0, 2.5]), pl.Series([1, 2, 3])),
        (pl.Series(["a", "b", "c"], dtype=pl.Categorical), pl.Series(["a", "b"])),
        (pl.Series(["2024-01-01", "2024-01-02", "2024-01-09"]).str.to_date(),
         pl.Series(["2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"]).str.to_datetime(time_zone="UTC")),
    ],
)  # fmt: skip
def test_values_of_alike_types_are_compared_as_what_they_mean(ours: pl.Series, theirs: pl.Series) -> None:
    rules = contract(column("x", to="other.y"))
    found = check(pl.DataFrame({"x": ours}), rules, resolve=resolver(other=pl.DataFrame({"y": theirs})))
    assert {r.id: r.failed for r in found.results}["x.reference"] == 1


def test_values_that_cannot_be_compared_are_a_failed_rule_and_not_a_pass() -> None:
    found = check(
        pl.DataFrame({"x": ["1"]}),
        contract(column("x", to="other.y")),
        resolve=resolver(other=pl.DataFrame({"y": [1]})),
    )
    assert not found.passed and "x is string, but y of other is int64" in str(found)


def test_a_null_in_a_composite_key_refers_to_nothing_and_is_not_checked() -> None:
    rules = contract(
        column("a"), column("b"), relationships=[{"from": ["flights.a", "flights.b"], "to": ["o.a", "o.b"]}]
    )
    rows = pl.DataFrame({"a": ["x", "x", None, "y"], "b": [1, 2, 3, None]})
    found = check(rows, rules, resolve=resolver(o=pl.DataFrame({"a": ["x", "y"], "b": [1, 2]})))
    result = {r.id: r for r in found.results}["table.reference"]
    assert (result.failed, [kept["row"] for kept in result.sample]) == (1, [1])


def test_what_a_contract_refers_to_must_be_there() -> None:
    rules, rows = contract(column("x", to="airlines.carrier")), pl.DataFrame({"x": ["AA"]})
    with pytest.raises(InvalidInput, match=r"refers to the dataset airlines, and nothing says .* resolve="):
        check(rows, rules)
    with pytest.raises(InvalidInput, match="there is no dataset/airlines"):
        check(rows, rules, resolve=resolver())
    with pytest.raises(InvalidInput, match='no column "carrier"; did you mean "carriers"'):
        split(rows, rules, resolve=resolver(airlines=pl.DataFrame({"carriers": ["AA"]})))


@pytest.mark.parametrize(
    ("relationship", "message"),
    [
        ({"to": "airlines"}, "expected table.column"),
        ({}, "names no target"),
        ({"to": "a.b", "type": "friend"}, 'unknown type "friend"'),
        ({"to": "a.b", "form": "x"}, 'did you mean "from"'),
        ({"to": "a.b", "from": "flights.x"}, "remove it"),
        ({"to": ["a.b", "c.d"]}, "several tables"),
        ({"to": ["a.b", "a.d"]}, "compares 1 columns with 2"),
        ({"to": "schema/nowhere/properties/x"}, 'nothing has the id "nowhere"'),
    ],
)
def test_a_relationship_that_means_nothing_is_refused_when_read(relationship: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        contract({"name": "x", "relationships": [relationship]})


def test_the_left_side_must_be_in_the_table() -> None:
    with pytest.raises(InvalidInput, match='unknown column "y"'):
        contract(column("x"), relationships=[{"from": "flights.y", "to": "a.b"}])
    with pytest.raises(InvalidInput, match="not in flights"):
        contract(column("x"), relationships=[{"from": "planes.x", "to": "a.b"}])
    assert contract(column("x"), relationships=[{"from": "raw_flights.x", "to": "a.b"}])
    with pytest.raises(InvalidInput, match="unknown column"):
        contract(column("x", quality=reference("a", columns=["z"], to=["b"])))


@pytest.mark.parametrize("integers", [True, False])
@pytest.mark.parametrize("span", [5_000, 2**62])
@pytest.mark.parametrize("limit", [3_000, 10**9])
def test_a_set_of_keys_tells_members_from_strangers_in_memory_and_on_disk(
    integers: bool, span: int, limit: int
) -> None:
    rng = np.random.default_rng(3)
    batches = [rng.integers(-span, span, 2_500).astype(np.int64) for _ in range(4)]
    keys = KeySet(integers=integers, limit=limit)
    for batch in batches:
        keys.add(batch.view(np.uint64))
    keys.finish()
    asked = np.concatenate([*batches, rng.integers(-span - 9, span + 9, 5_000)])
    assert np.array_equal(keys.contains(asked.view(np.uint64)), np.isin(asked, np.concatenate(batches)))
    nothing = KeySet(integers=integers).finish()
    assert not nothing.contains(asked.view(np.uint64)).any()
