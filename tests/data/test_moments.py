"""Before extraction, on the batch, before publishing: what each moment can know and no more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest

from flyball.data.checking import check, split
from flyball.data.contracts import read_contract
from flyball.data.moments import check_append, expectation_of, of_batch, of_version
from flyball.data.terms import Contract
from flyball.errors import InvalidInput

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def contract(**more: Any) -> Contract:
    properties = [
        {"name": "id", "logicalType": "integer", "primaryKey": True},
        {"name": "amount", "logicalType": "number", "physicalName": "amt", "logicalTypeOptions": {"minimum": 0}},
        {"name": "city", "quality": [custom({"check": "depends_on", "columns": ["zip"]})]},
        {"name": "zip", "logicalType": "string"},
        {"name": "at", "logicalType": "timestamp"},
    ]
    quality = [
        {"metric": "rowCount", "mustBeGreaterThan": 3},
        custom({"aggregate": "mean", "column": "amount", "mustBeBetween": [1, 3]}),
    ]
    sla = [{"property": "freshness", "value": 1, "unit": "d", "element": "t.at"}]
    table = {"name": "t", "properties": properties, "quality": quality, **more}
    return read_contract({"apiVersion": "v3.1.0", "kind": "DataContract", "id": "c", "version": "1.0.0",
                          "schema": [table], "slaProperties": sla})  # fmt: skip


def custom(how: dict[str, Any]) -> dict[str, Any]:
    return {"type": "custom", "engine": "flyball", "implementation": how}


def rows(ids: list[int], amounts: list[float], city: str = "Bonn", at: datetime = NOW) -> pl.DataFrame:
    return pl.DataFrame({"id": ids, "amount": amounts, "city": city, "zip": "53111", "at": at.replace(tzinfo=None)})


def test_a_source_is_judged_by_its_columns_and_age_before_a_row_is_read() -> None:
    expected = expectation_of(contract())
    assert expected.freshness_s == {"at": 86_400} and expected.types["amount"] == "number"
    schema = {"id": pl.Int32(), "amt": pl.Decimal(10, 2), "city": pl.String(), "zip": pl.String(), "at": pl.Datetime()}
    assert expected.problems(schema, {"at": NOW - timedelta(hours=23)}, now=NOW) == []
    late = expected.problems(schema, {"at": datetime(2025, 12, 31, 23, tzinfo=timezone(timedelta(hours=1)))}, now=NOW)
    assert late == ["the newest at is 26.0 hours old; expected at most 24.0"]
    other = {**schema, "id": pl.Boolean(), "zipp": pl.String()}
    del other["zip"]
    assert expected.problems(other) == [
        "id is boolean, which cannot be read as integer",
        'there is no column "zip"; did you mean "zipp"?',
    ]
    strict = expectation_of(contract(customProperties=[{"property": "strict", "value": True}]))
    assert strict.problems({**schema, "more": pl.Int8()}) == ['the contract does not name the column "more"']
    assert expected.problems({**schema, "id": pl.String()}) == []  # text may hold numbers; the batch will tell


def test_rules_of_the_batch_and_rules_of_the_version_are_all_rules_and_overlap_in_none() -> None:
    whole = contract()
    batch, version = {r.id for r in of_batch(whole).rules}, {r.id for r in of_version(whole).rules}
    assert batch | version == {r.id for r in whole.rules} and not batch & version
    assert {"table.row_count", "id.primary_key", "city.depends_on", "amount.aggregate", "at.freshness"} == version


def test_rows_that_follow_others_are_judged_by_what_the_version_will_be() -> None:
    before = rows([1, 2, 3], [2.0, 2.0, 2.0], at=NOW - timedelta(days=30)).lazy()
    batch = rows([4, 5], [0.5, 2.5])
    assert not check(batch, contract(), now=NOW).passed  # alone they are too few
    report = check_append(batch, before, contract(), now=NOW)
    assert report.passed and report.rows == 2 and report.checks == len(contract().rules)
    again = check_append(rows([3, 4], [2.0, 2.0]), before, contract(), now=NOW)
    assert again.fail_kind == "table" and [r.id for r in again.failures] == ["id.primary_key"]
    moved = check_append(rows([4, 5], [2.0, 2.0], city="Köln"), before, contract(), now=NOW)
    assert {r.id: r.failed for r in moved.failures} == {"city.depends_on": 2}
    negative = check_append(rows([4, 5], [-1.0, 2.0]), before, contract(), now=NOW)
    assert (negative.fail_kind, negative.rows_failed) == ("rows", 1)
    far = check_append(rows([4, 5], [900.0, 2.0]), before, contract(), now=NOW)
    assert [r.id for r in far.failures] == ["amount.aggregate"]


def test_a_value_unlike_the_rest_of_its_group_is_blamed_and_a_tie_blames_both() -> None:
    table = pl.DataFrame(
        {
            "id": range(8),
            "amount": 2.0,
            "city": ["Bonn", "Bonn", "Bxnn", "Köln", "Kyln", None, "Ulm", "Ulm"],
            "zip": ["1", "1", "1", "2", "2", "2", None, "9"],
            "at": NOW.replace(tzinfo=None),
        }
    )
    report = check(table, contract(), now=NOW)
    found = {r.id: r for r in report.results}["city.depends_on"]
    assert found.failed == report.rows_failed == 3 and [kept["row"] for kept in found.sample] == [2, 3, 4]
    assert split(table, contract(), now=NOW)[1]["city"].to_list() == ["Bxnn", "Köln", "Kyln"]
    wrongs: list[dict[str, Any]] = [{"columns": []}, {"columns": ["city"]}, {"columns": ["zap"]}, {}]
    for wrong in wrongs:
        with pytest.raises(InvalidInput, match="city"):
            contract(quality=[], properties=[{"name": "city", "quality": [custom({"check": "depends_on", **wrong})]}])
