"""A prediction without HTTP: checked, routed, answered, logged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from flyball.errors import Corrupt, InvalidInput, NotFound
from flyball.features.functions import keep_function
from flyball.features.lookup import ViewSpec
from flyball.models import bundle
from flyball.serving.engine import Engine
from flyball.serving.lineup import Lineup
from flyball.serving.router import choose
from flyball.serving.snapshot import Limits, Logging, ServedDeployment, Snapshot, Variant, write
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.online import OnlineValue
from flyball.storage.online.sqlite import SqliteOnline
from flyball.tracking.predictions import Label
from flyball.tracking.traffic import TrafficReader

ROWS = [{"distance": 0.5, "hour": 1.0}, {"distance": -2.0, "hour": 0.25}]


class Home:
    """Two versions of a model with the same inputs and a third that needs `wind` too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.models: dict[str, Any] = {}
        self.digests: dict[str, str] = {}
        for number, names in enumerate((("distance", "hour"), ("distance", "hour"), ("distance", "hour", "wind")), 1):
            rows = np.random.default_rng(number).normal(size=(100, len(names)))
            frame = pl.DataFrame(rows, schema=list(names))
            model = LogisticRegression().fit(frame, (rows.sum(axis=1) > number / 9).astype(int))
            self.models[f"late@{number}"] = model
            self.digests[f"late@{number}"] = bundle.save(FileBlobs(path / "blobs"), model, example=frame[:2]).digest

    def variant(self, name: str, version: str, weight: float = 100.0) -> Variant:
        return Variant(name, version, self.digests[version], weight)

    def engine(self, *variants: Variant, generation: int = 1, **settings: Any) -> Engine:
        served = ServedDeployment(generation, "late", variants or (self.variant("champion", "late@1"),), **settings)
        engine = Engine(self.path)
        write(engine.places.snapshot, Snapshot(generation, {"late": served}))
        engine.refresh()
        return engine

    def wanted(self, version: str, rows: list[dict[str, float]]) -> list[float]:
        names = self.models[version].feature_names_in_
        return self.models[version].predict_proba(pl.DataFrame(rows).select(list(names)))[:, 1].tolist()

    def logged(self) -> pl.DataFrame:
        return TrafficReader(self.path / "traffic").read_predictions()[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def home(made: Home, tmp_path: Path) -> Home:
    """The models of `made`, in a home of one's own."""
    import shutil

    shutil.copytree(made.path / "blobs", tmp_path / "blobs")
    own = Home.__new__(Home)
    own.path, own.models, own.digests = tmp_path, made.models, made.digests
    return own


def test_records_and_columns_are_answered_as_by_the_model_itself(home: Home) -> None:
    engine = home.engine()
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    for answer in (engine.predict("late", ROWS), engine.predict("late", columns=columns)):
        assert [r["outputs"]["probability"] for r in answer.records()] == home.wanted("late@1", ROWS)
    engine.close()


def test_an_answer_is_logged_before_it_is_given(home: Home) -> None:
    engine = home.engine(key="hour")
    answer = engine.predict("late", ROWS)
    rows = home.logged()
    assert rows["id"].to_list() == answer.ids
    assert rows["key"].to_list() == ["1.0", "0.25"]
    assert rows["input.distance"].to_list() == [0.5, -2.0]
    assert rows["output.probability"].to_list() == home.wanted("late@1", ROWS)
    assert rows["version"].unique().to_list() == ["late@1"]
    engine.close()


def test_each_row_meets_the_variant_of_its_own_key(home: Home) -> None:
    variants = (home.variant("champion", "late@1", 50), home.variant("canary", "late@2", 50))
    engine = home.engine(*variants, key="distance")
    rows = [{"distance": n / 3, "hour": 0.0} for n in range(60)]
    records = engine.predict("late", rows).records()
    assert {r["variant"] for r in records} == {"champion", "canary"}
    for row, record in zip(rows, records, strict=True):
        assert record["variant"] == choose(str(row["distance"]), "late", variants).name
        assert record["outputs"]["probability"] == home.wanted(record["version"], [row])[0]
    assert sorted(home.logged()["id"].to_list()) == [r["id"] for r in records]
    together = engine.predict("late", rows, key="one user")
    assert len(together.parts) == 1
    engine.close()


def test_a_version_that_is_not_served_is_never_replaced_by_another(home: Home) -> None:
    engine = home.engine(home.variant("champion", "late@1", 90), home.variant("canary", "late@2", 10))
    assert engine.predict("late", ROWS, version="2").parts[0].version == "late@2"
    assert engine.predict("late", ROWS, variant="canary").parts[0].version == "late@2"
    with pytest.raises(NotFound, match=r"served: late@1, late@2"):
        engine.predict("late", ROWS, version="3")
    with pytest.raises(NotFound, match='did you mean "late"'):
        engine.predict("lste", ROWS)
    engine.close()


def test_a_canary_may_need_more_than_the_champion(home: Home) -> None:
    engine = home.engine(home.variant("champion", "late@1", 90), home.variant("canary", "late@3", 10))
    rows = [{**row, "wind": 1.0} for row in ROWS]
    for variant, version in (("champion", "late@1"), ("canary", "late@3")):
        answer = engine.predict("late", rows, variant=variant)
        assert [r["outputs"]["probability"] for r in answer.records()] == home.wanted(version, rows)
    with pytest.raises(InvalidInput, match='has no input "wond"'):
        engine.predict("late", [{**ROWS[0], "wond": 1.0}], variant="champion")
    engine.close()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ("x", "expected a list of objects"),
        ([3], "expected a list of objects"),
        ([{"distance": 1.0}], 'row 0 lacks "hour"'),
        ([{**ROWS[0], "distanse": 1.0}], 'no input "distanse"'),
        ([ROWS[0], {"distance": True, "hour": 1.0}], '"distance" in row 1 is true'),
        ([ROWS[0]] * 6, "at most 5"),
    ],
)
def test_wrong_rows_are_refused_and_not_logged(home: Home, rows: Any, message: str) -> None:
    engine = home.engine(limits=Limits(request_rows=5))
    with pytest.raises(InvalidInput, match=message):
        engine.predict("late", rows)
    engine.close()
    assert home.logged().is_empty()


