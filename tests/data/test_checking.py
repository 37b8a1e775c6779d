"""Whole tables against whole contracts: real data, dirty data with a clean twin, and whatever Hypothesis thinks of."""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyball.data.checking import FAILED_COLUMN, check, split
from flyball.data.contracts import read_contract
from flyball.data.inference import infer_contract
from flyball.data.keys import KeyFold
from flyball.data.reports import RuleResult
from flyball.data.sources import open_source
from flyball.data.terms import Contract
from flyball.errors import InvalidInput

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def contract(*properties: dict[str, Any], quality: list[dict[str, Any]] | None = None, **table: Any) -> Contract:
    schema = {"name": "t", "properties": list(properties), "quality": quality or [], **table}
    return read_contract(
        {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "c", "name": "c", "version": "1.0.0", "schema": [schema]}
    )


def column(name: str, logical: str | None = None, **said: Any) -> dict[str, Any]:
    options = {k: said.pop(k) for k in ("minimum", "maximum", "pattern", "minLength", "maxLength") if k in said}
    return {"name": name, "logicalType": logical, "logicalTypeOptions": options, **said}


def one_of(*values: Any, severity: str = "error") -> list[dict[str, Any]]:
    return [{"metric": "invalidValues", "arguments": {"validValues": list(values)}, "mustBe": 0, "severity": severity}]


def condition(expression: str) -> dict[str, Any]:
    return {"type": "custom", "engine": "flyball", "implementation": expression}


def by_id(frame: pl.DataFrame | pl.LazyFrame, rules: Contract, **options: Any) -> dict[str, RuleResult]:
    return {r.id: r for r in check(frame, rules, now=NOW, **options).results}


ORDERS = contract(
    column("id", "integer", primaryKey=True),
    column("amount", "number", required=True, minimum=0),
    column("status", "string", quality=one_of("new", "paid")),
    quality=[{"metric": "rowCount", "mustBeGreaterThan": 0}],
)


def test_a_report_says_how_many_rows_fail_and_whether_they_can_be_split_off() -> None:
    data = pl.DataFrame(
        {"id": [1, 2, 2, 4, 5], "amount": [1.0, -1.0, None, 4.0, 5.0], "status": ["new", "new", "paid", "void", "paid"]}
    )
    report = check(data, ORDERS, now=NOW)
    assert (report.passed, report.fail_kind, report.rows, report.rows_failed) == (False, "rows", 5, 3)
    failed = {r.id: (r.failed, r.fraction) for r in report.failures}
    assert failed == {
        "amount.required": (1, 0.2),
        "amount.range": (1, 0.2),
        "status.enum": (1, 0.2),
        "id.primary_key": (2, 0.4),
    }
    assert json.loads(json.dumps(report.to_dict()))["rows_failed"] == 3
    good, bad = split(data, ORDERS)
    assert good.equals(data[[0, 4]])
    assert bad.drop(FAILED_COLUMN).equals(data[[1, 2, 3]])
    assert bad[FAILED_COLUMN].to_list() == [
        ["amount.range", "id.primary_key"],
        ["amount.required", "id.primary_key"],
        ["status.enum"],
    ]
    assert check(good, ORDERS).passed
    again = split(bad, ORDERS)[1]
    assert again.equals(bad)


def test_a_lazy_table_splits_lazily_and_checks_the_same() -> None:
    data = pl.DataFrame({"id": [1, 1], "amount": ["x", "2"], "status": ["new", None]})
    good, bad = split(data.lazy(), ORDERS)
    assert isinstance(good, pl.LazyFrame) and good.collect().height == 0
    assert bad.collect().drop(FAILED_COLUMN).equals(data)
    assert check(data, ORDERS, now=NOW) == check(data.lazy(), ORDERS, now=NOW)


