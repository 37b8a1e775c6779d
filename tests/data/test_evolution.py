"""Changes between two versions of a contract: what breaks, what does not, and which number it needs."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from flyball.data.contracts import read_contract
from flyball.data.evolution import changes, check_version
from flyball.errors import InvalidInput

COLUMNS: dict[str, dict[str, Any]] = {
    "id": {"logicalType": "integer", "primaryKey": True},
    "amount": {"logicalType": "number", "required": True, "logicalTypeOptions": {"minimum": 0, "maximum": 100}},
    "status": {"logicalType": "string", "quality": [{"metric": "invalidValues", "mustBe": 0,
               "arguments": {"validValues": ["new", "paid"]}}]},
    "code": {"logicalType": "string", "logicalTypeOptions": {"pattern": "^[A-Z]{2}$"}},
    "note": {"logicalType": "string", "logicalTypeOptions": {"maxLength": 80}},
    "day": {"logicalType": "date"},
    "share": {"quality": [{"metric": "nullValues", "mustBeLessThan": 5, "unit": "percent"}]},
    "shop": {"logicalType": "string", "relationships": [{"to": "shops.id"}]},
}  # fmt: skip
RULES: list[dict[str, Any]] = [
    {"metric": "rowCount", "mustBeGreaterThan": 10},
    {"type": "custom", "engine": "flyball", "implementation": {"aggregate": "mean", "column": "amount",
     "mustBeBetween": [10, 20]}},
    {"type": "custom", "engine": "flyball", "severity": "warning", "implementation": "amount > 1"},
]  # fmt: skip


def contract(version: str = "1.0.0", columns: Any = None, rules: Any = None, **more: Any) -> Any:
    properties = [{"name": name, **said} for name, said in (columns or COLUMNS).items()]
    table = {"name": "orders", "properties": properties, "quality": RULES if rules is None else rules, **more}
    return read_contract({"apiVersion": "v3.1.0", "kind": "DataContract", "id": "o", "name": "orders",
                          "version": version, "schema": [table]})  # fmt: skip


def changed(name: str | None = None, rules: Any = None, without: str | None = None, **said: Any) -> Any:
    columns = copy.deepcopy(COLUMNS)
    if name is not None:
        columns[name] = {**columns.get(name, {}), **said}
        columns[name] = {k: v for k, v in columns[name].items() if v is not None}
    if without is not None:
        del columns[without]
    return contract(columns=columns, rules=rules)


def options(**limits: Any) -> dict[str, Any]:
    return {"logicalTypeOptions": limits}


def one_of(*values: str, **more: Any) -> dict[str, Any]:
    return {"quality": [{"metric": "invalidValues", "mustBe": 0, "arguments": {"validValues": list(values)}, **more}]}


@pytest.mark.parametrize(
    ("new", "what"),
    [
        (changed(without="note"), "note: removed"),
        (changed("amount", logicalType="integer"), "amount: narrowed from number to integer"),
        (changed("day", logicalType="string"), "day: changed from date to string"),
        (changed("day", **options(format="dd.MM.yyyy")), "day: its format changed"),
        (changed("share", logicalType="number"), "share: must be of type number, was any"),
        (changed("note", required=True), "note: the rule required was added"),
        (changed("extra", required=True), "extra: added as a required column"),
        (changed("amount", **options(minimum=0, maximum=50)), "amount: the maximum was tightened from 100 to 50"),
        (changed("amount", **options(minimum=5, maximum=100)), "amount: the minimum was tightened from 0 to 5"),
        (changed("amount", **options(minimum=0, maximum=100, exclusiveMinimum=0)), "a exclusiveMinimum of 0 was added"),
        (changed("day", **options(minimum="2020-01-01")), "day: the rule range was added"),
        (changed("status", **one_of("new")), "status: paid may no longer occur"),
        (changed("code", **options(pattern="^[A-Z]{3}$")), "code: the pattern changed"),
        (changed("note", **options(maxLength=10)), "note: the maximum was tightened from 80 to 10"),
        (changed("id", primaryKey=None), "id: the rule primary_key was taken back"),
        (changed("code", unique=True), "code: the rule unique was added"),
        (changed("share", quality=[{"metric": "nullValues", "mustBeLessThan": 1, "unit": "percent"}]), "tightened"),
        (changed("shop", relationships=[{"to": "stores.id"}]), "shop: the rule reference (stores) was added"),
        (changed("note", physicalName="remark"), "note: its column in the data is now remark, not note"),
        (changed(rules=[RULES[0], RULES[1], {**RULES[2], "severity": "error"}]), "is now an error"),
        (changed(rules=[{"metric": "rowCount", "mustBeGreaterThan": 20}, *RULES[1:]]), "tightened from > 10 to > 20"),
        (contract(customProperties=[{"property": "strict", "value": True}]), "columns beyond the contract are refused"),
    ],
)
def test_a_breaking_change_needs_a_new_major_version(new: Any, what: str) -> None:
    old = contract()
    found = changes(old, new)
    assert any(change.is_breaking and what in str(change) for change in found), [str(c) for c in found]
    for version in ("1.0.0", "1.0.1", "1.7.0"):
        with pytest.raises(InvalidInput, match=r"breaks what 1\.0\.0 promised.* Number it 2\.0\.0"):
            check_version(old, _numbered(new, version))
    assert check_version(old, _numbered(new, "2.0.0")) == found


@pytest.mark.parametrize(
    ("new", "what"),
    [
        (changed("extra", logicalType="string"), "extra: added as an optional column"),
        (changed("amount", **options(minimum=0, maximum=500)), "amount: the maximum was loosened from 100 to 500"),
        (changed("amount", **options(minimum=0)), "amount: the maximum 100 was taken back"),
        (changed("amount", required=None), "amount: the rule required was taken back"),
        (changed("status", **one_of("new", "paid", "lost")), "status: lost may occur now"),
        (changed("status", **one_of("new", "paid", severity="warning")), "is now a warning"),
        (changed("status", **one_of("new", "paid", mustBe=None, mustBeLessThan=5)), "loosened from none to < 5"),
        (changed("note", **options(maxLength=800)), "note: the maximum was loosened from 80 to 800"),
        (changed("day", logicalType="timestamp"), "day: widened from date to timestamp"),
        (changed("code", quality=one_of("AB", severity="warning")["quality"]), "was added, as a warning"),
        (changed("share", quality=[{"metric": "nullValues", "mustBeLessThan": 9, "unit": "percent"}]), "loosened"),
        (changed(rules=RULES[:2]), "table: the rule cross_field (amount > 1) was taken back"),
        (changed(rules=[{"metric": "rowCount", "mustBeGreaterThan": 5}, *RULES[1:]]), "loosened from > 10 to > 5"),
    ],
)
def test_a_compatible_change_needs_a_new_minor_version(new: Any, what: str) -> None:
    old = contract()
    found = changes(old, new)
    assert found and not any(change.is_breaking for change in found), [str(c) for c in found]
    assert any(what in str(change) for change in found), [str(c) for c in found]
    for version in ("1.0.0", "1.0.3"):
        with pytest.raises(InvalidInput, match=r"changed under version .* Number it 1\.1\.0"):
            check_version(old, _numbered(new, version))
    assert check_version(old, _numbered(new, "1.1.0")) == found


def test_wording_is_no_change() -> None:
    assert changes(contract(), changed("note", description="what they said", tags=["free"])) == []
    assert check_version(contract(), contract()) == [] == check_version(contract(), contract("1.0.1"))


def test_a_column_of_the_same_rules_under_another_name_was_renamed() -> None:
    columns = {("iso" if name == "code" else name): said for name, said in COLUMNS.items()}
    found = changes(contract(), contract(columns=columns))
    assert [(c.kind, str(c)) for c in found] == [("renamed", "code: renamed to iso")]
    physical = {("remark" if n == "note" else n): ({**s, "physicalName": "note"} if n == "note" else s)
                for n, s in COLUMNS.items()}  # fmt: skip
    assert str(changes(contract(), contract(columns=physical))[0]) == "note: renamed to remark"
    columns["iso"] = {"logicalType": "integer"}
    assert {str(c) for c in changes(contract(), contract(columns=columns))} == {
        "code: removed", "iso: added as an optional column",
    }  # fmt: skip


def test_versions_that_go_back_or_are_no_numbers_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"went back from 2\.1\.0 to 2\.0\.9"):
        check_version(contract("2.1.0"), contract("2.0.9"))
    with pytest.raises(InvalidInput, match="three numbers like"):
        check_version(contract("latest"), contract("1.0.0"))
    assert check_version(contract("v1"), contract("1.0.0-rc1")) == []


def test_a_change_tells_itself_in_words_and_as_values() -> None:
    found = changes(contract(), changed(without="note"))
    assert [c.to_dict() for c in found] == [{"subject": "note", "what": "removed", "breaking": True, "kind": "removed"}]
    both = changes(contract(), changed("extra", without="note", logicalType="string"))
    assert [c.is_breaking for c in both] == [True, False]  # the worst first


def _numbered(read: Any, version: str) -> Any:
    import dataclasses

    return dataclasses.replace(read, version=version)
