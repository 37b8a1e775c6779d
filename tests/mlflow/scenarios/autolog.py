"""Training scripts that log by themselves: scikit-learn, XGBoost, LightGBM."""

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient

RANDOM = np.random.default_rng(11)
X = pd.DataFrame(RANDOM.normal(size=(300, 4)), columns=["a", "b", "c", "d"])
Y = ((X["a"] + X["b"]) > 0).astype(int)


def last():
    return MlflowClient().search_runs([mlflow.get_experiment_by_name(_name()).experiment_id], max_results=1)[0]


def _name():
    from mlflow.tracking.fluent import _get_experiment_id

    return mlflow.get_experiment(_get_experiment_id()).name


def files(run, path=None):
    found = []
    for file in MlflowClient().list_artifacts(run.info.run_id, path):
        found += files(run, file.path) if file.is_dir else [file.path]
    return found


def check_scikit_learn_logs_itself():
    from sklearn.ensemble import RandomForestClassifier

    mlflow.sklearn.autolog()
    model = RandomForestClassifier(n_estimators=7, random_state=3).fit(X, Y)
    mlflow.sklearn.autolog(disable=True)
    run = last()
    assert run.info.status == "FINISHED"
    assert run.data.params["n_estimators"] == "7" and run.data.metrics["training_accuracy_score"] > 0.9
    assert run.data.tags["estimator_name"] == "RandomForestClassifier"
    assert any(name.endswith(".png") for name in files(run))
    if mlflow.__version__.startswith("3"):
        found = mlflow.search_logged_models([run.info.experiment_id], output_format="list")
        assert found and found[0].source_run_id == run.info.run_id
        loaded = mlflow.sklearn.load_model(found[0].model_uri)
    else:
        loaded = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
    assert np.array_equal(loaded.predict(X), model.predict(X))


def check_a_grid_search_logs_its_children():
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV

    mlflow.sklearn.autolog(max_tuning_runs=3)
    GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, cv=2).fit(X, X["a"])
    mlflow.sklearn.autolog(disable=True)
    experiment = mlflow.get_experiment_by_name(_name()).experiment_id
    runs = MlflowClient().search_runs([experiment])
    children = [r for r in runs if "mlflow.parentRunId" in r.data.tags]
    assert len(runs) == 4 and len(children) == 3 and all("mean_test_score" in r.data.metrics for r in children)


def check_xgboost_logs_itself():
    import xgboost

    mlflow.xgboost.autolog()
    table = xgboost.DMatrix(X, label=Y)
    booster = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 3},
        table,
        num_boost_round=12,
        evals=[(table, "train")],
        verbose_eval=False,
    )
    mlflow.xgboost.autolog(disable=True)
    run = last()
    assert run.data.params["max_depth"] == "3"
    history = MlflowClient().get_metric_history(run.info.run_id, "train-logloss")
    assert len(history) >= 12 and history[-1].value < history[0].value
    found = mlflow.search_logged_models([run.info.experiment_id], output_format="list")
    loaded = mlflow.xgboost.load_model(found[0].model_uri)
    assert np.allclose(loaded.predict(table), booster.predict(table))


def check_lightgbm_logs_itself():
    import lightgbm

    mlflow.lightgbm.autolog()
    table = lightgbm.Dataset(X, label=Y)
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, table, num_boost_round=9, valid_sets=[table])
    mlflow.lightgbm.autolog(disable=True)
    run = last()
    assert run.data.params["objective"] == "binary"
    assert len(MlflowClient().get_metric_history(run.info.run_id, "training-binary_logloss")) >= 9
    found = mlflow.search_logged_models([run.info.experiment_id], output_format="list")
    loaded = mlflow.lightgbm.load_model(found[0].model_uri)
    assert np.allclose(loaded.predict(X), booster.predict(X))