def test_a_missing_column_fails_its_rules_and_names_what_was_meant() -> None:
    data = pl.DataFrame({"id": [1, 2], "amont": [1.0, 2.0], "status": ["new", "paid"]})
    report = check(data, ORDERS)
    assert report.fail_kind == "table" and report.rows_failed == 2
    messages = {r.id: r.message for r in report.results}
    assert messages["amount.required"] == 'the data has no column "amount"; did you mean "amont"?'
    assert "amont" in messages["table.columns"]
    assert [r.id for r in report.warnings] == ["table.columns"]
    assert split(data, ORDERS)[0].height == 0


def test_columns_that_the_contract_does_not_know_fail_a_strict_one_only() -> None:
    data = pl.DataFrame({"a": [1], "b": [2]})
    assert check(data, contract(column("a", "integer"))).passed
    strict = contract(column("a", "integer"), customProperties=[{"property": "strict", "value": True}])
    report = check(data, strict)
    assert not report.passed and report.fail_kind == "table" and strict.strict


def test_a_physical_name_and_a_field_inside_an_object_are_found() -> None:
    address = {
        "name": "address",
        "logicalType": "object",
        "properties": [column("zip", "string", pattern="^[0-9]{5}$")],
    }
    rules = contract({**column("number", "integer", minimum=5), "physicalName": "nr"}, address)
    data = pl.DataFrame({"nr": [4, 5], "address": [{"zip": "12345"}, {"zip": "x"}]})
    found = by_id(data, rules)
    assert found["number.range"].failed == 1 and found["address.zip.pattern"].failed == 1
    assert found["table.columns"].passed
    assert not by_id(pl.DataFrame({"nr": [5], "address": [{"city": "x"}]}), rules)["address.zip.type"].passed


def test_a_table_without_rows_does_not_pass_unless_the_contract_allows_it() -> None:
    empty = pl.DataFrame(schema={"a": pl.Int64})
    report = check(empty, contract(column("a", "integer")))
    assert not report.passed and report.fail_kind == "table" and "nothing was checked" in report.failures[0].message
    assert check(empty, contract(column("a", "integer"), quality=[{"metric": "rowCount", "mustBeLessThan": 5}])).passed
    assert not check(pl.DataFrame(), contract(column("a", "integer"))).passed
    assert split(pl.DataFrame(), contract(column("a")))[1].columns == [FAILED_COLUMN]


def test_warnings_and_tolerated_failures_blame_no_row() -> None:
    few = [{"metric": "nullValues", "mustBeLessThan": 2}]
    rules = contract(column("a", "integer", quality=few), column("s", "string", quality=one_of("x", severity="info")))
    data = pl.DataFrame({"a": [None, 1], "s": ["x", "y"]})
    report = check(data, rules)
    assert report.passed and report.rows_failed == 0 and [r.id for r in report.warnings] == ["s.enum"]
    assert split(data, rules)[0].equals(data)
    worse = check(pl.DataFrame({"a": [None, None], "s": ["x", "x"]}, schema_overrides={"a": pl.Int64}), rules)
    assert (worse.fail_kind, worse.rows_failed) == ("table", 0)


def test_sample_rows_are_few_shortened_and_masked() -> None:
    rules = contract(
        column("id", "integer", primaryKey=True),
        column("email", "string", pattern="@", classification="confidential"),
        column("name", "string", maxLength=5, tags=["PII"]),
        column("note", "string", maxLength=5),
    )
    n = 20
    text = {"email": ["secret"] * n, "name": ["Ada Lovelace"] * n, "note": ["n" * 200] * n, "extra": [1] * n}
    found = by_id(pl.DataFrame({"id": range(n), **text}), rules, sample=3)
    sample = found["email.pattern"].sample
    assert [row["row"] for row in sample] == [0, 1, 2]
    assert sample[0]["values"]["email"] == "***" and sample[0]["values"]["name"] == "***"
    assert len(sample[0]["values"]["note"]) == 80 and sample[0]["values"]["id"] == 0
    assert found["email.pattern"].failed == n and by_id(pl.DataFrame(text), rules, sample=0)["note.length"].sample == ()
    assert "secret" not in str(check(pl.DataFrame({"id": range(n), **text}), rules).to_dict())


