"""Retention: by a clock moved by hand, what is past its time leaves every place and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from flyball.data.retention import cutoff, older_than
from flyball.errors import InvalidInput
from flyball.features.offline import StoredView, merged_rows
from flyball.platform import Platform
from flyball.testing.clock import FakeClock
from tests.privacy.full_home import NOW, OTHER, PERSON, fill, people

DAY = 86_400.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def platform(tmp_path: Path, clock: FakeClock) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home", clock=clock)
    yield opened
    opened.close()


def test_rows_leave_as_time_passes_and_versions_keep_their_numbers(platform: Platform, clock: FakeClock) -> None:
    fill(platform)
    platform.declare("deployment", "open", model="m")
    assert [e.rows for e in platform.retention(dry_run=False)] == [0]
    clock.advance(400 * DAY + 6 * 3600)  # rows of the first six hours are past their 400 days
    counted = platform.retention()[0]
    assert counted.rows > 0
    assert platform.frame("people@1").collect().height == 12
    done = platform.retention(dry_run=False)[0]
    assert done.to_dict() == counted.to_dict()
    border = NOW + timedelta(hours=6)
    places = {"dataset/people@1", "dataset/people@2", "dataset/people@3", "feature/habits@1", "feature/visits@1"}
    assert {s.version: s.rows for s in done.versions} == dict.fromkeys(places, 6)
    for version in platform.versions("dataset", "people"):
        rows = platform.tables.scan(version.digest).collect()
        assert rows["at"].min() == border  # exactly of the border is kept
        assert version.metadata["rows"] == rows.height
    assert (done.predictions, done.labels) == (4, 4)
    assert platform.traffic.frame("open").height == 0
    assert platform.traffic.frame("masked").height == 2
    version = platform.version("feature/habits")
    stored = StoredView.from_dict(version.digest, version.metadata, version.number)
    assert pl.concat(merged_rows(stored, platform.tables)).height == stored.rows
    assert platform.online.get("habits@1", [PERSON, OTHER, "user2@example.org"])[2] is None
    assert platform.retention(dry_run=False)[0].rows == 0
    assert next(e.action for e in platform.events(ref="dataset/people@1")) == "expired"
    assert platform.verify_journal() > 0


def test_replaced_blobs_are_gone_and_shared_ones_stay(platform: Platform, clock: FakeClock) -> None:
    platform.declare("dataset", "people", event_time="at", retention="10d")
    platform.declare("dataset", "copy")
    old = platform.publish("people", people()).version
    platform.publish("copy", people())
    part = platform.tables.read(old.digest).parts[0].digest
    clock.advance(11 * DAY)
    platform.retention(dry_run=False)
    assert platform.version("dataset/people@1").digest != old.digest
    assert platform.blobs.has(part)  # the other dataset, which nobody limits, still has these rows
    assert platform.frame("copy").collect().height == 12
    assert platform.frame("people").collect().height == 0


def test_a_policy_s_retention_holds_where_it_is_shorter(platform: Platform, clock: FakeClock) -> None:
    platform.declare("dataset", "people", event_time="at", retention="400d", domain="crm")
    platform.publish("people", people())
    platform.declare("policy", "short", applies_to={"domains": ["crm"]}, retention="1d")
    clock.advance(2 * DAY)
    found = platform.retention(dry_run=False)[0]
    assert (found.because, found.rows) == ("policy/short", 12)


def test_a_dataset_whose_rows_have_no_age_is_told_and_the_others_go_on(platform: Platform, clock: FakeClock) -> None:
    platform.declare("dataset", "ageless", retention="1d")
    platform.declare("dataset", "odd", event_time="age", retention="1d")
    platform.declare("dataset", "people", event_time="at", retention="1d")
    for name in ("ageless", "odd", "people"):
        platform.publish(name, people())
    clock.advance(9 * DAY)
    found = {e.dataset: e for e in platform.retention(dry_run=False)}
    assert "no event_time" in found["ageless"].problem
    assert "nobody can say how old a row is" in found["odd"].problem
    assert found["people"].rows == 12


def test_times_of_any_type_and_zone_are_compared_as_instants() -> None:
    moments = pl.Series("at", [NOW - timedelta(seconds=1), NOW, None], dtype=pl.Datetime("us", "UTC"))
    for column in (
        moments,
        moments.dt.convert_time_zone("Asia/Tokyo"),
        moments.dt.replace_time_zone(None),
        moments.dt.cast_time_unit("ns"),
        moments.dt.cast_time_unit("ms"),
    ):
        frame = column.to_frame()
        condition = older_than("at", NOW)(frame.schema)
        assert condition is not None
        assert frame.filter(condition).height == 1
    days = pl.DataFrame({"at": [NOW.date() - timedelta(days=1), NOW.date()]})
    condition = older_than("at", NOW)(days.schema)
    assert condition is not None
    assert days.filter(condition).height == 1
    assert older_than("absent", NOW)(days.schema) is None
    with pytest.raises(InvalidInput, match="is Int64"):
        older_than("at", NOW)(pl.Schema({"at": pl.Int64()}))
    assert cutoff(NOW, timedelta(days=999_999)).year == 1
