"""What every flavour keeps: answers stay the same, one by one and together; bad rows are refused; one thread."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
import xgboost
from sklearn.linear_model import LogisticRegression

from flyball import plugins
from flyball.errors import Corrupt, InvalidInput
from flyball.models import bundle
from flyball.models.flavors import _boosted
from flyball.models.flavors import lightgbm as lightgbm_flavor
from flyball.models.flavors import xgboost as xgboost_flavor
from flyball.models.unsafe import refusal
from flyball.storage.blobs.files import FileBlobs
from tests.models.arithmetic import weighted
from tests.models.onnx_bytes import linear

Array = np.ndarray[Any, Any]
ROOT = Path(__file__).resolve().parents[2]
QUIET = {"n_estimators": 12, "verbose": -1, "min_child_samples": 5}
COUNT = 400


def frame() -> pd.DataFrame:
    """Numbers with gaps, whole numbers, texts as categories, yes or no."""
    random = np.random.default_rng(7)
    found = pd.DataFrame(
        {
            "a": random.normal(size=COUNT),
            "b": random.normal(size=COUNT),
            "hour": random.integers(0, 24, COUNT),
            "carrier": pd.Categorical(random.choice(["UA", "Ö3", "zz top"], COUNT)),
            "is_late": random.random(COUNT) < 0.5,
        }
    )
    found.loc[::7, "b"] = np.nan
    found.loc[5, "carrier"] = None
    return found


FRAME = frame()
NUMBERS = FRAME[["a", "b"]].fillna(0.0)
SIGNAL = FRAME["a"] + (FRAME["carrier"] == "UA") * 1.5 - FRAME["hour"] / 24
YES = (SIGNAL > 0.2).astype(int).to_numpy()
THREE = np.digitize(SIGNAL, [-0.4, 0.5])
WORDS = np.array(["early", "on time", "late"])[THREE]
TWO_TARGETS = np.column_stack([SIGNAL, SIGNAL * 2 + 1])


@dataclass
class Case:
    """A model, rows in the form that it takes them, and what its own library answers on rows."""

    model: Any
    rows: Any
    own: Callable[[Any], dict[str, Any]]


def _estimator(model: Any, rows: Any, target: Any) -> Case:
    model.fit(rows, target)
    probable = hasattr(model, "predict_proba")

    def own(some: Any) -> dict[str, Any]:
        found = {"prediction": model.predict(some)}
        if probable:
            likely = model.predict_proba(some)
            found |= {"probability": likely[:, 1]} if likely.shape[1] == 2 else {"probabilities": likely}
        return found

    return Case(model, rows, own)


def _booster(parameters: Mapping[str, Any], target: Any) -> Case:
    made = xgboost.train(parameters, xgboost.DMatrix(FRAME, target, enable_categorical=True), 10)
    return Case(made, FRAME, lambda some: {"raw": made.predict(xgboost.DMatrix(some, enable_categorical=True))})


def _several() -> Case:
    made = xgboost.XGBClassifier(n_estimators=5).fit(NUMBERS, np.column_stack([YES, 1 - YES]))
    return Case(
        made, NUMBERS, lambda some: {"prediction": made.predict(some), "probabilities": made.predict_proba(some)}
    )


def _stopped(model: Any, **fit: Any) -> Case:
    model.fit(FRAME, YES, eval_set=[(FRAME, np.random.default_rng(0).permutation(YES))], **fit)
    assert model.get_params()["n_estimators"] > 60
    return Case(
        model, FRAME, lambda some: {"prediction": model.predict(some), "probability": model.predict_proba(some)[:, 1]}
    )


def _weighted() -> Case:
    return Case(weighted, NUMBERS, lambda some: {"prediction": 2.0 * some["a"].to_numpy() - some["b"].to_numpy()})


def _graph() -> Case:
    rows = NUMBERS.to_numpy(np.float32)
    weights = np.array([[2.0], [-1.0]], np.float32)
    return Case(linear([2.0, -1.0], 0.5), rows, lambda some: {"y": some @ weights + np.float32(0.5)})


def _network() -> Case:
    rows = (NUMBERS * 8).round().to_numpy(np.float32)  # whole numbers, which no order of summing changes
    made = torch.nn.Linear(2, 1)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[2.0, -1.0]]))
        made.bias.fill_(0.5)
    return Case(made, rows, lambda some: {"prediction": made(torch.tensor(some)).detach().numpy()})


def _lgb_booster(parameters: Mapping[str, Any], target: Any) -> Case:
    made = lightgbm.train({"verbose": -1, **parameters}, lightgbm.Dataset(FRAME, target), 10)
    return Case(made, FRAME, lambda some: {"raw": made.predict(some)})


CASES: dict[str, Callable[[], Case]] = {
    "sklearn classifier": lambda: _estimator(LogisticRegression(), NUMBERS, YES),
    "python function": _weighted,
    "xgboost classifier": lambda: _estimator(
        xgboost.XGBClassifier(enable_categorical=True, n_estimators=12), FRAME, YES
    ),
    "xgboost of three": lambda: _estimator(
        xgboost.XGBClassifier(enable_categorical=True, n_estimators=6), FRAME, THREE
    ),
    "xgboost regressor on polars": lambda: _estimator(
        xgboost.XGBRegressor(enable_categorical=True, n_estimators=6), pl.from_pandas(FRAME), SIGNAL.to_numpy()
    ),
    "xgboost regressor on numpy": lambda: _estimator(
        xgboost.XGBRegressor(enable_categorical=True, n_estimators=6), NUMBERS.to_numpy(), SIGNAL.to_numpy()
    ),
    "xgboost with two targets": lambda: _estimator(
        xgboost.XGBRegressor(enable_categorical=True, n_estimators=6), NUMBERS, TWO_TARGETS
    ),
    "xgboost with vector leaves": lambda: _estimator(
        xgboost.XGBRegressor(enable_categorical=True, n_estimators=6, multi_strategy="multi_output_tree"),
        NUMBERS,
        TWO_TARGETS,
    ),
    "xgboost of several labels": _several,
    "xgboost random forest": lambda: _estimator(
        xgboost.XGBRFClassifier(enable_categorical=True, n_estimators=6), FRAME, YES
    ),
    "xgboost with zero as missing": lambda: _estimator(
        xgboost.XGBClassifier(enable_categorical=True, n_estimators=6, missing=0.0), NUMBERS, YES
    ),
    "xgboost dart": lambda: _estimator(
        xgboost.XGBRegressor(enable_categorical=True, n_estimators=6, booster="dart"), FRAME, SIGNAL.to_numpy()
    ),
    "xgboost linear": lambda: _estimator(
        xgboost.XGBRegressor(enable_categorical=True, n_estimators=6, booster="gblinear"), NUMBERS, SIGNAL.to_numpy()
    ),
    "xgboost that stopped early": lambda: _stopped(
        xgboost.XGBClassifier(enable_categorical=True, n_estimators=80, early_stopping_rounds=2), verbose=False
    ),
    "xgboost booster": lambda: _booster({"objective": "binary:logistic"}, YES),
    "xgboost booster of labels": lambda: _booster({"objective": "multi:softmax", "num_class": 3}, THREE),
    "xgboost booster of counts": lambda: _booster({"objective": "count:poisson"}, FRAME["hour"]),
    "lightgbm classifier": lambda: _estimator(lightgbm.LGBMClassifier(**QUIET), FRAME, YES.astype(bool)),
    "lightgbm of words": lambda: _estimator(lightgbm.LGBMClassifier(**QUIET), FRAME, WORDS),
    "lightgbm regressor on polars": lambda: _estimator(
        lightgbm.LGBMRegressor(**QUIET), pl.from_pandas(FRAME[["a", "b", "hour", "is_late"]]), SIGNAL.to_numpy()
    ),
    "lightgbm regressor on numpy": lambda: _estimator(
        lightgbm.LGBMRegressor(**QUIET), NUMBERS.to_numpy(), SIGNAL.to_numpy()
    ),
    "lightgbm with linear leaves": lambda: _estimator(
        lightgbm.LGBMRegressor(**QUIET, linear_tree=True), NUMBERS, SIGNAL.to_numpy()
    ),
    "lightgbm that stopped early": lambda: _stopped(
        lightgbm.LGBMClassifier(**{**QUIET, "n_estimators": 80}),
        callbacks=[lightgbm.early_stopping(2, verbose=False)],
    ),
    "lightgbm booster": lambda: _lgb_booster({"objective": "binary"}, YES),
    "lightgbm booster of three": lambda: _lgb_booster({"objective": "multiclass", "num_class": 3}, THREE),
    "lightgbm booster of numbers": lambda: _lgb_booster({"objective": "regression"}, SIGNAL),
    "onnx graph": _graph,
    "pytorch network": _network,
}


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> FileBlobs:
    return FileBlobs(tmp_path_factory.mktemp("flavors") / "blobs")


def head(rows: Any, count: int) -> Any:
    return rows.head(count) if hasattr(rows, "head") else rows[:count]


def columns_of(loaded: bundle.LoadedModel, rows: Any) -> dict[str, Any]:
    names = [field.name for field in loaded.signature.inputs]
    if isinstance(rows, np.ndarray):
        return {names[0]: rows} if len(names) == 1 else {name: rows[:, at] for at, name in enumerate(names)}
    return {name: rows[name].to_list() for name in names}


def expected(own: Mapping[str, Any]) -> dict[str, Any]:
    """What a booster answers under the names that classifiers have here."""
    if "raw" not in own:
        return dict(own)
    raw = own["raw"]
    if raw.ndim == 2:
        return {"prediction": raw.argmax(axis=1), "probabilities": raw}
    return {"raw": raw}


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_model_of_any_flavour_answers_as_its_library_one_by_one_and_together(name: str, blobs: FileBlobs) -> None:
    case = CASES[name]()
    saved = bundle.save(blobs, case.model, example=head(case.rows, 30))
    assert saved.manifest["flavor"] == name.split()[0]
    assert refusal(bundle.scan(blobs, saved.digest)) is None
    loaded = bundle.load(blobs, saved.digest)
    columns = loaded.signature.columns_from(columns_of(loaded, case.rows))
    together = loaded.predict(columns)
    wanted = expected(case.own(case.rows))
    if "raw" in wanted:
        raw = wanted.pop("raw")
        wanted["probability" if "probability" in together else "prediction"] = raw
    for output, values in wanted.items():
        ours, theirs = together[output], np.asarray(values)
        assert ours.shape == theirs.shape, output
        if theirs.dtype.kind == "f":
            np.testing.assert_allclose(ours.astype(float), theirs, rtol=1e-6, atol=1e-9)
        else:
            assert ours.tolist() == theirs.tolist()
    assert set(wanted) == set(together) or set(together) - set(wanted) == {"prediction"}
    assert {field.name for field in saved.signature.outputs} == set(together)
    for row in (0, 5, 7, COUNT - 1):
        alone = loaded.predict({key: values[row : row + 1] for key, values in columns.items()})
        for output, values in together.items():
            assert np.array_equal(alone[output][0], values[row], equal_nan=values.dtype.kind == "f"), (output, row)


def test_every_flavour_stands_in_this_contract() -> None:
    assert {name.split()[0] for name in CASES} == set(plugins.names("flyball.models.flavors")) - {"mlmodel"}


@pytest.mark.parametrize("name", ["xgboost classifier", "lightgbm of words", "sklearn classifier", "python function"])
def test_a_bad_row_is_refused_before_the_model_sees_it(name: str, blobs: FileBlobs) -> None:
    case = CASES[name]()
    loaded = bundle.load(blobs, bundle.save(blobs, case.model, example=head(case.rows, 30)).digest)
    good = {field.name: columns_of(loaded, head(case.rows, 1))[field.name][0] for field in loaded.signature.inputs}
    assert len(loaded.predict(loaded.signature.columns([good]))["prediction"]) == 1
    for bad in ({**good, "a": "far"}, {**good, "a": float("inf")}, {**good, "extra": 1}, {"a": 1.0}):
        with pytest.raises(InvalidInput):
            loaded.signature.columns([bad])


@pytest.mark.parametrize("name", ["xgboost classifier", "lightgbm classifier"])
def test_a_text_that_training_never_saw_counts_as_missing(name: str, blobs: FileBlobs) -> None:
    case = CASES[name]()
    loaded = bundle.load(blobs, bundle.save(blobs, case.model, example=head(case.rows, 30)).digest)
    row = {"a": 0.1, "b": 0.2, "hour": 3, "is_late": True}
    rows = [{**row, "carrier": text} for text in ("nobody", None, "UA")]
    unknown, missing, known = loaded.predict(loaded.signature.columns(rows))["probability"]
    assert unknown == missing != known
    assert [field.name for field in loaded.signature.inputs if field.nullable] == ["a", "b", "carrier"]


def test_a_model_that_was_trained_on_other_columns_is_refused(blobs: FileBlobs) -> None:
    for model in (xgboost.XGBRegressor(n_estimators=2), lightgbm.LGBMRegressor(**QUIET)):
        model.fit(NUMBERS, YES)
        with pytest.raises(Exception, match=r"trained on|mismatch|number of features|failed on its example"):
            bundle.save(blobs, model, example=FRAME[["a", "b", "hour"]].head(5))
        with pytest.raises(InvalidInput, match="no types of their own"):
            bundle.save(blobs, model)
        with pytest.raises(InvalidInput, match="not fitted"):
            bundle.save(blobs, type(model)(), example=NUMBERS.head(5))
    with pytest.raises(InvalidInput, match="from polars"):
        bundle.save(blobs, CASES["lightgbm classifier"]().model, example=pl.from_pandas(FRAME.head(5)))


def test_a_forged_tree_is_refused_before_anything_follows_it() -> None:
    booster = xgboost.train({"max_depth": 3}, xgboost.DMatrix(NUMBERS, YES), 3)
    document = json.loads(bytes(booster.save_raw("json")))
    assert xgboost_flavor.opened(json.dumps(document).encode()).num_features() == 2
    for key, value in (("left_children", 1_000_000), ("split_indices", 900), ("left_children", 0)):
        forged = json.loads(json.dumps(document))
        forged["learner"]["gradient_booster"]["model"]["trees"][1][key][0] = value
        with pytest.raises(Corrupt):
            xgboost_flavor.opened(json.dumps(forged).encode())
    text = lightgbm.train({"verbose": -1}, lightgbm.Dataset(NUMBERS, YES), 3).model_to_string()
    assert lightgbm_flavor.opened(text.encode()).num_feature() == 2
    lines = text.splitlines()
    for key, value in (
        ("left_child", "1000000"),
        ("right_child", "-900"),
        ("split_feature", "77"),
        ("left_child", "0"),
    ):
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{key}="))
        rest = lines[at].partition("=")[2].partition(" ")[2]
        forged_lines = [*lines[:at], f"{key}={value} {rest}", *lines[at + 1 :]]
        with pytest.raises(Corrupt):
            lightgbm_flavor.opened("\n".join(forged_lines).encode())
    for opened in (xgboost_flavor.opened, lightgbm_flavor.opened):
        for junk in (b"", b"{}", b"tree\nversion=v4\n", b"\x80\x04\x95", os.urandom(200)):
            with pytest.raises(Corrupt):
                opened(junk)


def test_a_walk_that_never_ends_is_seen() -> None:
    _boosted.check_walks(np.array([1, -1, -1]), np.array([2, -1, -1]))
    for left, right in (([1, 0, -1], [2, -1, -1]), ([1, -1], [1, -1]), ([1, -1, -1], [9, -1, -1])):
        with pytest.raises(Corrupt):
            _boosted.check_walks(np.array(left), np.array(right))


_THREADS = """
import json, os, sys
from pathlib import Path
for name in {names!r}:
    os.environ.setdefault(name, "1")