def test_masked_inputs_never_reach_the_log(home: Home) -> None:
    engine = home.engine(mask=("distance",))
    engine.predict("late", ROWS)
    engine.close()
    assert all(isinstance(v, str) and len(v) == 32 for v in home.logged()["input.distance"])


def test_a_share_of_requests_may_be_logged(home: Home) -> None:
    engine = home.engine(log=Logging(requests=0.3, durability="os"))
    for _ in range(200):
        engine.predict("late", ROWS[:1])
    engine.close()
    assert 30 < home.logged().height < 95


def test_labels_are_kept(home: Home) -> None:
    engine = home.engine()
    answer = engine.predict("late", ROWS)
    engine.label([Label(answer.ids[0], 1, datetime(2026, 1, 1, tzinfo=UTC))]).wait()
    labels, _ = TrafficReader(home.path / "traffic").read_labels()
    assert labels["prediction_id"].to_list() == answer.ids[:1]
    engine.close()


def test_models_in_memory_are_kept_and_unused_ones_dropped(home: Home) -> None:
    engine = home.engine()
    model = engine.lineup.models[home.digests["late@1"]]
    served = ServedDeployment(2, "late", (home.variant("champion", "late@1", 95), home.variant("canary", "late@2", 5)))
    engine.adopt(engine.prepare(Snapshot(2, {"late": served})))
    assert engine.lineup.models[home.digests["late@1"]] is model
    engine.adopt(engine.prepare(Snapshot(3, {})))
    assert engine.lineup == Lineup(3)
    engine.close()


def test_a_bundle_that_will_not_load_refuses_its_own_deployment_only(home: Home) -> None:
    engine = home.engine()
    missing = Variant("champion", "other@1", "ab" * 32)
    late = ServedDeployment(1, "late", (home.variant("champion", "late@1"),))
    lineup = engine.prepare(Snapshot(2, {"other": ServedDeployment(4, "o", (missing,)), "late": late}))
    assert set(lineup.served) == {"late"}
    assert lineup.errors["other"].revision == 4
    assert lineup.errors["other"].variant == "champion"
    with pytest.raises(NotFound, match="is not served: no blob has the digest"):
        lineup.find("other")
    engine.close()


def test_a_broken_snapshot_leaves_the_engine_as_it_was(home: Home) -> None:
    engine = home.engine()
    engine.places.snapshot.write_text("{")
    with pytest.raises(Corrupt):
        engine.refresh()
    assert engine.predict("late", ROWS).ids
    engine.close()


def test_features_are_looked_up_by_keys_that_the_model_does_not_see(home: Home) -> None:
    view = ViewSpec("weather", ("airport",), "at", {"wind": "float64"}, ttl_s=3600.0)
    store = SqliteOnline(home.path / "online.sqlite")
    then = datetime(2013, 5, 1, 12, tzinfo=UTC)
    store.put(view.stored_as, [("JFK", OnlineValue(then, {"wind": 2.5}))])
    engine = home.engine(home.variant("champion", "late@3"), features=(view.to_dict(),), key="airport")
    rows = [{**ROWS[0], "airport": "JFK"}]
    answer = engine.predict("late", rows, at=then + timedelta(minutes=30))
    assert answer.records()[0]["outputs"]["probability"] == home.wanted("late@3", [{**ROWS[0], "wind": 2.5}])[0]
    logged = home.logged()
    assert logged["feature.wind"].to_list() == [2.5]
    assert logged["input.airport"].to_list() == logged["key"].to_list() == ["JFK"]
    with pytest.raises(InvalidInput, match=r'the rows lack "airport", by which it looks up wind'):
        engine.predict("late", ROWS)
    with pytest.raises(InvalidInput, match=r'no input "wind".*\(and looks up wind by airport\)'):
        engine.predict("late", [{**rows[0], "wind": 1.0}])
    engine.close()