def test_failing_rows_are_found_across_batches_with_their_place_in_the_table() -> None:
    n = 300_000
    ids = np.arange(n)
    ids[-1] = 7
    amounts = np.ones(n)
    amounts[200_000] = -1
    data = pl.DataFrame({"id": ids, "amount": amounts, "status": "new"})
    report = check(data.lazy(), ORDERS, now=NOW)
    found = {r.id: r for r in report.results}
    assert [row["row"] for row in found["amount.range"].sample] == [200_000]
    assert [row["row"] for row in found["id.primary_key"].sample] == [7, n - 1]
    assert report.rows_failed == 3


def test_however_a_table_is_cut_and_wherever_it_comes_from_the_report_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flyball.data import pieces

    follows = {"type": "custom", "engine": "flyball", "implementation": {"check": "depends_on", "columns": ["zip"]}}
    rules = contract(
        column("id", "integer", primaryKey=True),
        column("name", "string", unique=True, maxLength=6),
        column("zip", "integer", minimum=3),
        column("city", "string", quality=[follows]),
        quality=[
            {"type": "custom", "engine": "flyball",
             "implementation": {"aggregate": "standard_deviation", "column": "id", "mustBeLessThan": 1}},
            condition("CAST(name AS INT) > 0"),
        ],
    )  # fmt: skip
    rng = np.random.default_rng(0)
    n = 5_000
    ids = rng.permutation(n)
    ids[rng.integers(0, n, 20)] = ids[0]
    zips = rng.integers(0, 400, n)
    cities = np.where(rng.random(n) < 0.01, "elsewhere", zips.astype(str))
    table = pl.DataFrame({"id": ids, "name": [f"n{i % 4_990}" for i in range(n)], "zip": zips, "city": cities})
    whole = check(table, rules, now=NOW)
    assert {r.id for r in whole.failures} == {
        "id.primary_key", "name.unique", "zip.range", "city.depends_on", "id.aggregate", "table.cross_field",
    }  # fmt: skip
    table.write_parquet(tmp_path / "one.parquet", row_group_size=900)
    for i in range(5):
        table[i * 1_000 : (i + 1) * 1_000].write_parquet(tmp_path / f"part{i}.parquet")
    table.write_csv(tmp_path / "one.csv")
    monkeypatch.setattr(pieces, "_ROWS", 700)
    monkeypatch.setattr(pieces, "_BATCH_ROWS", 512)
    one = pl.scan_parquet(tmp_path / "one.parquet")
    by_position = [table.lazy(), one, pl.scan_parquet(tmp_path / "part*.parquet")]
    sources = [*by_position, pl.scan_csv(tmp_path / "one.csv", schema=table.schema), one.filter(pl.col("id") >= 0)]
    cuts = [[piece.start for piece in pieces.pieces(source)] for source in sources]
    assert cuts[0] == cuts[1] == cuts[2] == list(range(0, n, 700)) and all(len(starts) > 2 for starts in cuts)
    for source in sources:
        told = check(source, rules, now=NOW)
        assert [(r.id, r.failed, r.sample) for r in told.results] == [(r.id, r.failed, r.sample) for r in whole.results]
        assert (told.rows_failed, told.fail_kind) == (whole.rows_failed, whole.fail_kind)
        bad = split(source, rules)[1].collect()
        assert bad.height == told.rows_failed == n  # the condition cannot be evaluated, so it is broken by every row


def test_hashes_that_two_values_share_do_not_make_them_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    from flyball.data import plans

    monkeypatch.setattr(plans, "key_expression", lambda columns, _: (columns[0].str.len_chars() % 7).cast(pl.UInt64))
    rules = contract(column("a", "string", unique=True))
    assert check(pl.DataFrame({"a": ["x", "y", "zz"]}), rules).passed
    found = check(pl.DataFrame({"a": ["x", "y", "zz", "zz"]}), rules)
    assert {r.id: r.failed for r in found.results}["a.unique"] == 2 == found.rows_failed


