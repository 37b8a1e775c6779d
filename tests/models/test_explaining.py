"""Contributions of inputs: against the package shap, against all sets one by one, and that they add up."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from flyball.errors import Corrupt, InvalidInput
from flyball.models import bundle
from flyball.models.compiled.forms import Form
from flyball.models.compiled.scores import Trees
from flyball.models.compiled.shapley import shares
from flyball.models.flavors import sklearn as flavor
from flyball.storage.blobs.files import FileBlobs

FOLDER = Path(__file__).parent
ROWS = 6


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    flavor.limit_threads()
    return FileBlobs(tmp_path / "blobs")


def made_elsewhere() -> Any:
    """The script that asked shap, for the models that it asked about."""
    spec = importlib.util.spec_from_file_location("make_shapley", FOLDER / "make_shapley.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SHAP = json.loads((FOLDER / "data" / "shapley.json").read_text())


@pytest.mark.parametrize("name", [name for name in SHAP if name != "shap"])
def test_contributions_are_those_of_the_package_shap(name: str, blobs: FileBlobs) -> None:
    model, background, rows = made_elsewhere().trained(name)
    loaded = bundle.load(blobs, bundle.save(blobs, model, example=background).digest)
    found = loaded.explain(loaded.signature.table(rows))
    wanted, base = np.array(SHAP[name]["values"]), np.array(SHAP[name]["base"])
    if wanted.ndim == 3:
        wanted, base = wanted[:, :, 1], base[1]
    # shap keeps trees' numbers in float32 in places.
    assert np.allclose(np.column_stack(list(found.contributions.values())), wanted, rtol=0, atol=2e-6)
    assert np.allclose(found.base, base, rtol=0, atol=2e-6)


def frame_of(count: int, seed: int = 0) -> pl.DataFrame:
    """Rows with texts, missing texts and missing numbers."""
    random = np.random.default_rng(seed)
    carrier = random.choice(np.array(["UA", "B6", "ÆØ", None], object), count)
    return pl.DataFrame(
        {
            "distance": random.normal(size=count),
            "hour": np.where(random.random(count) < 0.1, np.nan, random.normal(size=count)),
            "carrier": pl.Series(carrier.tolist(), dtype=pl.String),
            "day": random.integers(0, 7, count),
            "wind": random.normal(size=count),
        }
    ).with_columns(pl.col("hour").fill_nan(None))


def prepared(model: Any, *, is_linear: bool = False) -> Any:
    numbers = ["distance", "hour", "day", "wind"]
    chain = make_pipeline(SimpleImputer(), StandardScaler()) if is_linear else "passthrough"
    texts = (
        OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        if is_linear
        else OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    )
    return make_pipeline(ColumnTransformer([("texts", texts, ["carrier"]), ("numbers", chain, numbers)]), model)


MODELS: dict[str, Callable[[], Any]] = {
    "hist": lambda: prepared(HistGradientBoostingClassifier(max_iter=15, random_state=0)),
    "hist classes": lambda: prepared(HistGradientBoostingClassifier(max_iter=5, random_state=0)),
    "hist log": lambda: prepared(HistGradientBoostingRegressor(loss="poisson", max_iter=10, random_state=0)),
    "forest": lambda: prepared(RandomForestClassifier(n_estimators=5, max_depth=6, random_state=0), is_linear=True),
    "forest classes": lambda: prepared(
        RandomForestClassifier(n_estimators=5, max_depth=6, random_state=0), is_linear=True
    ),
    "extra": lambda: prepared(ExtraTreesRegressor(n_estimators=5, max_depth=6, random_state=0), is_linear=True),
    "gradient": lambda: prepared(GradientBoostingClassifier(n_estimators=15, random_state=0), is_linear=True),
    "ridge": lambda: prepared(Ridge(), is_linear=True),
    "logistic": lambda: prepared(LogisticRegression(), is_linear=True),
    "logistic classes": lambda: prepared(LogisticRegression(), is_linear=True),
}


def trained(name: str) -> tuple[Any, pl.DataFrame]:
    frame = frame_of(300)
    amount = frame["distance"].to_numpy() * np.where(frame["carrier"].fill_null("").to_numpy() == "UA", 2, -1)
    amount = amount + frame["day"].to_numpy() * np.nan_to_num(frame["hour"].fill_null(0).to_numpy()) / 4
    truth: Any = amount
    if "classes" in name:
        truth = np.array(["early", "late", "lost"])[np.digitize(amount, [-0.5, 0.8])]
    elif name in ("hist", "forest", "gradient", "logistic"):
        truth = (amount > 0).astype(int)
    elif name == "hist log":
        truth = np.exp(amount / 3)
    return MODELS[name]().fit(frame, truth), frame


def by_all_sets(worth: Callable[[frozenset[int]], np.ndarray[Any, Any]], players: int) -> np.ndarray[Any, Any]:
    """Shapley (1953): the mean of what each player adds, over all orders; (rows, players)."""
    known = {s: worth(s) for n in range(players + 1) for s in map(frozenset, itertools.combinations(range(players), n))}
    found = np.zeros((len(known[frozenset()]), players))
    for player in range(players):
        for team, value in known.items():
            if player not in team:
                share = math.factorial(len(team)) * math.factorial(players - len(team) - 1) / math.factorial(players)
                found[:, player] += share * (known[team | {player}] - value)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_contributions_are_those_of_all_sets_of_inputs(name: str, blobs: FileBlobs) -> None:
    model, frame = trained(name)
    loaded = bundle.load(blobs, bundle.save(blobs, model, example=frame[:12]).digest)
    form = loaded._predict
    assert isinstance(form, Form)
    names = [field.name for field in loaded.signature.inputs]
    rows = loaded.signature.columns(frame[200 : 200 + ROWS].to_dicts())
    known = loaded.example()
    assert known is not None
    found = loaded.explain(rows)
    chosen = np.zeros(ROWS, int)
    scores = form.scores(form.matrix(rows))
    if scores.shape[1] == 2:
        chosen += 1
    elif scores.shape[1] > 2:
        chosen = scores.argmax(axis=1)
        assert found.classes is not None
        assert found.classes.tolist() == loaded.predict(rows)["prediction"].tolist()

    def worth(team: frozenset[int]) -> np.ndarray[Any, Any]:
        values = np.zeros(ROWS)
        for row in range(ROWS):
            mixed = {
                name: np.repeat(np.asarray(rows[name])[row : row + 1], 12) if at in team else np.asarray(known[name])
                for at, name in enumerate(names)
            }
            values[row] = form.scores(form.matrix(mixed))[:, chosen[row]].mean()
        return values

    wanted = by_all_sets(worth, len(names))
    got = np.column_stack([found.contributions[name] for name in names])
    assert np.allclose(got, wanted, rtol=0, atol=1e-9)
    assert np.abs(got).max() > 0.01
    assert np.allclose(found.base + got.sum(axis=1), found.score, rtol=0, atol=1e-9)
    assert np.allclose(found.score, scores[np.arange(ROWS), chosen], rtol=0, atol=0)


def test_the_scale_says_how_a_score_becomes_the_answer(blobs: FileBlobs) -> None:
    back: dict[str, Callable[[Any], Any]] = {
        "value": lambda s: s,
        "log": np.exp,
        "log-odds": lambda s: 1 / (1 + np.exp(-s)),
        "probability": lambda s: s,
    }
    seen = set()
    for name in ("hist", "hist log", "forest", "gradient", "ridge", "logistic"):
        model, frame = trained(name)
        loaded = bundle.load(blobs, bundle.save(blobs, model, example=frame[:12]).digest)
        rows = loaded.signature.columns(frame[100:110].to_dicts())
        found = loaded.explain(rows)
        assert np.allclose(back[found.scale](found.score), loaded.predict(rows)[found.output], rtol=1e-12)
        seen.add(found.scale)
    assert seen == set(back)


def test_a_deep_tree_and_many_inputs_are_explained_by_the_same_sums(blobs: FileBlobs) -> None:
    random = np.random.default_rng(1)
    rows = random.normal(size=(800, 60))
    model = ExtraTreesRegressor(n_estimators=3, random_state=0).fit(rows, rows.sum(axis=1))
    loaded = bundle.load(blobs, bundle.save(blobs, model, example=rows[:20]).digest)
    found = loaded.explain(loaded.signature.table(rows[100:120]))
    total = found.base + sum(found.contributions.values())
    assert np.allclose(total, found.score, rtol=0, atol=1e-9)
    assert np.allclose(total, model.predict(rows[100:120]), rtol=0, atol=1e-9)


def test_boosted_models_of_other_libraries_explain_themselves(blobs: FileBlobs) -> None:
    import lightgbm
    import xgboost

    random = np.random.default_rng(2)
    frame = pd.DataFrame(random.normal(size=(300, 4)), columns=["wind", "rain", "snow", "hour"])
    frame["carrier"] = pd.Categorical(random.choice(["UA", "B6", "DL"], 300))
    amount = frame["wind"] * frame["rain"] + (frame["carrier"] == "UA")
    three = np.digitize(amount, [0, 0.7])
    for library, binary, several in (
        ("xgboost", xgboost.XGBClassifier, xgboost.XGBClassifier),
        ("lightgbm", lightgbm.LGBMClassifier, lightgbm.LGBMClassifier),
    ):
        options: dict[str, Any] = {"n_estimators": 10}
        options |= {"enable_categorical": True} if library == "xgboost" else {"verbose": -1}
        for truth in ((amount > 0.2).astype(int), three):
            model = (binary if truth is not three else several)(**options).fit(frame, truth)
            loaded = bundle.load(blobs, bundle.save(blobs, model, example=frame[:12]).digest)
            rows = loaded.signature.columns(frame[50:60].astype({"carrier": str}).to_dict("records"))
            found, answers = loaded.explain(rows), loaded.predict(rows)
            assert found.method == "trees_path_dependent"
            assert np.allclose(found.base + sum(found.contributions.values()), found.score, rtol=0, atol=1e-9)
            if truth is three:
                assert found.classes is not None
                assert found.classes.tolist() == answers["prediction"].tolist()
            else:
                assert np.allclose(1 / (1 + np.exp(-found.score)), answers["probability"], atol=1e-5)
            assert np.abs(found.contributions["carrier"]).max() > 0.05
            assert list(found.contributions) == list(frame.columns)


def test_any_other_model_is_sampled_only_where_that_is_asked_for(blobs: FileBlobs) -> None:
    model, frame = trained("hist")
    near = prepared(GaussianNB(), is_linear=True).fit(frame, model.predict(frame))
    loaded = bundle.load(blobs, bundle.save(blobs, near, example=frame[:8]).digest)
    rows = loaded.signature.columns(frame[200:204].to_dicts())
    with pytest.raises(InvalidInput, match="no exact explanation"):
        loaded.explain(rows)
    found = loaded.explain(rows, is_approximate=True)
    assert (found.method, found.output, found.scale) == ("sampled", "probability", "probability")
    assert np.allclose(found.base + sum(found.contributions.values()), found.score, rtol=0, atol=1e-9)
    assert loaded.explain(rows, is_approximate=True).records() == found.records()
    names = list(found.contributions)
    known = loaded.example()
    assert known is not None

    def worth(team: frozenset[int]) -> np.ndarray[Any, Any]:
        mixed = [
            {n: np.repeat(rows[n][row : row + 1], 8) if at in team else known[n] for at, n in enumerate(names)}
            for row in range(4)
        ]
        return np.array([loaded.predict(each)["probability"].mean() for each in mixed])

    wanted = by_all_sets(worth, len(names))
    assert np.abs(np.column_stack(list(found.contributions.values())) - wanted).max() < 0.03


def test_what_cannot_be_explained_is_told(blobs: FileBlobs) -> None:
    model, frame = trained("ridge")
    loaded = bundle.load(blobs, bundle.save(blobs, model, example=frame[:8]).digest)
    with pytest.raises(InvalidInput, match="at most 100"):
        loaded.explain(loaded.signature.columns(frame[:101].to_dicts()))
    bare = bundle.save(blobs, model, signature=loaded.signature)
    with pytest.raises(InvalidInput, match="keeps no example"):
        bundle.load(blobs, bare.digest).explain(loaded.signature.columns(frame[:1].to_dicts()))


def test_splits_by_sets_of_categories_are_explained_as_the_kernel_walks_them() -> None:
    from flyball.models.compiled.kernel import NODE

    nodes = np.zeros(5, NODE)  # a category in {1, 3} goes left; then a number, whose missing value goes left
    nodes["left"], nodes["right"] = [1, 1, 3, 3, 4], [2, 1, 4, 3, 4]
    nodes["feature"], nodes["flags"] = [0, 0, 1, 0, 0], [2, 0, 1, 0, 0]
    nodes["threshold"] = [0, 5.0, 0.5, -2.0, 1.5]
    sets, known = np.zeros((1, 8), np.uint32), np.zeros((2, 8), np.uint32)
    sets[0, 0], known[0, 0] = 0b1010, 0b11111
    one = np.zeros(1, np.int64)
    trees = Trees(2, nodes, one, one, np.array([0.25]), np.zeros((0, 1)), sets=sets, known=known)
    values = np.array([[a, b] for a in (0.0, 1.0, 3.0, 7.0, np.nan) for b in (0.0, 1.0, np.nan)])
    found = shares(trees, values, values[::-1].copy(), np.arange(2, dtype=np.int32), 2)

    def worth(team: frozenset[int]) -> np.ndarray[Any, Any]:
        mixed = [[row if at in team else values[:, at] for at, row in enumerate(rows)] for rows in values]
        tables = [np.column_stack([np.broadcast_to(part, len(values)) for part in parts]) for parts in mixed]
        return np.array([trees(np.ascontiguousarray(table)).mean() for table in tables])

    assert np.allclose(found[:, :, 0], by_all_sets(worth, 2), rtol=0, atol=1e-12)


def test_forged_trees_with_more_paths_than_anybody_can_walk_are_refused() -> None:
    from flyball.models.compiled.kernel import NODE

    nodes = np.zeros(60, NODE)  # every split leads to the next node on both sides: 2⁵⁹ paths
    nodes["left"] = nodes["right"] = np.minimum(np.arange(1, 61), 59)
    nodes["feature"] = np.arange(60) % 40
    trees = Trees(40, nodes, np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1), np.zeros((0, 1)))
    rows = np.ones((1, 40))
    with pytest.raises(Corrupt, match="reached in two ways"):
        shares(trees, rows, -rows, np.arange(40, dtype=np.int32), 40)