WIND = """
from datetime import datetime
from flyball.features.requests import on_request

@on_request
def wind_of(at: datetime, gust: float | None = None) -> dict:
    return {"wind": at.hour / 8 + (gust or 0.0)}
"""


@pytest.fixture
def wind_of(home: Home) -> dict[str, Any]:
    """The description of a request-time function that is kept in the home."""
    import importlib.util
    import sys

    source = home.path / "wind_features.py"
    source.write_text(WIND)
    found = importlib.util.spec_from_file_location("wind_features", source)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["wind_features"] = module
    found.loader.exec_module(module)
    return keep_function(module.wind_of, home.path).to_dict()


def test_a_request_time_function_gives_a_model_its_inputs(home: Home, wind_of: dict[str, Any]) -> None:
    gusts = ViewSpec("gusts", ("airport",), "at", {"gust": "float64"})
    then = datetime(2013, 5, 1, 12, tzinfo=UTC)
    SqliteOnline(home.path / "online.sqlite").put(gusts.stored_as, [("JFK", OnlineValue(then, {"gust": 0.25}))])
    engine = home.engine(home.variant("champion", "late@3"), features=(wind_of,))
    rows = [{**row, "at": f"2013-05-01T{hour:02}:00:00Z"} for row, hour in zip(ROWS, (4, 16), strict=True)]
    wanted = home.wanted("late@3", [{**row, "wind": wind} for row, wind in zip(ROWS, (0.5, 2.0), strict=True)])
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    for answer in (engine.predict("late", rows), engine.predict("late", columns=columns)):
        assert [r["outputs"]["probability"] for r in answer.records()] == wanted
    assert home.logged()["feature.wind"].to_list() == [0.5, 2.0] * 2
    with pytest.raises(InvalidInput, match=r'the rows lack "at", by which it looks up wind'):
        engine.predict("late", ROWS)
    with pytest.raises(InvalidInput, match=r"row 1: the time .* has no zone"):
        engine.predict("late", [rows[0], {**rows[1], "at": "2013-05-01T04:00:00"}])
    assert engine.predict("late", rows).ids
    engine.close()
    engine = home.engine(home.variant("champion", "late@3"), generation=2, features=(gusts.to_dict(), wind_of))
    found = engine.predict("late", [{**rows[0], "airport": "JFK"}], at=then).records()[0]
    assert found["outputs"]["probability"] == home.wanted("late@3", [{**ROWS[0], "wind": 0.75}])[0]
    engine.close()


def test_a_function_that_is_not_what_was_declared_refuses_its_deployment_only(
    home: Home, wind_of: dict[str, Any]
) -> None:
    engine = home.engine()
    changed = {**wind_of, "digest": "0" * 64}
    wrong = ServedDeployment(2, "w", (home.variant("champion", "late@3"),), features=(changed,))
    late = ServedDeployment(2, "late", (home.variant("champion", "late@1"),))
    lineup = engine.prepare(Snapshot(2, {"windy": wrong, "late": late}))
    assert set(lineup.served) == {"late"}
    assert "wind_of computes something else than when it was declared" in lineup.errors["windy"].message
    again = engine.prepare(Snapshot(3, {"windy": ServedDeployment(3, "w", wrong.variants, features=(wind_of,))}))
    assert set(again.served) == {"windy"}
    engine.close()


def test_a_batch_is_one_read_a_view(home: Home) -> None:
    class Counting(SqliteOnline):
        reads = 0

        def read(self, view: str, keys: Any) -> Any:
            self.reads += 1
            return super().read(view, keys)

    view = ViewSpec("weather", ("airport",), "at", {"wind": "float64"})
    store = Counting(home.path / "online.sqlite")
    store.put(view.stored_as, [("JFK", OnlineValue(datetime(2013, 1, 1, tzinfo=UTC), {"wind": 2.5}))])
    home.engine(home.variant("champion", "late@3"), features=(view.to_dict(),)).close()
    engine = Engine(home.path, online=store, writer=None)
    engine.refresh()
    answer = engine.predict("late", [{**ROWS[0], "airport": "JFK"}] * 300)
    assert (len(answer.ids), store.reads) == (300, 1)
    assert engine.freshness.views["weather"].rows == 300
    engine.close()
