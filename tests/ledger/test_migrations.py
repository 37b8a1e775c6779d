"""Ledgers of earlier releases are brought up to date with all that is in them."""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from flyball.ledger.points import Point
from flyball.ledger.sql import open_ledger
from flyball.ledger.sql.migrate import HEAD
from tests.ledger.older import older_ledger

_RUN = (
    "INSERT INTO runs (id, kind, name, status, actor, started_at, params, metrics, tags, source, environment, result) "
    "VALUES (?, ?, ?, 'succeeded', 'user/ann', ?, '{\"depth\": 6}', ?, '{}', '{}', '{}', '{}')"
)
_POINT = "INSERT INTO metric_points (run, key, step, at, value) VALUES (?, ?, ?, ?, ?)"
_STARTED = "2026-01-02T03:04:05.678901Z"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A home of schema 0003 with three runs and their points."""
    ledger = older_ledger(tmp_path, "0003")
    with closing(sqlite3.connect(ledger)) as connection:
        metrics = json.dumps({"loss": 0.25, "bad": None, "told": 7.5})
        connection.execute(_RUN, ("a" * 32, "training", "long", _STARTED, metrics))
        connection.execute(_RUN, ("b" * 32, "step", "fit", _STARTED, "{}"))
        connection.execute(_RUN, ("c" * 32, "evaluation", "short", _STARTED, json.dumps({"loss": 2.0})))
        for step in range(9000):
            at = f"2026-01-02T03:{step // 3600:02}:{step // 60 % 60:02}.{step % 60:02}0001Z"
            connection.execute(_POINT, ("a" * 32, "loss", step, at, step / 36_000))
        connection.execute(_POINT, ("a" * 32, "loss", 8999, _STARTED, 0.25))
        connection.execute(_POINT, ("a" * 32, "loss", 8999, _STARTED, 0.25))  # an exact repeat
        connection.execute(_POINT, ("a" * 32, "bad", 1, _STARTED, 1.0))
        connection.execute(_POINT, ("a" * 32, "bad", 2, _STARTED, None))
        connection.execute(_POINT, ("c" * 32, "loss", -3, _STARTED, 1.7976931348623157e308))
        connection.execute(_POINT, ("c" * 32, "loss", 1, _STARTED, 2.0))
        connection.commit()
    return tmp_path


def test_points_and_newest_values_move_to_where_this_release_looks(older: Path) -> None:
    opened = open_ledger(older)
    at = 1_767_323_045_678
    with opened.read() as tx:
        long, step, short = (tx.runs.get(letter * 32) for letter in "abc")
        assert long.latest["loss"] == Point("loss", 0.25, 8999, at)
        assert math.isnan(long.metrics["bad"])
        assert long.metrics["told"] == 7.5  # was recorded without points
        history = tx.points.history(long.id, "loss")
        assert [p.step for p in history] == [*range(9000), 8999]
        assert history[100] == Point("loss", 100 / 36_000, 100, 1_767_322_801_400)
        assert [math.isnan(p.value) for p in tx.points.history(long.id, "bad")] == [False, True]
        assert tx.points.history(short.id, "loss")[0].value == 1.7976931348623157e308
        assert (long.experiment, step.experiment, short.experiment) == ("0", None, "0")
        assert (long.user, long.params, long.inputs) == ("user/ann", {"depth": 6}, ())
        assert tx.experiments.get("0").name == "Default"
        assert len({long.revision, step.revision, short.revision}) == 3
        head = tx.run_columns.head()
    with opened.write("user/a") as tx:
        tx.runs.record(short.id, points=[Point("loss", 3.0, 2, at)], tags={"x": "y"})
        assert tx.runs.get(short.id).metrics == {"loss": 3.0}
        assert tx.runs.get(short.id).revision > head
        assert {hit.name for hit in tx.search.find("kind:run").hits} == {"long", "fit", "short"}
    opened.close()
    with closing(sqlite3.connect(older / "ledger.db")) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert "metric_points" not in tables
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD,)
        assert {row[1] for row in connection.execute("PRAGMA index_list(runs)")} >= {
            "runs_by_start",
            "runs_by_cache_key",
        }


def test_two_that_open_an_older_home_at_once_bring_it_up_to_date_once(older: Path) -> None:
    errors: list[Exception] = []

    def start() -> None:
        try:
            opened = open_ledger(older)
            with opened.write("user/a") as tx:
                tx.runs.record("a" * 32, tags={"opened": "yes"})
            opened.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    opened = open_ledger(older)
    with opened.read() as tx:
        assert len(tx.points.history("a" * 32, "loss")) == 9001
    opened.close()
