"""Data products: stages, who is told, what may be retired, what is read no more; service levels, by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flyball.data.datasets import ContractBroken
from flyball.data.products.levels import Level
from flyball.data.products.lifecycle import NEXT, STAGES, check_move
from flyball.data.products.managing import Products
from flyball.errors import Conflict, Forbidden, InvalidInput, NotFound
from flyball.ledger.refs import ref
from flyball.platform import Platform
from flyball.testing.clock import FakeClock

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CONTRACT: dict[str, Any] = {
    "apiVersion": "v3.1.0", "kind": "DataContract", "id": "c", "version": "1.0.0", "status": "active",
    "schema": [{"name": "flights", "properties": [
        {"name": "delay", "logicalType": "integer", "required": True, "logicalTypeOptions": {"minimum": 0}},
    ]}],
}  # fmt: skip


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def platform(tmp_path: Path, clock: FakeClock) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home", clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def products(platform: Platform, clock: FakeClock) -> Products:
    return Products(platform.ledger, platform.tables, clock)


def declare(platform: Platform, **more: Any) -> None:
    platform.declare("Dataset", "flights", **more.pop("dataset", {}))
    spec = {"owner": "team/flights", "outputs": [{"name": "flights", "dataset": "flights"}], **more}
    platform.declare("DataProduct", "flights", **spec)


def go(products: Products, *stages: str, **more: Any) -> None:
    for stage in stages:
        products.advance("flights", stage, actor="user/a", reason="because", **more)


def test_stages_follow_each_other_as_the_table_says(platform: Platform, products: Products) -> None:
    declare(platform)
    assert products.stage("flights") == "proposed"
    moved = products.advance("flights", "incubating", actor="user/a")
    assert moved.event is not None and moved.told == ()
    assert products.advance("flights", "incubating", actor="user/a").event is None
    with pytest.raises(Conflict, match="is incubating and cannot become deprecated; from there it can become active"):
        go(products, "deprecated")
    go(products, "active", "deprecated", "retired")
    with pytest.raises(Conflict, match="nothing follows"):
        go(products, "active")
    assert [e.action for e in platform.events(ref="data-product/flights")][:2] == ["retired", "deprecated"]


@pytest.mark.parametrize("before", STAGES)
@pytest.mark.parametrize("after", STAGES)
def test_every_step_that_the_table_does_not_have_is_refused(before: Any, after: Any) -> None:
    if after in NEXT[before]:
        check_move("x", before, after)
    else:
        with pytest.raises(Conflict, match=f"is {before} and cannot become {after}"):
            check_move("x", before, after)


def test_applying_a_file_does_not_move_a_product(platform: Platform, products: Products) -> None:
    declare(platform)
    go(products, "active")
    declare(platform, description="changed")
    assert products.stage("flights") == "active"
    with pytest.raises(InvalidInput, match='unknown field "stage"'):
        declare(platform, stage="retired")


def populate(platform: Platform) -> dict[str, str]:
    """Things that depend on dataset/flights, in all the ways there are."""
    platform.publish("flights", {"delay": [1, 2]})
    platform.declare("Dataset", "other")
    platform.declare("Model", "late", dataset="flights")
    platform.declare("Deployment", "late", model="late")
    platform.declare("Model", "aside")
    platform.declare("DataProduct", "alerts", owner="user/bob", inputs=[{"name": "f", "dataset": "flights"}])
    platform.declare("DataProduct", "copy", outputs=[{"name": "same", "dataset": "flights"}])
    platform.declare("DataProduct", "far", owner="user/carol", inputs=[{"name": "p", "product": "alerts"}])
    with platform.ledger.write("user/dave") as tx:
        old = tx.versions.publish("model", "aside", "a" * 64, made_from=[(ref("dataset/flights@1"), "trained on")])
        new = tx.versions.publish("model", "aside", "b" * 64, made_from=[(ref("dataset/flights@1"), "trained on")])
        tx.versions.set_alias("model", "aside", "champion", 2)
        open_run, done = (tx.runs.start("training", name) for name in ("open", "done"))
        for run in (open_run, done):
            tx.lineage.link(ref("dataset/flights@1"), run.ref, "used by")
        tx.runs.finish(done.id, "succeeded")
    return {"old": str(old.ref), "new": str(new.ref), "open": str(open_run.ref), "done": str(done.ref)}


def test_dependents_are_all_that_would_notice(platform: Platform, products: Products) -> None:
    declare(platform)
    made = populate(platform)
    found = {str(d.ref): d for d in products.dependents("flights")}
    live = {text for text, d in found.items() if d.is_live}
    assert live == {
        "model/late", "deployment/late", "data-product/alerts", "data-product/far", made["new"], made["open"],
    }  # fmt: skip
    assert found.keys() - live == {made["old"], made["done"]}
    assert (found["data-product/alerts"].owner, found[made["open"]].owner) == ("user/bob", "user/dave")
    assert found["deployment/late"].to_dict()["how"] == "refers to model/late"


def test_deprecation_tells_every_dependent_and_its_owner(platform: Platform, products: Products) -> None:
    declare(platform)
    made = populate(platform)
    with pytest.raises(InvalidInput, match="without a reason"):
        go(products, "active")
        products.advance("flights", "deprecated", actor="user/a")
    moved = products.advance(
        "flights", "deprecated", actor="user/a", reason="two sources", replaced_by="data-product/copy",
        retires_on="2026-12-31",
    )  # fmt: skip
    assert len(moved.told) == 8
    for target in ("model/late", "deployment/late", made["old"], made["done"]):
        (event,) = platform.events(ref=target, action="warned")
        assert event.cause == moved.event and event.detail["reason"] == "two sources"
    (notice,) = products.notices(owner="user/bob")
    assert notice.sentence == (
        "data-product/flights is deprecated, to be retired on 2026-12-31: two sources; use data-product/copy"
    )
    assert notice.to_dict()["dependent"]["ref"] == "data-product/alerts"
    assert [n.dependent.ref.kind for n in products.notices(ref="deployment/late")] == ["deployment"]
    assert len(products.notices()) == 6
    products.advance("flights", "active", actor="user/a")
    assert products.notices() == []
    assert "replaced_by" not in platform.resource("data-product/flights").status


def test_a_product_that_is_needed_is_not_retired_unless_forced_with_a_reason(
    platform: Platform, products: Products
) -> None:
    declare(platform)
    populate(platform)
    go(products, "active", "deprecated", replaced_by="data-product/copy")
    with pytest.raises(Conflict, match="cannot be retired: data-product/alerts"):
        products.advance("flights", "retired", actor="user/a", reason="x")
    with pytest.raises(InvalidInput, match="say why"):
        products.advance("flights", "retired", actor="user/a", force=True)
    assert products.stage("flights") == "deprecated"
    moved = products.advance("flights", "retired", actor="user/a", reason="the source is gone", force=True)
    event = platform.events(ref="data-product/flights", action="retired")[0]
    assert "model/late" in event.detail["forced"] and moved.event == event.seq
    assert platform.resource("data-product/flights").status["replaced_by"] == "data-product/copy"


def test_the_output_of_a_retired_product_is_read_no_more(platform: Platform, products: Products) -> None:
    declare(platform)
    target = ref("dataset/flights@1")
    go(products, "active", "deprecated", replaced_by="dataset/better")
    products.check_read(target)
    go(products, "retired")
    with pytest.raises(Forbidden, match="retired since 2026-03-01; use dataset/better"):
        products.check_read(target)
    products.check_read(ref("quarantine/flights@1"))
    products.check_read(ref("dataset/unknown"))
    platform.declare("DataProduct", "second", outputs=[{"name": "same", "dataset": "flights"}])
    products.check_read(target)  # somebody else gives it still


def test_a_move_that_fails_changes_nothing(platform: Platform, products: Products) -> None:
    declare(platform)
    last = platform.events(limit=1)[0].seq
    for act, error, sentence in (
        (lambda: products.advance("none", "active", actor="a"), NotFound, "no data-product"),
        (lambda: products.advance("flights", "actve", actor="a"), InvalidInput, 'did you mean "active"'),
        (lambda: products.advance("flights", "active", actor="a", retires_on="soon"), InvalidInput, "write a day"),
        (lambda: products.advance("flights", "active", actor="a", retires_on="2020-01-01"), InvalidInput, "past"),
        (lambda: products.advance("flights", "active", actor="a", replaced_by="x y"), InvalidInput, "not a reference"),
    ):
        with pytest.raises(error, match=sentence):
            act()
    assert platform.events(limit=1)[0].seq == last
    products.begin("flights", "active", actor="user/a")
    with pytest.raises(Conflict, match="is active already"):
        products.begin("flights", "proposed", actor="user/a")


def levels(products: Products) -> dict[str, Level]:
    return {level.measure: level for level in products.levels("flights")}


PROMISES = [
    {"measure": "freshness", "at_most": "2h"},
    {"measure": "latency", "at_most": "1h"},
    {"measure": "completeness", "at_least": 0.9},
    {"measure": "availability", "at_least": 0.9, "every": "1d", "within": "10d"},
    {"measure": "row_count", "at_least": 2, "at_most": 4},
]


def test_service_levels_are_measured_from_versions_and_reports(
    platform: Platform, products: Products, clock: FakeClock
) -> None:
    declare(platform, levels=PROMISES, dataset={"contract": CONTRACT, "on_failure": "split", "event_time": "at"})
    assert {level.state for level in levels(products).values()} == {"not measured"}
    assert "no version yet" in levels(products)["freshness"].why

    def publish(*delays: int, event_minutes_ago: int = 30) -> None:
        at = clock.now() - timedelta(minutes=event_minutes_ago)
        platform.publish("flights", {"delay": list(delays), "at": [at - timedelta(days=n) for n in range(len(delays))]})

    publish(1, 2, 3)  # day 0
    clock.advance(86_400)
    publish(1, 2, 4, -5)  # day 1, one row split off
    clock.advance(2 * 86_400)
    publish(6, 7, event_minutes_ago=90)  # day 3: for a day there was none young enough
    clock.advance(3600)
    found = levels(products)
    assert (found["freshness"].value, found["freshness"].holds) == (3600.0, True)
    assert (found["latency"].value, found["latency"].holds) == (5400.0, False)
    assert found["latency"].measured_from == ("dataset/flights@3", "dataset/flights@2", "dataset/flights@1")
    assert found["completeness"].value == pytest.approx(8 / 9) and found["completeness"].holds is False
    assert found["availability"].value == pytest.approx((2 * 24 + 1) / (3 * 24 + 1)) and not found["availability"].holds
    assert (found["row_count"].value, found["row_count"].holds) == (2.0, True)
    plain = found["latency"].to_dict()
    assert (plain["state"], plain["target"], plain["unit"], plain["port"]) == ("broken", "at most 1h", "s", "flights")


def test_batches_that_were_refused_whole_count_against_completeness(
    platform: Platform, products: Products, clock: FakeClock
) -> None:
    declare(platform, levels=PROMISES, dataset={"contract": CONTRACT})
    platform.publish("flights", {"delay": [1, 2, 3]})
    with pytest.raises(ContractBroken):
        platform.publish("flights", {"delay": [-1]})
    assert levels(products)["completeness"].value == 0.75
    assert levels(products)["latency"].why == "its dataset names no event_time"
    clock.advance(40 * 86_400)
    assert levels(products)["completeness"].holds is None  # nothing within 30 days


def test_broken_levels_stand_in_the_status_and_equal_findings_write_nothing(
    platform: Platform, products: Products, clock: FakeClock
) -> None:
    declare(platform, levels=[{"measure": "freshness", "at_most": "2h"}])
    platform.publish("flights", {"delay": [1]})
    products.watch("flights")
    assert "conditions" not in platform.resource("data-product/flights").status
    clock.advance(3 * 3600)
    products.watch("flights")
    conditions = platform.resource("data-product/flights").status["conditions"]
    assert conditions["freshness of flights"]["summary"] == "freshness of flights is not at most 2h"
    last = platform.events(limit=1)[0]
    assert last.action == "broke a service level"
    clock.advance(3600)
    products.watch("flights")
    assert platform.events(limit=1)[0].seq == last.seq
    go(products, "active")
    assert "conditions" in platform.resource("data-product/flights").status
    platform.publish("flights", {"delay": [2]})
    products.watch("flights")
    assert platform.events(limit=1)[0].action == "keeps its service levels"
    assert products.stage("flights") == "active"


def test_a_page_gets_all_of_a_product_as_plain_values(platform: Platform, products: Products) -> None:
    import json

    declare(platform, levels=PROMISES, description="Departures", domain="travel")
    populate(platform)
    found = json.loads(json.dumps(products.to_dict("flights")))
    assert found["stage"] == "proposed" and len(found["levels"]) == 5 and len(found["dependents"]) == 8
    assert found["outputs"][0]["dataset"] == "flights"


@pytest.mark.parametrize(
    ("level", "sentence"),
    [
        ({"measure": "freshness"}, "promises nothing; give at_most: 2h"),
        ({"measure": "freshness", "at_most": 3}, "is a duration"),
        ({"measure": "freshness", "at_most": "soon"}, "not a duration"),
        ({"measure": "completeness", "at_least": 99}, "between 0 and 1"),
        ({"measure": "availability", "at_least": 0.9}, "needs every"),
        ({"measure": "row_count", "at_least": 1, "every": "1d"}, "only it, needs every"),
        ({"measure": "row_count", "at_most": "1d"}, "number of rows"),
        ({"measure": "speed", "at_least": 1}, "measure"),
        ({"measure": "row_count", "at_least": 1, "port": "none"}, "no output port"),
    ],
)
def test_a_promise_that_cannot_be_is_refused(platform: Platform, level: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        declare(platform, levels=[level])


def test_two_ports_of_one_name_and_version_are_refused(platform: Platform) -> None:
    with pytest.raises(InvalidInput, match="same name and version"):
        declare(platform, outputs=[{"name": "a", "version": "1"}, {"name": "a", "version": "1"}])
