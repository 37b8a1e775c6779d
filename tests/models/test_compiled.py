"""Compiled models answer with the bits of scikit-learn, at every split and one unit in the last place beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, RidgeClassifier, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from flyball.errors import Corrupt, InvalidInput
from flyball.models import bundle
from flyball.models.compiled import kernel, stored
from flyball.models.compiled.forms import Form
from flyball.models.compiled.scores import Trees
from flyball.models.flavors import sklearn as flavor
from flyball.models.table import Table
from flyball.storage.blobs.files import FileBlobs

Matrix = np.ndarray[Any, Any]
COLUMNS = 5


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    flavor.limit_threads()
    return FileBlobs(tmp_path / "blobs")


def rows_of(count: int, missing: float = 0.0, seed: int = 0) -> Matrix:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, COLUMNS))
    rows[:, -1] = np.round(rows[:, -1])  # many equal values
    rows[random.random(rows.shape) < missing] = np.nan
    return rows


def truth_of(rows: Matrix, classes: int | None) -> Matrix:
    clean = np.nan_to_num(rows)
    score: Matrix = clean[:, 0] + clean[:, 1] * clean[:, 2]
    if classes is None:
        return np.asarray(np.exp(score / 4) + 0.1)
    return np.asarray(np.digitize(score, np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1])))


def at_the_splits(trees: Trees, rows: Matrix) -> Matrix:
    """Rows whose values are thresholds, and the next numbers on either side, in float64 and in float32."""
    random = np.random.default_rng(1)
    found = rows.copy()
    split = trees.nodes["left"] != trees.nodes["right"]
    for feature in range(rows.shape[1]):
        at = trees.nodes["threshold"][split & (trees.nodes["feature"] == feature)]
        at = at[np.isfinite(at)]  # a split of missing from present values has an infinite threshold
        if not len(at):
            continue
        single = at.astype(np.float32)
        near = [at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf)]
        near += [np.nextafter(single, np.float32(side)).astype(float) for side in (-np.inf, np.inf)]
        chosen = random.random(len(rows)) < 0.8
        found[chosen, feature] = random.choice(np.concatenate(near), chosen.sum())
    found[np.isnan(rows)] = np.nan
    return found


def loaded(blobs: FileBlobs, model: Any, example: Any) -> tuple[bundle.LoadedModel, dict[str, str]]:
    saved = bundle.save(blobs, model, example=example)
    chosen = json.loads(blobs.get(saved.manifest["files"]["model/compiled.json"]["digest"]))
    return bundle.load(blobs, saved.digest), chosen


def check_bits(found: Any, model: Any, rows: Matrix) -> None:
    if hasattr(model, "predict_proba"):
        likely = model.predict_proba(rows)
        name, wanted = ("probability", likely[:, 1]) if likely.shape[1] == 2 else ("probabilities", likely)
        assert np.array_equal(found[name], wanted)
    assert np.array_equal(found["prediction"], model.predict(rows))


TREES: list[tuple[Any, int | None, float]] = [
    (HistGradientBoostingClassifier(max_iter=20), 2, 0.1),
    (HistGradientBoostingClassifier(max_iter=8, class_weight="balanced"), 9, 0.1),
    (HistGradientBoostingClassifier(max_iter=10, monotonic_cst=[1, 0, 0, -1, 0]), 2, 0.0),
    (HistGradientBoostingRegressor(max_iter=20), None, 0.1),
    (HistGradientBoostingRegressor(max_iter=10, loss="poisson"), None, 0.1),
    (HistGradientBoostingRegressor(max_iter=10, loss="gamma"), None, 0.0),
    (HistGradientBoostingRegressor(max_iter=10, loss="quantile", quantile=0.3), None, 0.1),
    (GradientBoostingClassifier(n_estimators=15), 2, 0.0),
    (GradientBoostingClassifier(n_estimators=8), 3, 0.0),
    (GradientBoostingClassifier(n_estimators=8, init="zero"), 2, 0.0),
    (GradientBoostingRegressor(n_estimators=15), None, 0.0),
    (RandomForestClassifier(12, class_weight="balanced"), 3, 0.1),
    (RandomForestRegressor(12), None, 0.1),
    (ExtraTreesClassifier(12), 2, 0.0),
    (ExtraTreesRegressor(12), None, 0.0),
    (DecisionTreeClassifier(), 3, 0.1),
    (DecisionTreeRegressor(max_depth=1), None, 0.0),
]


@pytest.mark.parametrize(("model", "classes", "missing"), TREES)
def test_trees_give_scikit_learns_bits_at_their_splits_and_beside_them(
    blobs: FileBlobs, model: Any, classes: int | None, missing: float
) -> None:
    rows = rows_of(600, missing)
    model.set_params(random_state=0).fit(rows, truth_of(rows, classes))
    served, chosen = loaded(blobs, model, rows[:20])
    assert chosen == {"path": "trees", "why": ""}
    form = served._predict
    assert isinstance(form, Form) and isinstance(form.scores, Trees)
    hard = at_the_splits(form.scores, rows_of(600, missing, seed=2))
    for count in (1, 3, 7, 8, 9, 600):  # every way that the kernel goes through rows
        check_bits(served.predict(served.signature.table(hard[:count])), model, hard[:count])


@given(seed=st.integers(0, 10_000), depth=st.integers(1, 12), trees=st.integers(1, 20), kind=st.sampled_from("hgf"))
@settings(max_examples=25, deadline=None)
def test_random_ensembles_are_compiled_exactly(seed: int, depth: int, trees: int, kind: str) -> None:
    from flyball.models.compiled.matrix import Matrix as Made
    from flyball.models.compiled.matrix import Numbers
    from flyball.models.flavors._sklearn_scores import scores_of

    rows = rows_of(200, 0.05 if kind == "h" else 0.0, seed)
    model: Any = {
        "h": HistGradientBoostingClassifier(max_iter=trees, max_depth=depth, min_samples_leaf=1),
        "g": GradientBoostingClassifier(n_estimators=trees, max_depth=depth, random_state=0),
        "f": RandomForestClassifier(trees, max_depth=depth, random_state=0),
    }[kind]
    model.fit(rows, truth_of(rows, 2))
    scores, finish = scores_of(model)
    assert isinstance(scores, Trees)
    names = tuple(f"x{i}" for i in range(COLUMNS))
    form = Form(Made(COLUMNS, [Numbers(names, 0)]), scores, finish, model.classes_)
    hard = at_the_splits(scores, rows)
    check_bits(form.of_matrix(hard.copy()), model, hard)


@pytest.mark.parametrize("is_frame", [False, True])
@pytest.mark.parametrize(
    ("model", "classes", "missing"),
    [
        (LogisticRegression(), 2, 0.0),
        (make_pipeline(StandardScaler(), LogisticRegression()), 3, 0.0),
        (make_pipeline(SimpleImputer(), MinMaxScaler(), LogisticRegression()), 2, 0.1),
        (make_pipeline(RobustScaler(), LinearRegression()), None, 0.0),
        (SGDClassifier(loss="log_loss", random_state=0), 2, 0.0),
        (RidgeClassifier(), 3, 0.0),
        (PoissonRegressor(), None, 0.0),
    ],
)
def test_linear_models_give_the_same_labels_and_numbers_within_four_units_in_the_last_place(
    blobs: FileBlobs, model: Any, classes: int | None, missing: float, is_frame: bool
) -> None:
    rows = rows_of(400, missing)
    given: Any = pl.DataFrame(rows, schema=[f"f{i}" for i in range(COLUMNS)]) if is_frame else rows
    model.fit(given, truth_of(rows, classes))
    served, chosen = loaded(blobs, model, given[:20])
    assert chosen["path"] == "linear"
    found = served.predict(served.signature.table(rows))
    if classes is None:
        np.testing.assert_array_max_ulp(found["prediction"], model.predict(given), 64)
        return
    assert np.array_equal(found["prediction"], model.predict(given))
    if hasattr(model, "predict_proba"):
        likely = model.predict_proba(given)
        near = found["probability"] if classes == 2 else found["probabilities"]
        np.testing.assert_allclose(near, likely[:, 1] if classes == 2 else likely, rtol=1e-14)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (GaussianNB(), "neither trees nor linear"),
        (make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()), "FunctionTransformer"),
        (GradientBoostingClassifier(n_estimators=3, loss="exponential"), "ExponentialLoss"),
    ],
)
def test_what_is_not_compiled_is_served_as_it_is_and_says_why(blobs: FileBlobs, model: Any, why: str) -> None:
    rows = np.abs(rows_of(200))
    model.fit(rows, truth_of(rows, 2))
    served, chosen = loaded(blobs, model, rows[:20])
    assert chosen["path"] == "plain" and why in chosen["why"]
    assert bundle.served_by(blobs, served.bundle) == f"plain: {chosen['why']}"
    assert np.array_equal(served.predict(served.signature.table(rows))["prediction"], model.predict(rows))


def test_values_that_scikit_learn_refuses_are_refused_by_the_compiled_form(blobs: FileBlobs) -> None:
    rows = rows_of(200)
    model = GradientBoostingRegressor(n_estimators=3).fit(rows, truth_of(rows, None))
    served, _ = loaded(blobs, model, rows[:20])
    for value, message in ((np.nan, "is missing"), (1e300, "too large for float32")):
        table = Table(served.signature._order, served.signature._places or {}, np.full((1, COLUMNS), value))
        with pytest.raises(InvalidInput, match=message):
            served.predict(table)


def test_a_compiled_model_is_served_without_its_library(blobs: FileBlobs, tmp_path: Path) -> None:
    import subprocess
    import sys

    rows = rows_of(200)
    model = RandomForestClassifier(5, random_state=0).fit(rows, truth_of(rows, 2))
    saved = bundle.save(blobs, model, example=rows[:3])
    code = (
        "import sys; from pathlib import Path; from flyball.models.bundle import load; "
        "from flyball.storage.blobs.files import FileBlobs; "
        f"model = load(FileBlobs(Path({str(tmp_path / 'blobs')!r})), {saved.digest!r}); model.warm_up(); "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'sklearn', 'skops', 'scipy', 'polars', 'pandas'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def form_of_trees() -> bytes:
    rows = rows_of(200)
    model = RandomForestClassifier(3, random_state=0).fit(rows, truth_of(rows, 2))
    example = pl.DataFrame(rows[:3], schema=[f"f{i}" for i in range(COLUMNS)])
    described = flavor.signature(model, example.to_numpy(), flavor.answer(model, rows[:3]))
    return flavor.dump(model, described, rows[:3])["compiled.npz"]


@pytest.mark.parametrize(
    ("name", "value"), [("left", 10**6), ("right", -1), ("feature", COLUMNS), ("feature", -2), ("left", 0)]
)
def test_a_crafted_tree_that_points_outside_or_in_a_circle_is_refused_before_the_kernel_sees_it(
    name: str, value: int
) -> None:
    document = stored.loads(form_of_trees())
    nodes = document["scores"]["nodes"]
    nodes[name] = nodes[name].copy()
    split = np.flatnonzero(nodes["left"] != nodes["right"])
    nodes[name][split[-1]] = value
    with pytest.raises(Corrupt, match="points outside"):
        Form.of(stored.dumps(document))


def test_a_form_that_answers_otherwise_than_its_proof_is_left_aside() -> None:
    document = stored.loads(form_of_trees())
    answer = document["proof"]["answer"]["probability"]
    document["proof"]["answer"]["probability"] = np.nextafter(answer, 2.0)
    with pytest.raises(Corrupt, match="answers otherwise"):
        Form.of(stored.dumps(document))


def test_bytes_of_a_form_are_the_same_for_the_same_model_and_no_pickle_is_ever_read() -> None:
    assert form_of_trees() == form_of_trees()
    import io

    hostile = io.BytesIO()
    np.savez(hostile, document=np.array([object()], object), allow_pickle=True)
    with pytest.raises(Corrupt):
        Form.of(hostile.getvalue())
    with pytest.raises(Corrupt):
        Form.of(b"no archive")


def test_without_a_compiler_trees_are_served_by_scikit_learn(
    blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = rows_of(200)
    model = HistGradientBoostingClassifier(max_iter=3).fit(rows, truth_of(rows, 2))
    saved = bundle.save(blobs, model, example=rows[:3])
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kernel._built.cache_clear()
    kernel._library.cache_clear()
    try:
        served = bundle.load(blobs, saved.digest)
        assert not isinstance(served._predict, Form)
        check_bits(served.predict(served.signature.table(rows)), model, rows)
    finally:
        kernel._built.cache_clear()
        kernel._library.cache_clear()
