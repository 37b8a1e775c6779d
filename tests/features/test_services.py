"""Feature services pin views; kinds say who may still be used."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

from flyball.errors import Conflict, InvalidInput
from flyball.features import kinds
from flyball.features.services import FeatureService, check_pinned, check_usable, pinned_specs
from flyball.features.views import FeatureView, feature_view
from flyball.ledger.kinds import validate
from flyball.ledger.refs import Ref

SCHEMA = {"key": pl.String, "at": pl.Datetime("us", "UTC"), "x": pl.Float64}


def view_of(factor: int = 2, version: int = 1, name: str = "scaled") -> FeatureView:
    @feature_view(entity="key", event_time="at", ttl="2d", name=name, version=version)
    def scaled(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.select("key", "at", scaled=pl.col("x") * factor)

    scaled.spec(SCHEMA)
    return scaled


def test_a_pinned_service_travels_as_json_and_knows_its_views_again() -> None:
    service = FeatureService("late", (view_of(),), owner="team/flights")
    pinned = json.loads(json.dumps(service.pinned()))
    assert [spec.stored_as for spec in pinned_specs(pinned)] == ["scaled@1"]
    assert pinned_specs(pinned)[0].ttl_s == 172_800.0
    check_pinned(pinned, [view_of(name="other"), view_of()])
    typed = validate("feature-service", "late", service.spec())
    assert typed.references() == {Ref("feature-view", "scaled")}


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ([view_of(name="scaling")], r'trained on scaled@1 \(service late\), which is not here; did you mean "scaling"'),
        ([view_of(version=2)], "but here is scaled@2; train again, or serve the version pinned"),
        ([view_of(factor=3)], "its definition has changed since"),
    ],
)
def test_another_view_than_the_one_trained_on_is_refused(views: list[FeatureView], message: str) -> None:
    with pytest.raises(Conflict, match=message):
        check_pinned(FeatureService("late", (view_of(),)).pinned(), views)


def test_what_is_no_service_is_refused() -> None:
    with pytest.raises(InvalidInput, match="has no view; give it views"):
        FeatureService("late", ())
    with pytest.raises(InvalidInput, match="has the view scaled twice"):
        FeatureService("late", (view_of(), view_of()))
    with pytest.raises(InvalidInput, match="no pinned feature service of format 1"):
        pinned_specs({"views": []})
    twice = {"view": "a", "version": 1, "digest": "0" * 64}
    with pytest.raises(InvalidInput, match="the view a is there twice; pin one version of it"):
        validate("feature-service", "late", {"views": [twice, {**twice, "version": 2}]})


def declared(**fields: Any) -> kinds.FeatureView:
    typed = validate("feature-view", "v", {"definition": {}, **fields})
    assert isinstance(typed, kinds.FeatureView)
    return typed


def test_a_deprecated_view_warns_and_a_retired_one_is_refused() -> None:
    why = {"reason": "the feed ends in June", "successor": "legs"}
    assert check_usable("v", declared()) is None
    warning = check_usable("v", declared(status="deprecated", retired=why))
    assert warning == "the view v is deprecated: the feed ends in June; use legs instead"
    with pytest.raises(InvalidInput, match="the view v is retired and not for new training sets: the feed ends"):
        check_usable("v", declared(status="retired", retired=why))
    assert declared(status="retired", retired=why).references() == {Ref("feature-view", "legs")}
    with pytest.raises(InvalidInput, match="a view that is retired says why"):
        declared(status="retired")
    with pytest.raises(InvalidInput, match="a view that is active cannot be retired"):
        declared(retired=why)
