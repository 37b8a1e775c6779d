"""Registered models and their versions, with scikit-learn models logged and loaded; both lines of the client."""

import time

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

X = np.random.default_rng(7).normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)


def raises(code, act, *given, **named):
    try:
        act(*given, **named)
    except MlflowException as error:
        assert error.error_code == code, (error.error_code, str(error))
        return str(error)
    raise AssertionError(f"{act} did not raise {code}")


def log(registered=None):
    model = LogisticRegression().fit(X, Y)
    keyword = "name" if mlflow.__version__.startswith("3") else "artifact_path"
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(
            model,
            **{keyword: "model"},
            signature=infer_signature(X, Y),
            input_example=X[:2],
            pip_requirements=["scikit-learn"],  # or the client starts a process to find out, at each call
            registered_model_name=registered,
        )
    return model, run.info.run_id, info


def check_a_model_is_logged_registered_and_loaded():
    name = f"late ✈ {time.time_ns()}"
    model, run, info = log(name)
    client = MlflowClient()
    version = client.get_model_version(name, "1")
    assert version.status == "READY" and version.run_id == run and version.current_stage == "None"
    loaded = mlflow.sklearn.load_model(f"models:/{name}/1")
    assert np.array_equal(loaded.predict(X), model.predict(X))
    assert np.array_equal(mlflow.pyfunc.load_model(info.model_uri).predict(X), model.predict(X))
    log(name)
    client.set_registered_model_alias(name, "champion", "2")
    assert client.get_model_version_by_alias(name, "champion").version in ("2", 2)
    assert np.array_equal(mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(X), model.predict(X))
    assert client.get_registered_model(name).aliases == {"champion": "2"}
    assert [v.version for v in client.search_model_versions(f"name = '{name}'")] in (["2", "1"], [2, 1])
    client.delete_registered_model_alias(name, "champion")
    assert client.get_registered_model(name).aliases == {}


def check_models_are_described_tagged_found_renamed_and_deleted():
    client = MlflowClient()
    name = f"tagged-{time.time_ns()}"
    made = client.create_registered_model(name, tags={"team": "a", "é": "ü"}, description="what it is")
    assert made.tags == {"team": "a", "é": "ü"} and made.description == "what it is"
    raises("RESOURCE_ALREADY_EXISTS", client.create_registered_model, name)
    client.update_registered_model(name, description="new words")
    client.set_registered_model_tag(name, "team", "b")
    client.delete_registered_model_tag(name, "é")
    found = client.search_registered_models(f"name LIKE '{name}%' AND tags.team = 'b'")
    assert [m.name for m in found] == [name] and found[0].description == "new words"
    client.rename_registered_model(name, name + "-2")
    raises("RESOURCE_DOES_NOT_EXIST", client.get_registered_model, name)
    client.delete_registered_model(name + "-2")
    raises("RESOURCE_DOES_NOT_EXIST", client.get_registered_model, name + "-2")


def check_versions_are_numbered_once_and_for_all():
    client = MlflowClient()
    name = f"numbered-{time.time_ns()}"
    client.create_registered_model(name)
    _, run, _info = log()
    source = mlflow.get_run(run).info.artifact_uri + "/model"
    for number in ("1", "2", "3"):
        made = client.create_model_version(name, source, run, tags={"n": number}, description=f"the {number}th")
        assert str(made.version) == number and made.tags == {"n": number}
    client.delete_model_version(name, "3")
    assert str(client.create_model_version(name, source, run).version) == "4"
    raises("RESOURCE_DOES_NOT_EXIST", client.get_model_version, name, "3")
    client.update_model_version(name, "1", description="changed")
    client.set_model_version_tag(name, "1", "k", "v")
    client.delete_model_version_tag(name, "1", "n")
    first = client.get_model_version(name, "1")
    assert first.description == "changed" and first.tags == {"k": "v"} and first.source == source
    assert client.get_model_version_download_uri(name, "1")
    found = client.search_model_versions(f"name='{name}' and tags.k = 'v'")
    assert [str(v.version) for v in found] == ["1"]
    found = client.search_model_versions(f"run_id = '{run}'", order_by=["version_number ASC"])
    assert [str(v.version) for v in found] == ["1", "2", "4"]


def check_stages_for_old_clients():
    client = MlflowClient()
    name = f"staged-{time.time_ns()}"
    log(name)
    log(name)
    client.transition_model_version_stage(name, "1", "Production")
    client.transition_model_version_stage(name, "2", "production", archive_existing_versions=True)
    assert client.get_model_version(name, "1").current_stage == "Archived"
    assert client.get_model_version(name, "2").current_stage == "Production"
    latest = client.get_latest_versions(name, stages=["Production"])
    assert [str(v.version) for v in latest] == ["2"]
    raises("INVALID_PARAMETER_VALUE", client.transition_model_version_stage, name, "1", "Nowhere")


def check_what_may_not_be():
    client = MlflowClient()
    name = f"strict-{time.time_ns()}"
    client.create_registered_model(name)
    raises("INVALID_PARAMETER_VALUE", client.create_registered_model, "a/b")
    raises("INVALID_PARAMETER_VALUE", client.create_registered_model, "")
    raises("RESOURCE_DOES_NOT_EXIST", client.get_model_version, name, "1")
    raises("RESOURCE_DOES_NOT_EXIST", client.set_registered_model_alias, name, "champion", "1")
    raises("INVALID_PARAMETER_VALUE", client.get_model_version_by_alias, name, "champion")
    raises("INVALID_PARAMETER_VALUE", client.create_model_version, name, "/etc")
    raises("INVALID_PARAMETER_VALUE", client.create_model_version, name, "file:///etc/passwd")
    raises("INVALID_PARAMETER_VALUE", client.create_model_version, name, "mlflow-artifacts:/../../etc")