def test_a_condition_that_raises_on_a_value_is_a_failed_rule_and_shows_no_value() -> None:
    rules = contract(
        column("x", "string"), column("k", "integer", unique=True), quality=[condition("CAST(x AS INT) > 0")]
    )
    data = pl.DataFrame({"x": ["1", "-1", "Ada"], "k": [1, 2, 2]})
    report = check(data, rules, now=NOW)
    messages = {r.id: r.message for r in report.failures}
    assert "cannot be evaluated" in messages["table.cross_field"] and "Ada" not in messages["table.cross_field"]
    assert (report.fail_kind, report.rows_failed) == ("table", 3)
    assert split(data, rules)[1][FAILED_COLUMN].to_list()[0] == ["table.cross_field"]


def test_keys_beyond_memory_are_spread_over_files_and_give_the_same_answer() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 200_000, 20_000).astype(np.uint64) for _ in range(10)]
    values, counts = np.unique(np.concatenate(batches), return_counts=True)
    for limit, integers in itertools.product((50_000, 10**9), (False, True)):
        fold = KeyFold(limit, integers=integers)
        for batch in batches:
            fold.add(batch)
        repeats = fold.finish()
        assert repeats.rows == counts[counts > 1].sum()
        assert np.array_equal(values[repeats.contains(values)], values[counts > 1])


@pytest.mark.parametrize(("low", "high"), [(-3, 10), (-(2**40), 2**40), (0, 30_000), (-(2**63), 2**63 - 1)])
def test_repeated_integers_are_found_however_far_apart_they_lie(low: int, high: int) -> None:
    rng = np.random.default_rng(1)
    near = [rng.integers(0, 4_000, 3_000) for _ in range(2)]  # fits a map of bits until the wide ones come
    batches = [*near, *(rng.integers(low, high, 5_000, endpoint=True) for _ in range(4)), np.full(1, low)]
    values, counts = np.unique(np.concatenate(batches), return_counts=True)
    for limit in (4_000, 10**9):
        fold = KeyFold(limit, integers=True)
        for batch in batches:
            fold.add(batch.view(np.uint64))
        repeats = fold.finish()
        assert repeats.rows == counts[counts > 1].sum()
        assert np.array_equal(repeats.contains(values.view(np.uint64)), counts > 1)


@pytest.mark.parametrize("first", [0, -70_000, 2**40])
def test_integers_that_lie_closely_together_are_found_again_in_any_order(first: int) -> None:
    ids = first + np.random.default_rng(2).permutation(400_000)
    batches = [*np.split(ids, 4), ids[[5, 399_999]], first + np.array([500_000, 500_001, 500_000])]
    values, counts = np.unique(np.concatenate(batches), return_counts=True)
    fold = KeyFold(integers=True)
    for batch in batches:
        fold.add(batch.view(np.uint64))
    repeats = fold.finish()
    assert repeats.rows == counts[counts > 1].sum() == 6
    assert np.array_equal(repeats.contains(values.view(np.uint64)), counts > 1)


def test_bad_arguments_and_a_source_that_breaks_half_way_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="has no zone"):
        check(pl.DataFrame({"id": [1]}), ORDERS, now=datetime(2026, 1, 1))
    with pytest.raises(InvalidInput, match="sample"):
        check(pl.DataFrame({"id": [1]}), ORDERS, sample=-1)
    (tmp_path / "t.csv").write_text("id,amount,status\n" + "1,1,new\n" * 500 + "1,x,new\n")
    with pytest.raises(InvalidInput, match="cannot be read"):
        check(pl.scan_csv(tmp_path / "t.csv"), ORDERS)
    with pytest.raises(InvalidInput, match="cannot be read"):
        check(pl.scan_parquet(tmp_path / "none.parquet"), ORDERS)


