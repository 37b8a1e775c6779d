"""The fluent interface and `MlflowClient` on experiments and runs; both lines of the client."""

import math
import tempfile
import time
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException


def raises(code, act, *given, **named):
    try:
        act(*given, **named)
    except MlflowException as error:
        assert error.error_code == code, (error.error_code, str(error))
        return str(error)
    raise AssertionError(f"{act} did not raise {code}")


def check_a_run_is_written_and_read_back():
    with mlflow.start_run(run_name="first", tags={"team": "flights"}, description="what it is") as run:
        mlflow.log_param("depth", 6)
        mlflow.log_params({"rate": 0.1, "name": "größer ✓", "long": "x" * 6000})
        mlflow.log_metric("loss", 0.5, step=1)
        mlflow.log_metrics({"loss": 0.25, "auc": 0.75}, step=2)
        mlflow.set_tag("stage", "try")
        mlflow.set_tags({"a": "1", "b": ""})
    found = mlflow.get_run(run.info.run_id)
    assert found.info.status == "FINISHED" and found.info.run_name == "first"
    assert found.info.end_time >= found.info.start_time > 1_600_000_000_000
    assert found.data.params == {"depth": "6", "rate": "0.1", "name": "größer ✓", "long": "x" * 6000}
    assert found.data.metrics == {"loss": 0.25, "auc": 0.75}
    assert found.data.tags["team"] == "flights" and found.data.tags["b"] == ""
    assert found.data.tags["mlflow.runName"] == "first" and found.data.tags["mlflow.note.content"] == "what it is"
    assert found.info.artifact_uri.startswith("mlflow-artifacts:/")


def check_a_failing_run_is_failed_and_a_run_is_resumed():
    try:
        with mlflow.start_run() as run:
            mlflow.log_metric("x", 1)
            raise RuntimeError("no")
    except RuntimeError:
        pass
    assert mlflow.get_run(run.info.run_id).info.status == "FAILED"
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("x", 2)
    again = mlflow.get_run(run.info.run_id)
    assert again.info.status == "FINISHED" and again.data.metrics["x"] == 2


