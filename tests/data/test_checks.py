"""Each check on rows that it must find and rows that it must leave alone, against what plain Python says."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from statistics import mean, stdev
from typing import Any

import polars as pl
import pytest

from flyball import plugins
from flyball.data.checking import check
from flyball.data.checks.format import PATTERNS
from flyball.data.contracts import read_contract
from flyball.data.reports import RuleResult

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def result(
    rule_id: str, values: Any, *, quality: list[dict[str, Any]] | None = None, table: Any = None, **said: Any
) -> RuleResult:
    """Check one column `x` and return what one rule found."""
    column = {"name": "x", **said, "quality": quality or []}
    document: dict[str, Any] = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "c", "version": "1"}
    document["schema"] = [{"name": "t", "properties": [column], "quality": table or []}]
    data = values if isinstance(values, pl.DataFrame) else pl.DataFrame({"x": values})
    report = check(data, read_contract(document), now=NOW, sample=50)
    return next(r for r in report.results if r.id == rule_id)


def failing(*args: Any, **said: Any) -> list[int]:
    found = result(*args, **said)
    rows = [row["row"] for row in found.sample]
    assert len(rows) == found.failed
    return rows


def test_every_check_is_found_by_name_and_has_both_functions() -> None:
    family = "flyball.data.checks"
    assert {"type", "unique", "cross_field"} <= set(plugins.names(family))
    for name in plugins.names(family):
        module = plugins.find(family, name)
        assert callable(module.validate) and callable(module.compile) and module.__doc__


@pytest.mark.parametrize(
    ("logical", "values", "bad"),
    [
        ("integer", ["1", "2.0", "2.5", "x", None, "99999999999999999999", ""], [2, 3, 5, 6]),
        ("integer", [1.0, 2.5, None], [1]),
        ("integer", [True, None], [0]),
        ("number", ["1e3", "-0.5", "one", "1,5", None], [2, 3]),
        ("number", [1, 2], []),
        ("boolean", ["true", "FALSE", "1", "yes", None], [3]),
        ("boolean", [0, 1, 2], [2]),
        ("string", [1, None], [0]),
        ("string", ["a", "", None], []),
        ("date", ["2024-02-29", "2023-02-29", "01.02.2024", None], [1, 2]),
        ("date", [datetime(2024, 1, 1), datetime(2024, 1, 1, 3)], [1]),
        ("timestamp", ["2024-01-01T10:00:00Z", "2024-01-01 10:00", "2024-01-01", "10:00", "x"], [3, 4]),
        ("timestamp", [date(2024, 1, 1)], []),
        ("time", ["23:59:59", "24:00:00"], [1]),
        ("array", ["[1, 2]", "{}", "x"], [1, 2]),
        ("array", [[1], []], []),
        ("object", ['{"a": 1}', "[]"], [1]),
        ("object", [{"a": 1}], []),
    ],
)
def test_a_value_that_cannot_be_read_as_its_type_is_counted(logical: str, values: list[Any], bad: list[int]) -> None:
    assert failing("x.type", values, logicalType=logical) == bad


def test_a_written_date_format_is_the_one_to_read_by() -> None:
    options = {"format": "dd.MM.yyyy", "minimum": "2024-01-02"}
    values = ["01.02.2024", "2024-02-01", "01.01.2024"]
    assert failing("x.type", values, logicalType="date", logicalTypeOptions=options) == [1]
    assert failing("x.range", values, logicalType="date", logicalTypeOptions=options) == [2]


def test_null_nan_infinity_and_the_empty_text_are_told_apart() -> None:
    values = [1.0, None, float("nan"), float("inf")]
    assert failing("x.required", values, logicalType="number", required=True) == [1]
    assert failing("x.finite", values, logicalType="number") == [2, 3]
    assert failing("x.range", values, logicalType="number", logicalTypeOptions={"maximum": 5}) == [3]
    assert failing("x.finite", ["NaN", "1", "inf"], logicalType="number") == [0, 2]
    assert failing("x.finite", [2.0, float("nan")], logicalType="integer") == [1]
    assert failing("x.type", [2.0, float("nan")], logicalType="integer") == []
    assert failing("x.required", ["", None], logicalType="string", required=True) == [1]
    missing = [{"metric": "missingValues", "arguments": {"missingValues": ["", "N/A", None]}, "mustBe": 0}]
    assert failing("x.missing", ["", "N/A", "a", None], quality=missing) == [0, 1, 3]


def test_all_rows_that_share_a_value_are_found_and_nulls_share_nothing() -> None:
    assert failing("x.unique", ["a", "b", "a", None, None], unique=True) == [0, 2]
    assert failing("x.unique", [3, 1, 2, 1, -1, 3], unique=True) == [0, 1, 3, 5]
    assert failing("x.unique", [0.5, float("nan"), float("nan")], unique=True) == [1, 2]
    assert failing("x.primary_key", [1, None, 2, 2], primaryKey=True) == [1, 2, 3]


def test_a_range_excludes_what_it_says() -> None:
    values = [1, 2, 3, 4, None]
    assert failing("x.range", values, logicalType="integer", logicalTypeOptions={"minimum": 2, "maximum": 3}) == [0, 3]
    exclusive = {"exclusiveMinimum": 2, "exclusiveMaximum": 4}
    assert failing("x.range", values, logicalType="integer", logicalTypeOptions=exclusive) == [0, 1, 3]
    old = {"minimum": 2, "exclusiveMinimum": True}  # as ODCS 3.0 has it
    assert failing("x.range", values, logicalType="integer", logicalTypeOptions=old) == [0, 1]
    assert failing("x.range", ["5", "50"], logicalType="integer", logicalTypeOptions={"maximum": 9}) == [1]


def test_ranges_of_times_compare_instants_across_zones() -> None:
    limit = {"maximum": "2024-01-01T12:00:00+02:00"}
    values = ["2024-01-01T10:00:00Z", "2024-01-01T10:00:01Z", "2024-01-01T12:00:01+03:00"]
    assert failing("x.range", values, logicalType="timestamp", logicalTypeOptions=limit) == [1]
    zoned = pl.DataFrame({"x": values}).select(pl.col("x").str.to_datetime(time_zone="America/New_York"))
    assert failing("x.range", zoned, logicalType="timestamp", logicalTypeOptions=limit) == [1]
    local = {"maximum": "2024-07-01T04:00:00Z", "defaultTimezone": "America/New_York"}
    naive = [datetime(2024, 7, 1), datetime(2024, 7, 1, 0, 0, 1)]
    assert failing("x.range", naive, logicalType="timestamp", logicalTypeOptions=local) == [1]
    noon = {"minimum": "12:00:00"}
    assert failing("x.range", [time(11), time(12)], logicalType="time", logicalTypeOptions=noon) == [0]


def test_enumerations_patterns_and_lengths_look_at_values_and_leave_null_alone() -> None:
    valid = [{"metric": "invalidValues", "arguments": {"validValues": ["a", "b"]}, "mustBe": 0}]
    assert failing("x.enum", ["a", "A", None, "b"], quality=valid) == [1]
    assert failing("x.enum", [1, 2, 3], logicalType="integer", enum=[{"value": 1}, {"value": 2}]) == [2]
    coded = pl.DataFrame({"x": pl.Series(["a", "c"], dtype=pl.Categorical)})
    assert failing("x.enum", coded, logicalType="string", quality=valid) == [1]
    values = ["ACC1", "ACC", None, "xACC12"]
    expected = [i for i, v in enumerate(values) if v is not None and not re.search("ACC[0-9]", v)]
    assert failing("x.pattern", values, logicalType="string", logicalTypeOptions={"pattern": "ACC[0-9]"}) == expected
    assert failing("x.length", ["é", "éé", None], logicalType="string", logicalTypeOptions={"minLength": 2}) == [0]
    assert failing("x.length", [[1], [1, 2]], logicalType="array", logicalTypeOptions={"maxItems": 1}) == [1]
    assert failing("x.length", ["[1, 2]", "[]"], logicalType="array", logicalTypeOptions={"maxItems": 1}) == [0]


def test_arrays_and_objects_are_checked_as_structs_and_as_json() -> None:
    assert failing(
        "x.unique_items", [[1, 1], [1, 2]], logicalType="array", logicalTypeOptions={"uniqueItems": True}
    ) == [0]
    assert failing(
        "x.unique_items", ["[1,1]", "[1]"], logicalType="array", logicalTypeOptions={"uniqueItems": True}
    ) == [0]
    required = {"required": ["a"]}
    assert failing("x.fields", [{"a": 1}, {"a": None}], logicalType="object", logicalTypeOptions=required) == [1]
    assert failing("x.fields", ['{"a": 1}', "{}"], logicalType="object", logicalTypeOptions=required) == [1]


@pytest.mark.parametrize(
    ("written", "good", "bad"),
    [
        ("email", ["a.b+c@example.co.uk"], ["a@b", "a b@c.de", "@c.de"]),
        ("uuid", ["53581432-6c55-4ba2-a65f-72344a91553a"], ["53581432"]),
        ("ipv4", ["127.0.0.1", "255.255.255.255"], ["256.1.1.1", "1.2.3"]),
        ("ipv6", ["::1", "2001:db8::ff00:42:8329", "::ffff:1.2.3.4"], ["1::2::3", "12345::"]),
        ("hostname", ["example.com", "a-b"], ["-a", "a..b"]),
        ("uri", ["https://a.b/c", "urn:x:y"], ["no uri"]),
        ("byte", ["YWJj", "YQ=="], ["YQ"]),
    ],
)
def test_formats_of_texts(written: str, good: list[str], bad: list[str]) -> None:
    assert written in PATTERNS
    found = failing("x.format", good + bad, logicalType="string", logicalTypeOptions={"format": written})
    assert found == list(range(len(good), len(good + bad)))


def test_multiples_allow_for_rounding() -> None:
    assert failing("x.multiple_of", [10, 12, -5], logicalType="integer", logicalTypeOptions={"multipleOf": 5}) == [1]
    cents = [0.1 + 0.2, 19.99, 19.999]
    assert failing("x.multiple_of", cents, logicalType="number", logicalTypeOptions={"multipleOf": 0.01}) == [2]


def custom(implementation: Any) -> list[dict[str, Any]]:
    return [{"type": "custom", "engine": "flyball", "implementation": implementation}]


def test_a_condition_sees_converted_values_and_unknown_does_not_fail() -> None:
    assert failing("x.cross_field", ["2", "10", None], logicalType="integer", quality=custom("x > 5")) == [0]
    tolerant = result("x.cross_field", [1, 9, 9], quality=custom({"expression": "x > 5", "mustBeLessThan": 2}))
    assert (tolerant.failed, tolerant.passed) == (1, True)


def test_a_condition_that_does_not_fit_the_data_is_a_failed_rule() -> None:
    for expression in ("x > 5", "x + 1", "CAST(x AS INT) > 0"):
        found = result("x.cross_field", ["a", "b"], quality=custom({"expression": expression}))
        assert not found.passed and "cannot be evaluated" in found.message


@pytest.mark.parametrize("rows", [2, 300_000])
def test_aggregates_of_batches_equal_those_of_the_whole(rows: int) -> None:
    values = [1e9 + (i * 7919 % 1000) / 1000 for i in range(rows)]
    for name, expected in (
        ("mean", mean(values[:1000])),
        ("standard_deviation", stdev(values[:1000])),
        ("minimum", 1e9),
    ):
        about = custom({"aggregate": name, "mustBeGreaterThan": 0})
        found = result("x.aggregate", values, quality=about)
        exact = {"mean": mean, "standard_deviation": stdev, "minimum": min}[name](values) if rows < 1000 else expected
        assert found.value == pytest.approx(exact, rel=1e-3 if name == "standard_deviation" else 1e-9)
    nulls = result("x.aggregate", [1, None], quality=custom({"aggregate": "null_fraction", "mustBeLessThan": 0.1}))
    assert (nulls.value, nulls.passed) == (0.5, False)
    nothing = result("x.aggregate", [None, None], quality=custom({"aggregate": "mean", "mustBe": 0}))
    assert not nothing.passed and "no values" in nothing.message


def test_rows_are_counted_and_shares_of_rows_are_bounded() -> None:
    assert result("table.row_count", [1, 2], table=[{"metric": "rowCount", "mustBe": 2}]).passed
    few = [{"metric": "nullValues", "mustBeLessThan": 50, "unit": "percent"}]
    assert result("x.required", [1, None, 2], quality=few).passed
    found = result("x.required", [None, None, 2], quality=few)
    assert not found.passed and "expected < 50 %" in found.message


def test_sql_returns_one_number() -> None:
    def ask(query: str, values: Any = ("1", "-2")) -> RuleResult:
        return result("x.sql", values, logicalType="integer", quality=[{"type": "sql", "query": query, "mustBe": 1}])

    assert ask("SELECT COUNT(*) FROM t WHERE x < 0").passed
    assert ask("select count(*) from ${table} where ${column} < 0;").passed
    assert ask("WITH bad AS (SELECT * FROM t WHERE x < 0) SELECT COUNT(*) FROM bad").passed
    for query, says in (
        ("SELECT COUNT(*) FROM u", "the query failed"),
        ("SELECT x FROM t", "2 rows of 1 columns"),
        ("SELECT MAX(x) FROM t WHERE x > 9", "null"),
    ):
        found = ask(query)
        assert not found.passed and says in found.message


def test_freshness_is_the_age_of_the_newest_time() -> None:
    from flyball.data.contracts import read_contract

    document = {
        "apiVersion": "v3.1.0", "kind": "DataContract", "id": "c", "version": "1",
        "schema": [{"name": "t", "properties": [{"name": "at", "logicalType": "timestamp"}]}],
        "slaProperties": [{"property": "freshness", "value": 24, "unit": "h", "element": "t.at"}],
    }  # fmt: skip
    contract = read_contract(document)
    for age, passed in ((23, True), (24, True), (25, False)):
        data = pl.DataFrame({"at": [NOW - timedelta(hours=age), NOW - timedelta(days=9), None]})
        assert {r.id: r.passed for r in check(data, contract, now=NOW).results}["at.freshness"] is passed
    report = check(pl.DataFrame({"at": [None]}), contract, now=NOW)
    assert "no time" in next(r.message for r in report.results if r.check == "freshness")