def flights_contract() -> Contract:
    mean = {"aggregate": "mean", "column": "dep_delay", "mustBeBetween": [12.639069, 12.639071]}
    few = [{"metric": "nullValues", "mustBeLessThan": 5, "unit": "percent"}]
    return contract(
        column("flight_id", "integer", primaryKey=True, minimum=0),
        column("month", "integer", required=True, minimum=1, maximum=12),
        column("carrier", "string", required=True, pattern="^[A-Z0-9]{2}$"),
        column("tailnum", "string", required=True),
        column("origin", "string", required=True, quality=one_of("EWR", "JFK")),
        column("dest", "string", required=True, pattern="^[A-Z]{3}$"),
        column("distance", "number", required=True, minimum=1, maximum=6000),
        column("dep_delay", "number", minimum=-120, maximum=2000, quality=few),
        column("dep_ts", "timestamp"),
        column("arr_ts", "timestamp"),
        quality=[
            {"metric": "rowCount", "mustBe": 336_776},
            condition("arr_ts > dep_ts"),
            {"type": "custom", "engine": "flyball", "implementation": mean},
            {"type": "sql", "query": "SELECT COUNT(*) FROM t WHERE dep_delay IS NULL", "mustBe": 8255},
        ],
    )


def test_all_flights_of_a_year_give_the_published_counts(shared_data: Path) -> None:
    flights = open_source(shared_data / "nycflights13" / "flights.parquet")
    found = by_id(flights, flights_contract())
    assert found["tailnum.required"].failed == 2_512
    assert found["origin.enum"].failed == 104_662  # all of LaGuardia, which this contract forgot
    assert found["dep_delay.required"].failed == 8_255 and found["dep_delay.required"].passed
    assert found["dep_delay.aggregate"].value == pytest.approx(12.639070, abs=1e-6)
    assert found["table.sql"].passed
    assert {i for i, r in found.items() if not r.passed and r.severity == "error"} <= {
        "tailnum.required", "origin.enum", "table.cross_field",
    }  # fmt: skip
    expected = flights.filter(~(pl.col("arr_ts") > pl.col("dep_ts"))).select(pl.len()).collect().item()
    assert found["table.cross_field"].failed == expected
    report = check(flights, flights_contract(), now=NOW)
    good, bad = split(flights, flights_contract())
    assert bad.select(pl.len()).collect().item() == report.rows_failed
    assert good.select(pl.len()).collect().item() == 336_776 - report.rows_failed


STATES = re.findall(
    "..",
    "ALAKAZARCACOCTDEDCFLGAHIIDILINIAKSKYLAMEMDMAMIMNMSMOMTNENVNHNJNMNYNCNDOHOKORPARISCSDTNTXUTVTVAWAWVWIWY",
)
# Written by hand, with the data known: figures for these contracts say what rules can find, not what guessing would.
BEERS = contract(
    column("index", "integer", primaryKey=True),
    column("id", "integer", required=True, unique=True),
    column("beer-name", "string", required=True),
    column("style", "string"),
    column("ounces", "number", required=True, minimum=1, maximum=128),
    column("abv", "number", minimum=0, maximum=0.7),
    column("ibu", "integer", minimum=0, maximum=200),
    column("brewery_id", "integer", required=True),
    column("brewery-name", "string", required=True),
    column("city", "string", required=True, pattern="[^A-Z][A-Z]?$"),
    column("state", "string", required=True, quality=one_of(*STATES)),
)
HOSPITAL = contract(
    column("index", "integer", primaryKey=True),
    column("ProviderNumber", "string", required=True, pattern="^[0-9]{5}$"),
    column("State", "string", required=True, quality=one_of(*[s.lower() for s in STATES])),
    column("ZipCode", "string", required=True, pattern="^[0-9]{5}$"),
    column("PhoneNumber", "string", required=True, pattern="^[0-9]{10}$"),
    column("HospitalType", "string", quality=one_of("acute care hospitals", "critical access hospitals")),
    column("HospitalOwner", "string", pattern="^(government|proprietary|voluntary non-profit)( - [a-z ]+)?$"),
    column("EmergencyService", "string", quality=one_of("yes", "no")),
    column("Condition", "string", quality=one_of("heart attack", "heart failure", "pneumonia",
           "surgical infection prevention", "children s asthma care")),
    column("MeasureCode", "string", pattern="^(ami|hf|pn|scip-(inf|card|vte)|cac)-[0-9]+[a-c]?$"),
    column("Score", "string", pattern="^(empty|[0-9]{1,2}%|100%)$"),
    column("Sample", "string", pattern="^(empty|[0-9]+ patients)$"),
    column("StateAverage", "string", pattern="^[a-z]{2}_(ami|hf|pn|scip-(inf|card|vte)|cac)-[0-9]+[a-c]?$"),
)  # fmt: skip


