"""What policies decide: the strictest wins, exceptions lift only their own policy, reasons say what to do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flyball.errors import InvalidInput
from flyball.governance.identity import Principal
from flyball.governance.kinds import Policy
from flyball.governance.policies import (
    ColumnFacts,
    Facts,
    decide,
    judge_model,
    judge_residency,
    retention_of,
)
from flyball.ledger.kinds import validate

VIEWER, EDITOR, ADMIN = (Principal(f"user/{role}", role) for role in ("viewer", "editor", "admin"))
PERSONAL = ColumnFacts("personal", frozenset({"contact"}))
CUSTOMERS = Facts(
    "customers",
    tags=frozenset({"crm"}),
    domain="sales",
    columns={
        "email": PERSONAL,
        "income": ColumnFacts("secret"),
        "city": ColumnFacts(),
        "born": ColumnFacts("internal"),
    },
)


def policies(**specs: dict[str, Any]) -> dict[str, Policy]:
    return {name: Policy.model_validate(spec) for name, spec in specs.items()}


def hows(found: Any) -> dict[str, str]:
    return {column: mask.how for column, mask in found.masks.items()}


def test_without_a_policy_classified_columns_are_hidden_from_those_who_may_not_change_them() -> None:
    assert hows(decide(CUSTOMERS, {}, VIEWER)) == {"email": "redact", "income": "redact"}
    assert hows(decide(CUSTOMERS, {}, Principal("user/o", "operator"))) == {"email": "redact", "income": "redact"}
    assert hows(decide(CUSTOMERS, {}, EDITOR)) == {}


def test_a_word_that_nobody_knows_is_held_to_be_protected() -> None:
    odd = Facts("d", columns={"x": ColumnFacts("c3"), "y": ColumnFacts("", frozenset({"pii"}))})
    assert hows(decide(odd, {}, VIEWER)) == {"x": "redact", "y": "redact"}


def test_a_policy_that_names_a_column_replaces_the_default_and_may_loosen_it() -> None:
    loose = policies(p={"mask": [{"columns": ["email"], "how": "partial"}], "unless_role": "operator"})
    assert hows(decide(CUSTOMERS, loose, VIEWER)) == {"email": "partial", "income": "redact"}
    assert hows(decide(CUSTOMERS, loose, Principal("user/o", "operator"))) == {"income": "redact"}


def test_of_several_masks_the_strictest_wins_and_an_exception_lifts_only_its_own_policy() -> None:
    both = policies(
        a={"mask": [{"classifications": ["personal"], "how": "hash"}], "unless_actor": ["user/vip*"]},
        b={"mask": [{"tags": ["Contact"], "how": "partial", "keep": 2}]},
        c={"mask": [{"columns": ["em*"], "how": "partial", "keep": 6}]},
    )
    assert hows(decide(CUSTOMERS, both, ADMIN)) == {"email": "hash"}
    excepted = decide(CUSTOMERS, both, Principal("user/vip1", "viewer")).masks["email"]
    assert (excepted.how, excepted.keep, excepted.because) == ("partial", 2, "policy/b")


@pytest.mark.parametrize(
    ("applies_to", "applies"),
    [
        ({}, True),
        ({"datasets": ["cust*"]}, True),
        ({"datasets": ["orders"]}, False),
        ({"tags": ["CRM"]}, True),
        ({"tags": ["other"]}, False),
        ({"domains": ["sales"]}, True),
        ({"domains": ["hr"], "datasets": ["cust*"]}, False),
        ({"classifications": ["secret"]}, True),
        ({"classifications": ["sensitive"]}, False),
        ({"models": ["late"]}, False),
    ],
)
def test_a_policy_speaks_of_what_all_its_lists_fit(applies_to: dict[str, Any], applies: bool) -> None:
    found = decide(
        CUSTOMERS, policies(p={"applies_to": applies_to, "mask": [{"columns": ["city"], "how": "null"}]}), ADMIN
    )
    assert ("city" in found.masks) is applies


def test_a_purpose_must_be_stated_and_allowed_by_all() -> None:
    facts = Facts("d", purposes=("billing", "fraud"))
    rules = policies(p={"purposes": ["fraud", "research"]})
    silent = decide(facts, rules, ADMIN)
    assert not silent.allowed
    assert silent.reason == "dataset/d may be read only for a stated purpose; pass purpose='fraud' (allowed: fraud)"
    assert decide(facts, rules, ADMIN, "fraud").allowed
    assert 'did you mean "fraud"' in decide(facts, rules, ADMIN, "frud").reason
    assert "policy/p does not allow" in decide(facts, rules, ADMIN, "billing").reason
    nothing = decide(facts, policies(p={"purposes": ["research"]}), ADMIN, "research")
    assert "may be read for nothing" in nothing.reason


def test_rows_stay_in_their_region_when_read_and_when_written() -> None:
    facts = Facts("d", residency="eu")
    assert decide(facts, {}, ADMIN, region="eu").allowed
    assert decide(facts, {}, ADMIN, region="us").reason.endswith("may be read in eu only; this home is in us")
    assert 'set region = "eu" under [governance]' in decide(facts, {}, ADMIN).reason
    assert judge_residency(facts, {}, "eu") is None
    assert "may be kept in eu only" in str(judge_residency(facts, {}, "us"))
    assert "policy/p" in str(judge_residency(Facts("d"), policies(p={"regions": ["eu", "uk"]}), "us"))


def test_the_shortest_retention_holds() -> None:
    rules = policies(p={"retention": "30d"}, q={"retention": "10d", "applies_to": {"datasets": ["other"]}})
    assert retention_of(Facts("d", retention="400d"), rules) == (timedelta(days=30), "policy/p")
    assert retention_of(Facts("d", retention="7d"), rules) == (timedelta(days=7), "dataset/d")
    assert retention_of(Facts("d"), {}) is None


def test_a_model_is_judged_by_its_inputs_and_by_what_it_learnt_from() -> None:
    rules = policies(
        a={"require": {"without_classifications": ["personal"], "without_tags": ["contact"]}},
        b={"applies_to": {"models": ["late*"]}, "require": {"only_datasets": ["flights*"]}},
    )
    found = judge_model(Facts("late", "model"), ["email", "city"], [CUSTOMERS], rules)
    assert [f.split(":")[0] for f in found] == ["policy/a", "policy/a", "policy/b"]
    assert found[2].endswith("model/late learnt from dataset/customers; it may learn from flights* only")
    assert judge_model(Facts("churn", "model"), ["city"], [CUSTOMERS], rules) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "says nothing"),
        ({"mask": [{"how": "redakt", "columns": ["x"]}]}, 'did you mean "redact"'),
        ({"mask": [{"how": "redact"}]}, "masks nothing"),
        ({"mask": [{"how": "redact", "classifications": ["personel"]}]}, 'did you mean "personal"'),
        ({"retention": "0d"}, "remove every row"),
        ({"retention": "a year"}, "is not a duration"),
        ({"purposes": ["x"], "unless_role": "edtor"}, 'did you mean "editor"'),
        ({"purpose": ["x"]}, 'did you mean "purposes"'),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_with_what_was(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        validate("policy", "p", spec)