def check_nested_runs_know_their_parent():
    with mlflow.start_run() as parent:
        for number in range(3):
            with mlflow.start_run(nested=True, run_name=f"child-{number}"):
                mlflow.log_metric("m", number)
    found = mlflow.search_runs(filter_string=f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert sorted(found["metrics.m"]) == [0, 1, 2]


def check_histories_are_whole_and_in_order():
    client = MlflowClient()
    run = client.create_run("0")
    at = int(time.time() * 1000)
    points = [Metric("m", math.sin(i), at + i, i) for i in range(2500)]
    for start in range(0, 2500, 1000):
        client.log_batch(run.info.run_id, metrics=points[start : start + 1000])
    client.log_batch(run.info.run_id, metrics=points[:1000])  # exact repeats are one point
    history = client.get_metric_history(run.info.run_id, "m")
    assert [(p.value, p.timestamp, p.step) for p in history] == [(p.value, p.timestamp, p.step) for p in points]
    client.log_metric(run.info.run_id, "odd", float("nan"), step=1)
    client.log_metric(run.info.run_id, "odd", float("inf"), step=2)
    client.log_metric(run.info.run_id, "odd", -math.inf, step=3)
    odd = [p.value for p in client.get_metric_history(run.info.run_id, "odd")]
    assert any(math.isnan(v) for v in odd) and 1.7976931348623157e308 in odd and -1.7976931348623157e308 in odd
    client.log_metric(run.info.run_id, "late", 1.0, step=5, timestamp=at)
    client.log_metric(run.info.run_id, "late", 2.0, step=3, timestamp=at + 10)
    assert client.get_run(run.info.run_id).data.metrics["late"] == 1.0
    assert client.get_metric_history(run.info.run_id, "nothing") == []


def check_batches_are_whole_or_not_at_all():
    client = MlflowClient()
    run = client.create_run("0").info.run_id
    now = int(time.time() * 1000)
    client.log_batch(run, [Metric("m", 1.0, now, 0)], [Param("p", "1")], [RunTag("t", "x")])
    raises("INVALID_PARAMETER_VALUE", client.log_batch, run, [Metric("n", 1.0, now, 0)], [Param("p", "2")], [])
    found = client.get_run(run)
    assert found.data.params == {"p": "1"} and set(found.data.metrics) == {"m"}
    said = raises("INVALID_PARAMETER_VALUE", client.log_param, run, "p", "3")
    assert "Changing param values is not allowed" in said
    client.log_param(run, "p", "1")
    client.log_batch(run, params=[Param(f"p{i}", str(i)) for i in range(250)])
    assert len(client.get_run(run).data.params) == 251


def check_deleted_runs_take_nothing_and_come_back():
    client = MlflowClient()
    run = client.create_run("0").info.run_id
    client.delete_run(run)
    assert client.get_run(run).info.lifecycle_stage == "deleted"
    raises("INVALID_PARAMETER_VALUE", client.log_metric, run, "m", 1.0)
    client.restore_run(run)
    client.log_metric(run, "m", 1.0)
    client.set_terminated(run, "KILLED")
    assert client.get_run(run).info.status == "KILLED"
    client.update_run(run, status="FINISHED", name="renamed")
    found = client.get_run(run)
    assert found.info.run_name == "renamed" == found.data.tags["mlflow.runName"]
    client.set_tag(run, "gone", "1")
    client.delete_tag(run, "gone")
    raises("RESOURCE_DOES_NOT_EXIST", client.delete_tag, run, "gone")
    raises("RESOURCE_DOES_NOT_EXIST", client.get_run, "0" * 32)


def check_experiments_live_die_and_come_back():
    client = MlflowClient()
    name = f"flüge/{time.time_ns()}"
    made = client.create_experiment(name, tags={"owner": "alice"})
    assert client.get_experiment_by_name(name).experiment_id == made
    raises("RESOURCE_ALREADY_EXISTS", client.create_experiment, name)
    client.set_experiment_tag(made, "k", "v")
    assert client.get_experiment(made).tags == {"owner": "alice", "k": "v"}
    run = client.create_run(made).info.run_id
    client.delete_experiment(made)
    assert client.get_experiment(made).lifecycle_stage == "deleted"
    assert client.get_run(run).info.lifecycle_stage == "deleted"
    raises("RESOURCE_ALREADY_EXISTS", client.create_experiment, name)
    assert made in [e.experiment_id for e in client.search_experiments(view_type=ViewType.DELETED_ONLY)]
    client.restore_experiment(made)
    client.rename_experiment(made, name + "-2")
    assert client.get_experiment(made).name == name + "-2"
    assert client.get_run(run).info.lifecycle_stage == "active"
    found = client.search_experiments(filter_string=f"name LIKE '{name}%' AND tags.owner = 'alice'")
    assert [e.experiment_id for e in found] == [made]
    assert client.get_experiment("0").name == "Default"
    assert client.get_experiment_by_name("no such") is None
    raises("RESOURCE_DOES_NOT_EXIST", client.get_experiment, "987654321")


def check_searches_filter_order_and_page():
    client = MlflowClient()
    experiment = client.create_experiment(f"search-{time.time_ns()}")
    runs = []
    for number in range(23):
        run = client.create_run(
            experiment, run_name=f"run {number:02}", tags={"parity": "even" if number % 2 == 0 else "odd"}
        )
        client.log_batch(
            run.info.run_id,
            [Metric("auc", number / 100, 1, 0), Metric("nan", float("nan") if number == 3 else number, 1, 0)],
            [Param("depth", str(number)), Param("odd key/with.dots", "Yes")],
        )
        runs.append(run.info.run_id)

    def ids(text, **more):
        return [r.info.run_id for r in client.search_runs([experiment], text, **more)]

    assert set(ids("metrics.auc > 0.2")) == set(runs[21:])
    assert set(ids("metrics.auc >= 0.2 and tags.parity = 'even'")) == {runs[20], runs[22]}
    assert ids("params.depth = '7'") == [runs[7]]
    assert len(ids('params."odd key/with.dots" ILIKE "%YES%"')) == 23
    assert ids('params."odd key/with.dots" LIKE "%YES%"') == []
    assert ids("attributes.run_name = 'run 05'") == [runs[5]]
    assert len(ids("run_name LIKE 'run 0%'")) == 10
    assert set(ids(f"run_id IN ('{runs[1]}', '{runs[2]}')")) == {runs[1], runs[2]}
    assert len(ids("params.depth != '7'")) == 22
    assert len(ids("status = 'RUNNING' AND params.depth IS NOT NULL")) == 23
    assert ids("", order_by=["metrics.auc DESC"])[:2] == [runs[22], runs[21]]
    assert ids("", order_by=["metrics.nan ASC"])[-1] == runs[3]
    assert ids("", order_by=["params.depth"])[0] == runs[0]
    first = client.search_runs([experiment], max_results=10, order_by=["metrics.auc"])
    second = client.search_runs([experiment], max_results=10, order_by=["metrics.auc"], page_token=first.token)
    third = client.search_runs([experiment], max_results=10, order_by=["metrics.auc"], page_token=second.token)
    assert [r.info.run_id for r in [*first, *second, *third]] == runs and not third.token
    raises("INVALID_PARAMETER_VALUE", client.search_runs, [experiment], "metrics.auc > 0.2 OR metrics.auc < 0.1")
    raises("INVALID_PARAMETER_VALUE", client.search_runs, [experiment], "metrics.auc > '0.2'")
    frame = mlflow.search_runs([experiment], order_by=["metrics.auc"])
    assert isinstance(frame, pd.DataFrame) and len(frame) == 23 and frame["params.depth"].iloc[4] == "4"


def check_datasets_that_went_in_are_known():
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [0, 1]})
    dataset = mlflow.data.from_pandas(frame, source="https://example.org/x.csv", name="flights", targets="y")
    with mlflow.start_run() as run:
        mlflow.log_input(dataset, context="training")
        mlflow.log_input(dataset, context="other")
    inputs = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    assert [(i.dataset.name, i.dataset.digest) for i in inputs] == [("flights", dataset.digest)]
    assert inputs[0].tags[0].value == "training"
    found = mlflow.search_runs(filter_string="dataset.name = 'flights'")
    assert list(found["run_id"]) == [run.info.run_id]