def cells(rules: Contract, dirty: pl.DataFrame, clean: pl.DataFrame) -> tuple[float, float, float, float]:
    """Return precision and recall by cell and by row of what column rules find, against the clean twin."""
    _, bad = split(dirty.with_row_index("at"), rules)
    blamed = {r.id: r.column for r in rules.rules}
    found = {(at, blamed[i]) for at, ids in bad.select("at", FAILED_COLUMN).iter_rows() for i in ids}
    wrong = {(at, n) for n in clean.columns for at in dirty[n].ne_missing(clean[n]).arg_true().to_list()}
    rows_found, rows_wrong = {at for at, _ in found}, {at for at, _ in wrong}
    hit, rows_hit = len(found & wrong), len(rows_found & rows_wrong)
    return hit / len(found), hit / len(wrong), rows_hit / len(rows_found), rows_hit / len(rows_wrong)


@pytest.mark.parametrize(
    ("name", "rules", "least"),
    [("beers", BEERS, (0.99, 0.99, 0.99, 0.99)), ("hospital", HOSPITAL, (1.0, 0.5, 1.0, 0.5))],
)
def test_a_contract_written_by_hand_finds_the_known_errors(
    shared_data: Path, name: str, rules: Contract, least: tuple[float, ...], record_property: Any
) -> None:
    clean = open_source(shared_data / "dirty" / name / "clean.csv", as_text=True).collect()
    dirty = open_source(shared_data / "dirty" / name / "dirty.csv", as_text=True).collect()
    assert check(clean, rules).passed, str(check(clean, rules))
    figures = cells(rules, dirty, clean)
    record_property("cell precision, cell recall, row precision, row recall", figures)
    assert all(figure >= limit for figure, limit in zip(figures, least, strict=True)), figures


