"""Bundles as MLmodel folders: MLflow's own client, without Flyball, loads them and answers as they do."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import torch
import xgboost
import yaml
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from flyball.errors import Conflict
from flyball.models import as_mlmodel, bundle, mlmodel
from flyball.storage.blobs.files import FileBlobs
from tests.models.arithmetic import weighted
from tests.models.onnx_bytes import linear

PYTHON = Path(__file__).resolve().parents[2] / ".venv" / "clients" / "mlflow3" / "bin" / "python"
RANDOM = np.random.default_rng(5)
FRAME = pd.DataFrame({"a": RANDOM.normal(size=80), "b": RANDOM.normal(size=80), "carrier": ["UA", "Ö3"] * 40})
NUMBERS = FRAME[["a", "b"]]
GROUPS = FRAME.assign(carrier=pd.Categorical(FRAME["carrier"], categories=["UA", "Ö3"]))
YES = (FRAME["a"] + (FRAME["carrier"] == "UA") > 0.4).astype(int).to_numpy()

_LOADS = """
import json, sys, warnings
warnings.simplefilter("ignore")
import numpy as np, pandas as pd, mlflow
assert "flyball" not in sys.modules
found = {}
for name, rows in json.loads(sys.argv[1]).items():
    loaded = mlflow.pyfunc.load_model(name)
    given = np.array(rows["tensor"], np.float32) if "tensor" in rows else pd.DataFrame(rows)
    if name.endswith("categories"):
        given["carrier"] = pd.Categorical(given["carrier"], categories=["UA", "Ö3"])
    answers = loaded.predict(given)
    found[name] = np.asarray(answers).tolist()
assert "flyball" not in sys.modules
print(json.dumps(found))
"""


def models() -> dict[str, tuple[Any, Any, str]]:
    """Name → model, example, and which of our answers MLflow's is."""
    encode = ColumnTransformer([("text", OneHotEncoder(), ["carrier"])], remainder="passthrough")
    boosted = xgboost.XGBClassifier(n_estimators=4).fit(NUMBERS, YES)
    leaves = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, min_child_samples=5).fit(NUMBERS, YES)
    grouped = xgboost.XGBClassifier(n_estimators=4, enable_categorical=True).fit(GROUPS, YES)
    sorts = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, min_child_samples=5).fit(GROUPS, YES)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    return {
        "pipeline": (make_pipeline(encode, LogisticRegression()).fit(FRAME, YES), FRAME, "prediction"),
        "forest": (RandomForestClassifier(n_estimators=3).fit(NUMBERS, YES), NUMBERS, "prediction"),
        "xgboost": (boosted, NUMBERS, "prediction"),
        "xgboost regressor": (xgboost.XGBRegressor(n_estimators=4).fit(NUMBERS, YES), NUMBERS, "prediction"),
        "lightgbm": (leaves, NUMBERS, "probability"),
        "xgboost with categories": (grouped, GROUPS, "prediction"),
        "lightgbm with categories": (sorts, GROUPS, "probability"),
        "network": (net, NUMBERS.to_numpy(np.float32), "prediction"),
        "network of columns": (net, NUMBERS, "prediction"),
        "source": (weighted, NUMBERS, "prediction"),
    }


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """What we answer and what MLflow's client answers on the exported folder, by name."""
    root = tmp_path_factory.mktemp("exported")
    blobs = FileBlobs(root / "blobs")
    asked, wanted = {}, {}
    for name, (model, example, output) in models().items():
        saved = bundle.save(blobs, model, example=example[:6])
        as_mlmodel.write(root / name, blobs, saved)
        loaded = bundle.load(blobs, saved.digest)
        columns = loaded.example()
        assert columns is not None
        wanted[name] = loaded.predict(columns)[output]
        tensor = isinstance(example, np.ndarray)
        asked[str(root / name)] = {"tensor": example[:6].tolist()} if tensor else example[:6].to_dict("list")
    assert PYTHON.exists(), f"there is no {PYTHON}; make it with: make clients"
    done = subprocess.run(
        [str(PYTHON), "-c", _LOADS, json.dumps(asked)],
        cwd=root, env={**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: (wanted[name], np.asarray(found[str(root / name)])) for name in wanted}


@pytest.mark.parametrize("name", sorted(models()))
def test_mlflows_client_answers_as_we_do(name: str, answered: dict[str, tuple[Any, Any]]) -> None:
    ours, theirs = answered[name]
    assert len(ours) == 6
    np.testing.assert_allclose(theirs.reshape(ours.shape).astype(float), ours.astype(float), rtol=1e-5, atol=1e-6)


def test_a_graph_is_written_in_mlflows_flavour_and_comes_back_as_the_same_bytes(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "blobs")
    saved = bundle.save(blobs, linear([1.0, 2.0], 0.5))
    files = as_mlmodel.write(tmp_path / "graph", blobs, saved)
    assert files == ["MLmodel", "conda.yaml", "model.onnx", "python_env.yaml", "requirements.txt"]
    told = yaml.safe_load((tmp_path / "graph" / "MLmodel").read_text())
    assert told["flavors"]["python_function"]["loader_module"] == "mlflow.onnx"
    back = mlmodel.convert(blobs, {name: (tmp_path / "graph" / name).read_bytes() for name in files})
    assert back.manifest["files"]["model/model.onnx"] == saved.manifest["files"]["model/model.onnx"]
    with pytest.raises(Conflict):
        as_mlmodel.write(tmp_path / "graph", blobs, saved)
