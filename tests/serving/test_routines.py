"""Routines: chains, ensembles, routers and functions after them, against the same by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier

from flyball.errors import InvalidInput, NotFound
from flyball.features.functions import keep_function
from flyball.features.requests import on_request
from flyball.models import bundle
from flyball.serving.engine import Engine
from flyball.serving.routines import RoutineModel
from flyball.serving.snapshot import Part, Routine, ServedDeployment, Snapshot, Variant, read, write
from flyball.storage.blobs.files import FileBlobs
from flyball.tracking.traffic import TrafficReader

COLUMNS = ("distance", "hour")
ROWS = [{"distance": 0.5, "hour": 1.0}, {"distance": -2.0, "hour": 0.25}, {"distance": 0.0, "hour": -1.0}]


@on_request(returns={"is_long": bool, "verdict": str, "probability": float})
def judged(distance: float, probability: float) -> dict[str, Any]:
    return {
        "is_long": distance > 0,
        "verdict": "late" if probability > 0.4 else "on time",
        "probability": round(probability, 3),
    }


@on_request
def undeclared(distance: float) -> dict[str, Any]:
    return {"twice": distance * 2}


@on_request(returns={"twice": float})
def of_wind(wind: float) -> dict[str, Any]:
    return {"twice": wind * 2}


class Home:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.models: dict[str, Any] = {}
        self.digests: dict[str, str] = {}
        self.generation = 0
        random = np.random.default_rng(0)
        frame = pl.DataFrame(random.normal(size=(200, 2)), schema=list(COLUMNS))
        wind = frame["distance"] * 2 - frame["hour"] + 1
        weather = LinearRegression().fit(frame, wind)
        stacked = frame.with_columns(pl.Series("weather_prediction", weather.predict(frame)))
        late = (wind > 1).cast(int)
        self._add("weather@1", weather, frame)
        self._add("weather@2", LinearRegression().fit(frame, -wind), frame)
        self._add("trees@1", HistGradientBoostingRegressor(max_iter=20).fit(frame, wind), frame)
        self._add("late@1", LogisticRegression().fit(stacked, late), stacked)
        for number, sign in enumerate((1, -1, 2), 1):
            target = (frame["distance"] * sign + frame["hour"] > 0).cast(int)
            self._add(f"one@{number}", LogisticRegression().fit(frame, target), frame)
        self._add("word@1", RidgeClassifier().fit(frame, np.where(late == 1, "late", "on time")), frame)

    def _add(self, version: str, model: Any, frame: pl.DataFrame) -> None:
        self.models[version] = model
        self.digests[version] = bundle.save(FileBlobs(self.path / "blobs"), model, example=frame[:10]).digest

    def part(self, version: str, **more: Any) -> Part:
        return Part(version.partition("@")[0], version, self.digests[version], **more)

    def engine(self, version: str, routine: Routine, *more: Variant) -> Engine:
        engine = Engine(self.path)
        self.generation += 1
        rest = 100.0 - sum(variant.weight for variant in more)
        variants = (Variant("champion", version, self.digests[version], rest), *more)
        served = ServedDeployment(self.generation, "d", variants, routine=routine)
        write(engine.places.snapshot, Snapshot(self.generation, {"d": served}))
        assert read(engine.places.snapshot).deployments["d"] == served
        engine.refresh()
        return engine

    def asked(self, version: str, rows: list[dict[str, Any]]) -> Any:
        model = self.models[version]
        frame = pl.DataFrame(rows).select(list(model.feature_names_in_))
        return model.predict_proba(frame)[:, 1] if hasattr(model, "predict_proba") else model.predict(frame)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("routines"))


def outputs(engine: Engine, name: str, rows: list[dict[str, Any]] = ROWS) -> list[Any]:
    return [record["outputs"][name] for record in engine.predict("d", rows).records()]


def test_a_chain_gives_answers_of_one_model_to_the_next(home: Home) -> None:
    engine = home.engine("late@1", Routine("chain", (home.part("weather@1"),)))
    wind = home.asked("weather@1", ROWS)
    wanted = home.asked("late@1", [{**row, "weather_prediction": w} for row, w in zip(ROWS, wind, strict=True)])
    assert outputs(engine, "probability") == pytest.approx(wanted.tolist(), abs=1e-12)
    found = TrafficReader(home.path / "traffic").find(engine.predict("d", ROWS[:1]).ids[0])
    assert found is not None
    assert (found.version, found.revision) == ("late@1+weather@1", home.generation)
    assert set(found.inputs) == {"distance", "hour"}
    served = engine.lineup.find("d")
    assert served.of_version("1") is served.of_version("late@1+weather@1")
    engine.close()


def test_a_part_that_changes_changes_the_answer_and_the_version(home: Home) -> None:
    first = home.engine("late@1", Routine("chain", (home.part("weather@1"),)))
    before = outputs(first, "probability")
    bundle_before = first.lineup.find("d").variants[0].variant.bundle
    first.close()
    second = home.engine("late@1", Routine("chain", (home.part("weather@2"),)))
    assert outputs(second, "probability") != before
    variant = second.lineup.find("d").variants[0].variant
    assert (variant.version, variant.bundle == bundle_before) == ("late@1+weather@2", False)
    second.close()


def test_a_mean_weighs_probabilities_and_names_the_likelier_label(home: Home) -> None:
    parts = (home.part("one@2", weight=1.0), home.part("one@3", weight=2.0))
    engine = home.engine("one@1", Routine("mean", parts, weight=3.0))
    wanted = (home.asked("one@2", ROWS) + 2 * home.asked("one@3", ROWS) + 3 * home.asked("one@1", ROWS)) / 6
    assert outputs(engine, "probability") == pytest.approx(wanted.tolist(), abs=1e-12)
    assert outputs(engine, "prediction") == (wanted > 0.5).astype(int).tolist()
    engine.close()


def test_a_mean_of_numbers_and_a_vote_of_labels(home: Home) -> None:
    engine = home.engine("weather@1", Routine("mean", (home.part("trees@1"),)))
    wanted = (home.asked("weather@1", ROWS) + home.asked("trees@1", ROWS)) / 2
    assert outputs(engine, "prediction") == pytest.approx(wanted.tolist(), abs=1e-12)
    engine.close()
    rows = [{"distance": float(d), "hour": float(h)} for d in (-1, 0.2, 1) for h in (-0.7, 0.5)]
    engine = home.engine("one@1", Routine("vote", (home.part("one@2"), home.part("one@3"))))
    votes = sum(home.asked(version, rows) > 0.5 for version in ("one@1", "one@2", "one@3"))
    assert outputs(engine, "prediction", rows) == (votes >= 2).astype(int).tolist()
    engine.close()
    even = home.engine("one@1", Routine("vote", (home.part("one@2"),)))
    assert outputs(even, "prediction", rows) == (home.asked("one@1", rows) > 0.5).astype(int).tolist()
    even.close()


def test_a_router_asks_one_model_a_row(home: Home) -> None:
    routine = Routine("router", (home.part("one@2", when=(1.0, 0.25)), home.part("one@3", when=(-1,))), by="hour")
    engine = home.engine("one@1", routine)
    rows = [*ROWS, {"distance": 1.0, "hour": 7.0}]
    by_hand = [home.asked(v, [row])[0] for v, row in zip(("one@2", "one@2", "one@3", "one@1"), rows, strict=True)]
    assert outputs(engine, "probability", rows) == pytest.approx(by_hand, abs=1e-12)
    assert outputs(engine, "probability", rows[2:3]) == pytest.approx(by_hand[2:3], abs=1e-12)
    model = engine.lineup.find("d").variants[0].model
    assert isinstance(model, RoutineModel)
    steps = model.steps_taken()
    assert [step for step, _ in steps[-4:]] == ["one@2", "one@3", "one@1", "one@3"]
    assert all(seconds > 0 for _, seconds in steps) and not model.steps_taken()
    engine.close()


def test_functions_after_the_models_add_to_the_answer_and_replace(home: Home) -> None:
    spec = keep_function(judged, home.path)
    engine = home.engine("one@1", Routine(post=(spec.to_dict(),)))
    likely = home.asked("one@1", ROWS)
    assert outputs(engine, "is_long") == [True, False, False]
    assert outputs(engine, "verdict") == ["late" if p > 0.4 else "on time" for p in likely]
    assert outputs(engine, "probability") == [round(float(p), 3) for p in likely]
    logged = TrafficReader(home.path / "traffic").find(engine.predict("d", ROWS[:1]).ids[0])
    assert logged is not None and logged.outputs["verdict"] in ("late", "on time")
    told = [(f.name, f.dtype) for f in engine.lineup.find("d").variants[0].model.signature.outputs]
    assert ("is_long", "bool") in told and ("verdict", "string") in told
    engine.close()


def test_a_canary_of_a_routine_differs_in_the_deployments_own_model_only(home: Home) -> None:
    canary = Variant("canary", "one@2", home.digests["one@2"], 50.0)
    engine = home.engine("one@1", Routine("mean", (home.part("one@3"),)), canary)
    for variant, own in (("champion", "one@1"), ("canary", "one@2")):
        found = engine.predict("d", ROWS, variant=variant)
        assert found.parts[0].version == f"{own}+one@3"
        wanted = (home.asked(own, ROWS) + home.asked("one@3", ROWS)) / 2
        assert found.parts[0].outputs["probability"].tolist() == pytest.approx(wanted.tolist(), abs=1e-12)
    engine.close()


def test_a_routine_is_explained_by_sampling(home: Home) -> None:
    engine = home.engine("one@1", Routine("mean", (home.part("one@3"),)))
    with pytest.raises(InvalidInput, match="no exact explanation"):
        engine.predict("d", ROWS, explain=True)
    (record, *_) = engine.predict("d", ROWS, explain=True, is_approximate=True).records()
    told = record["explanation"]
    assert told["base"] + sum(told["contributions"].values()) == pytest.approx(record["outputs"]["probability"])
    engine.close()


@pytest.mark.parametrize(
    ("version", "routine", "why"),
    [
        ("late@1", lambda h: Routine("chain", (h.part("one@1"), h.part("weather@1"))), "no model behind one takes"),
        (
            "one@1",
            lambda h: Routine("mean", (h.part("weather@1"),)),
            'weather and one do not answer "prediction" alike',
        ),
        ("word@1", lambda h: Routine("mean", (h.part("word@1"),)), "use vote"),
        ("one@1", lambda h: Routine("vote", (h.part("weather@1"),)), "only labels are voted on"),
        (
            "one@1",
            lambda h: Routine("router", (h.part("one@2", when=(1,)),), by="wind"),
            "a router chooses by an input",
        ),
        ("one@1", lambda h: Routine("router", (h.part("one@2", when=("UA",)),), by="hour"), "never 'UA'"),
        (
            "one@1",
            lambda h: Routine("router", (h.part("one@2", when=(1,)), h.part("one@3", when=(1,))), by="hour"),
            "goes to one and to one",
        ),
        ("one@1", lambda h: Routine(post=(keep_function(of_wind, h.path).to_dict(),)), 'of_wind needs "wind"'),
        ("one@1", lambda h: Routine(post=(keep_function(undeclared, h.path).to_dict(),)), "must say what it returns"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_the_reason(home: Home, version: str, routine: Any, why: str) -> None:
    engine = home.engine(version, routine(home))
    with pytest.raises(NotFound, match="is not served") as refused:
        engine.predict("d", ROWS)
    assert why in str(refused.value)
    engine.close()
