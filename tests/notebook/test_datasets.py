"""A dataset in a notebook: publish, read, compare, learn from, decide about a batch; as the policies allow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

import flyball as fb
from flyball.api import _session
from flyball.governance.identity import Principal

CONTRACT: dict[str, Any] = {
    "apiVersion": "v3.1.0", "kind": "DataContract", "id": "flights", "version": "1.0.0", "status": "active",
    "schema": [{"name": "flights", "properties": [
        {"name": "id", "logicalType": "integer", "primaryKey": True},
        {"name": "delay", "logicalType": "number", "logicalTypeOptions": {"minimum": 0}}]}],
}  # fmt: skip
FIRST = {"id": [1, 2, 3], "delay": [5.0, 0.0, 7.5]}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    fb.open_home(tmp_path / "home")
    yield
    _session.close()


def test_a_dataset_is_published_in_every_mode_and_read_in_every_form() -> None:
    flights = fb.dataset("flights", key=["id"])
    assert flights.publish(FIRST).number == flights.publish(FIRST).number == 1
    flights.publish({"id": [4], "delay": [1.0]}, "append")
    flights.publish({"id": [4, 5], "delay": [2.0, 3.0]}, "upsert", note="day two")
    assert [v.number for v in flights.versions()] == [3, 2, 1] and flights.latest().number == 3
    assert flights.frame(columns=["id"]).collect()["id"].to_list() == [1, 2, 3, 4, 5]
    assert flights.to_arrow(2).read_all().num_rows == 4
    assert flights.to_pandas(columns=["delay"])["delay"].sum() == 17.5
    assert flights.to_duckdb(1).aggregate("sum(delay)").fetchall() == [(12.5,)]
    assert flights.frame(at=datetime.now(UTC)).collect().height == 5
    with pytest.raises(fb.FlyballError, match="had no version yet"):
        flights.frame(at=datetime.now(UTC) - timedelta(days=1))
    with pytest.raises(fb.FlyballError, match='no column "dealy"; did you mean "delay"'):
        flights.frame(columns=["dealy"])


def test_fields_that_are_not_given_again_stay_and_none_takes_one_back() -> None:
    fb.dataset("flights", key=["id"], owner="team/flights")
    fb.dataset("flights", target="delay")
    assert fb.home().resource("dataset/flights").spec == {"key": ["id"], "owner": "team/flights", "target": "delay"}
    fb.dataset("flights", owner=None)
    assert "owner" not in fb.home().resource("dataset/flights").spec


def test_differences_profiles_and_lists_show_themselves_in_text_and_html() -> None:
    flights = fb.dataset("flights", key=["id"])
    flights.publish(FIRST)
    assert str(flights.diff(1, 1)).endswith("the same columns and rows")
    flights.publish({"id": [1, 2, 9], "delay": [5.0, 60.0, 1.0], "<b>": ["x", "\x1b[2J", "z"]})
    difference = flights.diff(1, 2)
    assert (difference.added, difference.removed, difference.changed) == (1, 1, 1)
    told = str(difference)
    assert "compared by id" in told and "columns: + <b>" in told and "~ id 2: delay 0 → 60" in told
    assert "&lt;b&gt;" in difference._repr_html_() and "\x1b" not in told
    profile = flights.profile()
    assert profile.rows == 3 and "delay" in str(profile) and "<b>" not in profile._repr_html_()
    assert "\x1b" not in str(profile)
    assert [c.name for c in flights.compare(1)][:2] == ["id", "delay"] and "delay" in str(flights.compare(1))
    exact, sketched = flights.drift(1, method="exact"), flights.drift(1)
    assert [d.distances for d in exact] == [d.distances for d in sketched], "few values are told exactly"
    assert "flights@2" in str(flights.versions()) and "<td>flights@2</td>" in flights.versions()._repr_html_()
    assert "nobody" not in str(flights.uses()) and flights.quarantine() == []
    assert str(flights.quarantine()) == "nothing of dataset/flights was kept aside"
    assert str(fb.search("zebra")) == "nothing was found" and "flights" in str(fb.search("flights"))


def test_a_batch_is_looked_at_and_fixed_released_or_dropped() -> None:
    flights = fb.dataset("flights", contract=CONTRACT)
    assert flights.contract is not None and flights.contract.version == "1.0.0"
    assert not flights.check({"id": [1, 1], "delay": [1.0, 1.0]}).passed
    flights.publish(FIRST)
    for number in (4, 5, 6):
        with pytest.raises(fb.ContractBroken, match="breaks 1 of") as caught:
            flights.publish({"id": [number], "delay": [-1.0]}, "append")
        assert caught.value.report.rows_failed == 1
    newest, second, first = flights.quarantine()
    assert first.frame().collect()["_failed"].to_list() == [["delay.range"]] and first.failures
    with pytest.raises(fb.FlyballError, match="is no SQL expression"):
        first.fix({"delay": "abs(delay"})
    with pytest.raises(fb.FlyballError, match="expected SQL such as"):
        first.fix({"delay": 3})  # type: ignore[arg-type]
    with pytest.raises(fb.ContractBroken, match="still breaks"):
        first.fix({"delay": "delay * 2"})
    assert first.fix({"delay": "abs(delay)"}, reason="a sign").metadata["rows"] == 4
    assert second.fix({"delay": pl.col("delay").abs()}).metadata["rows"] == 5
    with pytest.raises(fb.FlyballError, match="was fixed by"):
        second.drop("too late for that")
    assert newest.drop("a test row").state == "dropped"
    assert [b.state for b in flights.quarantine()] == ["dropped", "fixed", "fixed"] and not flights.quarantine("held")
    assert "fixed by" in str(flights.quarantine()[1])


def test_files_come_back_byte_by_byte_whatever_way_they_were_named(tmp_path: Path) -> None:
    for name, text in (("cats/a.txt", "a cat"), ("dogs/b.txt", "a dog")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(text)
    animals = fb.dataset("animals")
    animals.publish(fb.files("in/**/*.txt", label="folder"))
    assert animals.frame(columns=["path", "label"]).collect().rows() == [("cats/a.txt", "cats"), ("dogs/b.txt", "dogs")]
    assert animals.file("dogs/b.txt") == b"a dog"
    animals.publish(fb.files(tmp_path / "in" / "cats", keep="reference"))
    assert animals.file("a.txt") == b"a cat"
    animals.publish(fb.files("in/cats/a.txt"))
    with pytest.raises(fb.FlyballError, match=r'no file "a\.tx"; did you mean "a\.txt"'):
        animals.file("a.tx")
    with pytest.raises(fb.FlyballError, match="no file matches"):
        animals.publish(fb.files("in/*.png"))
    with pytest.raises(fb.FlyballError, match="labels are for an array"):
        fb.files("in", labels=[1])
    images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    animals.publish(fb.files(images, labels=["x", "y"]))
    assert animals.file("000001.png")[:4] == b"\x89PNG"


def test_sql_reads_as_whoever_publishes_may_and_keeps_where_each_column_came_from() -> None:
    people = fb.dataset("people", purposes=["billing"], columns={"email": {"classification": "personal"}})
    people.publish({"email": ["ada@example.org"], "owes": [3.0]})
    fb.declare("Policy", "no-emails", mask=[{"classifications": ["personal"], "how": "redact"}])
    owing = fb.dataset("owing")
    for sql in ("select email from people", "select count(*) as n from people", 'select 1 as x from "people@1"'):
        with pytest.raises(fb.FlyballError, match="only for a stated purpose"):
            owing.publish(sql)
    version = owing.publish("select email, owes as people from people", purpose="billing")
    with pytest.raises(fb.FlyballError, match="only for a stated purpose"):
        owing.frame()  # what was made of people is for what people are for
    assert owing.frame(purpose="billing").collect().rows() == [("•••", 3.0)]
    assert version.metadata["columns"]["people"] == [["dataset/people@1", "owes", "direct"]]
    # A column that is called as a dataset is called does not read that dataset.
    assert fb.dataset("sums").publish("select sum(people) as people from owing", purpose="billing").number == 1
    assert {u.who for u in people.uses()} >= {"dataset/owing@1"}


def test_masks_and_purposes_hold_in_every_way_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    people = fb.dataset("people", key=["id"], purposes=["care"], columns={"name": {"classification": "personal"}})
    people.publish({"id": [1, 2], "name": ["Ada", "Bob"]})
    people.publish({"id": [1, 2], "name": ["Eve", "Bob"]})
    for read in (people.frame, people.to_arrow, people.to_pandas, people.to_duckdb, people.rows, people.infer_contract):
        with pytest.raises(fb.FlyballError, match="pass purpose='care'"):
            read()
    assert "Eve" not in str(people.diff(1)) and "Eve" not in str(people.profile()) + str(people.compare(1))
    assert "Eve" in str(people.diff(1, purpose="care")) and "Eve" in str(people.profile(purpose="care"))
    viewer = fb.home().as_(Principal("user/vic", "viewer"))
    monkeypatch.setattr(_session, "platform", viewer)
    assert people.frame(purpose="care").collect()["name"].to_list() == ["•••", "•••"]
    assert people.to_duckdb(purpose="care").fetchall()[0] == (1, "•••")
    assert "Eve" not in str(people.diff(1, purpose="care")) + str(people.profile(purpose="care"))
    with pytest.raises(fb.FlyballError, match="may not publish"):
        people.publish(FIRST)


def test_a_run_keeps_what_its_rows_were_read_for() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=200)
    tumours = fb.dataset("tumours", target="benign", purposes=["research", "care"])
    tumours.publish(pl.DataFrame({"x": x, "benign": (x + random.normal(size=200) > 0).astype(int)}))
    with pytest.raises(fb.FlyballError, match="stated purpose"):
        tumours.split(test=0.5)
    train, test = tumours.split(test=0.5, purpose="research")
    with fb.run("first") as run:
        run.evaluate(LogisticRegression().fit(train.X, train.y), test)
    assert fb.home().run(run.id).tags["purpose"] == "research"
    used = [use for use in tumours.uses() if use.who.startswith("user/")]
    assert any("research" in use.how for use in used), used


def test_labels_are_added_resolved_and_known_as_of_a_time() -> None:
    fb.dataset("flights", key=["id"]).publish(FIRST)
    spec: dict[str, Any] = {"dataset": "flights", "key": ["id"], "values": ["late", "on time"]}
    by_hand = fb.label_set("by-hand", **spec)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    batch = pl.DataFrame({"id": [1, 2], "label": ["late", "late"], "known_at": [at, at + timedelta(days=2)]})
    assert by_hand.add(batch, labeller="ann").added == 2 and by_hand.add(batch, labeller="ann").added == 0
    by_hand.add({"id": [1, 2], "label": ["late", "on time"]}, labeller="bob")
    assert by_hand.table(at + timedelta(days=1))["id"].to_list() == [1]
    assert by_hand.table()["state"].to_list() == ["resolved", "unresolved"]
    asked = pl.DataFrame({"id": [1, 2], "asked_at": [at + timedelta(days=1)] * 2})
    assert by_hand.as_of(asked, "asked_at")["label"].to_list() == ["late", None]
    assert by_hand.agreement().items_compared == 2 and by_hand.open_items()["id"].to_list() == [2, 3]
    joined = by_hand.join(fb.dataset("flights").frame(), target="truth").collect()
    assert joined.sort("id")["truth"].to_list() == ["late", None, None]
    with pytest.raises(fb.FlyballError, match="latte"):
        by_hand.add({"id": [3], "label": ["latte"]}, labeller="ann")
    assert fb.label_set("by-hand").table().height == 2