def check_artifacts_go_up_and_come_down():
    with mlflow.start_run() as run, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ünï code.txt"
        path.write_text("héllo", encoding="utf-8")
        mlflow.log_artifact(str(path))
        mlflow.log_artifact(str(path), "deep/er")
        (Path(folder) / "tree" / "in").mkdir(parents=True)
        for number in range(5):
            (Path(folder) / "tree" / "in" / f"{number}.bin").write_bytes(bytes([number]) * 100_000)
        mlflow.log_artifacts(str(Path(folder) / "tree"), "tree")
        mlflow.log_text("some text", "notes/a.txt")
        mlflow.log_dict({"a": [1, 2]}, "notes/a.json")
        mlflow.log_table({"x": [1, 2], "y": ["a", "b"]}, "table.json")
    client = MlflowClient()
    listed = {f.path: (f.is_dir, f.file_size) for f in client.list_artifacts(run.info.run_id)}
    assert listed["ünï code.txt"] == (False, 6) and listed["deep"][0] and listed["tree"][0]
    assert [f.path for f in client.list_artifacts(run.info.run_id, "tree/in")] == [f"tree/in/{n}.bin" for n in range(5)]
    with tempfile.TemporaryDirectory() as folder:
        whole = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, dst_path=folder)
        assert (Path(whole) / "deep" / "er" / "ünï code.txt").read_text(encoding="utf-8") == "héllo"
        assert (Path(whole) / "tree" / "in" / "4.bin").read_bytes() == b"\x04" * 100_000
    assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/notes/a.txt") == "some text"
    assert mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/notes/a.json") == {"a": [1, 2]}
    assert list(mlflow.load_table("table.json", run_ids=[run.info.run_id])["y"]) == ["a", "b"]
    assert client.list_artifacts(run.info.run_id, "nothing") == []


def check_figures_images_and_a_failing_download():
    import numpy as np

    with mlflow.start_run() as run:
        mlflow.log_image(np.zeros((8, 8, 3), dtype=np.uint8), "black.png")
    client = MlflowClient()
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["black.png"]
    try:
        mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/no.txt")
    except Exception as error:
        assert "no.txt" in str(error) or "404" in str(error) or "not" in str(error).lower()
    else:
        raise AssertionError("a missing file was downloaded")