@pytest.mark.parametrize(
    "path",
    ["adult/adult.parquet", "bike_sharing/hour.csv", "bike_sharing/day.csv", "heart/heart.csv", "dirty/beers/clean.csv",
     "dirty/hospital/clean.csv", "movielens_small/ratings.csv", "nycflights13/planes.parquet",
     "nycflights13/flights.parquet"],
)  # fmt: skip
def test_a_proposed_contract_passes_on_the_other_half_and_finds_a_broken_feed(shared_data: Path, path: str) -> None:
    table = open_source(shared_data / path).collect()
    halves = [(table[::2], table[1::2]), (table[: table.height // 2], table[table.height // 2 :])]
    for one, other in halves:
        rules = read_contract(infer_contract(one, "proposed"))
        assert check(one, rules).passed and not check(one, rules).warnings
        assert check(other, rules).passed, str(check(other, rules))
    first = table.columns[0]
    assert not check(other.drop(first), rules).passed
    assert not check(
        other.with_columns(pl.lit("?").alias(n) for n, d in table.schema.items() if d.is_numeric()), rules
    ).passed


def test_a_proposed_contract_is_valid_odcs_and_needs_rows(shared_data: Path) -> None:
    import jsonschema

    schema = json.loads((shared_data / "fixtures/odcs/schema/odcs-json-schema-v3.1.0.json").read_text())
    document = infer_contract(open_source(shared_data / "adult" / "adult.parquet"), "adult")
    jsonschema.validate(json.loads(json.dumps(document)), schema)
    with pytest.raises(InvalidInput, match="without rows"):
        infer_contract(pl.DataFrame({"a": []}), "x")
    with pytest.raises(InvalidInput, match="without columns"):
        infer_contract(pl.DataFrame(), "x")


VALUES: list[st.SearchStrategy[Any]] = [
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=8),
    st.booleans(),
    st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),
    st.dates(),
    st.times(),
    st.lists(st.integers(0, 3), max_size=3),
    st.fixed_dictionaries({"zip": st.text(max_size=3)}),
    st.sampled_from(["1", "2.5", "NaN", "true", "2024-01-01", "2024-01-01T00:00:00Z", "[1]", "{}", "N/A", "inf"]),
]


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    rows = draw(st.integers(0, 6))
    names = draw(st.lists(st.sampled_from(["a", "b", "c", "d", FAILED_COLUMN]), unique=True, max_size=4))
    data = {n: draw(st.lists(st.none() | draw(st.sampled_from(VALUES)), min_size=rows, max_size=rows)) for n in names}
    return pl.DataFrame(data)


LOGICAL = [None, "string", "integer", "number", "boolean", "date", "timestamp", "time", "array", "object"]
OPTIONS: dict[str | None, dict[str, Any]] = {
    "string": {"minLength": 1, "pattern": "a", "format": "email"},
    "integer": {"minimum": 0, "multipleOf": 3},
    "number": {"exclusiveMaximum": 10.5, "multipleOf": 0.1},
    "date": {"minimum": "2000-01-01"},
    "timestamp": {"maximum": "2000-01-01T00:00:00Z", "defaultTimezone": "Europe/Berlin"},
    "time": {"minimum": "12:00:00"},
    "array": {"maxItems": 1, "uniqueItems": True},
    "object": {"required": ["zip"], "maxProperties": 1},
}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(frames(), st.sampled_from(LOGICAL), st.sampled_from(LOGICAL), st.booleans())
def test_no_table_makes_a_check_raise_and_counts_agree_with_the_split(
    data: pl.DataFrame, one: str | None, other: str | None, key: bool
) -> None:
    rules = contract(
        {"name": "a", "logicalType": one, "logicalTypeOptions": OPTIONS.get(one, {}), "required": True, "unique": key},
        {"name": "b", "logicalType": other, "logicalTypeOptions": OPTIONS.get(other, {}), "primaryKey": key,
         "quality": one_of("a", 1, None)},
        column("c", quality=[{"metric": "missingValues", "mustBeLessThan": 50, "unit": "percent"}]),
        quality=[condition("a > b"), condition("CAST(c AS INT) > 0"),
                 {"metric": "duplicateValues", "arguments": {"properties": ["a", "c"]}, "mustBe": 0},
                 {"type": "custom", "engine": "flyball",
                  "implementation": {"aggregate": "standard_deviation", "column": "a", "mustBeLessThan": 5}},
                 {"type": "sql", "query": "SELECT COUNT(*) FROM t WHERE a IS NULL", "mustBe": 0}],
    )  # fmt: skip
    report = check(data, rules, now=NOW)
    json.dumps(report.to_dict(), allow_nan=False)
    good, bad = split(data, rules)
    assert good.height + bad.height == report.rows
    assert bad.height == report.rows_failed


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(frames())
def test_a_contract_proposed_from_any_table_passes_on_that_table(data: pl.DataFrame) -> None:
    if data.width and data.height and FAILED_COLUMN not in data.columns:
        report = check(data, read_contract(infer_contract(data, "any")), now=NOW)
        unclean = [r for r in report.failures if r.check != "finite"]
        assert not unclean, str(report)
