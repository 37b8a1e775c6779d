"""Logged models, plain Python models and metrics on models; the 3.x line of the client."""

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient


class Doubler(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: pd.DataFrame, params=None):  # noqa: ARG002
        return model_input["x"] * 2


def check_a_python_model_is_logged_and_loaded():
    with mlflow.start_run() as run:
        info = mlflow.pyfunc.log_model(name="doubler", python_model=Doubler(), input_example=pd.DataFrame({"x": [1.0]}))
        mlflow.log_metric("auc", 0.75, model_id=info.model_id)
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    assert list(loaded.predict(pd.DataFrame({"x": [1.0, 2.5]}))) == [2.0, 5.0]
    model = mlflow.get_logged_model(info.model_id)
    assert model.name == "doubler" and model.source_run_id == run.info.run_id and model.status == "READY"
    assert [(m.key, m.value) for m in model.metrics] == [("auc", 0.75)]
    outputs = mlflow.get_run(run.info.run_id).outputs.model_outputs
    assert [o.model_id for o in outputs] == [info.model_id]


def check_logged_models_are_found_tagged_and_deleted():
    client = MlflowClient()
    experiment = mlflow.active_run().info.experiment_id if mlflow.active_run() else None
    from mlflow.tracking.fluent import _get_experiment_id

    experiment = experiment or _get_experiment_id()
    models = [mlflow.initialize_logged_model(f"m{n}", params={"depth": str(n)}, tags={"n": str(n)}) for n in range(4)]
    for number, model in enumerate(models):
        with mlflow.start_run():
            mlflow.log_metric("auc", number / 10, model_id=model.model_id)
        mlflow.finalize_logged_model(model.model_id, "READY")
    found = mlflow.search_logged_models(
        [experiment],
        filter_string="metrics.auc >= 0.2",
        order_by=[{"field_name": "metrics.auc", "ascending": False}],
        output_format="list",
    )
    assert [m.name for m in found] == ["m3", "m2"]
    found = mlflow.search_logged_models([experiment], filter_string="params.depth = '1'", output_format="list")
    assert [m.name for m in found] == ["m1"]
    mlflow.set_logged_model_tags(models[0].model_id, {"k": "v"})
    client.delete_logged_model_tag(models[0].model_id, "n")
    assert {
        k: v for k, v in mlflow.get_logged_model(models[0].model_id).tags.items() if not k.startswith("mlflow.")
    } == {"k": "v"}
    client.delete_logged_model(models[0].model_id)
    try:
        mlflow.get_logged_model(models[0].model_id)
    except Exception as error:
        assert (
            "not found" in str(error).lower()
            or "does not exist" in str(error).lower()
            or "deleted" in str(error).lower()
        )
    else:
        raise AssertionError("a deleted model was found")


def check_a_model_from_code_and_its_evaluation():
    frame = pd.DataFrame({"x": np.arange(10.0)})
    with mlflow.start_run() as run:
        info = mlflow.pyfunc.log_model(name="doubler", python_model=Doubler())
        mlflow.register_model(info.model_uri, f"evaluated-{run.info.run_id[:6]}")
    name = f"evaluated-{run.info.run_id[:6]}"
    version = MlflowClient().get_model_version(name, "1")
    assert version.source == info.model_uri or version.source.startswith("mlflow-artifacts:")
    loaded = mlflow.pyfunc.load_model(f"models:/{name}/latest")
    assert list(loaded.predict(frame)) == list(frame["x"] * 2)
    copied = MlflowClient().copy_model_version(f"models:/{name}/1", f"{name}-copy")
    assert str(copied.version) == "1" and copied.source == f"models:/{name}/1"


def check_boosted_trees_are_logged_and_loaded_again():
    import lightgbm
    import xgboost

    random = np.random.default_rng(5)
    frame = pd.DataFrame(random.normal(size=(200, 4)), columns=list("abcd"))
    target = (frame["a"] + frame["b"] > 0).astype(int)
    for flavour, model in (
        (mlflow.xgboost, xgboost.XGBClassifier(n_estimators=5, n_jobs=1)),
        (mlflow.lightgbm, lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1)),
    ):
        model.fit(frame, target)
        with mlflow.start_run():
            logged = flavour.log_model(model, name="trees", pip_requirements=["xgboost", "lightgbm"])
        again = flavour.load_model(logged.model_uri)
        assert np.allclose(again.predict_proba(frame), model.predict_proba(frame))


def check_a_model_is_evaluated():
    from sklearn.linear_model import LinearRegression

    random = np.random.default_rng(3)
    frame = pd.DataFrame(random.normal(size=(80, 3)), columns=["a", "b", "c"])
    target = frame["a"] * 2 - frame["b"]
    model = LinearRegression().fit(frame, target)
    with mlflow.start_run() as run:
        logged = mlflow.sklearn.log_model(model, input_example=frame.head(2), pip_requirements=["scikit-learn"])
        data = frame.assign(target=target)
        done = mlflow.models.evaluate(
            logged.model_uri,
            data,
            targets="target",
            model_type="regressor",
            evaluator_config={"log_model_explainability": False},
        )
    assert done.metrics["root_mean_squared_error"] < 1e-6
    kept = MlflowClient().get_run(run.info.run_id)
    assert kept.data.metrics["r2_score"] > 0.999
    assert kept.inputs.dataset_inputs
    loaded = mlflow.pyfunc.load_model(logged.model_uri)
    assert np.allclose(loaded.predict(frame.head(5)), target.head(5))
