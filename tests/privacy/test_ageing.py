"""Retention that keeps itself, by a clock moved by hand."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flyball.platform import Platform
from flyball.testing.clock import FakeClock


def test_rows_leave_when_their_time_has_come_and_nobody_asks(tmp_path: Path) -> None:
    clock = FakeClock(datetime(2024, 1, 10, tzinfo=UTC))
    with closing(Platform.open(tmp_path / "home", clock=clock)) as platform:
        platform.declare("dataset", "visits", event_time="at", retention="30d")
        platform.declare("dataset", "kept", event_time="at")
        rows = [{"id": day, "at": datetime(2024, 1, day, tzinfo=UTC)} for day in (1, 5, 9)]
        platform.publish("visits", rows)
        platform.publish("kept", rows)
        loop = platform.loop()
        loop.settle(10)
        assert platform.frame("visits").collect()["id"].to_list() == [1, 5, 9]
        clock.advance(timedelta(days=23).total_seconds())  # 2 February: what is from before 3 January is too old
        loop.settle(10)
        assert platform.frame("visits").collect()["id"].to_list() == [5, 9]
        assert platform.frame("kept").collect()["id"].to_list() == [1, 5, 9]
        assert platform.version("dataset/visits").number == 1
