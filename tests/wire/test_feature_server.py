"""The feature server in a real data plane's process, over HTTP."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from planes import Home, Plane, until

from flyball.features.functions import FOLDER, keep_function
from flyball.features.lookup import ViewSpec, look_up
from flyball.serving.snapshot import ServedDeployment, Snapshot, write
from flyball.storage.online import OnlineValue
from flyball.storage.online.sqlite import SqliteOnline
from tests.services import redis_server

NOW = datetime.now(UTC).replace(microsecond=0)
LEG = ViewSpec("previous_leg", ("tailnum",), "at", {"previous_delay": "float64", "landed_at": "datetime"}, ttl_s=7200.0)
PAIR = ViewSpec("pair", ("origin", "number"), "at", {"seats": "int64"}, defaults={"seats": -1})
FUNCTION = """
from datetime import datetime
from flyball.features.requests import on_request

@on_request
def calendar(sched_dep_ts: datetime, previous_delay: float | None = None) -> dict:
    return {"hour": 10 // (sched_dep_ts.hour - 3), "late_before": previous_delay is not None}
"""


def fill(store: Any) -> None:
    values = {"previous_delay": 12.5, "landed_at": (NOW - timedelta(hours=1)).isoformat()}
    stale = {"previous_delay": 1.0, "landed_at": None}
    store.put(
        LEG.stored_as,
        [
            ("N1", OnlineValue(NOW - timedelta(hours=1), values)),
            ("N2", OnlineValue(NOW - timedelta(days=1), stale)),
            ("N3", OnlineValue(NOW + timedelta(days=1), stale)),
        ],
    )
    store.put(PAIR.stored_as, [('["JFK","7"]', OnlineValue(NOW - timedelta(days=400), {"seats": 180}))])


def deploy(home: Home, **changes: Any) -> None:
    home.generation += 1
    deployment = ServedDeployment(home.generation, "late", (home.variant("champion", "late@1"),))
    features = {"previous_leg": LEG.to_dict(), "pair": PAIR.to_dict(), **changes}
    services = {"both": ["previous_leg", "pair"]}
    write(home.snapshot, Snapshot(home.generation, {"late": deployment}, features=features, services=services))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("home"))
    source = made.path / "calendar_features.py"
    source.write_text(FUNCTION)
    found = importlib.util.spec_from_file_location("calendar_features", source)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["calendar_features"] = module
    found.loader.exec_module(module)
    function = keep_function(module.calendar, made.path).to_dict()
    fill(SqliteOnline(made.path / "online.sqlite"))
    deploy(made, calendar=function, broken={**function, "digest": "0" * 64})
    return made


@pytest.fixture(scope="module")
def plane(home: Home) -> Iterator[Plane]:
    running = Plane(home.path)
    yield running
    running.kill()


def test_it_answers_what_a_look_up_answers(plane: Plane, home: Home) -> None:
    keys = ["N1", "N2", "N3", None, "N1", "nobody"]
    found = plane.call("POST", "/features", {"features": ["previous_leg"], "entities": {"tailnum": keys}, "ages": True})
    assert found.status == 200
    wanted = look_up(SqliteOnline(home.path / "online.sqlite"), [LEG], {"tailnum": keys})
    delays, moments = wanted["previous_delay"], wanted["landed_at"]
    assert delays == [12.5, None, None, None, 12.5, None]
    assert found.json["features"]["previous_delay"] == delays
    answered = [m and datetime.fromisoformat(m) for m in found.json["features"]["landed_at"]]
    assert answered == moments
    ages = found.json["ages"]["previous_leg"]
    assert [age is None for age in ages] == [d is None for d in delays]
    assert 3600 <= ages[0] <= (datetime.now(UTC) - NOW).total_seconds() + 3600


def test_one_entity_by_its_address_and_as_of_a_time(plane: Plane) -> None:
    at = (NOW - timedelta(days=1) + timedelta(minutes=1)).isoformat().replace("+00:00", "Z")
    found = plane.call("GET", f"/features/previous_leg?tailnum=N2&at={at}&ages=true").json
    assert found == {
        "features": {"previous_delay": [1.0], "landed_at": [None]},
        "ages": {"previous_leg": [60.0]},
    }
    assert plane.call("GET", "/features/previous_leg?tailnum=N%C3%B1").json["features"]["previous_delay"] == [None]
    assert plane.call("GET", "/features/pair?origin=JFK&number=7").json == {"features": {"seats": [180]}}


def test_a_service_is_all_its_views_and_a_function_sees_the_request_and_views(plane: Plane) -> None:
    entities = {"tailnum": ["N1", "x"], "origin": ["JFK", "JFK"], "number": [7, 8]}
    found = plane.call("POST", "/features", {"service": "both", "entities": entities}).json["features"]
    assert (found["previous_delay"], found["seats"]) == ([12.5, None], [180, -1])
    entities = {"tailnum": ["N1", "x"], "sched_dep_ts": ["2013-05-03T05:00:00Z", None]}
    body = {"features": ["previous_leg", "calendar"], "entities": entities}
    found = plane.call("POST", "/features", body).json["features"]
    assert (found["hour"], found["late_before"]) == ([5, None], [True, None])


def test_it_lists_what_there_is_and_says_what_cannot_be_served(plane: Plane) -> None:
    found = plane.call("GET", "/features").json
    assert found["features"]["pair"] == {"keys": ["origin", "number"], "features": {"seats": "int64"}, "ttl_s": None}
    assert found["features"]["calendar"]["fields"] == ["sched_dep_ts", "previous_delay"]
    assert found["services"] == {"both": ["previous_leg", "pair"]}
    assert "computes something else than when it was declared" in found["refused"]["broken"]
    reply = plane.call("POST", "/features", {"features": ["broken"], "entities": {"sched_dep_ts": ["x"]}})
    assert (reply.status, "cannot be served: the function calendar" in reply.json["error"]) == (503, True)


ONE = {"tailnum": ["N1"]}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "is not JSON"),
        (b"\xff\xfe", 400, "is not JSON"),
        ([], 400, "is not an object"),
        ({}, 400, 'needs either "features" or "service"'),
        ({"features": ["pair"], "service": "both", "entities": ONE}, 400, 'needs either "features" or "service"'),
        ({"feature": ["pair"]}, 400, 'unknown field "feature"; did you mean "features"?'),
        ({"features": "pair", "entities": ONE}, 400, "is not a list of names"),
        ({"features": [], "entities": ONE}, 400, "is not a list of names"),
        ({"features": ["pair", "pair"], "entities": ONE}, 400, '"pair" is asked for twice'),
        ({"features": ["x"] * 101, "entities": ONE}, 400, "at most 100"),
        ({"features": ["previous_leg"]}, 400, '"entities" is not an object of keys'),
        ({"features": ["previous_leg"], "entities": {"tailnum": []}}, 400, "there are no entities"),
        ({"features": ["previous_leg"], "entities": {"tailnum": ["N1"] * 10_001}}, 400, "at most 10000"),
        ({"features": ["previous_leg"], "entities": {"tailnun": ["N1"]}}, 400, 'did you mean "tailnum"?'),
        ({"features": ["pair"], "entities": {"origin": ["JFK"]}}, 400, 'the view pair needs the key "number"'),
        ({"features": ["pair"], "entities": {"origin": ["a", "b"], "number": [1]}}, 400, "has 1 values, another has 2"),
        ({"features": ["previous_leg"], "entities": {"tailnum": [{"a": 1}]}}, 400, "not all text, numbers or null"),
        ({"features": ["previous_leg"], "entities": {"tailnum": [1.5]}}, 400, "is a float; expected text or a whole"),
        ({"features": ["previous_leg"], "entities": {"tailnum": [True]}}, 400, "is a bool; expected text or a whole"),
        ({"features": ["previous_leg"], "entities": ONE, "at": "yesterday"}, 400, "yesterday"),
        ({"features": ["previous_leg"], "entities": ONE, "at": "2013-05-03T14:00:00"}, 400, "no zone"),
        ({"features": ["previous_leg"], "entities": ONE, "at": 7}, 400, '"at" is not a text'),
        ({"features": ["previous_leg"], "entities": ONE, "ages": 1}, 400, "neither true nor false"),
        ({"features": ["previous_lag"], "entities": ONE}, 404, 'did you mean "previous_leg"?'),
        ({"service": "bath", "entities": ONE}, 404, 'no feature service is called "bath"; did you mean "both"?'),
        ({"features": ["calendar"], "entities": {"sched_dep_ts": [5]}}, 400, 'row 0: "sched_dep_ts" given to calendar'),
        (
            {"features": ["calendar"], "entities": {"sched_dep_ts": ["2013-05-03T03:00:00Z"]}},
            500,
            "row 0: the function calendar raised ZeroDivisionError",
        ),
    ],
)
def test_a_wrong_request_gets_one_sentence(plane: Plane, body: Any, status: int, message: str) -> None:
    reply = plane.call("POST", "/features", body)
    assert reply.status == status, reply.body
    assert list(reply.json) == ["error"]
    assert message in reply.json["error"]
    assert plane.call("GET", "/features/previous_leg?tailnum=N1").status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/features/previous_lag?tailnum=N1", 404, 'did you mean "previous_leg"?'),
        ("GET", "/features/previous_leg", 400, 'needs the key "tailnum"'),
        ("GET", "/features/previous_leg?tailnum=N1&tailnum=N2", 400, "twice; for several entities use POST features"),
        ("GET", "/features/previous_leg?tailnum=N1&ages=1", 400, "expected true or false"),
        ("GET", "/features/previous_leg?tailnum=N1&at=7", 400, "7"),
        ("GET", "/features/previous_leg?tailnum", 400, "the query is not one"),
        ("GET", "/features/previous_leg?tailnum=%ff", 400, "not UTF-8"),
        ("POST", "/features/previous_leg", 405, "use GET, HEAD"),
        ("PUT", "/features", 405, "use GET, HEAD"),
        ("GET", "/features/previous_leg/N1", 404, "there is nothing at"),
    ],
)
def test_a_wrong_address_gets_one_sentence(plane: Plane, method: str, path: str, status: int, message: str) -> None:
    reply = plane.call(method, path)
    assert (reply.status, message in reply.json["error"]) == (status, True), reply.body


def test_a_compressed_request_is_read(plane: Plane) -> None:
    body = gzip.compress(json.dumps({"features": ["previous_leg"], "entities": ONE}).encode())
    reply = plane.call("POST", "/features", body, {"Content-Encoding": "gzip"})
    assert reply.json["features"]["previous_delay"] == [12.5]


def test_freshness_is_among_the_metrics(home: Home) -> None:
    own = Plane(home.path)
    try:
        entities = {"tailnum": ["N1", "N1", "N2", "N3", "x", None]}
        own.call("POST", "/features", {"features": ["previous_leg"], "entities": entities})
        text = own.call("GET", "/metrics").body.decode()
    finally:
        own.kill()
    counts = {"fresh": 2, "missing": 2, "stale": 1, "early": 1}
    for found, count in counts.items():
        assert f'flyball_feature_rows_total{{view="previous_leg",found="{found}"}} {count}\n' in text
    assert 'flyball_feature_age_seconds_bucket{view="previous_leg",le="3600"} 0\n' in text
    assert 'flyball_feature_age_seconds_bucket{view="previous_leg",le="10800"} 2\n' in text
    assert 'flyball_feature_age_seconds_count{view="previous_leg"} 2\n' in text


def test_a_new_snapshot_and_a_pushed_value_are_seen_at_once(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    deploy(home)
    plane = Plane(home.path)
    store = SqliteOnline(home.path / "online.sqlite")
    try:
        body = {"features": ["previous_leg"], "entities": ONE}
        assert plane.call("POST", "/features", body).json["features"]["previous_delay"] == [None]
        fill(store)
        assert plane.call("POST", "/features", body).json["features"]["previous_delay"] == [12.5]
        deploy(home, other=ViewSpec("other", ("tailnum",), "at", {"x": "int64"}).to_dict())
        until(lambda: plane.call("GET", "/features/other?tailnum=N1").status == 200)
        assert (home.path / FOLDER).exists() is False
    finally:
        plane.kill()


def test_it_reads_redis_where_the_settings_say_so_and_outlives_it(tmp_path: Path) -> None:
    from flyball.storage.online.opening import open_online

    home = Home(tmp_path / "home")
    deploy(home)
    with redis_server(tmp_path / "redis") as url:
        settings = f'[online]\nbackend = "redis"\nurl = "{url}"\ntimeout_s = 10\n'
        (home.path / "flyball.toml").write_text(settings)
        fill(open_online(home.path))
        plane = Plane(home.path)
        body = {"features": ["previous_leg"], "entities": ONE}
        assert plane.call("POST", "/features", body).json["features"]["previous_delay"] == [12.5]
    try:
        reply = plane.call("POST", "/features", body)
        assert (reply.status, "does not answer" in reply.json["error"]) == (503, True)
        rows = [{"distance": 1.0, "hour": 2.0}]
        assert plane.call("POST", "/v1/models/late:predict", {"records": rows}).status == 200
    finally:
        plane.kill()