import numpy as np
from flyball.models import bundle
from flyball.storage.blobs.files import FileBlobs
blobs = FileBlobs(Path(sys.argv[1]))
found = {{}}
for digest in sys.argv[2:]:
    loaded = bundle.load(blobs, digest)
    example = loaded.example()
    rows = {{name: np.repeat(values, 2000, axis=0) for name, values in example.items()}}
    loaded.predict(example)
    before = len(os.listdir("/proc/self/task"))
    loaded.predict(rows)
    found[loaded.bundle.manifest["flavor"]] = len(os.listdir("/proc/self/task")) - before, before
print(json.dumps(found))
"""


def test_in_the_data_plane_every_flavour_predicts_on_one_thread(blobs: FileBlobs) -> None:
    source = ast.parse((ROOT / "flyball/wire/oip/__main__.py").read_text())
    names = next(ast.literal_eval(node.iter) for node in ast.walk(source) if isinstance(node, ast.For))
    chosen = ["sklearn classifier", "python function", "onnx graph", "xgboost classifier", "lightgbm of words"]
    chosen.append("pytorch network")
    cases = [CASES[name]() for name in chosen]
    digests = [bundle.save(blobs, case.model, example=head(case.rows, 30)).digest for case in cases]
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", _THREADS.format(names=names), str(blobs.root), *digests],
        env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert {flavor: grown for flavor, (grown, _) in told.items()} == dict.fromkeys(told, 0)
