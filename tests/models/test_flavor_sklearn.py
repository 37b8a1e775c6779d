"""scikit-learn models on real data: served as trained, quickly, and never through a pickle."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC

from flyball.errors import Corrupt, InvalidInput, StepFailed
from flyball.models import bundle
from flyball.models.compiled.forms import Form
from flyball.models.fields import Field
from flyball.models.flavors import _sklearn_safe
from flyball.models.flavors import sklearn as flavor
from flyball.models.signature import Signature
from flyball.storage.blobs.files import FileBlobs

Rows = tuple[pl.DataFrame, np.ndarray[Any, Any]]


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


@pytest.fixture(scope="module")
def adult(shared_data: Path) -> Rows:
    flavor.limit_threads()
    rows = pl.read_parquet(shared_data / "adult" / "adult.parquet").head(3000)
    return rows.drop("person_id", "split", "over_50k"), rows["over_50k"].to_numpy()


@pytest.fixture(scope="module")
def bikes(shared_data: Path) -> Rows:
    rows = pl.read_csv(shared_data / "bike_sharing" / "hour.csv").head(3000)
    return rows.select("hr", "weekday", "temp", "hum", "windspeed"), rows["cnt"].to_numpy()


def texts(rows: pl.DataFrame) -> list[str]:
    return [name for name, dtype in rows.schema.items() if dtype == pl.String]


def ordinal() -> OrdinalEncoder:
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)


def boosted(**options: Any) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=20, random_state=0, **options)


def pipeline(rows: pl.DataFrame, encoder: Any, final: Any, numbers: Any = "passthrough") -> Pipeline:
    named = texts(rows)
    others = [name for name in rows.columns if name not in named]
    split = ColumnTransformer([("texts", encoder, named), ("numbers", numbers, others)], sparse_threshold=0)
    return Pipeline([("split", split), ("model", final)])


def is_fast(loaded: bundle.LoadedModel) -> bool:
    return isinstance(loaded._predict, Form) or "_joined" in loaded._predict.__qualname__  # type: ignore[attr-defined]


def parts(loaded: bundle.LoadedModel, blobs: FileBlobs) -> dict[str, bytes]:
    files = loaded.bundle.manifest["files"].items()
    return {path.removeprefix("model/"): blobs.get(entry["digest"]) for path, entry in files}


def test_texts_and_numbers_of_a_polars_frame_are_served_as_trained_and_the_fast_way_gives_the_same_bits(
    blobs: FileBlobs, adult: Rows
) -> None:
    rows, label = adult
    model = pipeline(rows, ordinal(), boosted()).fit(rows[:2000], label[:2000])
    loaded = bundle.load(blobs, bundle.save(blobs, model, example=rows[:20]).digest)
    assert is_fast(loaded) and not loaded.warnings
    unseen = rows[2000:]
    columns = loaded.signature.columns(unseen.to_dicts())
    expected = model.predict_proba(unseen)[:, 1]
    assert np.array_equal(loaded.predict(columns)["probability"], expected)
    for row in range(150):
        one = loaded.predict({name: array[row : row + 1] for name, array in columns.items()})
        assert one["probability"][0] == expected[row]
        assert one["prediction"][0] == model.predict(unseen[row])[0]
    assert [f.name for f in loaded.signature.outputs] == ["prediction", "probability"]
    assert loaded.signature.outputs[0].categories == ("0", "1")


def test_a_text_that_training_never_saw_and_a_missing_one_are_answered_like_the_model_itself(
    blobs: FileBlobs, adult: Rows
) -> None:
    rows, label = adult
    model = pipeline(rows, ordinal(), boosted()).fit(rows, label)
    loaded = bundle.load(blobs, bundle.save(blobs, model, example=rows[:3]).digest)
    strange = rows[:2].with_columns(
        workclass=pl.Series([None, "Astronaut"], dtype=pl.String),
        occupation=pl.Series(["Wizard", None], dtype=pl.String),
    )
    found = loaded.predict(loaded.signature.columns(strange.to_dicts()))
    assert np.array_equal(found["probability"], model.predict_proba(strange)[:, 1])
    with pytest.raises(InvalidInput, match='"race" in row 0 is null'):  # training had every one
        loaded.signature.columns(strange.with_columns(race=pl.lit(None, pl.String)).to_dicts())


def test_an_encoder_that_refuses_unknown_texts_refuses_them_when_served(blobs: FileBlobs, adult: Rows) -> None:
    rows, label = adult
    model = pipeline(rows, OrdinalEncoder(), boosted()).fit(rows, label)
    loaded = bundle.load(blobs, bundle.save(blobs, model, example=rows[:20]).digest)
    assert is_fast(loaded)
    row = rows[:1].to_dicts()[0]
    with pytest.raises(InvalidInput, match="cannot take these rows"):
        loaded.predict(loaded.signature.columns([row | {"sex": "Unheard"}]))
    assert len(loaded.predict(loaded.signature.columns([row]))["prediction"]) == 1


@pytest.mark.parametrize(
    ("encoder", "final", "numbers", "fast"),
    [
        (OneHotEncoder(handle_unknown="ignore"), LogisticRegression(max_iter=50), StandardScaler(), True),
        (
            OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=50, drop="first"),
            boosted(),
            make_pipeline(SimpleImputer(), StandardScaler()),
            True,
        ),
        (ordinal(), RandomForestClassifier(5, random_state=0), "passthrough", True),
        (ordinal(), LinearSVC(max_iter=50), StandardScaler(), True),
        (
            ordinal(),
            LogisticRegression(max_iter=50),
            make_pipeline(FunctionTransformer(np.log1p), StandardScaler()),
            False,
        ),
        (ordinal(), boosted(categorical_features=[0, 1]), "passthrough", False),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_pipelines_answer_as_scikit_learn_does_by_either_way(
    blobs: FileBlobs, adult: Rows, encoder: Any, final: Any, numbers: Any, fast: bool
) -> None:
    rows, label = adult
    model = pipeline(rows, encoder, final, numbers).fit(rows, label)
    loaded = bundle.load(blobs, bundle.save(blobs, model, example=rows[:20]).digest)
    columns = loaded.signature.columns(rows[:200].to_dicts())
    assert np.array_equal(loaded.predict(columns)["prediction"], model.predict(rows[:200]))
    assert is_fast(loaded) is fast
    by_hand = flavor.plain(parts(loaded, blobs), loaded.bundle.manifest)(columns)
    for name, expected in loaded.predict(columns).items():
        assert np.array_equal(by_hand[name], expected)


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_categoricals_taken_from_the_frames_dtypes_are_served_from_plain_texts(
    blobs: FileBlobs, adult: Rows, library: str
) -> None:
    rows, label = adult
    frame: Any = rows.with_columns(pl.col(texts(rows)).cast(pl.Categorical))
    if library == "pandas":
        frame = pd.DataFrame({c: rows[c].to_list() for c in rows.columns}).astype(
            dict.fromkeys(texts(rows), "category")
        )
    model = boosted(categorical_features="from_dtype").fit(frame, label)
    loaded = bundle.load(blobs, bundle.save(blobs, model, example=frame[:20]).digest)
    columns = loaded.signature.columns(rows[:300].to_dicts())
    assert np.array_equal(loaded.predict(columns)["probability"], model.predict_proba(frame[:300])[:, 1])


def test_a_model_trained_on_pandas_meets_missing_texts_as_pandas_has_them(blobs: FileBlobs, adult: Rows) -> None:
    rows, label = adult
    frame = pd.DataFrame({c: rows[c].to_list() for c in rows.columns})
    model = pipeline(rows, ordinal(), boosted()).fit(frame, label)
    loaded = bundle.load(blobs, bundle.save(blobs, model, example=frame[:20]).digest)
    columns = loaded.signature.columns(rows[:300].to_dicts())
    assert any(value is None for value in columns["workclass"])
    assert np.array_equal(loaded.predict(columns)["probability"], model.predict_proba(frame[:300])[:, 1])


def test_a_regressor_on_bikes_and_a_classifier_on_hearts_with_a_byte_order_mark(
    blobs: FileBlobs, bikes: Rows, shared_data: Path
) -> None:
    rows, count = bikes
    model = HistGradientBoostingRegressor(max_iter=30).fit(rows, count)
    loaded = bundle.load(blobs, bundle.save(blobs, model, example=rows[:5]).digest)
    assert is_fast(loaded)
    found = loaded.predict(loaded.signature.columns(rows[:30].to_dicts()))
    assert np.array_equal(found["prediction"], model.predict(rows[:30]))
    assert [(f.name, f.nullable) for f in loaded.signature.inputs if f.nullable] == [
        ("temp", True),
        ("hum", True),
        ("windspeed", True),
    ]
    heart = pl.read_csv(shared_data / "heart" / "heart.csv")
    assert heart.columns[0] == "age"
    people, sick = heart.drop("target"), heart["target"].to_numpy()
    linear = make_pipeline(StandardScaler(), LogisticRegression()).fit(people, sick)
    served = bundle.load(blobs, bundle.save(blobs, linear, example=people[:5]).digest)
    columns = served.signature.columns(people.to_dicts())
    assert np.array_equal(served.predict(columns)["probability"], linear.predict_proba(people)[:, 1])
    with pytest.raises(InvalidInput, match='"oldpeak" in row 0 is null'):  # a linear model cannot take a gap
        served.signature.columns([people.to_dicts()[0] | {"oldpeak": None}])


def test_several_classes_give_a_column_each_and_text_labels(blobs: FileBlobs, adult: Rows) -> None:
    rows, _ = adult
    numbers = rows.select("age", "hours_per_week", "education_num")
    model = boosted().fit(numbers, rows["race"].to_numpy())
    loaded = bundle.load(blobs, bundle.save(blobs, model, example=numbers[:5]).digest)
    field = loaded.signature.outputs[1]
    assert field.name == "probabilities" and field.shape == (-1, 5) and field.categories == tuple(model.classes_)
    columns = loaded.signature.columns(numbers[:20].to_dicts())
    found = loaded.predict(columns)
    assert np.array_equal(found["probabilities"], model.predict_proba(numbers[:20]))
    assert found["prediction"].tolist() == model.predict(numbers[:20]).tolist()


def test_a_numpy_model_keeps_its_precision_and_takes_missing_numbers(blobs: FileBlobs, bikes: Rows) -> None:
    rows, count = bikes
    table = rows.to_numpy().astype(np.float32)
    for model in (LinearRegression().fit(table, count), HistGradientBoostingRegressor(max_iter=5).fit(table, count)):
        loaded = bundle.load(blobs, bundle.save(blobs, model, example=table[:5]).digest)
        columns = loaded.signature.columns_from({f"x{i}": table[:50, i] for i in range(5)})
        np.testing.assert_allclose(loaded.predict(columns)["prediction"], model.predict(table[:50]), rtol=1e-6)


def test_what_cannot_be_a_model_is_refused_with_what_to_do(blobs: FileBlobs, adult: Rows) -> None:
    rows, label = adult
    numbers = rows.select("age", "hours_per_week")
    with pytest.raises(InvalidInput, match="is not fitted; call fit"):
        bundle.save(blobs, boosted(), example=numbers[:5])
    with pytest.raises(InvalidInput, match=r"knows one class only \(1\); train it on rows of both"):
        bundle.save(blobs, DummyClassifier().fit(numbers, np.ones(len(rows), int)), example=numbers[:5])
    with pytest.raises(InvalidInput, match=r"holds .*an_own_function"):
        own = make_pipeline(FunctionTransformer(an_own_function), boosted()).fit(numbers, label)
        bundle.save(blobs, own, example=numbers[:5])
    with pytest.raises(InvalidInput, match=r"_kd_tree.*not allowed; use estimators"):
        near = KNeighborsClassifier(algorithm="kd_tree").fit(numbers, label)
        bundle.save(blobs, near, example=numbers[:5])
    with pytest.raises(InvalidInput, match=r"give example=X\[:5\]"):
        bundle.save(blobs, boosted().fit(numbers, label))
    with pytest.raises((InvalidInput, StepFailed), match="age"):
        bundle.save(blobs, boosted().fit(numbers, label), example=numbers[:5].rename({"age": "years"}))
    assert list(blobs.digests()) == []


def an_own_function(table: Any) -> Any:
    return table


def test_a_signature_without_an_example_is_enough(blobs: FileBlobs, adult: Rows) -> None:
    rows, label = adult
    model = boosted().fit(rows.select("age", "fnlwgt"), label)
    stated = Signature(
        (Field("age", "int64"), Field("fnlwgt", "int64")),
        (Field("prediction", "int64"), Field("probability", "float64")),
    )
    loaded = bundle.load(blobs, bundle.save(blobs, model, signature=stated).digest)
    loaded.warm_up()
    assert len(loaded.predict(stated.columns([{"age": 30, "fnlwgt": 1}]))["probability"]) == 1


class Trap:
    sprung = False

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return spring, ()


def spring() -> None:
    Trap.sprung = True


def test_a_pickle_inside_the_models_file_is_never_opened(adult: Rows) -> None:
    rows, label = adult
    data = _sklearn_safe.dumps(boosted().fit(rows.select("age"), label))
    hidden = io.BytesIO()
    np.save(hidden, np.array([Trap()], object), allow_pickle=True)
    forged = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(forged, "w") as target:
        for name in source.namelist():
            target.writestr(name, hidden.getvalue() if name.endswith(".npy") else source.read(name))
    with pytest.raises(Corrupt, match="cannot be read as skops"):
        _sklearn_safe.loads(forged.getvalue())
    with pytest.raises(Corrupt):
        _sklearn_safe.loads(pickle.dumps(Trap()))
    with_extra = io.BytesIO(data)
    with zipfile.ZipFile(with_extra, "a") as archive:
        archive.writestr("model.pkl", pickle.dumps(Trap()))
    with pytest.raises(InvalidInput, match="something else than arrays"):
        _sklearn_safe.loads(with_extra.getvalue())
    assert not Trap.sprung


def test_a_type_outside_the_allow_list_is_named_and_not_constructed(adult: Rows) -> None:
    rows, label = adult
    data = _sklearn_safe.dumps(boosted().fit(rows.select("age"), label))
    forged = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(forged, "w") as target:
        for name in source.namelist():
            text = source.read(name)
            if name == "schema.json":
                text = text.replace(b'"_BinMapper"', b'"Popen"').replace(
                    b'"sklearn.ensemble._hist_gradient_boosting.binning"', b'"subprocess"'
                )
            target.writestr(name, text)
    with pytest.raises(InvalidInput, match=r"subprocess\.Popen"):
        _sklearn_safe.loads(forged.getvalue())


@pytest.mark.parametrize(
    ("field", "value"), [("left", 10**6), ("right", 0), ("feature_idx", 7), ("feature_idx", -1), ("value", np.nan)]
)
def test_a_tree_that_points_outside_its_arrays_is_refused_before_it_can_crash_the_process(
    adult: Rows, field: str, value: Any
) -> None:
    rows, label = adult
    model = boosted().fit(rows.select("age", "fnlwgt"), label)
    model._predictors[3][0].nodes[field][0] = value
    with pytest.raises(Corrupt, match="points outside its own arrays"):
        _sklearn_safe.loads(_sklearn_safe.dumps(model))


def test_trees_of_forests_are_checked_too(adult: Rows) -> None:
    rows, label = adult
    model = RandomForestClassifier(2, max_depth=3).fit(rows.select("age", "fnlwgt"), label)
    assert _sklearn_safe.loads(_sklearn_safe.dumps(model)).n_features_in_ == 2
    model.estimators_[1].tree_.feature[0] = 99
    with pytest.raises(Corrupt, match="points outside its own arrays"):
        _sklearn_safe.loads(_sklearn_safe.dumps(model))
