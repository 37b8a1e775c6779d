"""Reading ODCS documents: the published examples load, and every mistake is refused when the contract is read."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from flyball.data.bounds import Bounds, read_bounds
from flyball.data.contracts import parse_document, read_contract
from flyball.data.conversion import strptime_of
from flyball.data.terms import Rule
from flyball.errors import InvalidInput, NotFound

EXAMPLES = [
    "datacontract-cli/import-csv", "datacontract-cli/orders", "datacontract-cli/user_interactions",
    "examples/all-data-types", "examples/azure-server", "examples/basic-four-dpo", "examples/column-accuracy",
    "examples/column-completeness", "examples/database-table-sla", "examples/full-example",
    "examples/table-column", "examples/table-column-description", "examples/table-columns-with-partition",
]  # fmt: skip
WITHOUT_TABLE = {"examples/azure-server", "examples/basic-four-dpo", "examples/database-table-sla"}


def document(*properties: dict[str, Any], quality: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    table = {"name": "t", "properties": list(properties), "quality": quality or []}
    return {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "c", "version": "1.0.0", "status": "active",
            "schema": [table], **more}  # fmt: skip


def rule(contract_rules: tuple[Rule, ...], rule_id: str) -> Rule:
    return next(r for r in contract_rules if r.id == rule_id)


@pytest.fixture
def odcs(shared_data: Path) -> Path:
    return shared_data / "fixtures" / "odcs"


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_published_example_loads_and_each_of_its_tables_makes_rules(odcs: Path, name: str) -> None:
    loaded = parse_document(odcs / f"{name}.odcs.yaml")
    tables = [t["name"] for t in loaded.get("schema") or []]
    assert bool(tables) == (name not in WITHOUT_TABLE)
    for table in tables:
        contract = read_contract(odcs / f"{name}.odcs.yaml", table)
        assert len(contract.rules) > 1 and contract.schema_name == table
        assert len({r.id for r in contract.rules}) == len(contract.rules)


@pytest.mark.parametrize("name", sorted(WITHOUT_TABLE))
def test_a_document_that_checks_nothing_is_no_contract(odcs: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="checks nothing"):
        read_contract(odcs / f"{name}.odcs.yaml")


def test_the_examples_and_our_test_document_are_valid_by_the_official_schema(odcs: Path) -> None:
    import jsonschema

    schema = json.loads((odcs / "schema" / "odcs-json-schema-v3.1.0.json").read_text())
    for name in EXAMPLES:
        jsonschema.validate(parse_document(odcs / f"{name}.odcs.yaml"), schema)
    ours = document(
        {"name": "a", "logicalType": "integer", "required": True},
        quality=[
            {"type": "custom", "engine": "flyball", "implementation": {"expression": "a > 0"}},
            {
                "type": "custom",
                "engine": "flyball",
                "implementation": {"aggregate": "mean", "column": "a", "mustBe": 1},
            },
        ],
    )
    jsonschema.validate(ours, schema)
    assert {r.check for r in read_contract(ours).rules} >= {"cross_field", "aggregate"}


def test_a_document_of_several_tables_needs_a_choice(odcs: Path) -> None:
    path = odcs / "datacontract-cli/orders.odcs.yaml"
    with pytest.raises(InvalidInput, match="several tables"):
        read_contract(path)
    with pytest.raises(NotFound, match='did you mean "line_items"'):
        read_contract(path, "line_item")


def test_what_is_stated_but_not_enforced_is_listed(odcs: Path) -> None:
    contract = read_contract(odcs / "examples/full-example.odcs.yaml", "tbl")
    assert not any("relationship" in text for text in contract.unenforced)
    assert rule(contract.rules, "rcvr_id.reference").params["dataset"] == "receivers"
    assert rule(contract.rules, "table.reference").params["to"] == ("id", "country_code")
    assert "service level: retention" in contract.unenforced
    assert rule(contract.rules, "table.row_count").bounds == Bounds((("mustBeGreaterThan", 1000000),))
    dqx = read_contract(odcs / "datacontract-cli/user_interactions.odcs.yaml")
    assert any("dqx" in text for text in dqx.unenforced)


def test_yaml_text_a_dictionary_and_a_path_give_the_same_contract(tmp_path: Path) -> None:
    given = document({"name": "a", "required": True})
    (tmp_path / "c.yaml").write_text("\ufeff" + yaml.safe_dump(given), encoding="utf-8")
    assert read_contract(given) == read_contract(yaml.safe_dump(given)) == read_contract(tmp_path / "c.yaml")


def test_reading_does_not_change_the_document() -> None:
    given = document({"name": "a", "quality": [{"metric": "nullValues", "mustBe": 0}]})
    before = copy.deepcopy(given)
    read_contract(given)
    assert given == before


def test_options_and_metrics_become_the_rules_of_their_checks() -> None:
    contract = read_contract(
        document(
            {"name": "a", "logicalType": "integer", "required": True, "unique": True, "primaryKey": True,
             "logicalTypeOptions": {"minimum": 0, "multipleOf": 5}},
            {"name": "b", "logicalType": "string", "enum": [{"value": "x"}, {"value": "y"}],
             "logicalTypeOptions": {"pattern": "^.$", "minLength": 1, "format": "email"}},
            {"name": "c", "quality": [
                {"rule": "validValues", "validValues": [1, 2]},
                {"rule": "duplicateCount", "mustBeLessThan": 10, "unit": "percent", "severity": "warning"},
                {"metric": "missingValues", "arguments": {"missingValues": ["N/A", None]}, "mustBe": 0},
                {"metric": "nullValues", "mustBe": 0}]},
            quality=[{"metric": "duplicateValues", "arguments": {"properties": ["a", "b"]}, "mustBe": 0}],
        )
    )  # fmt: skip
    assert [r.id for r in contract.rules] == [
        "a.type", "a.required", "a.finite", "a.unique", "a.range", "a.multiple_of", "b.type", "b.format", "b.pattern",
        "b.length", "b.enum", "c.type", "c.enum", "c.unique", "c.missing", "c.required", "a.primary_key",
        "table.unique", "table.columns",
    ]  # fmt: skip
    tolerant = rule(contract.rules, "c.unique")
    assert (tolerant.scope, tolerant.severity, str(tolerant.bounds)) == ("table", "warning", "< 10 %")
    assert rule(contract.rules, "c.required").scope == "row"
    assert contract.string_columns == ("b",)


A = {"name": "amount", "logicalType": "number"}
FRESH = {"property": "freshness", "value": 1, "unit": "h"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (document(A, qualty=[]), 'unknown field "qualty"'),
        (document(A, tag=["x"]), 'did you mean "tags"'),
        (document({**A, "requird": True}), 'did you mean "required"'),
        (document({**A, "logicalType": "nubmer"}), 'did you mean "number"'),
        (document({**A, "logicalTypeOptions": {"minimun": 1}}), 'did you mean "minimum"'),
        (document({**A, "logicalTypeOptions": {"minimum": 2, "maximum": 1}}), "contradict"),
        (document({**A, "logicalTypeOptions": {"exclusiveMinimum": 1, "maximum": 1}}), "contradict"),
        (document({**A, "logicalTypeOptions": {"minimum": "low"}}), "expected a number"),
        (document({"name": "d", "logicalType": "date", "logicalTypeOptions": {"minimum": "soon"}}), "is not a date"),
        (document({"name": "d", "logicalType": "date", "logicalTypeOptions": {"format": "yyyy-QQ"}}), '"QQ"'),
        (document({"name": "s", "logicalType": "string", "logicalTypeOptions": {"pattern": "a(b"}}), "not a regular"),
        (document({"name": "s", "logicalType": "string", "logicalTypeOptions": {"pattern": "(?=a)"}}), "look-around"),
        (document({"name": "s", "logicalType": "string", "logicalTypeOptions": {"format": "emial"}}), '"email"'),
        (document({"name": "s", "logicalType": "string", "logicalTypeOptions": {"minLength": 3, "maxLength": 2}}),
         "greater than the maximum"),
        (document({**A, "quality": [{"metric": "nullValue", "mustBe": 0}]}), 'did you mean "nullValues"'),
        (document({**A, "quality": [{"metric": "nullValues"}]}), "has no limit"),
        (document({**A, "quality": [{"metric": "nullValues", "mustBe": "none"}]}), "expected a number"),
        (document({**A, "quality": [{"metric": "nullValues", "mustBeBetween": [5, 1]}]}), "larger first"),
        (document({**A, "quality": [{"metric": "nullValues", "mustBe": 0, "unit": "percnt"}]}), '"percent"'),
        (document({**A, "quality": [{"metric": "nullValues", "mustBe": 0, "severity": "eror"}]}), '"error"'),
        (document({**A, "quality": [{"metric": "nullValues", "mustBee": 0}]}), 'did you mean "mustBe"'),
        (document({**A, "quality": [{"metric": "invalidValues", "mustBe": 0}]}), "what is valid"),
        (document({**A, "quality": [{"type": "sqll", "query": "x", "mustBe": 0}]}), 'did you mean "sql"'),
        (document(A, quality=[{"metric": "nullValues", "mustBe": 0}]), "counts values of a column"),
        (document(A, quality=[{"metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": ["amuont"]}}]),
         'unknown column "amuont"; did you mean "amount"'),
        (document(A, quality=[{"type": "sql", "query": "DROP TABLE t", "mustBe": 0}]), "not a single SELECT"),
        (document(A, quality=[{"type": "sql", "query": "SELECT 1; SELECT 2", "mustBe": 0}]), "not a single SELECT"),
        (document(A, quality=[{"type": "sql", "query": "SELECT max(a) FROM read_csv('x')", "mustBe": 0}]), "reads a"),
        (document(A, quality=[{"type": "sql", "query": "SELECT 1 +", "mustBe": 0}]), "not SQL"),
        (document(A, quality=[{"type": "sql", "mustBe": 0}]), 'needs "query"'),
        (document(A, quality=[{"type": "custom", "engine": "flybal", "implementation": "a"}]), '"flyball"'),
        (document(A, quality=[{"type": "custom", "engine": "flyball", "implementation": "amount >"}]), "not SQL"),
        (document(A, quality=[{"type": "custom", "engine": "flyball", "implementation": "amuont > 1"}]), '"amount"'),
        (document(A, quality=[{"type": "custom", "engine": "flyball",
                               "implementation": {"aggregate": "men", "column": "amount", "mustBe": 1}}]), '"mean"'),
        (document(A, quality=[{"type": "custom", "engine": "flyball", "implementation": {"check": "uniqe"}}]),
         "unique"),
        (document(A, slaProperties=[{**FRESH, "element": "t.x"}]), "unknown column"),
        (document(A, slaProperties=[{**FRESH, "element": "u.amount"}]), 'no table "u"'),
        (document(A, slaProperties=[{**FRESH, "element": "t.amount"}]), "date or timestamp"),
        (document(A, slaProperties=[{**FRESH, "unit": "parsec", "element": "t.amount"}]), "parsec"),
        (document(A, A), "two properties"),
        (document({"logicalType": "number"}), "has no name"),
        (document(), "checks nothing"),
        ({**document(A), "apiVersion": "v2.2.2"}, "v3.0 to v3.2"),
        ({**document(A), "kind": "Contract"}, "kind: DataContract"),
        ({**document(A), "schema": "t"}, "schema"),
        ("a: [\n", "is not YAML"),
        ("- a\n- b\n", "not a document"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_when_the_contract_is_read(given: Any, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_contract(given)
    assert says in str(caught.value)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file"):
        read_contract(tmp_path / "none.yaml")


def test_bounds_hold_as_their_operators_say() -> None:
    assert read_bounds({"mustBeBetween": [1, 2]}, "x").holds(2)
    assert not read_bounds({"mustNotBeBetween": [1, 2]}, "x").holds(2)
    both = read_bounds({"mustBeGreaterThan": 1, "mustBeLessOrEqualTo": 2}, "x")
    assert [both.holds(v) for v in (1, 1.5, 2, 2.1, float("nan"))] == [False, True, True, False, False]
    with pytest.raises(InvalidInput, match="contradict"):
        read_bounds({"mustBeGreaterThan": 2, "mustBeLessThan": 2}, "x")


def test_java_date_formats_are_translated() -> None:
    assert strptime_of("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "x") == "%Y-%m-%dT%H:%M:%S.%3f%:z"
