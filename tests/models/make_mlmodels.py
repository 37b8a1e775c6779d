"""Write tests/models/data/mlmodels: models as MLflow's clients really log them, with what they answer.

    PYTHON tests/models/make_mlmodels.py

Run it with an environment of each client: 3.x with scikit-learn, skops, XGBoost, LightGBM and PyTorch, and 2.x with
scikit-learn. Folders are named after the client's line.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

LINE = mlflow.__version__.partition(".")[0]
FOLDER = Path(__file__).parent / "data" / "mlmodels"
SKOPS = {"serialization_format": "skops"}


def keep(name: str, save: Callable[..., None], model: Any, answers: Any = None, **options: Any) -> None:
    """Save a model and what it answers on its example."""
    path = FOLDER / f"{name}_{LINE}"
    shutil.rmtree(path, ignore_errors=True)
    save(model, str(path), **options)
    if answers is not None:
        document = {key: np.asarray(values).tolist() for key, values in answers.items()}
        (FOLDER / f"{name}_{LINE}.json").write_text(json.dumps(document) + "\n")


def main() -> None:
    """Train and save."""
    warnings.simplefilter("ignore")
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "distance": random.normal(size=200),
            "hour": random.integers(0, 24, 200),
            "carrier": random.choice(["UA", "Ö3"], 200),
        }
    )
    late = ((frame.distance + (frame.carrier == "UA")) > 0.3).astype(int)
    few = frame.head(3)
    encode = ColumnTransformer([("text", OneHotEncoder(), ["carrier"])], remainder="passthrough")
    linear = make_pipeline(encode, LogisticRegression()).fit(frame, late)
    answers = {"prediction": linear.predict(few), "probability": linear.predict_proba(few)[:, 1]}
    options: dict[str, Any] = {"signature": infer_signature(frame, linear.predict(frame)), "input_example": few}
    if LINE == "2":
        keep("sklearn_pickle", mlflow.sklearn.save_model, linear, **options)
        return
    keep("sklearn", mlflow.sklearn.save_model, linear, answers, **SKOPS, **options)
    keep("sklearn_bare", mlflow.sklearn.save_model, linear, **SKOPS)
    _trees(frame.assign(carrier=frame.carrier.astype("category")), late)
    import torch

    rows = frame[["distance", "hour"]].to_numpy(np.float32)[:3]
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    with torch.no_grad():
        found = net(torch.from_numpy(rows)).numpy()
    keep("pytorch", mlflow.pytorch.save_model, net, {"output": found}, input_example=rows)


def _trees(frame: pd.DataFrame, late: Any) -> None:
    import lightgbm
    import xgboost

    few, numbers = frame.head(3), frame[["distance", "hour"]]
    boosted = xgboost.XGBClassifier(n_estimators=4, enable_categorical=True).fit(frame, late)
    answers = {"prediction": boosted.predict(few), "probability": boosted.predict_proba(few)[:, 1]}
    keep("xgboost", mlflow.xgboost.save_model, boosted, answers, input_example=few)
    matrix = xgboost.DMatrix(numbers, late)
    booster = xgboost.train({"objective": "binary:logistic"}, matrix, 3)
    signature = infer_signature(numbers, booster.predict(matrix))
    keep("xgboost_booster", mlflow.xgboost.save_model, booster, model_format="json", signature=signature)
    leaves = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(frame, late), 3)
    keep("lightgbm", mlflow.lightgbm.save_model, leaves, {"probability": leaves.predict(few)}, input_example=few)
    wrapped = lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(numbers, late)
    keep("lightgbm_objects", mlflow.lightgbm.save_model, wrapped)


if __name__ == "__main__":
    main()
