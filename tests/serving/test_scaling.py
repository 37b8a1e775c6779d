"""How many workers there are to be, against the formula that Kubernetes publishes."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from flyball.errors import InvalidInput
from flyball.serving.scaling import Observed, Policy, Scaler, ScalingSettings, decide, horizontal_autoscaler
from flyball.testing.clock import FakeClock

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)  # a Wednesday
POLICY = Policy(1, 8, "cpu", 70.0)


class TestTargetTracking:
    @pytest.mark.parametrize("workers", [1, 2, 3, 5, 8])
    @pytest.mark.parametrize("utilisation", [0.0, 10.0, 35.0, 64.0, 76.0, 78.0, 140.0, 400.0])
    def test_as_many_are_wanted_as_the_formula_of_kubernetes_says(self, workers: int, utilisation: float) -> None:
        ratio = utilisation / 70
        wanted = workers if 0.9 <= ratio <= 1.1 else math.ceil(workers * ratio)
        assert decide(POLICY, Observed(workers, utilisation), NOON).now == min(max(wanted, 1), 8)

    def test_fewer_are_wanted_only_when_all_looks_of_the_cool_down_agree(self) -> None:
        assert decide(POLICY, Observed(6, 20.0, (2, 5, 3)), NOON).workers == 5
        assert decide(POLICY, Observed(6, 20.0, (2, 2, 3)), NOON).workers == 3
        assert decide(POLICY, Observed(6, 20.0, (2, 7)), NOON).workers == 6

    def test_more_are_wanted_at_once(self) -> None:
        assert decide(POLICY, Observed(2, 150.0, (1, 1, 1)), NOON).workers == 5

    def test_nothing_observed_changes_nothing_but_the_bounds_hold(self) -> None:
        assert decide(POLICY, Observed(5), NOON).workers == 5
        assert decide(POLICY, Observed(12), NOON).workers == 8


class TestSchedule:
    POLICY = ScalingSettings(schedule="0 8 * * 1-5 2-4; 0 20 * * * 1-2", maximum=9, target=70).policy(1)

    @pytest.mark.parametrize(
        ("day", "hour", "minute", "bounds"),
        [(4, 7, 59, (1, 2)), (4, 8, 0, (2, 4)), (4, 19, 59, (2, 4)), (4, 20, 0, (1, 2)), (7, 12, 0, (1, 2))],
    )
    def test_window_that_began_last_holds(self, day: int, hour: int, minute: int, bounds: tuple[int, int]) -> None:
        assert self.POLICY.bounds(datetime(2026, 3, day, hour, minute, 30, tzinfo=UTC)) == bounds

    def test_schedule_alone_keeps_the_least_of_its_window(self) -> None:
        policy = ScalingSettings(schedule="0 8 * * * 3-4; 0 20 * * * 1-2").policy(1)
        assert decide(policy, Observed(1, 500.0), NOON).workers == 3

    @pytest.mark.parametrize("schedule", ["0 8 * * * 4-2", "0 8 * * *", "0 25 * * * 1-2", "0 8 * * * 0-2", "x"])
    def test_schedule_that_cannot_be_read_is_refused(self, schedule: str) -> None:
        with pytest.raises(InvalidInput, match="schedule"):
            ScalingSettings(schedule=schedule).policy(1)


def test_without_any_policy_the_number_is_fixed() -> None:
    assert ScalingSettings().policy(3).is_fixed
    assert ScalingSettings().policy(3).bounds(NOON) == (3, 3)
    with pytest.raises(InvalidInput, match="workers is 0"):
        ScalingSettings().policy(0)


def test_scaler_sees_the_cores_that_workers_use_and_waits_before_it_lets_one_go(tmp_path: Path) -> None:
    now = 0.0
    scaler = Scaler(Policy(1, 4, "cpu", 50.0, scale_in_after_s=60), FakeClock(NOON), lambda: now)

    def look(seconds: float, share: float) -> int:
        nonlocal now
        now += seconds
        for place in range(1, scaler.wanted + 1):
            path = tmp_path / f"{place}.counts"
            used = orjson.loads(path.read_bytes())["gauges"]["cpu_s"] if path.exists() else 0.0
            path.write_bytes(orjson.dumps({"gauges": {"cpu_s": used + share * seconds, "in_flight": {}}}))
        return scaler.look(tmp_path, set(range(1, scaler.wanted + 1)))

    assert look(3, 0.9) == 1  # the first look has nothing to compare with
    assert look(3, 0.9) == 2
    assert look(3, 0.1) == 2
    assert look(50, 0.1) == 2
    assert look(30, 0.1) == 1


def test_manifest_says_what_the_policy_says() -> None:
    found = horizontal_autoscaler(Policy(2, 6, "in_flight", 12, 120), NOON, "late")
    assert found["apiVersion"] == "autoscaling/v2"
    assert found["spec"]["scaleTargetRef"]["name"] == "late"
    assert (found["spec"]["minReplicas"], found["spec"]["maxReplicas"]) == (2, 6)
    assert found["spec"]["metrics"][0]["pods"]["target"] == {"type": "AverageValue", "averageValue": "12"}
    assert found["spec"]["behavior"]["scaleDown"] == {"stabilizationWindowSeconds": 120}
    with pytest.raises(InvalidInput, match="target"):
        horizontal_autoscaler(Policy(1, 2), NOON)
