"""Processes are killed at any moment; the loop finishes as if nothing had happened and nothing acknowledged is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx2
import pytest

from flyball.control.lease import is_alive
from flyball.tracking.traffic import TrafficReader
from tests.scenarios.late import World, world
from tests.scenarios.plant import Plant, plant, wait_for


def serve_first(w: World, p: Plant) -> dict[str, object]:
    """Have a first version served by the running plant; return a record to ask with."""
    w.register(w.fit(w.rows(0, 4_000), weak=True))
    wait_for("a champion in service", lambda: w.served() == {"champion": "income@1"})
    record = w.rows(30_000, 1).X.to_dicts()[0]
    wait_for("an answer", lambda: answers(p, record))
    return record


def answers(p: Plant, record: dict[str, object]) -> bool:
    try:
        p.predict("income", record)
    except (AssertionError, httpx2.HTTPError):
        return False
    return True


def keep_asking(p: Plant, w: World, count: int = 20) -> bool:
    """Ask some rows more: a rollout goes on only while there is traffic."""
    return all(p.predict("income", record)["id"] for record in w.rows(30_000, count).X.to_dicts())


def test_the_data_plane_answers_while_the_control_plane_is_dead_and_the_rollout_goes_on_after_it(
    tmp_path: Path, shared_data: Path
) -> None:
    with (
        world(tmp_path / "home", shared_data, steps=[50], hold_requests=30, hold_labels=0) as w,
        plant(w.platform.home) as p,
    ):
        serve_first(w, p)
        w.register(w.fit(w.rows(0, 8_000)))
        wait_for("a rollout", lambda: "canary" in w.served())
        before = p.data_plane
        p.kill_control_plane()
        told = [p.predict("income", record)["id"] for record in w.rows(30_000, 120).X.to_dicts()]
        assert is_alive(before)
        p.start()
        assert p.data_plane == before
        wait_for("the promotion", lambda: keep_asking(p, w) and w.served() == {"champion": "income@2"})
        logged = set(TrafficReader(w.platform.home / "traffic").read_predictions()[0]["id"])
        assert set(told) <= logged
        assert w.platform.verify_journal() > 0


def test_a_killed_data_plane_is_started_again_and_every_acknowledged_answer_is_in_the_log(
    tmp_path: Path, shared_data: Path
) -> None:
    with world(tmp_path / "home", shared_data) as w, plant(w.platform.home) as p:
        record = serve_first(w, p)
        told: list[object] = []
        stopped = threading.Event()

        def ask() -> None:
            while not stopped.is_set() and len(told) < 5_000:
                try:
                    told.append(p.predict("income", record)["id"])
                except (httpx2.HTTPError, AssertionError):
                    continue

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_for("some answers", lambda: len(told) > 50)
        old = p.kill_data_plane()
        asked = len(told)
        wait_for("another data plane", lambda: p.data_plane != old)
        wait_for("answers again", lambda: len(told) > asked + 50)
        stopped.set()
        for thread in threads:
            thread.join(60)
        logged = set(TrafficReader(w.platform.home / "traffic").read_predictions()[0]["id"])
        assert set(told) <= logged


def test_a_challenger_whose_bundle_was_tampered_with_is_rolled_back_and_the_champion_never_stops(
    tmp_path: Path, shared_data: Path
) -> None:
    with world(tmp_path / "home", shared_data) as w:
        version = w.register(w.fit(w.rows(0, 4_000), weak=True))
        model = w.fit(w.rows(0, 8_000))
        with plant(w.platform.home) as p:
            wait_for("a champion in service", lambda: w.served() == {"champion": version.ref.short})
            record = w.rows(30_000, 1).X.to_dicts()[0]
            wait_for("an answer", lambda: answers(p, record))
            p.kill_control_plane()
            tampered = w.register(model)
            path = w.platform.blobs.path(tampered.digest)
            assert path is not None
            path.write_bytes(path.read_bytes().replace(b"sklearn", b"skl3arn", 1))
            p.start()
            status = w.platform.resource
            wait_for("the roll-back", lambda: "last_rollout" in status("deployment/income").status)
            last = status("deployment/income").status["last_rollout"]
            assert (last["verdict"], last["challenger"]) == ("rolled back", 2)
            assert "could not be served" in last["reason"]
            assert p.predict("income", record)["version"] == "income@1"


@pytest.mark.parametrize("moment", ["before the champion", "in the rollout"])
def test_killed_again_and_again_the_control_plane_ends_where_it_would_have(
    tmp_path: Path, shared_data: Path, moment: str
) -> None:
    with world(tmp_path / "home", shared_data, steps=[50], hold_requests=20, hold_labels=0) as w:
        w.register(w.fit(w.rows(0, 4_000), weak=True))
        with plant(w.platform.home) as p:
            if moment == "in the rollout":
                wait_for("a champion in service", lambda: w.served() == {"champion": "income@1"})
                w.register(w.fit(w.rows(0, 8_000)))
            for _ in range(3):
                p.kill_control_plane()
                p.start()
            if moment == "in the rollout":
                wait_for("a rollout", lambda: "canary" in w.served())
                wait_for("the promotion", lambda: keep_asking(p, w) and w.served() == {"champion": "income@2"})
                assert len(w.platform.events(action="promoted")) == 1
            else:
                wait_for("a champion in service", lambda: w.served() == {"champion": "income@1"})
            assert len(w.platform.events(action="serves")) == 1
            assert w.platform.verify_journal() > 0
