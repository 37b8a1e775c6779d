"""Gates judge plain values."""

from __future__ import annotations

from flyball.evaluation.gates import judge

ARM = {"low": 0.70, "value": 0.72, "high": 0.74}


def one(gate: dict[str, object], *, comparisons: dict[str, object] | None = None, has_champion: bool = True) -> bool:
    return judge([gate], {"auc": ARM}, comparisons or {}, has_champion=has_champion)[0].passed  # type: ignore[arg-type]


def compared(verdict: str) -> dict[str, object]:
    return {"auc": {"verdict": verdict, "challenger": ARM, "champion": ARM}}


def test_a_bound_is_checked_on_the_value() -> None:
    assert one({"metric": "auc", "at_least": 0.72})
    assert not one({"metric": "auc", "at_least": 0.73})
    assert not one({"metric": "auc", "at_most": 0.7})


def test_a_metric_that_was_not_measured_fails_and_says_what_was() -> None:
    found = judge([{"metric": "f1", "at_least": 0.1}], {"auc": ARM}, {}, has_champion=True)[0]
    assert not found.passed
    assert "measured: auc" in found.reason


def test_better_needs_evidence_and_not_worse_needs_none_against() -> None:
    better = {"metric": "auc", "against": "champion", "verdict": "better"}
    not_worse = {"metric": "auc", "against": "champion", "verdict": "not worse"}
    assert [one(better, comparisons=compared(v)) for v in ("better", "no evidence", "worse")] == [True, False, False]
    assert [one(not_worse, comparisons=compared(v)) for v in ("better", "no evidence", "worse")] == [True, True, False]


def test_without_a_champion_a_comparison_passes_and_with_one_it_must_have_been_made() -> None:
    better = {"metric": "auc", "against": "champion"}
    assert one(better, has_champion=False)
    assert not one(better)


def test_a_comparison_of_too_few_rows_says_why() -> None:
    gate = {"metric": "auc", "against": "champion"}
    few = {"auc": {"verdict": "no evidence", "reason": "only 7 rows"}}
    found = judge([gate], {}, few, has_champion=True)[0]  # type: ignore[arg-type]
    assert "only 7 rows" in found.reason
